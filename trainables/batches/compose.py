"""Fill batches of given sizes from an order of rows so that no two rows of a batch conflict."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from evaluation.errors import InputError
from evaluation.task import fold

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class RowKeys:
    """What rows conflict over. Keys are whole numbers; those of concepts and of texts are distinct.

    Attributes:
        concepts: (N,) concept of each row, 0..C-1.
        passages: (N,) which distinct passage each row has, in order of first appearance.
        own: for each row the keys of its concept, its anchor and its passage.
        avoid: for each row the keys of its negatives: their texts and the concepts that they are passages of.
            Two rows conflict when one's own keys meet the other's own or avoided keys.
    """

    concepts: IntArray
    passages: IntArray
    own: Sequence[tuple[int, ...]]
    avoid: Sequence[tuple[int, ...]]


def row_keys(pairs: Dataset) -> RowKeys:
    """Keys of training rows with columns anchor, positive, concept and perhaps negative_1, negative_2, ..."""
    concept_ids: dict[str, int] = {}
    concepts = [concept_ids.setdefault(concept, len(concept_ids)) for concept in pairs["concept"]]
    passage_ids: dict[str, int] = {}
    positives = list(pairs["positive"])
    passages = [passage_ids.setdefault(text, len(passage_ids)) for text in positives]
    text_ids: dict[str, int] = {}

    def text(value: str) -> int:
        return len(concept_ids) + text_ids.setdefault(fold(value).casefold(), len(text_ids))

    own = [
        (concept, text(anchor), text(positive))
        for concept, anchor, positive in zip(concepts, pairs["anchor"], positives, strict=True)
    ]
    answers: dict[int, set[int]] = {}  # passage text -> concepts
    for concept, _, positive in own:
        answers.setdefault(positive, set()).add(concept)
    avoid: list[tuple[int, ...]] = [()] * len(own)
    columns = [pairs[name] for name in pairs.column_names if name.startswith("negative_")]
    for row, negatives in enumerate(zip(*columns, strict=True)) if columns else ():
        texts = {text(negative) for negative in negatives}
        avoid[row] = (*texts, *{concept for key in texts for concept in answers.get(key, ())})
    return RowKeys(np.array(concepts, dtype=np.int64), np.array(passages, dtype=np.int64), own, avoid)


def batch_sizes(keys: RowKeys, size: int, full_only: bool) -> list[int]:
    """Sizes of an epoch's batches: as many as rows of distinct concepts can fill.

    Args:
        size: rows of a full batch; where there are fewer concepts, a batch holds one row of each.
        full_only: no batch is smaller than `size`; else sizes are even, and the smallest may be a row short or more.

    Raises:
        InputError: fewer than two concepts, or, where full_only, fewer than `size`.
    """
    counts_C = np.bincount(keys.concepts)
    if len(counts_C) < 2 or (full_only and len(counts_C) < size):
        raise InputError(
            f"batch_size: a batch of {size if full_only else 2} needs as many concepts, "
            f"the training part has {len(counts_C)}"
        )
    size = min(size, len(counts_C))

    def rows(batches: int) -> int:
        return int(np.minimum(counts_C, batches).sum())

    low, high = 1, math.ceil(len(keys.concepts) / size)
    while low < high:  # rows(n) is concave, so the numbers of batches that can be filled are 1..n
        middle = (low + high + 1) // 2
        enough = rows(middle) >= middle * size if full_only else rows(middle) > (middle - 1) * size
        low, high = (middle, high) if enough else (low, middle - 1)
    if full_only:
        return [size] * low
    share, more = divmod(rows(low), low)
    return [share + 1] * more + [share] * (low - more)


def capped(keys: RowKeys, limit: int, rng: np.random.Generator) -> IntArray:
    """Row numbers with at most `limit` rows of each concept, drawn at random."""
    order = rng.permutation(len(keys.concepts))
    return order[_rank_in_concept(keys.concepts[order]) < limit]


def _rank_in_concept(concepts_N: IntArray) -> IntArray:
    """How many rows of the same concept come before each row."""
    by_concept = np.argsort(concepts_N, kind="stable")
    ordered = concepts_N[by_concept]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    rank = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    result = np.empty(len(ordered), dtype=np.int64)
    result[by_concept] = rank
    return result


def spread_order(keys: RowKeys, rows: IntArray, rng: np.random.Generator) -> IntArray:
    """Rows in random order, those of one concept evenly spaced over the epoch, so that they rarely meet."""
    rows = rng.permutation(rows)
    concepts = keys.concepts[rows]
    counts_C = np.bincount(concepts, minlength=len(keys.concepts))
    phase_C = rng.random(len(counts_C))
    position = (_rank_in_concept(concepts) + phase_C[concepts]) / counts_C[concepts]
    return rows[np.argsort(position, kind="stable")]


class _Batch:
    """Rows of one batch and the keys they hold."""

    def __init__(self, keys: RowKeys, rows: Sequence[int] = ()) -> None:
        self._keys = keys
        self.rows: list[int] = []
        self._own: set[int] = set()
        self._avoid: set[int] = set()
        for row in rows:
            self.add(row)

    def fits(self, row: int) -> bool:
        own, avoid = self._keys.own[row], self._keys.avoid[row]
        return self._own.isdisjoint(own) and self._avoid.isdisjoint(own) and self._own.isdisjoint(avoid)

    def add(self, row: int) -> None:
        self.rows.append(row)
        self._own.update(self._keys.own[row])
        self._avoid.update(self._keys.avoid[row])

    def without(self, row: int) -> _Batch:
        return _Batch(self._keys, [other for other in self.rows if other != row])


def compose(
    order: IntArray, sizes: Sequence[int], keys: RowKeys, rng: np.random.Generator, *, full: bool = False
) -> list[list[int]]:
    """Batches of row numbers, neighbours in `order` together: a row that conflicts waits for the next batch.

    Rows that no later batch could take are exchanged with rows of earlier ones. While conflicts are over concepts
    alone, and no concept has more rows than there are batches, that always works: an earlier batch without the row's
    concept has a row whose concept the short batch lacks.

    Args:
        full: fill a batch that stays short with rows that other batches have too, so that each has its size.

    Raises:
        InputError: full, and no row fits a short batch.
    """
    rows = iter(order.tolist())
    waiting: dict[int, deque[int]] = {}  # by concept: if its first row does not fit, the others do not either
    batches: list[_Batch] = []
    for size in sizes:
        batch = _Batch(keys)
        for concept in list(waiting):
            if len(batch.rows) == size:
                break
            if batch.fits(waiting[concept][0]):
                batch.add(waiting[concept].popleft())
                if not waiting[concept]:
                    del waiting[concept]
        while len(batch.rows) < size and (row := next(rows, None)) is not None:
            if batch.fits(row):
                batch.add(row)
            else:
                waiting.setdefault(keys.own[row][0], deque()).append(row)
        batches.append(batch)
    left = [row for concept in waiting.values() for row in concept]
    _exchange(left, batches, sizes, rng)
    if full:
        for batch, size in zip(batches, sizes, strict=True):
            _fill(batch, size, rng.permutation(order).tolist() if len(batch.rows) < size else [])
    return [batch.rows for batch in batches]


def _fill(batch: _Batch, size: int, rows: Sequence[int]) -> None:
    for row in rows:
        if len(batch.rows) == size:
            return
        if batch.fits(row):
            batch.add(row)
    if len(batch.rows) < size:
        raise InputError(
            f"batch_size: no {size} training rows are free of shared concepts and texts, take a smaller one"
        )


def _exchange(left: list[int], batches: list[_Batch], sizes: Sequence[int], rng: np.random.Generator) -> None:
    for row in left:
        short = [at for at, batch in enumerate(batches) if len(batch.rows) < sizes[at]]
        if not short:
            return
        fitting = next((at for at in short if batches[at].fits(row)), None)
        if fitting is not None:
            batches[fitting].add(row)
            continue
        swap = _swap(row, short[0], batches, rng)
        if swap is not None:
            giver, given = swap
            batches[short[0]].add(given)
            batches[giver] = batches[giver].without(given)
            batches[giver].add(row)


def _swap(row: int, short: int, batches: list[_Batch], rng: np.random.Generator) -> tuple[int, int] | None:
    """A batch that can take `row` in exchange for one of its rows, which the short batch can take."""
    for giver in rng.permutation(len(batches)).tolist():
        if giver == short or not batches[giver].fits(row):
            continue
        for given in batches[giver].rows:
            if batches[short].fits(given):
                return giver, given
    return None
