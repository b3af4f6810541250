"""Every source gives the same pairs, whatever its format and the order of its columns."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.errors import InputError
from trainables.data.config import DataConfig, template_fields
from trainables.data.pairs import read_pairs
from trainables.data.rows import BadRow, DroppedRow, Pair
from trainables.prepare import prepare

ROWS: list[dict[str, Any]] = [
    {
        "anchor": "DGFiP",
        "positive": "La direction générale des Finances publiques.",
        "concept": "1",
        "kind": "definition",
    },
    {
        "anchor": "l'impôt, « à la source »",
        "positive": 'Il dit : "oui" ;\net signe.',
        "concept": "2",
        "kind": "context",
    },
    {"anchor": "œuvre", "positive": "Tab\there.", "concept": "2", "kind": "definition"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows in the format that the path's ending names, by libraries of other people."""
    frame = pd.DataFrame(rows)
    match path.suffix:
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True, force_ascii=False)
        case ".json":
            frame.to_json(path, orient="records", force_ascii=False)
        case ".csv":
            frame.to_csv(path, index=False)
        case ".tsv":
            frame.to_csv(path, index=False, sep="\t", quoting=csv.QUOTE_ALL)
        case ".parquet":
            frame.to_parquet(path)


def pairs(source: Any, folder: Path, **options: Any) -> list[Pair | BadRow | DroppedRow]:
    return list(read_pairs(DataConfig.model_validate({"source": source, **options}), folder))


def texts(found: list[Pair | BadRow | DroppedRow]) -> list[tuple[str, str, str | None, str | None]]:
    assert all(isinstance(pair, Pair) for pair in found), found
    return [(p.anchor, p.positive, p.concept, p.kind) for p in found if isinstance(p, Pair)]


EXPECTED = [(row["anchor"], row["positive"], row["concept"], row["kind"]) for row in ROWS]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
@pytest.mark.parametrize(
    "columns", [["anchor", "positive", "concept", "kind"], ["kind", "positive", "concept", "anchor"]]
)
def test_each_format_gives_the_same_pairs(tmp_path: Path, ending: str, columns: list[str]) -> None:
    write(tmp_path / f"pairs.{ending}", [{name: row[name] for name in columns} for row in ROWS])
    assert texts(pairs(f"pairs.{ending}", tmp_path)) == EXPECTED


cell = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1).filter(lambda text: text.strip())


@given(rows=st.lists(st.fixed_dictionaries({"anchor": cell, "positive": cell}), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_any_text_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, ending: str, rows: list[dict[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write(folder / f"pairs.{ending}", rows)
    found = [(p.anchor, p.positive) for p in pairs(f"pairs.{ending}", folder) if isinstance(p, Pair)]
    assert found == [(row["anchor"].strip(), row["positive"].strip()) for row in rows]


def test_lines_are_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('anchor,positive\n\na,"two\nlines"\nb,q\n', "utf-8")
    assert [pair.line for pair in pairs("a.csv", tmp_path)] == [3, 5]
    (tmp_path / "a.jsonl").write_text('{"anchor": "a", "positive": "p"}\n\n{"anchor": 1}\n{', "utf-8")
    found = pairs("a.jsonl", tmp_path)
    assert [pair.line for pair in found] == [1, 3, 4]
    assert [type(pair) for pair in found] == [Pair, DroppedRow, BadRow]


def test_templates_join_columns_and_miss_what_has_a_hole(tmp_path: Path) -> None:
    """LegalKit's passage: input and output, stripped and joined."""
    rows: list[dict[str, Any]] = [
        {"query": "q1", "input": " Article 1 ", "output": "Texte "},
        {"query": "q2", "input": "Article 2", "output": None},
    ]
    write(tmp_path / "a.jsonl", rows)
    columns = {"anchor": "query", "positive": "{input}, {output}"}
    found = pairs("a.jsonl", tmp_path, columns=columns)
    assert isinstance(found[0], Pair)
    assert found[0].positive == "Article 1, Texte"
    assert isinstance(found[1], DroppedRow)
    assert found[1].rule == "missing positive"


def test_columns_whose_names_have_dots_and_brackets_fill_a_template(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        [{"q.text": "q1", "p[0]": "p1", "p[1]": None}, {"q.text": "q2", "p[0]": "p2", "p[1]": "x"}],
    )
    found = pairs("a.jsonl", tmp_path, columns={"anchor": "« {q.text} »", "positive": "{{{p[0]}}}, {p[1]}"})
    assert [type(pair) for pair in found] == [DroppedRow, Pair]
    assert isinstance(found[1], Pair)
    assert (found[1].anchor, found[1].positive) == ("« q2 »", "{p2}, x")


def test_drop_rules_are_those_of_the_news_preset(tmp_path: Path) -> None:
    """Titles of 10 characters or fewer and bodies of 20 or fewer go."""
    rows = [{"Titre": "t" * title, "Contenu": "c" * body} for title, body in ((10, 21), (11, 20), (11, 21))]
    write(tmp_path / "a.csv", rows)
    columns = {"anchor": "{Titre}", "positive": "{Contenu}"}
    found = pairs("a.csv", tmp_path, columns=columns, drop={"min_anchor": 11, "min_positive": 21})
    assert [type(pair) for pair in found] == [DroppedRow, DroppedRow, Pair]


def test_negatives_are_a_text_or_a_list(tmp_path: Path) -> None:
    rows = [
        {"anchor": "a", "positive": "p", "negative": "n"},
        {"anchor": "b", "positive": "q", "negative": ["n", None, "m"]},
        {"anchor": "c", "positive": "r", "negative": None},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert [p.negatives for p in pairs("a.jsonl", tmp_path) if isinstance(p, Pair)] == [("n",), ("n", "m"), ()]


def test_parts_come_from_files_and_columns(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write(tmp_path / f"{name}.csv", [{"anchor": name, "positive": "p"}])
    found = pairs({"train": "one.csv", "dev": "two.csv", "test": "three.csv"}, tmp_path)
    assert [p.part for p in found if isinstance(p, Pair)] == ["train", "dev", "test"]
    write(tmp_path / "a.csv", [{"anchor": "a", "positive": "p", "part": "Validation"}])
    (pair,) = pairs("a.csv", tmp_path, columns={"split": "part"})
    assert isinstance(pair, Pair)
    assert pair.part == "dev"


def test_max_rows_reads_from_the_top_of_each_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}.jsonl", [{"anchor": f"{name} {at}", "positive": "p"} for at in range(5)])
    found = pairs({"train": "one.jsonl", "dev": "two.jsonl"}, tmp_path, max_rows=2)
    assert [p.anchor for p in found if isinstance(p, Pair)] == ["one 0", "one 1", "two 0", "two 1"]


def test_nothing_is_read_beyond_max_rows(tmp_path: Path) -> None:
    """What follows them is damaged in ways that would end the reading."""
    (tmp_path / "a.json").write_text(
        '[{"anchor": "a", "positive": "p"}, {"anchor": "b", "positive": "p"}, {"anch', "utf-8"
    )
    (tmp_path / "a.csv").write_text('anchor,positive\na,p\nb,p\nc,"p', "utf-8")
    for name in ("a.json", "a.csv"):
        assert len(pairs(name, tmp_path, max_rows=2)) == 2
        with pytest.raises(InputError):
            pairs(name, tmp_path)


class Counted:
    """Counts the rows that a stream hands out, the stream being a data set of the hub client's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        load = datasets.load_dataset

        def counting(*args: Any, **options: Any) -> Any:
            def one(row: dict[str, Any]) -> dict[str, Any]:
                self.rows += 1
                return row

            return load(*args, **options).map(one)

        monkeypatch.setattr(datasets, "load_dataset", counting)


def test_a_stream_stops_at_max_rows_and_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"anchor": f"question {at}", "positive": f"passage {at}"} for at in range(5000)]
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub" / "train.jsonl", rows)
    write(tmp_path / "hub" / "test.jsonl", rows[:3000])
    stream = Counted(monkeypatch)
    assert len(pairs({"hub": str(tmp_path / "hub")}, tmp_path, max_rows=100)) == 200
    assert stream.rows == 200
    stream.rows = 0
    config = DataConfig.model_validate({"source": {"hub": str(tmp_path / "hub"), "split": "train"}, "max_rows": 200})
    report = prepare(config, tmp_path, 0, tmp_path / "data")
    assert (report.rows, sum(report.kept.values())) == (200, 200)
    assert stream.rows == 200  # surveyed, sampled and written from one reading


def beir(folder: Path, qrels: dict[str, str]) -> None:
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{at}", "title": f"Titre {at}", "text": f"texte {at}"} for at in range(5)]
    queries = [{"_id": f"q{at}", "text": f"question {at}"} for at in range(4)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)), "utf-8")
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), "utf-8")
    for name, lines in qrels.items():
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines, "utf-8")


def test_beir_folder(tmp_path: Path) -> None:
    beir(tmp_path / "b", {"train": "q0\td0\t1\nq0\td1\t2\n", "dev": "q1\td1\t1\n", "test": "q2\td2\t1\nq2\td3\t0\n"})
    found = [(p.part, p.anchor, p.positive) for p in pairs("b", tmp_path) if isinstance(p, Pair)]
    assert sorted(found) == [
        ("dev", "question 1", "Titre 1 texte 1"),
        ("test", "question 2", "Titre 2 texte 2"),
        ("train", "question 0", "Titre 0 texte 0"),
        ("train", "question 0", "Titre 1 texte 1"),
    ]
    assert len(pairs({"train": "b"}, tmp_path)) == 2  # one part of it
    beir(tmp_path / "c", {"train": "q0\td0\t1\n"})
    with pytest.raises(InputError, match=r"expected test\.tsv"):
        pairs({"train": "b", "test": "c"}, tmp_path)


def test_saved_data_sets(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(str(tmp_path / "one"))
    assert texts(pairs("one", tmp_path)) == EXPECTED
    parts = datasets.DatasetDict({"train": rows, "validation": rows.select([0]), "test": rows.select([1])})
    parts.save_to_disk(str(tmp_path / "three"))
    found = pairs("three", tmp_path)
    assert [p.part for p in found if isinstance(p, Pair)] == ["train"] * 3 + ["dev", "test"]


def test_a_data_set_by_name_is_read_by_the_hub_client(tmp_path: Path) -> None:
    """A local folder of files is what `datasets` takes in place of a name, without network."""
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "test.jsonl", ROWS[:1])
    found = pairs({"hub": str(tmp_path)}, tmp_path)
    assert [p.part for p in found if isinstance(p, Pair)] == ["train"] * 3 + ["test"]
    assert texts(pairs({"hub": str(tmp_path), "split": "train"}, tmp_path)) == EXPECTED
    with pytest.raises(InputError, match="cannot be loaded"):
        pairs({"hub": str(tmp_path / "nowhere")}, tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.csv: no such file"):
        pairs("nothing.csv", tmp_path)
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"'\.docx', expected one of \.jsonl"):
        pairs("a.docx", tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="neither a BEIR folder"):
        pairs("folder", tmp_path)


@pytest.mark.parametrize("template", ["{a", "a}", "{}", "{a!r}", "{a:>3}", "", "{{a}}"])
def test_templates_that_make_no_sense_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"anchor|template"):
        DataConfig.model_validate({"source": "x", "columns": {"anchor": template}})


def test_template_fields() -> None:
    assert template_fields("{Titre} ({Date de publication})") == ("Titre", "Date de publication")
    with pytest.raises(ValueError, match="Extra inputs"):
        DataConfig.model_validate({"source": "x", "colums": {}})
