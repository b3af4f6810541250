"""Retrieval metrics at k: one value for each query first, the mean last.

Definitions are trec_eval's: nDCG takes the grade itself as the gain and log2(rank + 1) as the discount, its ideal
ranking holds every judged passage; average precision and recall divide by all relevant passages of the query, not by k.
Ties never reach this module: evaluation/index.py has put them in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import InputError

DEFAULT_METRICS = ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10", "map@10")


@dataclass(frozen=True)
class Judgements:
    """The qrels as arrays, in the order of the queries and of the corpus.

    Attributes:
        keys_J: int64, query position x corpus size + passage position of each relevant judgement, ascending.
        grades_J: int64, their grades, >= 1.
        relevant_Q: int64, the number of relevant passages of each query.
        ideal_QG: float64, each query's grades in descending order, filled up with 0.
        corpus_size: C.
    """

    keys_J: NDArray[np.int64]
    grades_J: NDArray[np.int64]
    relevant_Q: NDArray[np.int64]
    ideal_QG: NDArray[np.float64]
    corpus_size: int

    @classmethod
    def of(
        cls, qrels: Mapping[str, Mapping[str, int]], query_ids: Sequence[str], corpus_ids: Sequence[str]
    ) -> Judgements:
        """The judgements of the queries; grades below 1 mean not relevant and are dropped."""
        position = {passage: index for index, passage in enumerate(corpus_ids)}
        rows = [
            (query, position[passage], grade)
            for query, query_id in enumerate(query_ids)
            for passage, grade in qrels[query_id].items()
            if grade > 0
        ]
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        keys = table[:, 0] * len(position) + table[:, 1]
        order = np.argsort(keys)
        relevant = np.bincount(table[:, 0], minlength=len(query_ids)).astype(np.int64)
        best_first = np.lexsort((-table[:, 2], table[:, 0]))
        starts = np.cumsum(relevant) - relevant
        place = np.arange(len(table)) - np.repeat(starts, relevant)  # of each grade within its query
        ideal = np.zeros((len(query_ids), int(relevant.max(initial=0))))
        ideal[table[best_first, 0], place] = table[best_first, 2]
        return cls(keys[order], table[order, 2], relevant, ideal, len(position))

    def gains(self, ranking_QK: NDArray[np.int64]) -> NDArray[np.float64]:
        """The grade of each retrieved passage, 0 where it is not relevant: (Q, K) float64."""
        if len(self.keys_J) == 0:
            return np.zeros(ranking_QK.shape)
        wanted = np.arange(len(ranking_QK))[:, None] * self.corpus_size + ranking_QK
        found = np.minimum(np.searchsorted(self.keys_J, wanted), len(self.keys_J) - 1)
        return np.where(self.keys_J[found] == wanted, self.grades_J[found], 0).astype(np.float64)


def recall(
    gains_QK: NDArray[np.float64], relevant_Q: NDArray[np.int64], ideal_QG: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """Share of the relevant passages that stand in the first k."""
    return (gains_QK[:, :k] > 0).sum(axis=1) / np.maximum(relevant_Q, 1)


def precision(
    gains_QK: NDArray[np.float64], relevant_Q: NDArray[np.int64], ideal_QG: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """Share of the first k places that hold a relevant passage; places beyond a small corpus count as wrong."""
    return np.asarray((gains_QK[:, :k] > 0).sum(axis=1) / k)


def success(
    gains_QK: NDArray[np.float64], relevant_Q: NDArray[np.int64], ideal_QG: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """1 where a relevant passage stands in the first k, else 0."""
    return (gains_QK[:, :k] > 0).any(axis=1).astype(np.float64)


def mrr(
    gains_QK: NDArray[np.float64], relevant_Q: NDArray[np.int64], ideal_QG: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """1 / rank of the first relevant passage, 0 where none stands in the first k."""
    hits = gains_QK[:, :k] > 0
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)


def average_precision(
    gains_QK: NDArray[np.float64], relevant_Q: NDArray[np.int64], ideal_QG: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """Precision at each relevant passage of the first k, summed, over the number of relevant passages."""
    hits = gains_QK[:, :k] > 0
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precisions * hits).sum(axis=1) / np.maximum(relevant_Q, 1)


def ndcg(
    gains_QK: NDArray[np.float64], relevant_Q: NDArray[np.int64], ideal_QG: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """Discounted gain of the first k over that of the ideal ranking (Järvelin and Kekäläinen 2002, linear gain).

    By hand: grades 0, 2 at ranks 1, 2 and 1 judged passage of grade 2 -> (2 / log2 3) / (2 / log2 2) = 0.6309.
    """
    discounts = 1.0 / np.log2(np.arange(2, max(gains_QK.shape[1], ideal_QG.shape[1]) + 2))
    gained = gains_QK[:, :k] @ discounts[: min(k, gains_QK.shape[1])]
    best = ideal_QG[:, :k] @ discounts[: min(k, ideal_QG.shape[1])]
    return np.divide(gained, best, out=np.zeros_like(gained), where=best > 0)


Measure = Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], int], NDArray[np.float64]]
MEASURES: dict[str, Measure] = {
    "recall": recall,
    "precision": precision,
    "success": success,
    "mrr": mrr,
    "ndcg": ndcg,
    "map": average_precision,
}


def parse_metric(name: str) -> tuple[str, int]:
    """The measure and the k of a metric's name.

    >>> parse_metric("ndcg@10")
    ('ndcg', 10)

    Raises:
        InputError: not a known measure, "@" and a whole number from 1.
    """
    match = re.fullmatch(r"([a-z]+)@([1-9][0-9]*)", name)
    if match is None or match[1] not in MEASURES:
        raise InputError(f"metric {name!r}, expected one of {', '.join(MEASURES)} and a k, such as ndcg@10")
    return match[1], int(match[2])


def depth(metrics: Sequence[str]) -> int:
    """The largest k among the metrics: how many passages must be retrieved."""
    if not metrics:
        raise InputError("no metrics, expected at least one such as ndcg@10")
    return max(parse_metric(name)[1] for name in metrics)


def score(
    ranking_QK: NDArray[np.int64], judgements: Judgements, metrics: Sequence[str] = DEFAULT_METRICS
) -> dict[str, NDArray[np.float64]]:
    """Score rankings of passage positions, best first.

    Args:
        ranking_QK: positions in the corpus; K is at least the metrics' depth, or the whole corpus.
        judgements: of the same Q queries.
        metrics: names such as recall@5.

    Returns:
        metric name -> (Q,) float64.

    Raises:
        InputError: an unknown metric, or a ranking too short for it.
    """
    if ranking_QK.shape[1] < min(depth(metrics), judgements.corpus_size):
        raise InputError(
            f"rankings hold {ranking_QK.shape[1]} passages, expected {depth(metrics)} for {', '.join(metrics)}"
        )
    gains_QK = judgements.gains(ranking_QK)
    values = {}
    for name in metrics:
        measure, k = parse_metric(name)
        values[name] = MEASURES[measure](gains_QK, judgements.relevant_Q, judgements.ideal_QG, k)
    return values
