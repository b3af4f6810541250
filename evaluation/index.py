"""Exact search by inner product, through FAISS, with ties in a stated order."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from evaluation.errors import InputError

SPARE = 16  # candidates beyond k: ties at the k-th place are nearly always among them
ROUNDING = 1e-5  # more than float32 sums of the same numbers in another order differ by, relative to scores of size 1
BLOCK = 1 << 24  # numbers gathered at once: 64 MiB


def top_k(
    queries_QD: NDArray[np.float32], corpus_CD: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k passages of highest inner product for each query, best first.

    Equal scores go to the passage that comes first in the corpus. FAISS finds the candidates, in blocks of queries and
    passages, so memory does not grow with Q x C and `corpus_CD` may be a memory map. Its matrix product sums in an
    order that depends on where a passage stands in a block, so equal passages may get scores that differ in the last
    digit; the candidates are therefore scored anew, each pair in the same way, before they are ordered.

    Args:
        queries_QD: float32.
        corpus_CD: float32, C >= 1.
        k: >= 1; where the corpus is smaller, the whole corpus is ranked.

    Returns:
        scores (Q, min(k, C)) float32 and positions in the corpus (Q, min(k, C)) int64.

    Raises:
        InputError: empty corpus, k below 1, different dimensions.
    """
    if len(corpus_CD) == 0:
        raise InputError("the corpus is empty, expected at least one passage to search")
    if k < 1:
        raise InputError(f"k is {k}, expected 1 or more")
    if queries_QD.shape[1] != corpus_CD.shape[1]:
        raise InputError(
            f"queries have {queries_QD.shape[1]} dimensions and passages {corpus_CD.shape[1]}, expected the same"
        )
    queries_QD = np.ascontiguousarray(queries_QD, dtype=np.float32)
    corpus_CD = np.ascontiguousarray(corpus_CD, dtype=np.float32)
    k = min(k, len(corpus_CD))
    wanted = min(k + SPARE, len(corpus_CD))
    found_QW, ids_QW = faiss.knn(queries_QD, corpus_CD, wanted, metric=faiss.METRIC_INNER_PRODUCT)
    scores_QK, ids_QK = _ordered(queries_QD, corpus_CD, ids_QW, k)
    if wanted < len(corpus_CD):
        # Where even the last candidate is as good as the k-th, FAISS may have left out others that are as good.
        nearest_Q = ROUNDING * np.maximum(1, np.abs(found_QW[:, 0]))
        for query in np.flatnonzero(scores_QK[:, -1] - found_QW[:, -1] <= nearest_Q):
            scores_C = corpus_CD @ queries_QD[query]
            close = np.flatnonzero(scores_C >= scores_QK[query, -1] - nearest_Q[query])
            one = slice(query, query + 1)
            scores_QK[one], ids_QK[one] = _ordered(queries_QD[one], corpus_CD, close[None, :], k)
    return scores_QK, ids_QK


def _ordered(
    queries_QD: NDArray[np.float32], corpus_CD: NDArray[np.float32], ids_QW: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of each query's candidates, equal scores by position: (Q, k) scores and positions."""
    scores_QK = np.empty((len(ids_QW), k), dtype=np.float32)
    ids_QK = np.empty((len(ids_QW), k), dtype=np.int64)
    step = max(1, BLOCK // (ids_QW.shape[1] * corpus_CD.shape[1]))
    for start in range(0, len(ids_QW), step):
        rows = slice(start, start + step)
        ids = np.sort(ids_QW[rows], axis=1)  # by position, which the stable sort below keeps among equals
        scores = np.einsum("qwd,qd->qw", corpus_CD[ids], queries_QD[rows])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores_QK[rows] = np.take_along_axis(scores, best, axis=1)
        ids_QK[rows] = np.take_along_axis(ids, best, axis=1)
    return scores_QK, ids_QK
