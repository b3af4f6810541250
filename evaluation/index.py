"""Exact search by inner product, through FAISS, with ties in a stated order."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from evaluation.errors import InputError


def top_k(
    queries_QD: NDArray[np.float32], corpus_CD: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k passages of highest inner product for each query, best first.

    Equal scores go to the passage that comes first in the corpus. FAISS works in blocks of queries and passages, so
    memory does not grow with Q x C; `corpus_CD` may be a memory map.

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
    k = min(k, len(corpus_CD))
    spare = min(k + 16, len(corpus_CD))  # so that ties at the k-th place are nearly always all among the candidates
    scores, ids = faiss.knn(
        np.ascontiguousarray(queries_QD, dtype=np.float32),
        np.ascontiguousarray(corpus_CD, dtype=np.float32),
        spare,
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    scores_QK = np.take_along_axis(scores, order, axis=1)
    ids_QK = np.take_along_axis(ids, order, axis=1).astype(np.int64)
    if spare < len(corpus_CD):
        # Where even the last spare candidate equals the k-th, FAISS may have kept other ones of the tie than the first.
        for query in np.flatnonzero(scores_QK[:, -1] == scores[:, -1]):
            scores_QK[query], ids_QK[query] = _rank_one(corpus_CD @ queries_QD[query], k)
    return scores_QK, ids_QK


def _rank_one(scores_C: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of one query's scores, equal ones by position, without sorting them all."""
    cutoff = np.partition(scores_C, len(scores_C) - k)[len(scores_C) - k]
    above = np.flatnonzero(scores_C > cutoff)
    best = np.concatenate([above, np.flatnonzero(scores_C == cutoff)[: k - len(above)]])
    best = best[np.argsort(-scores_C[best], kind="stable")]
    return scores_C[best], best
