"""An order of training rows in which near concepts are neighbours."""

from __future__ import annotations

import math

import faiss
import numpy as np
from numpy.typing import NDArray

from evaluation.embeddings import unit_rows
from trainables.batches.compose import IntArray, RowKeys

ITERATIONS = 10


def clustered_order(
    passages_PD: NDArray[np.float32], keys: RowKeys, rows: IntArray, size: int, rng: np.random.Generator
) -> IntArray:
    """`rows`, cluster by cluster; each cluster has about one batch of concepts and is followed by a near one.

    A concept stands where the mean of its passages stands. Clusters are spherical k-means (faiss), seeded anew at each
    call, so that a concept has other neighbours in the next epoch.

    Args:
        passages_PD: unit vectors of the distinct passages, in the order of keys.passages.
        rows: row numbers.
        size: rows of a batch.
    """
    concepts_CD = concept_means(passages_PD, keys)
    present = np.unique(keys.concepts[rows])
    # Beyond 4 sqrt(C) clusters k-means costs more than it finds; larger clusters then give several batches each.
    count = max(1, min(len(present) // size, math.ceil(4 * math.sqrt(len(present)))))
    if count == 1:
        return rng.permutation(rows)
    kmeans = faiss.Kmeans(
        concepts_CD.shape[1],
        count,
        niter=ITERATIONS,
        spherical=True,
        seed=int(rng.integers(2**31)),
        min_points_per_centroid=1,
    )
    kmeans.train(concepts_CD[present])
    _, nearest = kmeans.index.search(concepts_CD[present], 1)
    place_K = np.empty(count, dtype=np.int64)
    place_K[_chain(np.asarray(kmeans.centroids), int(rng.integers(count)))] = np.arange(count)
    place_C = np.zeros(len(concepts_CD), dtype=np.int64)
    place_C[present] = place_K[nearest[:, 0]]
    rows = rng.permutation(rows)
    return rows[np.argsort(place_C[keys.concepts[rows]], kind="stable")]


def concept_means(passages_PD: NDArray[np.float32], keys: RowKeys) -> NDArray[np.float32]:
    """(C, D) unit vectors: the mean of each concept's distinct passages."""
    held = np.unique(np.stack([keys.concepts, keys.passages], axis=1), axis=0)
    sums_CD = np.zeros((int(keys.concepts.max()) + 1, passages_PD.shape[1]), dtype=np.float32)
    np.add.at(sums_CD, held[:, 0], passages_PD[held[:, 1]])
    return unit_rows(sums_CD)


def _chain(centroids_KD: NDArray[np.float32], start: int) -> list[int]:
    """Every centroid once, each followed by the nearest that is left."""
    left = np.ones(len(centroids_KD), dtype=bool)
    chain = [start]
    left[start] = False
    while left.any():
        scores = np.where(left, centroids_KD @ centroids_KD[chain[-1]], -np.inf)
        chain.append(int(np.argmax(scores)))
        left[chain[-1]] = False
    return chain
