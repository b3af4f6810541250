"""Protocols on cosines rather than on rankings: pairwise, mini-retrieval, triplets, near concepts.

All of them work on one task's embeddings (evaluation.retrieval.embed_task), so a model encodes each text once. A pair
is a query with one of its relevant passages; a negative is a passage that the qrels do not call relevant to that query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.embedding_cache import EmbeddingCache
from evaluation.embeddings import Encoder, embed
from evaluation.errors import InputError
from evaluation.index import top_k
from evaluation.retrieval import TaskEmbeddings


@dataclass(frozen=True)
class Pairwise:
    """Cosines of N pairs.

    Attributes:
        cosines_N: float32.
        mean, median, minimum, maximum: of them.
        accuracy: share of the pairs whose cosine is above that of the query with one random negative.
    """

    cosines_N: NDArray[np.float32]
    mean: float
    median: float
    minimum: float
    maximum: float
    accuracy: float


@dataclass(frozen=True)
class Separation:
    """How far positives stand from negatives.

    Attributes:
        margins_N: float32, cosine with the positive less cosine with the negative.
        margin: their mean.
        accuracy: share above 0; an equal cosine counts as wrong.
    """

    margins_N: NDArray[np.float32]
    margin: float
    accuracy: float

    @classmethod
    def of(cls, margins_N: NDArray[np.float32]) -> Separation:
        """The summary of N margins."""
        return cls(margins_N, float(margins_N.mean()), float((margins_N > 0).mean()))


def pairwise(embeddings: TaskEmbeddings, seed: int = 0) -> Pairwise:
    """Cosine of each query with its own passages, and whether each beats one random negative.

    Raises:
        InputError: a query to which the whole corpus is relevant.
    """
    query_N, passage_N = pairs(embeddings)
    cosines_N = _cosines(embeddings, query_N, passage_N)
    negatives_N1 = random_negatives(embeddings, query_N, 1, seed)
    against_N = _cosines(embeddings, query_N, negatives_N1[:, 0])
    return Pairwise(
        cosines_N=cosines_N,
        mean=float(cosines_N.mean()),
        median=float(np.median(cosines_N)),
        minimum=float(cosines_N.min()),
        maximum=float(cosines_N.max()),
        accuracy=float((cosines_N > against_N).mean()),
    )


def mini_retrieval(embeddings: TaskEmbeddings, negatives: int = 19, seed: int = 0) -> float:
    """Recall@1 among one positive and some random negatives, over the pairs; a tie with a negative counts as wrong.

    Raises:
        InputError: a corpus with fewer negatives for some query.
    """
    query_N, passage_N = pairs(embeddings)
    cosines_N = _cosines(embeddings, query_N, passage_N)
    best_N = np.full(len(query_N), -np.inf)
    for negative_N in random_negatives(embeddings, query_N, negatives, seed).T:
        best_N = np.maximum(best_N, _cosines(embeddings, query_N, negative_N))
    return float((cosines_N > best_N).mean())


def near_concepts(embeddings: TaskEmbeddings) -> Separation:
    """Each pair against the negative that this model finds nearest to the query: are near concepts told apart?

    Raises:
        InputError: a query to which the whole corpus is relevant.
    """
    query_N, passage_N = pairs(embeddings)
    judgements = embeddings.judgements()
    # The first R + 1 passages of a query with R relevant ones hold a negative; the first of those is the nearest.
    scores_QK, ids_QK = top_k(embeddings.queries_QD, embeddings.corpus_CD, int(judgements.relevant_Q.max()) + 1)
    negative_QK = judgements.gains(ids_QK) == 0
    without = np.flatnonzero(~negative_QK.any(axis=1))
    if len(without):
        raise _no_negatives(embeddings, int(without[0]), 1)
    nearest_Q = scores_QK[np.arange(len(scores_QK)), negative_QK.argmax(axis=1)]
    return Separation.of(_cosines(embeddings, query_N, passage_N) - nearest_Q[query_N])


def triplets(
    encoder: Encoder,
    anchors: Sequence[str],
    positives: Sequence[str],
    negatives: Sequence[str],
    batch_size: int = 64,
    cache: EmbeddingCache | None = None,
) -> Separation:
    """N given triplets: anchors are encoded as queries, positives and negatives as documents.

    Raises:
        InputError: no triplets, or columns of different lengths.
    """
    sizes = {"anchor": len(anchors), "positive": len(positives), "negative": len(negatives)}
    if len(set(sizes.values())) != 1 or not anchors:
        raise InputError(f"triplets with columns of lengths {sizes}, expected the same, at least 1")
    anchors_ND = embed(encoder, anchors, "query", batch_size, cache=cache)
    positives_ND = embed(encoder, positives, "document", batch_size, cache=cache)
    negatives_ND = embed(encoder, negatives, "document", batch_size, cache=cache)
    return Separation.of(np.einsum("nd,nd->n", anchors_ND, positives_ND - negatives_ND))


def pairs(embeddings: TaskEmbeddings) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the query and of the passage of each relevant judgement: two (N,) int64."""
    judgements = embeddings.judgements()
    query_N, passage_N = np.divmod(judgements.keys_J, judgements.corpus_size)
    return query_N, passage_N


def random_negatives(
    embeddings: TaskEmbeddings, query_N: NDArray[np.int64], count: int, seed: int = 0
) -> NDArray[np.int64]:
    """For each pair, `count` different passages that are not relevant to its query, uniformly: (N, count) int64.

    The same task and seed give the same negatives for every model.

    Raises:
        InputError: a corpus with fewer of them.
    """
    judgements = embeddings.judgements()
    size = judgements.corpus_size
    rng = np.random.default_rng(seed)
    # Drawn by position in the sorted ids, so the draw depends on the task alone.
    drawn = np.empty((len(query_N), count), dtype=np.int64)
    for row, query in enumerate(query_N):
        relevant = int(judgements.relevant_Q[query])
        if size - relevant < count:
            raise _no_negatives(embeddings, int(query), count)
        # At most `relevant` of these are relevant, so at least `count` are left.
        some = rng.choice(size, size=count + relevant, replace=False)
        wanted = query * size + some
        found = np.minimum(np.searchsorted(judgements.keys_J, wanted), len(judgements.keys_J) - 1)
        drawn[row] = some[judgements.keys_J[found] != wanted][:count]
    return drawn


def _cosines(
    embeddings: TaskEmbeddings, query_N: NDArray[np.int64], passage_N: NDArray[np.int64]
) -> NDArray[np.float32]:
    return np.einsum("nd,nd->n", embeddings.queries_QD[query_N], embeddings.corpus_CD[passage_N])


def _no_negatives(embeddings: TaskEmbeddings, query: int, count: int) -> InputError:
    return InputError(
        f"task {embeddings.task.name}: query {embeddings.query_ids[query]!r} has fewer than {count} passages that are "
        f"not relevant to it among {len(embeddings.corpus_ids)}, expected {count} or more"
    )
