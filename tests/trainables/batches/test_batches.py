"""The promises of the batch strategies, checked on any rows that hypothesis thinks of."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.errors import InputError
from tests.kit.pairs import ALL, PROMISING, check_batch, pairs_of, sampler_of
from trainables.config import BatchStrategy

any_rows = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 30), st.integers(0, 30)), min_size=4, max_size=80, unique=True
).filter(lambda rows: len({concept for concept, _, _ in rows}) > 1)


@given(rows=any_rows, strategy=st.sampled_from(PROMISING), size=st.integers(2, 12), data=st.data())
@settings(max_examples=250, deadline=None)
def test_no_batch_breaks_its_promise(
    rows: list[tuple[int, int, int]], strategy: BatchStrategy, size: int, data: st.DataObject
) -> None:
    negatives = None
    if strategy == "mined":
        negatives = data.draw(st.lists(st.integers(0, 40), min_size=len(rows), max_size=len(rows)))
    pairs = pairs_of(rows, negatives)
    sampler = sampler_of(pairs, strategy, size)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(1 <= len(batch) <= size for batch in batches)
        assert max(Counter(row for batch in batches for row in batch).values()) == 1
        for batch in batches:
            check_batch(pairs, batch)


@given(
    concepts=st.lists(st.integers(0, 8), min_size=4, max_size=80).filter(lambda drawn: len(set(drawn)) > 1),
    strategy=st.sampled_from(PROMISING),
    size=st.integers(2, 12),
)
@settings(max_examples=200, deadline=None)
def test_each_row_is_seen_once_an_epoch(concepts: list[int], strategy: BatchStrategy, size: int) -> None:
    """Where texts are not shared, all rows are seen but those of a concept with more rows than there are batches."""
    pairs = pairs_of([(concept, row, row) for row, concept in enumerate(concepts)])
    sampler = sampler_of(pairs, strategy, size)
    batches = list(sampler)
    seen = Counter(concepts[row] for batch in batches for row in batch)
    assert seen == {concept: min(count, len(batches)) for concept, count in Counter(concepts).items()}
    sizes = {len(batch) for batch in batches}
    assert max(sizes) - min(sizes) <= 1


@given(rows=any_rows, strategy=st.sampled_from(ALL), seed=st.integers(0, 3), epoch=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_batches_depend_on_seed_and_epoch_alone(
    rows: list[tuple[int, int, int]], strategy: BatchStrategy, seed: int, epoch: int
) -> None:
    pairs = pairs_of(rows)
    one, other = sampler_of(pairs, strategy, 4, seed), sampler_of(pairs, strategy, 4, seed)
    list(one)  # an earlier epoch leaves no trace
    one.set_epoch(epoch)
    other.set_epoch(epoch)
    assert list(one) == list(other)


def test_epochs_and_seeds_differ() -> None:
    pairs = pairs_of([(row, row, row) for row in range(60)])
    for strategy in PROMISING:
        sampler = sampler_of(pairs, strategy, 8)
        first = list(sampler)
        sampler.set_epoch(1)
        assert list(sampler) != first
        assert list(sampler_of(pairs, strategy, 8, seed=1)) != first


def test_a_training_part_of_one_concept_is_refused() -> None:
    with pytest.raises(InputError, match="the training part has 1"):
        sampler_of(pairs_of([(0, 0, 0), (0, 1, 1)]), "in_batch", 2)
