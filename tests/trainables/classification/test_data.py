"""Labelled data: read, checked, split; bad input in one line with its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from evaluation.errors import InputError
from tests.kit.labelled import labelled_rows, write_rows
from trainables.classification.batches import LengthBatchSampler
from trainables.classification.check import check_labelled
from trainables.classification.config import LabelledDataConfig
from trainables.classification.prepared import (
    LabelledData,
    load_label_report,
    load_labelled_task,
    prepare_labelled,
    require_same_examples,
)
from trainables.classification.report import LabelReport, print_label_report

PAIRS = {"text_pair": "text_pair"}


def report_on(folder: Path, rows: list[dict[str, Any]], **config: Any) -> LabelReport:
    write_rows(folder / "rows.jsonl", rows)
    return check_labelled(LabelledDataConfig.model_validate({"source": "rows.jsonl", **config}), folder)[1]


def finding(report: LabelReport, name: str) -> Any:
    return next((found for found in report.findings if found.name == name), None)


def test_each_label_gives_its_share_to_each_part(tmp_path: Path) -> None:
    rows = labelled_rows(40) + [{"text": f"Un cas rare {n}", "label": "rare"} for n in range(4)]
    report = report_on(tmp_path, rows, split={"dev": 0.25, "test": 0.2})
    assert report.unusable is None
    assert report.labels == ("impots", "mairie", "rare", "sante")
    for label in ("impots", "mairie", "sante"):
        assert report.counts[label] == {"train": 24, "dev": 8, "test": 8}
    assert report.counts["rare"] == {"train": 2, "dev": 1, "test": 1}


def test_rows_that_share_a_text_stay_on_one_side(tmp_path: Path) -> None:
    rows = labelled_rows(30, pairs=True)
    for number, row in enumerate(rows):  # three rows to a premise, as in natural language inference
        row["text"] = f"Prémisse {number // 3}"
    prepare(tmp_path, rows, columns=PAIRS)
    parts = {part: load_labelled_task(tmp_path / "data", part) for part in ("train", "dev", "test")}
    texts = {part: {text[0] for text in task.texts} for part, task in parts.items()}
    assert all(texts.values())
    assert not texts["train"] & texts["dev"] | texts["train"] & texts["test"] | texts["dev"] & texts["test"]
    assert len(set(parts["test"].groups)) == len(texts["test"])


def test_a_group_column_stays_on_one_side_whatever_its_texts(tmp_path: Path) -> None:
    rows = [{**row, "case": f"c{number // 6}"} for number, row in enumerate(labelled_rows(30))]
    prepare(tmp_path, rows, columns={"group": "case"})
    groups = [set(load_labelled_task(tmp_path / "data", part).groups) for part in ("train", "dev", "test")]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert "c0" in set.union(*groups)


def test_given_files_are_taken_as_they_are_and_a_missing_one_is_cut_from_training(tmp_path: Path) -> None:
    rows = labelled_rows(30)
    dev = [{**row, "text": row["text"] + ", suite"} for row in rows[:9]]
    header, tab = "premise\thypo\tlabel\n", "{text}\tUne phrase {at}\t{label}\n"
    for name, part in (("train", rows), ("dev", dev)):
        lines = (tab.format(at=f"{name} {at}", **row) for at, row in enumerate(part))
        (tmp_path / f"{name}.tsv").write_text(header + "".join(lines), encoding="utf-8")
    columns = {"text": "premise", "text_pair": "hypo", "label": "label"}
    config = LabelledDataConfig.model_validate(
        {"source": {"train": "train.tsv", "dev": "dev.tsv"}, "columns": columns, "split": {"test": 0.2}}
    )
    report = prepare_labelled(config, tmp_path, 1, tmp_path / "data")
    assert report.kept == {"train": 72, "dev": 9, "test": 18}
    assert load_labelled_task(tmp_path / "data", "dev").texts[0] == (dev[0]["text"], "Une phrase dev 0")


def test_an_input_of_the_test_part_is_never_trained_on(tmp_path: Path) -> None:
    rows = [{**row, "split": "train"} for row in labelled_rows(20)]
    held = [{**row, "split": part} for part in ("dev", "test") for row in labelled_rows(3)]
    report = report_on(tmp_path, rows + held)
    assert report.kept == {"train": 51, "dev": 0, "test": 9}
    assert finding(report, "inputs on two sides").count == 18
    assert report.unusable == (
        "split: the dev part has no row of label 'impots' (20 rows, the first at rows.jsonl:1) (and 2 more labels); "
        "expected each class in training, dev and test"
    )


def test_a_text_with_two_labels_is_told(tmp_path: Path) -> None:
    rows = labelled_rows(10)
    rows.append({"text": rows[0]["text"], "label": "sante"})
    found = finding(report_on(tmp_path, rows), "texts with two labels")
    assert found.count == 1
    assert found.examples[0].where == "rows.jsonl:1 and rows.jsonl:31"
    assert found.examples[0].text.endswith(": impots, sante")


def test_a_repeated_row_is_dropped_and_uneven_classes_are_told(tmp_path: Path) -> None:
    rows = labelled_rows(60) + [{"text": f"Un cas rare {n}", "label": "rare"} for n in range(5)]
    report = report_on(tmp_path, [*rows, rows[0], {"text": " ", "label": "rare"}])
    assert report.dropped == {"duplicate": 1, "missing text": 1}
    assert finding(report, "uneven classes").what == "times as many rows of 'impots' as of 'rare'"


def wrong(**change: Any) -> list[dict[str, Any]]:
    rows = labelled_rows(10, pairs=True)
    rows[4] = {**rows[4], **change}
    return rows


BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "once": (
        [*labelled_rows(10), {"text": "seul", "label": "autre"}],
        {},
        "labels that appear once: 'autre' (rows.jsonl:31); expected rows for training, dev and test of each",
    ),
    "case": (
        wrong(label="Mairie"),
        {},
        "labels 'mairie' (rows.jsonl:2) and 'Mairie' (rows.jsonl:5) differ by case or space alone, expected one name "
        "for one class",
    ),
    "space": (
        [*wrong(), {"text": "a", "label": "san  te"}, {"text": "b", "label": "san te"}],
        {},
        "labels 'san  te' (rows.jsonl:31) and 'san te' (rows.jsonl:32) differ by case or space alone, expected one "
        "name for one class",
    ),
    "pair": (
        labelled_rows(10),
        {"columns": {"text_pair": "hypothese"}},
        "columns.text_pair: no column 'hypothese'; the source has: text, label",
    ),
    "float": (
        wrong(label=0.5),
        {},
        "rows.jsonl:5: label is 0.5, a decimal number; expected the name or whole number of a class",
    ),
    "decimal text": (
        wrong(label="1.0"),
        {},
        "rows.jsonl:5: label is 1.0, a decimal number; expected the name or whole number of a class",
    ),
    "stranger": (
        wrong(),
        {"labels": ["impots", "sante"]},
        "rows.jsonl:2: label is 'mairie', expected one of data.labels: impots, sante (and 9 more rows that cannot be "
        "read)",
    ),
    "unused": (
        wrong(),
        {"labels": ["autre", "impots", "mairie", "sante"]},
        "split: the train part has no row of label 'autre' (no row of the source); expected each class in training, "
        "dev and test",
    ),
    "many": (
        [{"text": f"t{n}", "label": f"l{n % 10_000}"} for n in range(20_000)],
        {},
        "10,000 labels in 20,000 rows, expected at most 1,000 classes (is columns.label an id or a text?)",
    ),
    "one class": (
        [{"text": f"t{n}", "label": "x"} for n in range(9)],
        {},
        "every row has the label 'x', expected two classes or more",
    ),
    "too few": (
        [*labelled_rows(10), {"text": "a", "label": "autre"}, {"text": "b", "label": "autre"}],
        {},
        "split: the test part has no row of label 'autre' (2 rows, the first at rows.jsonl:31); expected each class in "
        "training, dev and test",
    ),
    "split": (
        wrong(split="formation"),
        {},
        "rows.jsonl:5: split is 'formation', expected train, dev (or validation) or test",
    ),
    "list": (wrong(label=["a"]), {}, "rows.jsonl:5: label is a list, expected a text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused_in_one_line_with_its_rows(case: str, tmp_path: Path) -> None:
    rows, config, expected = BAD[case]
    report = report_on(tmp_path, rows, **config)
    assert report.unusable == expected
    config_ = LabelledDataConfig.model_validate({"source": "rows.jsonl", **config})
    with pytest.raises(InputError, match=r"^data: "):
        prepare_labelled(config_, tmp_path, 42, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_whole_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": n % 3 * 5} for n in range(30)]
    assert report_on(tmp_path, rows).labels == ("0", "5", "10")


def test_the_report_shows_labels_lengths_and_findings(tmp_path: Path) -> None:
    report = report_on(tmp_path, [*labelled_rows(10), {"text": labelled_rows(1)[0]["text"], "label": "sante"}])
    console = Console(width=120, record=True)
    print_label_report(report, console)
    text = console.export_text()
    for part in ("31 rows", "impots", "input: ", "several labels", "usable"):
        assert part in text, part


def prepare(folder: Path, rows: list[dict[str, Any]], **config: Any) -> LabelledDataConfig:
    write_rows(folder / "rows.jsonl", rows)
    made = LabelledDataConfig.model_validate({"source": "rows.jsonl", **config})
    prepare_labelled(made, folder, 42, folder / "data")
    return made


def test_a_prepared_folder_holds_what_a_trial_may_see(tmp_path: Path) -> None:
    prepare(tmp_path, labelled_rows(20, pairs=True), columns=PAIRS)
    data = LabelledData.load(tmp_path / "data")
    report = load_label_report(tmp_path / "data")
    assert len(data.texts) == report.kept["train"]
    assert data.content_hash == report.content_hash
    assert isinstance(data.texts[0], tuple)
    lines = (tmp_path / "data" / "train.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["label"] == data.labels[data.true_N[0]]
    assert len(data.dev.ids) == report.kept["dev"]


def test_a_source_that_changed_is_not_the_searchs_any_more(tmp_path: Path) -> None:
    rows = labelled_rows(20)
    config = prepare(tmp_path, rows)
    require_same_examples(config, tmp_path, tmp_path / "data")
    write_rows(tmp_path / "rows.jsonl", [*rows, {"text": "nouveau", "label": "sante"}])
    with pytest.raises(InputError, match="has 61 rows and had 60"):
        require_same_examples(config, tmp_path, tmp_path / "data")
    rows[7] = {**rows[7], "text": "changé"}
    write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError, match=r"has changed since the search began: rows\.jsonl:8 "):
        require_same_examples(config, tmp_path, tmp_path / "data")


@pytest.mark.parametrize(("devices", "pieces"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_an_epoch_shows_each_row_once_and_like_lengths_together(devices: int, pieces: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 500, size=403)
    made = LengthBatchSampler(list(range(403)), lengths.tolist(), 16, devices, pieces, seed=7)
    epochs = []
    for epoch in (0, 1):
        made.set_epoch(epoch)
        batches = list(made)
        assert len(batches) == len(made)
        rows = [row for batch in batches for row in batch]
        assert len(set(rows)) == len(rows) == made.examples
        assert made.examples == (403 if devices * pieces == 1 else 400)
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    made.set_epoch(0)
    assert list(made) == epochs[0]
    padded = sum(max(lengths[batch]) * len(batch) for batch in epochs[0])
    shuffled = np.random.default_rng(1).permutation(403)
    plain = sum(max(lengths[shuffled[at : at + 16]]) * len(shuffled[at : at + 16]) for at in range(0, 403, 16))
    assert padded - lengths.sum() < 0.2 * (plain - lengths.sum())
