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

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

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

    keys_J: Integers
    grades_J: Integers
    relevant_Q: Integers
    ideal_QG: Floats
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

    def gains(self, ranking_QK: Integers) -> Floats:
        """The grade of each retrieved passage, 0 where it is not relevant: (Q, K) float64."""
        if len(self.keys_J) == 0:
            return np.zeros(ranking_QK.shape)
        wanted = np.arange(len(ranking_QK))[:, None] * self.corpus_size + ranking_QK
        found = np.minimum(np.searchsorted(self.keys_J, wanted), len(self.keys_J) - 1)
        return np.where(self.keys_J[found] == wanted, self.grades_J[found], 0).astype(np.float64)


def recall(gains_QK: Floats, judgements: Judgements, k: int) -> Floats:
    """Share of the relevant passages that stand in the first k."""
    return (gains_QK[:, :k] > 0).sum(axis=1) / np.maximum(judgements.relevant_Q, 1)


def precision(gains_QK: Floats, judgements: Judgements, k: int) -> Floats:
    """Share of the first k places that hold a relevant passage; places beyond a small corpus count as wrong."""
    return np.asarray((gains_QK[:, :k] > 0).sum(axis=1) / k)


def success(gains_QK: Floats, judgements: Judgements, k: int) -> Floats:
    """1 where a relevant passage stands in the first k, else 0."""
    return np.asarray((gains_QK[:, :k] > 0).any(axis=1), dtype=np.float64)


def context_precision(gains_QK: Floats, judgements: Judgements, k: int) -> Floats:
    """RAGAS's id-based context precision of the first k: the share of the retrieved ids that are in the reference.

    It is precision@k but where the corpus holds fewer than k passages: RAGAS divides by those retrieved.
    """
    return np.asarray((gains_QK[:, :k] > 0).mean(axis=1))


def mrr(gains_QK: Floats, judgements: Judgements, k: int) -> Floats:
    """1 / rank of the first relevant passage, 0 where none stands in the first k."""
    hits = gains_QK[:, :k] > 0
    ranks_Q = hits.argmax(axis=1) + 1  # 1 where there is no hit, hence the mask
    return np.asarray(hits.any(axis=1) / ranks_Q)


def average_precision(gains_QK: Floats, judgements: Judgements, k: int) -> Floats:
    """Precision at each relevant passage of the first k, summed, over the number of relevant passages."""
    hits = gains_QK[:, :k] > 0
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precisions * hits).sum(axis=1) / np.maximum(judgements.relevant_Q, 1)


def ndcg(gains_QK: Floats, judgements: Judgements, k: int) -> Floats:
    """Discounted gain of the first k over that of the ideal ranking (Järvelin and Kekäläinen 2002, linear gain).

    By hand: grades 0, 2 at ranks 1, 2 and 1 judged passage of grade 2 -> (2 / log2 3) / (2 / log2 2) = 0.6309.
    """
    gained_Q = _discounted(gains_QK[:, :k])
    best_Q = _discounted(judgements.ideal_QG[:, :k])
    return np.divide(gained_Q, best_Q, out=np.zeros_like(gained_Q), where=best_Q > 0)


def _discounted(grades_QK: Floats) -> Floats:
    return np.asarray(grades_QK @ (1 / np.log2(np.arange(2, grades_QK.shape[1] + 2))), dtype=np.float64)


Measure = Callable[[Floats, Judgements, int], Floats]
MEASURES: dict[str, Measure] = {
    "recall": recall,
    "precision": precision,
    "success": success,
    "context_precision": context_precision,
    "context_recall": recall,  # RAGAS's id-based context recall is recall@k under another name
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
    match = re.fullmatch(r"([a-z_]+)@([1-9][0-9]*)", name)
    if match is None or match[1] not in MEASURES:
        raise InputError(f"metric {name!r}, expected one of {', '.join(MEASURES)} and a k, such as ndcg@10")
    return match[1], int(match[2])


def depth(metrics: Sequence[str]) -> int:
    """The largest k among the metrics: how many passages must be retrieved."""
    if not metrics:
        raise InputError("no metrics, expected at least one such as ndcg@10")
    return max(parse_metric(name)[1] for name in metrics)


def score(ranking_QK: Integers, judgements: Judgements, metrics: Sequence[str] = DEFAULT_METRICS) -> dict[str, Floats]:
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
        values[name] = MEASURES[measure](gains_QK, judgements, k)
    return values
