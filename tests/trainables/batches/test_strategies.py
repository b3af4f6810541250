"""What each batch strategy does that the others do not."""

from __future__ import annotations

from collections import Counter

import numpy as np
from datasets import Dataset

from tests.kit.pairs import pairs_of, sampler_of
from trainables.batches.compose import row_keys
from trainables.batches.sampler import ConceptBatchSampler
from trainables.config import TrialConfig


def test_sorted_is_the_notebooks_order() -> None:
    pairs = pairs_of([(10, 0, 0), (2, 1, 1), (2, 2, 2), (10, 0, 3), (1, 3, 4)])
    assert list(sampler_of(pairs, "sorted", 2)) == [[4, 1], [2, 0]]  # the second row of anchor 0 is left out
    names = Dataset.from_dict({"anchor": ["a", "b"], "positive": ["p", "q"], "concept": ["b", "a"]})
    assert list(sampler_of(names, "sorted", 2)) == [[1, 0]]


def test_large_concept_shows_as_many_rows_as_there_are_batches() -> None:
    pairs = pairs_of([(0, row, row) for row in range(90)] + [(row, row, row) for row in range(90, 120)])
    sampler = sampler_of(pairs, "in_batch", 10)
    seen = []
    for epoch in range(40):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 4  # 30 rows and 4 of the large concept: 34 rows in batches of 8 or 9
        seen += [row for batch in batches for row in batch if row < 90]
    assert len(set(seen)) > 60  # drawn anew each epoch


def test_clustered_batches_hold_near_concepts() -> None:
    """Eight far blobs of eight concepts: each batch of eight should be one blob; shuffled ones hold about one."""
    rng = np.random.default_rng(0)
    blobs = np.eye(8, dtype=np.float32).repeat(8, axis=0)
    order = rng.permutation(64)
    embeddings = (blobs + rng.normal(0, 0.02, blobs.shape).astype(np.float32))[order]
    pairs = pairs_of([(row, row, row) for row in range(64)])
    purity = {}
    for strategy in ("clustered", "in_batch", "mixed"):
        config = TrialConfig(base="none", batches=strategy, batch_size=8, mixed_share=0.5)
        sampler = ConceptBatchSampler(
            pairs, config, row_keys(pairs), list(pairs["concept"]), list(pairs["anchor"]), lambda _: embeddings
        )
        largest = [max(Counter(order[row] // 8 for row in batch).values()) / len(batch) for batch in sampler]
        purity[strategy] = np.mean(largest)
    assert purity["clustered"] > 0.85
    assert purity["in_batch"] < 0.45
    assert purity["in_batch"] < purity["mixed"] < purity["clustered"]
