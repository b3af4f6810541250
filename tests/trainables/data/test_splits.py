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

from evaluation.task import RetrievalTask, fold
from trainables.data.config import DataConfig, Split
from trainables.data.prepared import load_task
from trainables.data.rows import PARTS
from trainables.data.splits import DEV, LEFT_OUT, TEST, TRAIN, UNDECIDED, assign, components, draw, leave_out_shared
from trainables.data.survey import DUPLICATE, Survey, survey_source
from trainables.prepare import prepare


def surveyed(rows: list[dict[str, Any]], folder: Path, seed: int = 0, **options: Any) -> Survey:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return survey_source(DataConfig.model_validate({"source": "pairs.jsonl", **options}), folder, seed)


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


@given(rows=crowded_rows, more=crowded_rows, at=st.integers(0, 40), by=st.sampled_from(["concept", "texts", "query"]))
@settings(max_examples=200, deadline=None)
def test_adding_rows_moves_no_test_row_into_training(
    folder: Path, rows: list[dict[str, Any]], more: list[dict[str, Any]], at: int, by: str
) -> None:
    """Wherever in the file the rows are put; after the others where neither concept nor question names a group."""
    if by == "texts":
        rows, more = ([{n: row[n] for n in ("anchor", "positive")} for row in half] for half in (rows, more))
        at = len(rows)
    split = {"test": 0.3, "by": "query" if by == "query" else "concept"}
    before = surveyed(rows, folder, split=split)
    held = [rows[line - 1] for line, part in zip(before.line_N, before.parts_N, strict=True) if part == TEST]
    grown = rows[:at] + more + rows[at:]
    after = surveyed(grown, folder, split=split)
    trained = [grown[line - 1] for line, part in zip(after.line_N, after.parts_N, strict=True) if part in (TRAIN, DEV)]
    names = {"concept": ("concept", "anchor", "positive"), "texts": ("anchor", "positive"), "query": ("anchor",)}[by]
    for name in names:
        assert {row[name] for row in held}.isdisjoint(row[name] for row in trained)


@pytest.mark.parametrize(("questions", "passages"), [(1, 1), (1, 2), (1, 5), (1, 10), (5, 1)])
def test_without_concepts_the_test_share_is_the_same_whatever_a_group_holds(
    folder: Path, questions: int, passages: int
) -> None:
    rows = [
        {"anchor": f"a{at} {question}", "positive": f"p{at} {passage}"}
        for at in range(1000)
        for question in range(questions)
        for passage in range(passages)
    ]
    found = surveyed(rows, folder, split={"dev": 0.2, "test": 0.15})
    share = (found.parts_N == TEST).mean()
    assert 0.11 < share < 0.19  # 1,000 draws of 0.15 stay within 3.5 standard errors
    assert abs((found.parts_N == DEV).sum() / (found.parts_N != TEST).sum() - 0.2) < 0.002


def test_dev_takes_groups_of_all_sizes(folder: Path) -> None:
    """A group of ten passages has no ten draws in dev's lot either."""
    rows = [{"anchor": f"a{at}", "positive": f"p{at} {n}"} for at in range(1000) for n in range(10 if at % 2 else 1)]
    found = surveyed(rows, folder, split={"dev": 0.2, "test": 0.15})
    large = np.array([int(rows[line - 1]["anchor"][1:]) % 2 for line in found.line_N], dtype=bool)
    for size in (False, True):
        free, dev = (
            len(set(found.groups_N[part & (large == size)])) for part in (found.parts_N != TEST, found.parts_N == DEV)
        )
        assert 0.13 < dev / free < 0.27


@given(rows=crowded_rows, seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_by_query_no_question_is_on_two_sides_and_no_row_is_lost(
    folder: Path, rows: list[dict[str, Any]], seed: int
) -> None:
    found = surveyed(rows, folder, seed, split={"by": "query"})
    sides: dict[str, set[int]] = defaultdict(set)
    for line, part in zip(found.line_N, found.parts_N, strict=True):
        if part != LEFT_OUT:
            sides[rows[line - 1]["anchor"]].add(int(part))
    assert all(len(parts) == 1 for parts in sides.values())
    assert not (found.reasons_N > DUPLICATE).any()


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


GIVEN = [
    {"anchor": "a", "positive": "p", "concept": "1", "split": "train"},
    {"anchor": "b", "positive": "q", "concept": "2", "split": "train"},
    {"anchor": "c", "positive": "r", "concept": "2", "split": "validation"},
    {"anchor": "d", "positive": "s", "concept": "3", "split": "test"},
    {"anchor": "D", "positive": "t", "concept": "4", "split": "train"},  # the anchor of a test row, case folded
    {"anchor": "e", "positive": "S", "concept": "5", "split": "train"},  # the passage of a test row
    {"anchor": "f", "positive": "d", "concept": "6", "split": "train"},  # a test question as a passage
    {"anchor": "c", "positive": "u", "concept": "7", "split": "test"},  # the question of a dev row
]


def test_a_given_split_keeps_what_its_parts_share_but_no_question(folder: Path) -> None:
    kept = surveyed(GIVEN, folder)
    assert kept.parts_N.tolist() == [TRAIN, TRAIN, LEFT_OUT, TEST, LEFT_OUT, TRAIN, LEFT_OUT, TEST]
    assert kept.unseen == "questions"
    strict = surveyed(GIVEN, folder, shared="leave_out")
    assert strict.parts_N.tolist() == [TRAIN, LEFT_OUT, LEFT_OUT, TEST, LEFT_OUT, LEFT_OUT, LEFT_OUT, TEST]
    assert strict.unseen == "concepts"
    by_concept = surveyed(GIVEN, folder, split={"by": "concept", "test": 0.5})
    assert by_concept.parts_N.tolist() != kept.parts_N.tolist()
    assert by_concept.unseen == "concepts"


def test_given_parts_that_share_nothing_hold_whole_concepts_back(folder: Path) -> None:
    rows = [{"anchor": f"a{at}", "positive": f"p{at}", "split": PARTS[at % 3]} for at in range(30)]
    found = surveyed(rows, folder)
    assert (found.parts_N != LEFT_OUT).all()
    assert found.unseen == "concepts"


def test_a_part_that_is_cut_here_shares_no_text_with_the_given_ones(folder: Path) -> None:
    """Train and dev are given and share passages; test is cut: from what has nothing in common with dev."""
    rows = [
        {"anchor": f"a{at} {part}", "positive": f"p{at if part == 'train' else at % 20}", "split": part}
        for at in range(200)
        for part in (("train", "dev") if at < 40 else ("train",))
    ]
    found = surveyed(rows, folder, split={"test": 0.3})
    given_dev = np.array([rows[line - 1]["split"] == "dev" for line in found.line_N])
    assert (found.parts_N[given_dev] == DEV).all()
    passages = {part: {rows[line - 1]["positive"] for line in found.line_N[found.parts_N == part]} for part in range(3)}
    assert passages[TRAIN] & passages[DEV]
    assert passages[TEST].isdisjoint(passages[TRAIN] | passages[DEV])
    assert len(passages[TEST]) > 20
    assert found.unseen == "concepts"


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
    parts = assign(groups, draws, draws, np.zeros(5, dtype=np.int64), given_parts, pinned, frozenset(), 0.5, 0.5)
    assert parts.tolist() == [TEST, TEST, TRAIN, TRAIN, TEST]


# The curriculum: an earlier run's data and new rows


def _column(out: Path, part: str, name: str) -> set[str]:
    return {json.loads(line)[name] for line in (out / f"{part}.jsonl").read_text("utf-8").splitlines()}


def _texts(task: RetrievalTask, query: str) -> set[str]:
    return {task.corpus[passage] for passage in task.qrels[query]}


@pytest.mark.parametrize("concepts", [True, False])
def test_continued_data_keeps_the_old_test_part(tmp_path: Path, concepts: bool) -> None:
    def row(at: int, kind: str) -> dict[str, str]:
        own = {"anchor": f"{kind} anchor {at}", "positive": f"passage {at}"}
        return own | ({"concept": f"c{at}"} if concepts else {})

    (tmp_path / "old.jsonl").write_text("\n".join(json.dumps(row(at, "old")) for at in range(100)), "utf-8")
    prepare(DataConfig(source="old.jsonl", distractors=False), tmp_path, 1, tmp_path / "old")
    # New anchors for each old concept, and as many new concepts.
    (tmp_path / "new.jsonl").write_text("\n".join(json.dumps(row(at, "new")) for at in range(200)), "utf-8")
    config = DataConfig(source="new.jsonl", distractors=False)
    report = prepare(config, tmp_path, 2, tmp_path / "new", earlier=tmp_path / "old")
    assert report.rows == 300
    for part in ("train", "dev", "test"):
        assert _column(tmp_path / "old", part, "concept") <= _column(tmp_path / "new", part, "concept") or not concepts
    old_test = load_task(tmp_path / "old", "test")
    kept = load_task(tmp_path / "new", "old_test")
    assert kept.queries == old_test.queries
    assert {query: _texts(kept, query) for query in kept.queries} == {
        query: _texts(old_test, query) for query in old_test.queries
    }
    assert set(old_test.corpus.values()) <= set(kept.corpus.values())  # among the new passages, too
    grown = load_task(tmp_path / "new", "test")
    assert set(old_test.queries.values()) < set(grown.queries.values())
    passages = _column(tmp_path / "old", "test", "positive")
    assert passages
    for part in ("train", "dev"):
        assert passages.isdisjoint(_column(tmp_path / "new", part, "positive"))
    assert any("new" in text for text in load_task(tmp_path / "new", "train").queries.values())


def test_an_earlier_run_whose_parts_share_passages_is_continued_as_it_was(tmp_path: Path) -> None:
    rows = [{"anchor": f"q{at}", "positive": f"p{at % 20}"} for at in range(200)]
    (tmp_path / "old.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    prepare(DataConfig.model_validate({"source": "old.jsonl", "split": {"by": "query"}}), tmp_path, 1, tmp_path / "old")
    (tmp_path / "new.jsonl").write_text(json.dumps({"anchor": "new", "positive": "apart"}), "utf-8")
    report = prepare(DataConfig(source="new.jsonl"), tmp_path, 1, tmp_path / "new", earlier=tmp_path / "old")
    for part in PARTS:
        lines = (tmp_path / "new" / f"{part}.jsonl").read_text("utf-8").splitlines()
        old = [json.loads(line) for line in (tmp_path / "old" / f"{part}.jsonl").read_text("utf-8").splitlines()]
        assert {row["anchor"] for row in old} <= {json.loads(line)["anchor"] for line in lines}
    assert (report.shared, report.unseen) == ("keep", "questions")


def test_split_refuses_shares_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        Split(test=1.0)
