"""The data report: each thing that can be wrong is planted, and must be found, counted, shown and acted upon."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from search.cli import cli
from trainables.bases.token_counts import TokenCounter
from trainables.check.check import check_file
from trainables.check.view import print_report
from trainables.data.config import DataConfig
from trainables.data.prepared import load_task
from trainables.data.report import DataReport, Finding
from trainables.data.rows import PARTS
from trainables.prepare import prepare

COUNT = 200
WORDS = ("budget", "impôt", "marché", "agent", "commune", "loyer", "pension", "recette", "dépense", "visa")


def clean_rows() -> list[dict[str, Any]]:
    """Two rows for each of 200 concepts, nothing wrong with them."""
    rows = []
    for at in range(COUNT):
        words = [WORDS[at % 10], WORDS[at // 20], f"n{at}", f"r{at * 7}", f"s{at * 13}"]
        for kind in ("definition", "context"):
            passage = " ".join([*words, kind, *(f"{kind[0]}{at}{word}" for word in words)])
            rows.append({"anchor": f"{kind} {at}", "positive": passage, "concept": f"c{at}", "kind": kind})
    return rows


def report_on(
    rows: list[dict[str, Any]], folder: Path, tokens: TokenCounter | None = None, **options: Any
) -> DataReport:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    config = DataConfig.model_validate({"source": "elsewhere.jsonl", "split": {"dev": 0.5, "test": 0.3}, **options})
    return check_file(path, config, tokens=tokens)


def finding(report: DataReport, name: str) -> Finding:
    (found,) = [finding for finding in report.findings if finding.name == name]
    assert found.what
    assert found.action
    return found


def test_clean_data_has_no_findings(tmp_path: Path) -> None:
    report = report_on(clean_rows(), tmp_path)
    # A context is relevant to the same concept, so an anchor has one passage here and no text is shared.
    assert report.findings == []
    assert report.unusable is None
    assert report.rows == sum(report.kept.values()) == 2 * COUNT
    assert sum(report.concepts.values()) == COUNT
    assert report.concept_sizes == {"smallest": 2, "median": 2, "largest": 2}


PLANTED: dict[str, tuple[list[dict[str, Any]], int, list[int]]] = {
    # name of the finding: rows to add, what it counts, lines (from 1) of the rows shown
    "duplicate rows": ([clean_rows()[4], clean_rows()[4]], 2, [401, 402]),
    "anchors with several passages": (
        [{"anchor": "Definition  2", "positive": "autre passage", "concept": "c2"}],
        1,
        [5, 401],
    ),
    "anchors under several concepts": (
        [{"anchor": "definition 2", "positive": "autre passage", "concept": "autre"}],
        1,
        [5, 401],
    ),
    "passages under several concepts": (
        [{"anchor": "autre", "positive": clean_rows()[6]["positive"].upper(), "concept": "autre"}],
        1,
        [7, 401],
    ),
    "anchor is the passage": ([{"anchor": "la même chose", "positive": "La même  chose", "concept": "x"}], 1, [401]),
    "rows without a concept": ([{"anchor": "seul", "positive": "passage seul"}], 1, [401]),
    "negatives that answer": (
        [{"anchor": "n", "positive": "p", "concept": "c3", "negative": [clean_rows()[7]["positive"], "rien"]}],
        1,
        [401],
    ),
    "negatives that answer other rows": (  # c3 and c6 are training concepts, c4 is one of dev
        [{"anchor": "n", "positive": "p", "concept": "c3", "negative": clean_rows()[13]["positive"]}],
        1,
        [401],
    ),
    "negatives that dev or test holds back": (
        [{"anchor": "n", "positive": "p", "concept": "c3", "negative": [clean_rows()[9]["positive"].upper(), "rien"]}],
        1,
        [401],
    ),
    "dropped: missing anchor": ([{"anchor": None, "positive": "p"}, {"positive": "q"}], 2, [401, 402]),
    "large concepts": ([{"anchor": f"l{a}", "positive": f"q{a}", "concept": "c0"} for a in range(40)], 1, [1]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    added, count, lines = PLANTED[name]
    report = report_on(clean_rows() + added, tmp_path)
    found = finding(report, name)
    assert found.count == count
    shown = [part for example in found.examples for part in example.where.split(" and ")]
    assert [int(place.split(":")[1]) for place in shown] == lines
    assert all(example.text for example in found.examples)
    assert report.unusable is None


def test_three_rows_are_shown(tmp_path: Path) -> None:
    rows = clean_rows()
    found = finding(report_on(rows + rows[:10], tmp_path), "duplicate rows")
    assert found.count == 10
    assert [example.where for example in found.examples] == [f"pairs.jsonl:{line}" for line in (401, 402, 403)]
    assert found.examples[0].text.startswith("definition 0 -> budget budget n0")


def test_near_duplicates_across_the_split_are_found(tmp_path: Path) -> None:
    """One word of each of 60 passages is changed, under another concept: most pairs fall on two sides."""
    rows = clean_rows()
    near = [
        {"anchor": f"autre {at}", "positive": row["positive"] + " fin", "concept": f"near{at}"}
        for at, row in enumerate(rows[:120:2])
    ]
    report = report_on(rows + near, tmp_path)
    found = finding(report, "near duplicates across the split")
    assert 15 <= found.count <= 60
    first, second = found.examples[0].where.split(" and ")
    assert abs(int(first.split(":")[1]) - 1 - 2 * (int(second.split(":")[1]) - 401)) == 0 or first > second


def test_texts_on_two_sides_are_left_out_of_training(tmp_path: Path) -> None:
    rows = clean_rows()
    twins = [{"anchor": row["anchor"], "positive": f"autre {at}", "concept": f"t{at}"} for at, row in enumerate(rows)]
    report = report_on(rows + twins, tmp_path)
    assert finding(report, "texts on two sides").count > 20
    config = DataConfig.model_validate(report.config.model_dump())
    prepare(config, tmp_path, report.seed, tmp_path / "data")
    texts = [set(load_task(tmp_path / "data", part).queries.values()) for part in PARTS]
    assert texts[0].isdisjoint(texts[1] | texts[2])
    assert texts[1].isdisjoint(texts[2])


def test_negatives_that_answer_are_taken_out(tmp_path: Path) -> None:
    rows = clean_rows()
    for row, other in zip(rows[::2], rows[1::2], strict=True):
        row["negative"] = [other["positive"].upper(), "un vrai négatif"]
    report = report_on(rows, tmp_path)
    assert finding(report, "negatives that answer").count == COUNT
    prepare(report.config, tmp_path, report.seed, tmp_path / "data")
    lines = [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text("utf-8").splitlines()]
    assert {tuple(line["negatives"]) for line in lines} == {("un vrai négatif",), ()}


def test_no_text_of_dev_or_test_is_trained_on_as_a_negative(tmp_path: Path) -> None:
    """Negatives that a tool mined over the whole corpus: the next concept's passage, whatever part that is in."""
    rows = clean_rows()
    for at, row in enumerate(rows):
        row["negative"] = [rows[(at + 2) % len(rows)]["positive"].upper(), f"rien {at}"]
    report = report_on(rows, tmp_path)
    prepare(report.config, tmp_path, report.seed, tmp_path / "data")
    parts = {p: list(map(json.loads, (tmp_path / "data" / f"{p}.jsonl").open(encoding="utf-8"))) for p in PARTS}
    held_back = {row["positive"].upper() for part in ("dev", "test") for row in parts[part]}
    negatives = [text for row in parts["train"] for text in row["negatives"]]
    assert held_back.isdisjoint(negatives)
    assert finding(report, "negatives that dev or test holds back").count == 2 * len(parts["train"]) - len(negatives)
    assert len(negatives) > len(parts["train"]) > 100  # those of training concepts stay


def test_concepts_on_two_sides_of_a_given_split(tmp_path: Path) -> None:
    rows = clean_rows()
    for at, row in enumerate(rows):
        row["split"] = "test" if at % 10 == 0 else "dev" if at % 10 == 2 else "train"
    report = report_on(rows, tmp_path)
    shared = finding(report, "concepts in several parts")
    assert shared.count == 2 * COUNT // 10 * 2
    assert "(train and dev 40, train and test 40)" in shared.what
    assert report.kept == {"train": 320, "dev": 40, "test": 40}
    assert (report.shared, report.unseen) == ("keep", "questions")
    report = report_on(rows, tmp_path, shared="leave_out")
    assert finding(report, "concepts on two sides").count == 2 * COUNT // 10 * 2
    assert report.kept == {"train": 240, "dev": 40, "test": 40}
    assert (report.shared, report.unseen) == ("leave_out", "concepts")


def test_domains_are_counted_and_missed(tmp_path: Path) -> None:
    rows = clean_rows()
    for at, row in enumerate(rows):
        row["domains"] = ["rare"] if at < 2 else ["budget", "second"]
    report = report_on(rows, tmp_path)
    assert sum(report.domains["budget"].values()) == COUNT - 1
    assert sum(report.domains["rare"].values()) == 1
    assert {found.name for found in report.findings} >= {"domains without dev"} or report.domains["rare"]["dev"]


def test_definition_protocol_needs_definitions(tmp_path: Path) -> None:
    rows = [row for row in clean_rows() if row["kind"] == "context"]
    report = report_on(rows, tmp_path, protocol="definition")
    assert report.unusable == "protocol: definition needs rows whose kind is definition, there are none"
    half = report_on(rows + clean_rows()[:200:2], tmp_path, protocol="definition")
    missing = finding(half, "concepts without a definition")
    assert 20 < missing.count < COUNT // 2 + 1


def test_lengths_in_tokens_and_the_share_that_is_cut(tmp_path: Path) -> None:
    rows = clean_rows()
    for row in rows[:40]:
        row["positive"] += " mot" * 100

    def words(column: str, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    tokens = TokenCounter(words, lambda inputs: words("", [text for text, _ in inputs]), max_length=50)
    lengths = report_on(rows, tmp_path, tokens=tokens).lengths["positive"]
    assert (lengths.unit, lengths.of, lengths.longest, lengths.cut) == ("tokens", 400, 111, 0.1)
    assert report_on(rows, tmp_path).lengths["positive"].unit == "characters"


def test_languages_of_a_sample(tmp_path: Path) -> None:
    french = "Le comptable public tient la comptabilité de la commune et paie les dépenses que le maire ordonne"
    english = "The public accountant keeps the books of the town and pays the expenses that the mayor orders"
    rows = [
        {"anchor": f"a{at}", "positive": f"{english if at % 4 == 0 else french} ({at}).", "concept": at}
        for at in range(100)
    ]
    assert report_on(rows, tmp_path).languages == {"fr": 0.75, "en": 0.25}


ONE = {"anchor": "a", "positive": "p"}


@pytest.mark.parametrize(
    ("row", "options", "problem"),
    [
        (ONE, {"columns": {"anchor": "Titre"}}, "columns.anchor: no column 'Titre'; the source has: anchor, positive"),
        (ONE, {"columns": {"concept": "cluster"}}, "columns.concept: no column 'cluster'; the source has"),
        (ONE, {"split": {"by": "column"}}, "columns.split: no column 'split'"),
        (ONE, {"split": {"by": "given"}}, "split.by: given, but the source"),
        (ONE, {}, "split: the"),
        ({**ONE, "anchor": ""}, {}, "no row with an anchor and a positive in 1 rows (missing anchor: 1)"),
    ],
)
def test_unusable_data_says_why(row: dict[str, Any], options: dict[str, Any], problem: str, tmp_path: Path) -> None:
    report = report_on([row], tmp_path, **options)
    assert str(report.unusable).startswith(problem)
    assert "\n" not in str(report.unusable)


def test_the_report_on_screen(tmp_path: Path) -> None:
    rows = clean_rows()
    rows[0]["anchor"] = "[bold]crochets[/bold]"  # a text, not markup
    console = Console(record=True, width=150, file=(tmp_path / "screen").open("w"))
    print_report(report_on(rows + rows[:2], tmp_path), console)
    text = console.export_text()
    for shown in ("402 rows", "train", "2 rows with the anchor", "pairs.jsonl:401", "[bold]crochets[/bold]", "usable"):
        assert shown in text
    console = Console(record=True, width=150, file=(tmp_path / "screen").open("w"))
    print_report(report_on([{"question": "q"}], tmp_path), console)
    assert "unusable: columns.anchor: no column 'anchor'; the source has: question" in console.export_text()


def test_the_command_says_by_its_exit_code_whether_the_data_can_be_used(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("\n".join(map(json.dumps, clean_rows())), "utf-8")
    bad.write_text('{"question": "q"}\n', "utf-8")
    usable = CliRunner().invoke(cli, ["data", "check", str(good), "--json"])
    assert (usable.exit_code, DataReport.model_validate_json(usable.output).unusable) == (0, None)
    unusable = CliRunner().invoke(cli, ["data", "check", str(bad)])
    assert unusable.exit_code == 1
    assert "no column 'anchor'" in unusable.output


def test_the_report_goes_through_json(tmp_path: Path) -> None:
    report = report_on(clean_rows(), tmp_path)
    assert DataReport.model_validate_json(report.model_dump_json()) == report
