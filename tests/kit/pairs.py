"""Training pairs, their batches, and the promise that every batch keeps."""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from evaluation.task import fold
from trainables.batches.compose import row_keys
from trainables.batches.sampler import ConceptBatchSampler
from trainables.config import BatchStrategy, TrialConfig

PROMISING: tuple[BatchStrategy, ...] = ("in_batch", "clustered", "mined", "mixed")

ALL: tuple[BatchStrategy, ...] = (*PROMISING, "sorted")


def pairs_of(rows: list[tuple[int, int, int]], negatives: list[int] | None = None) -> Dataset:
    """Rows of (concept, anchor, passage) numbers as training pairs."""
    columns = {
        "anchor": [f"anchor {anchor}" for _, anchor, _ in rows],
        "positive": [f"passage {passage}" for _, _, passage in rows],
        "concept": [str(concept) for concept, _, _ in rows],
    }
    if negatives is not None:
        columns["negative_1"] = [f"passage {passage}" for passage in negatives]
    return Dataset.from_dict(columns)


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def sampler_of(pairs: Dataset, strategy: BatchStrategy, size: int, seed: int = 0) -> ConceptBatchSampler:
    config = TrialConfig(base="none", batches=strategy, batch_size=size, seed=seed)
    embeddings = vectors(len(set(pairs["positive"])))
    return ConceptBatchSampler(
        pairs, config, row_keys(pairs), list(pairs["concept"]), list(pairs["anchor"]), lambda _: embeddings
    )


def check_batch(pairs: Dataset, batch: list[int]) -> None:
    """The promise, said in plain Python: no shared concept, no text twice, no negative that answers another row."""
    rows = [pairs[row] for row in batch]
    assert len({row["concept"] for row in rows}) == len(rows)
    texts = [text for row in rows for text in {fold(row["anchor"]).casefold(), fold(row["positive"]).casefold()}]
    assert len(set(texts)) == len(texts)
    if "negative_1" in pairs.column_names:
        answers: dict[str, set[str]] = {}
        for row in pairs:
            answers.setdefault(row["positive"], set()).add(row["concept"])
        for at, row in enumerate(rows):
            for other, met in enumerate(rows):
                if other != at:
                    assert row["negative_1"] not in (met["anchor"], met["positive"])
                    assert met["concept"] not in answers.get(row["negative_1"], set())
