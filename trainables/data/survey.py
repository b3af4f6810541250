"""One pass over the source that keeps numbers, not texts: what each row is, and the part it goes to.

A row takes about 80 bytes here, so a million rows are surveyed in little memory; texts are read again when they are
written out or shown.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from evaluation.task import fold
from trainables.data.config import DataConfig
from trainables.data.pairs import read_pairs
from trainables.data.rows import PARTS, BadRow, DroppedRow, Pair, PairReader
from trainables.data.splits import (
    DEV,
    LEFT_OUT,
    TEST,
    TRAIN,
    UNDECIDED,
    IntArray,
    assign,
    begins_group,
    components,
    draw,
    leave_out_questions,
    leave_out_shared,
    shares_text,
    text_hash,
    two_sides,
)

# Why a pair is left out.
KEPT, DUPLICATE, TWO_SIDES, SHARED_TEXT, SHARED_QUESTION, TRAINED_ON, LOW_GRADE = range(7)
Unseen = Literal["concepts", "questions"]
SHOWN = 3
NO_KIND = -1
Hashes = NDArray[np.uint64]


def matched(text: str) -> int:
    """Hash of a text as texts are matched: white space and case folded."""
    return text_hash(fold(text).casefold())


@dataclass
class Tally:
    """How many rows, and for the first of them the place (file:line) and what to show of them."""

    count: int = 0
    places: list[tuple[str, str]] = field(default_factory=list)
    parts: Counter[str] = field(default_factory=Counter)  # of rows whose part is known

    def add(self, row: BadRow | DroppedRow, text: str) -> None:
        self.count += 1
        if isinstance(row, DroppedRow) and row.part:
            self.parts[row.part] += 1
        if len(self.places) < SHOWN:
            self.places.append((f"{row.file}:{row.line}", text))


@dataclass
class Survey:
    """N pairs, in the order of the source.

    Attributes:
        rows: rows of the source, with those that could not be read or were dropped.
        bad: rows that cannot be read.
        dropped: rule of the spec -> rows it took.
        missing_column: what to say of a column that is needed and not there; empty if there is none.
        file_N, files: the file of each pair; line_N: its line there.
        anchors_N, positives_N: hashes of the texts as they are matched.
        groups_N: what is kept together: the concept, else rows that share a text.
            Where parts may share passages and the source names no concepts: each passage, so that a question is
            answered by its own passages and not by those of another question that shares one with it.
        group_names_N: for each pair the hash of its group's first passage.
        has_concept_N: whether the source names the row's concept.
        domains_N, domains: the domain of each pair, -1 where it has none.
        kinds_N: 1 definition, 0 another kind, NO_KIND where the row has none.
        negative_rows_M, negatives_M: the pair of each explicit negative, and the hash of its text.
        false_negatives_M: whether the negative is a passage of the pair's own group or question.
        held_out_negatives_M: whether the negative of a training pair is a text of dev or test that no training pair
            holds.
        anchor_chars_N, positive_chars_N: lengths in characters.
        given_N: the part that the source, or the earlier run, says; UNDECIDED where neither does.
        parts_N: TRAIN, DEV, TEST or LEFT_OUT; reasons_N: why it is left out.
        meant_N: the part before anything was left out; LEFT_OUT for duplicates of another pair.
        named: parts that the source names.
        kept: parts that may share passages and concepts with one another; empty: none may.
        unseen: what of the test part is neither in training nor in dev: its concepts with all their texts, or its
            questions alone.
    """

    rows: int
    bad: Tally
    dropped: dict[str, Tally]
    missing_column: str
    file_N: IntArray
    files: list[str]
    line_N: IntArray
    anchors_N: Hashes
    positives_N: Hashes
    groups_N: IntArray
    group_names_N: Hashes
    has_concept_N: NDArray[np.bool_]
    domains_N: IntArray
    domains: list[str]
    kinds_N: NDArray[np.int8]
    negative_rows_M: IntArray
    negatives_M: Hashes
    false_negatives_M: NDArray[np.bool_]
    held_out_negatives_M: NDArray[np.bool_]
    anchor_chars_N: IntArray
    positive_chars_N: IntArray
    given_N: NDArray[np.int8]
    parts_N: NDArray[np.int8]
    reasons_N: NDArray[np.int8]
    meant_N: NDArray[np.int8]
    named: frozenset[int]
    kept: frozenset[int]
    unseen: Unseen

    def place(self, pair: int) -> str:
        """file:line of a pair."""
        return f"{self.files[self.file_N[pair]]}:{self.line_N[pair]}"

    @property
    def dropped_negatives(self) -> NDArray[np.bool_]:
        """(M,) Whether each negative is taken out of its row."""
        return self.false_negatives_M | self.held_out_negatives_M


def survey_source(
    config: DataConfig,
    folder: Path,
    seed: int,
    earlier: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Survey:
    """Read the source once and decide the part of each pair.

    Args:
        folder: where relative paths start.
        seed: of the split.
        earlier: an earlier run's data folder, whose rows are read first and keep their parts.
        progress: called with the number of rows read so far.

    Raises:
        InputError: the source is missing or cannot be read any further.
    """
    reader = PairReader(config)
    columns = _Columns(seed, by_query=config.split.by == "query")
    bad, dropped, rows = Tally(), dict[str, Tally](), 0
    for pair in read_pairs(config, folder, earlier, reader):
        rows += 1
        if isinstance(pair, BadRow):
            bad.add(pair, pair.problem)
        elif isinstance(pair, DroppedRow):
            dropped.setdefault(pair.rule, Tally()).add(pair, pair.text)
        else:
            columns.add(pair)
        if progress is not None and rows % 1000 == 0:
            progress(rows)
    return columns.decided(config, rows, bad, dropped, reader.missing_column())


class _Columns:
    """Grows while the source is read."""

    def __init__(self, seed: int, by_query: bool) -> None:
        self._seed, self._by_query = seed, by_query
        self._files: dict[str, int] = {}
        self._domains: dict[str, int] = {}
        self.line = array("q")
        self._file, self._domain = array("i"), array("i")
        self._anchor, self._positive, self._row, self._concept = array("Q"), array("Q"), array("Q"), array("Q")
        self._test_draw, self._dev_draw = array("d"), array("d")
        self._given, self._pinned, self._kind = array("b"), array("b"), array("b")
        self._has_concept = array("b")
        self._grade = array("q")
        self._anchor_chars, self._positive_chars = array("i"), array("i")
        self._negative_row, self._negative = array("q"), array("Q")

    def add(self, pair: Pair) -> None:
        passage = fold(pair.positive).casefold()
        key = f"concept:{pair.concept}" if pair.concept is not None else f"passage:{passage}"
        self._negative_row.extend([len(self.line)] * len(pair.negatives))
        self._negative.extend(matched(negative) for negative in pair.negatives)
        self._file.append(self._files.setdefault(pair.file, len(self._files)))
        self.line.append(pair.line)
        self._anchor.append(matched(pair.anchor))
        self._positive.append(text_hash(passage))
        self._row.append(text_hash(f"{fold(pair.anchor)}\0{fold(pair.positive)}\0{pair.concept}"))
        self._concept.append(text_hash(key))
        self._has_concept.append(pair.concept is not None)
        drawn = f"question:{fold(pair.anchor).casefold()}" if self._by_query else key
        self._test_draw.append(draw(self._seed, "test", drawn))
        self._dev_draw.append(draw(self._seed, "dev", drawn))
        domain = -1 if pair.domain is None else self._domains.setdefault(pair.domain, len(self._domains))
        self._domain.append(domain)
        self._given.append(PARTS.index(pair.part) if pair.part else UNDECIDED)
        self._pinned.append(pair.pinned)
        self._grade.append(pair.grade)
        self._kind.append(NO_KIND if pair.kind is None else pair.kind == "definition")
        self._anchor_chars.append(len(pair.anchor))
        self._positive_chars.append(len(pair.positive))

    def decided(
        self, config: DataConfig, rows: int, bad: Tally, dropped: dict[str, Tally], missing_column: str
    ) -> Survey:
        anchors_N, positives_N = _array(self._anchor, np.uint64), _array(self._positive, np.uint64)
        has_concept_N = _array(self._has_concept, np.bool_)
        given_N, pinned_N = _array(self._given, np.int8), _array(self._pinned, np.bool_)
        grades_N = _array(self._grade, np.int64)
        reasons_N = np.zeros(len(given_N), dtype=np.int8)
        if config.drop.duplicates:
            reasons_N[_repeats(_array(self._row, np.uint64), given_N, grades_N)] = DUPLICATE
        first = reasons_N == KEPT
        test_draws_N, dev_draws_N = _array(self._test_draw, np.float64), _array(self._dev_draw, np.float64)
        linked = not has_concept_N.any()
        if self._by_query:
            cut_N = _numbered(anchors_N)
        elif linked:
            cut_N = components(anchors_N, positives_N)
            joins = np.flatnonzero(first)[~begins_group(anchors_N[first], positives_N[first])]
            test_draws_N[joins] = dev_draws_N[joins] = 1
        else:
            cut_N = _numbered(_array(self._concept, np.uint64))
        domains_N = _array(self._domain, np.int64)
        named = frozenset(given_N[~pinned_N].tolist()) - {UNDECIDED}
        named |= {PARTS.index(part) for tally in dropped.values() for part in tally.parts}
        kept = _kept(config, named, given_N, pinned_N, anchors_N, positives_N)
        if linked:
            groups_N = _numbered(positives_N) if kept else cut_N
        else:
            groups_N = _numbered(_array(self._concept, np.uint64))
        meant_N = np.full(len(given_N), LEFT_OUT, dtype=np.int8)
        meant_N[first] = assign(
            cut_N[first],
            test_draws_N[first],
            dev_draws_N[first],
            domains_N[first],
            given_N[first],
            pinned_N[first],
            named,
            config.split.dev,
            config.split.test,
        )
        parts_N = meant_N.copy()

        def leave_out(left_N: NDArray[np.bool_], reason: int) -> None:
            reasons_N[left_N & (parts_N != LEFT_OUT)] = reason
            parts_N[left_N] = LEFT_OUT

        if kept:
            leave_out(leave_out_questions(parts_N, anchors_N, positives_N) == LEFT_OUT, SHARED_QUESTION)
        leave_out(two_sides(parts_N, cut_N, kept), TWO_SIDES)
        # What the earlier run trained on, its model has seen: it cannot judge the new rows of dev and test.
        seen_N = pinned_N & (given_N == TRAIN)
        asked_N, shared_N = np.isin(anchors_N, anchors_N[seen_N]), shares_text(anchors_N, positives_N, seen_N)
        for part in (DEV, TEST):
            leave_out(~pinned_N & (parts_N == part) & (asked_N if part in kept else shared_N), TRAINED_ON)
        leave_out(leave_out_shared(parts_N, anchors_N, positives_N, kept) == LEFT_OUT, SHARED_TEXT)
        leave_out((parts_N == TRAIN) & (grades_N < config.min_grade), LOW_GRADE)
        negative_rows_M, negatives_M = _array(self._negative_row, np.int64), _array(self._negative, np.uint64)
        own_M = (_answers(n, positives_N, n[negative_rows_M], negatives_M) for n in (groups_N, _numbered(anchors_N)))
        trained_M = parts_N[negative_rows_M] == TRAIN
        held_out_M = np.isin(negatives_M, _held_out(parts_N, anchors_N, positives_N))
        return Survey(
            rows=rows,
            bad=bad,
            dropped=dropped,
            missing_column=missing_column,
            file_N=_array(self._file, np.int64),
            files=list(self._files),
            line_N=_array(self.line, np.int64),
            anchors_N=anchors_N,
            positives_N=positives_N,
            groups_N=groups_N,
            group_names_N=_group_names(groups_N, positives_N),
            has_concept_N=has_concept_N,
            domains_N=domains_N,
            domains=list(self._domains),
            kinds_N=_array(self._kind, np.int8),
            negative_rows_M=negative_rows_M,
            negatives_M=negatives_M,
            false_negatives_M=np.logical_or(*own_M),
            held_out_negatives_M=trained_M & held_out_M,
            anchor_chars_N=_array(self._anchor_chars, np.int64),
            positive_chars_N=_array(self._positive_chars, np.int64),
            given_N=given_N,
            parts_N=parts_N,
            reasons_N=reasons_N,
            meant_N=meant_N,
            named=named,
            kept=kept,
            unseen=_unseen(parts_N, groups_N, anchors_N, positives_N),
        )


def _kept(
    config: DataConfig,
    named: frozenset[int],
    given_N: NDArray[np.int8],
    pinned_N: NDArray[np.bool_],
    anchors_N: Hashes,
    positives_N: Hashes,
) -> frozenset[int]:
    """The parts that may share passages and concepts: what the spec says, else those that the source names."""
    if config.shared == "keep" or config.split.by == "query":
        return frozenset((TRAIN, DEV, TEST))
    if config.shared == "leave_out":
        return frozenset()
    if not named and not pinned_N.any():
        return frozenset()
    earlier_N = np.where(pinned_N, given_N, LEFT_OUT).astype(np.int8)
    if (leave_out_shared(earlier_N, anchors_N, positives_N) != earlier_N).any():
        return frozenset((TRAIN, DEV, TEST))  # the earlier run kept what its parts share, and they stay as they are
    held_out = named - {TRAIN}
    return held_out | {TRAIN} if held_out else frozenset()


def _held_out(parts_N: NDArray[np.int8], anchors_N: Hashes, positives_N: Hashes) -> NDArray[np.uint64]:
    """Texts of dev and test that no training pair holds."""
    later_N = parts_N > TRAIN
    return np.setdiff1d(np.concatenate([anchors_N[later_N], positives_N[later_N]]), positives_N[parts_N == TRAIN])


def _unseen(parts_N: NDArray[np.int8], groups_N: IntArray, anchors_N: Hashes, positives_N: Hashes) -> Unseen:
    test_N, seen_N = parts_N == TEST, (parts_N == TRAIN) | (parts_N == DEV)
    common_N = np.isin(groups_N, groups_N[test_N]) | shares_text(anchors_N, positives_N, test_N)
    return "questions" if (common_N & seen_N).any() else "concepts"


def _numbered(keys_N: Hashes) -> IntArray:
    return np.unique(keys_N, return_inverse=True)[1].astype(np.int64)


def _group_names(groups_N: IntArray, positives_N: Hashes) -> Hashes:
    _, first, inverse = np.unique(groups_N, return_index=True, return_inverse=True)
    return positives_N[first][inverse]


def _array(values: array[Any], dtype: DTypeLike) -> NDArray[Any]:
    return np.array(values).astype(dtype)


def _repeats(rows_N: Hashes, given_N: NDArray[np.int8], grades_N: IntArray) -> NDArray[np.bool_]:
    """Whether another row has the same texts and concept and goes before: by given part, grade, then place."""
    repeats_N = np.ones(len(rows_N), dtype=bool)
    order = np.lexsort((-grades_N, -given_N))  # stable
    repeats_N[order[np.unique(rows_N[order], return_index=True)[1]]] = False
    return repeats_N


def _answers(groups_N: IntArray, positives_N: Hashes, groups_M: IntArray, texts_M: Hashes) -> NDArray[np.bool_]:
    """Whether each text is a passage of its group."""
    spread = np.uint64(0x9E3779B97F4A7C15)  # odd, so distinct groups give distinct products
    pairs_N = positives_N ^ (groups_N.astype(np.uint64) * spread)
    return np.isin(texts_M ^ (groups_M.astype(np.uint64) * spread), pairs_N)
