"""The promises of the split, on any groups that hypothesis thinks of."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.task import fold
from trainables.data.config import DataConfig, Split
from trainables.data.prepared import load_task, prepare
from trainables.data.splits import DEV, LEFT_OUT, TEST, TRAIN, UNDECIDED, assign, components, draw, leave_out_shared
from trainables.data.survey import Survey, survey


def surveyed(rows: list[dict[str, Any]], folder: Path, seed: int = 0, **options: Any) -> Survey:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return survey(DataConfig.model_validate({"source": "pairs.jsonl", **options}), folder, seed)


def parts_of(rows: list[dict[str, Any]], found: Survey) -> dict[str, set[int]]:
    """Concept -> parts of its rows, by the lines that the survey names."""
    parts: dict[str, set[int]] = defaultdict(set)
    for line, part in zip(found.line_N, found.parts_N, strict=True):
        parts[rows[line - 1]["concept"]].add(int(part))
    return parts


some_rows = st.lists(
    st.fixed_dictionaries(
        {
            "concept": st.integers(0, 60).map(str),
            "anchor": st.integers(0, 200).map("anchor {}".format),
            "positive": st.integers(0, 200).map("passage {}".format),
            "domain": st.sampled_from(["budget", "fiscalité", "marchés", None]),
        }
    ),
    min_size=2,
    max_size=120,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


@given(rows=some_rows, seed=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_no_concept_and_no_text_is_on_two_sides(folder: Path, rows: list[dict[str, Any]], seed: int) -> None:
    found = surveyed(rows, folder, seed)
    assert all(len(parts - {LEFT_OUT}) <= 1 for parts in parts_of(rows, found).values())
    texts: dict[str, set[int]] = defaultdict(set)
    for line, part in zip(found.line_N, found.parts_N, strict=True):
        for name in ("anchor", "positive"):
            if part != LEFT_OUT:
                texts[fold(rows[line - 1][name]).casefold()].add(int(part))
    assert all(len(parts) == 1 for parts in texts.values())


@given(rows=some_rows, seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_without_concepts_rows_that_share_a_text_are_on_one_side(
    folder: Path, rows: list[dict[str, Any]], seed: int
) -> None:
    rows = [{name: row[name] for name in ("anchor", "positive")} for row in rows]
    found = surveyed(rows, folder, seed)
    assert not (found.reasons_N > 1).any()  # nothing but repeats is left out: groups need no further rule
    sides: dict[str, set[int]] = defaultdict(set)
    for line, part in zip(found.line_N, found.parts_N, strict=True):
        if part != LEFT_OUT:
            for name in ("anchor", "positive"):
                sides[name + rows[line - 1][name]].add(int(part))
    assert all(len(parts) == 1 for parts in sides.values())


# Few texts for many rows: what is added joins what is there.
crowded_rows = st.lists(
    st.fixed_dictionaries(
        {
            "concept": st.integers(0, 20).map(str),
            "anchor": st.integers(0, 40).map("anchor {}".format),
            "positive": st.integers(0, 40).map("passage {}".format),
        }
    ),
    min_size=8,
    max_size=40,
)


@given(rows=crowded_rows, more=crowded_rows, at=st.integers(0, 40), concepts=st.booleans())
@settings(max_examples=200, deadline=None)
def test_adding_rows_moves_no_test_row_into_training(
    folder: Path, rows: list[dict[str, Any]], more: list[dict[str, Any]], at: int, concepts: bool
) -> None:
    """Not its concept, not its texts; wherever in the file the rows are put."""
    if not concepts:
        rows, more = ([{n: row[n] for n in ("anchor", "positive")} for row in half] for half in (rows, more))
    split = {"test": 0.3}
    before = surveyed(rows, folder, split=split)
    held = [rows[line - 1] for line, part in zip(before.line_N, before.parts_N, strict=True) if part == TEST]
    grown = rows[:at] + more + rows[at:]
    after = surveyed(grown, folder, split=split)
    trained = [grown[line - 1] for line, part in zip(after.line_N, after.parts_N, strict=True) if part in (TRAIN, DEV)]
    for name in ("concept", "anchor", "positive") if concepts else ("anchor", "positive"):
        assert {row[name] for row in held}.isdisjoint(row[name] for row in trained)


def test_shares_are_met_and_dev_is_stratified(folder: Path) -> None:
    domains = ["budget"] * 700 + ["fiscalité"] * 250 + ["marchés"] * 50
    rows = [
        {"anchor": f"a{at}", "positive": f"p{at}", "concept": f"c{at}", "domain": domain}
        for at, domain in enumerate(domains)
    ]
    found = surveyed(rows, folder, split={"dev": 0.2, "test": 0.1})
    count = Counter(found.parts_N.tolist())
    assert 70 <= count[TEST] <= 130  # binomial around 100: within three standard errors
    assert abs(count[DEV] - 0.2 * (1000 - count[TEST])) <= 1
    for domain in range(3):
        free = ((found.domains_N == domain) & (found.parts_N != TEST)).sum()
        assert abs(((found.domains_N == domain) & (found.parts_N == DEV)).sum() - 0.2 * free) <= 1


def test_the_seed_decides(folder: Path) -> None:
    rows = [{"anchor": f"a{at}", "positive": f"p{at}", "concept": f"c{at}"} for at in range(200)]
    one, same, other = (surveyed(rows, folder, seed).parts_N for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_draws_are_uniform() -> None:
    draws = np.array([draw(7, "test", f"concept:{at}") for at in range(20_000)])
    assert abs(draws.mean() - 0.5) < 0.01
    assert np.histogram(draws, bins=10, range=(0, 1))[0].std() < 80


@given(edges=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=40))
def test_components_are_those_of_the_graph(edges: list[tuple[int, int]]) -> None:
    """Against merging by hand."""
    groups: list[set[str]] = []
    for left, right in edges:
        names = {f"l{left}", f"r{right}"}
        touched = [group for group in groups if group & names]
        groups = [group for group in groups if not group & names] + [names.union(*touched)]
    found = components(
        np.array([left for left, _ in edges], dtype=np.uint64), np.array([right for _, right in edges], dtype=np.uint64)
    )
    expected = [next(at for at, group in enumerate(groups) if f"l{left}" in group) for left, _ in edges]
    assert {tuple(found == value) for value in found} == {tuple(np.array(expected) == value) for value in expected}


def test_a_given_split_keeps_its_parts_and_loses_what_leaks(folder: Path) -> None:
    rows = [
        {"anchor": "a", "positive": "p", "concept": "1", "split": "train"},
        {"anchor": "b", "positive": "q", "concept": "2", "split": "train"},
        {"anchor": "c", "positive": "r", "concept": "2", "split": "validation"},
        {"anchor": "d", "positive": "s", "concept": "3", "split": "test"},
        {"anchor": "D", "positive": "t", "concept": "4", "split": "train"},  # the anchor of a test row, case folded
        {"anchor": "e", "positive": "u", "concept": "5", "split": "train"},
    ]
    found = surveyed(rows, folder)
    assert found.parts_N.tolist() == [TRAIN, LEFT_OUT, DEV, TEST, LEFT_OUT, TRAIN]
    by_concept = surveyed(rows, folder, split={"by": "concept", "test": 0.5})
    assert by_concept.parts_N.tolist() != found.parts_N.tolist()


def test_a_missing_part_is_cut_from_train(folder: Path) -> None:
    rows = [
        {"anchor": f"a{at}", "positive": f"p{at}", "concept": f"c{at}", "split": "dev" if at < 20 else "train"}
        for at in range(200)
    ]
    found = surveyed(rows, folder)
    assert (found.parts_N[:20] == DEV).all()
    assert (found.parts_N[20:] != DEV).all()
    assert 10 < (found.parts_N == TEST).sum() < 50


def test_leave_out_shared_lets_test_win() -> None:
    parts = np.array([TRAIN, DEV, TEST, TRAIN], dtype=np.int8)
    anchors = np.array([1, 1, 2, 3], dtype=np.uint64)
    positives = np.array([10, 11, 11, 12], dtype=np.uint64)
    # The dev row shares its passage with test. The train row shared its anchor with that dev row alone, which is gone.
    assert leave_out_shared(parts, anchors, positives).tolist() == [TRAIN, LEFT_OUT, TEST, TRAIN]


def test_pinned_rows_stay_and_draw_their_group_along() -> None:
    groups = np.array([0, 0, 1, 1, 2])
    given_parts = np.array([TEST, UNDECIDED, TRAIN, UNDECIDED, UNDECIDED], dtype=np.int8)
    pinned = np.array([True, False, True, False, False])
    draws = np.array([0.9, 0.9, 0.0, 0.0, 0.0])
    parts = assign(groups, draws, draws, np.zeros(5, dtype=np.int64), given_parts, pinned, 0.5, 0.5)
    assert parts.tolist() == [TEST, TEST, TRAIN, TRAIN, TEST]


# The curriculum: an earlier run's data and new rows


def _concepts(out: Path, part: str) -> set[str]:
    return {json.loads(line)["concept"] for line in (out / f"{part}.jsonl").read_text("utf-8").splitlines()}


@pytest.mark.parametrize("concepts", [True, False])
def test_continued_data_keeps_the_old_test_part(tmp_path: Path, concepts: bool) -> None:
    def row(at: int, kind: str) -> dict[str, str]:
        own = {"anchor": f"{kind} anchor {at}", "positive": f"passage {at}"}
        return own | ({"concept": f"c{at}"} if concepts else {})

    (tmp_path / "old.jsonl").write_text("\n".join(json.dumps(row(at, "old")) for at in range(100)), "utf-8")
    prepare(DataConfig(source="old.jsonl"), tmp_path, 1, tmp_path / "old")
    # New anchors for each old concept, and as many new concepts.
    (tmp_path / "new.jsonl").write_text("\n".join(json.dumps(row(at, "new")) for at in range(200)), "utf-8")
    report = prepare(DataConfig(source="new.jsonl"), tmp_path, 2, tmp_path / "new", earlier=tmp_path / "old")
    assert report.rows == 300
    for part in ("train", "dev", "test"):
        assert _concepts(tmp_path / "old", part) <= _concepts(tmp_path / "new", part) or not concepts
    old_test = load_task(tmp_path / "old", "test")
    kept = load_task(tmp_path / "new", "old_test")
    assert kept.queries == old_test.queries
    assert kept.corpus == old_test.corpus
    grown = load_task(tmp_path / "new", "test")
    assert set(old_test.queries.values()) < set(grown.queries.values())
    passages = set(old_test.corpus.values())
    for part in ("train", "dev"):
        assert passages.isdisjoint(load_task(tmp_path / "new", part).corpus.values())
    assert any("new" in text for text in load_task(tmp_path / "new", "train").queries.values())


def test_split_refuses_shares_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        Split(test=1.0)
