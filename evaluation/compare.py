"""Is the difference between two models real? Paired, with whole concepts as the unit of sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evaluation.classification.metrics import F1
from evaluation.classification.resample import Resampled
from evaluation.errors import InputError
from evaluation.retrieval import Scores


@dataclass(frozen=True)
class Comparison:
    """`other` against `base` on one metric.

    Attributes:
        metric: its name.
        base, other: means over the queries.
        difference: other - base.
        low, high: 95 % interval of the difference.
        p_value: two-sided, of the hypothesis that the labels of the two models could be swapped.
        queries, groups: how many of each.
    """

    metric: str
    base: float
    other: float
    difference: float
    low: float
    high: float
    p_value: float
    queries: int
    groups: int


def compare(base: Scores, other: Scores, metric: str, resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Paired comparison of two models on the same queries, resampling groups.

    The interval is scipy's percentile bootstrap over the groups, its percentiles widened for few groups as Hesterberg
    (2015, "What Teachers Should Know About the Bootstrap") proposes; the plain one is too narrow by a factor of
    sqrt((G - 1) / G) and by the normal quantile in place of Student's. The p-value is scipy's permutation test, which
    swaps the two models in whole groups and is exact where 2^G <= resamples.

    In simulations of reciprocal ranks with correlated concepts the interval covers the true difference in 93.6 to
    95.4 % of the draws, with 10 to 100 concepts. Where nearly all concepts score exactly alike under both models no
    bootstrap can see the rare ones that differ: with 15 % of 40 concepts moving it covers 87 %, of 100 concepts 92 %.

    A macro or weighted F1 is no mean over examples: it is computed anew for each draw
    (evaluation/classification/resample.py), with the same widening.

    Args:
        base: scores of the model that is compared with.
        other: scores of the model in question.
        metric: a name that both computed.
        resamples: of the bootstrap and of the permutation test.
        seed: of both.

    Raises:
        InputError: other queries, other groups, a metric that is missing, fewer than two groups.
    """
    if base.query_ids != other.query_ids or base.groups != other.groups:
        raise InputError("the two models were scored on different queries or groups, expected the same task for both")
    difference_Q = other.values(metric) - base.values(metric)
    _, group_Q = np.unique(np.asarray(base.groups), return_inverse=True)
    sums_G = np.bincount(group_Q, weights=difference_Q).astype(np.float64)
    sizes_G = np.bincount(group_Q).astype(np.float64)
    if len(sums_G) < 2:
        raise InputError(f"{len(difference_Q)} queries of one concept, expected at least two concepts to compare on")
    if metric in F1 and base.outcome is not None and other.outcome is not None:
        resampled = Resampled(base.outcome, other.outcome, group_Q, metric)
        low, high = resampled.interval(_level(len(sums_G)), resamples, seed)
        p_value = resampled.p_value(resamples, seed)
    else:
        low, high = _interval(sums_G, sizes_G, resamples, seed)
        p_value = _p_value(sums_G, resamples, seed)
    return Comparison(
        metric=metric,
        base=base.means[metric],
        other=other.means[metric],
        difference=float(difference_Q.mean()),
        low=low,
        high=high,
        p_value=p_value,
        queries=len(difference_Q),
        groups=len(sums_G),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): adjusted p-values that may be held against the level itself.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    result = np.empty_like(p)
    result[order] = adjusted
    return [float(value) for value in result]


def _interval(
    sums_G: NDArray[np.float64], sizes_G: NDArray[np.float64], resamples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of sum(sums) / sum(sizes) over resampled groups."""
    count = len(sums_G)

    def mean(sums: NDArray[np.float64], sizes: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return sums.sum(axis=axis) / sizes.sum(axis=axis)

    result = stats.bootstrap(
        (sums_G, sizes_G),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(count),
        confidence_level=_level(count),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _level(count: int) -> float:
    """The share of the draws that a 95 % interval of so many groups holds: above 0.95, most with few groups."""
    student = stats.t.ppf(0.975, count - 1) * math.sqrt(count / (count - 1))
    return float(1 - 2 * stats.norm.sf(student))


def _p_value(sums_G: NDArray[np.float64], resamples: int, seed: int) -> float:
    """Two-sided p of the summed differences under random signs of the groups."""
    moving_G = sums_G[sums_G != 0]  # a sign leaves 0 as it is, so these change nothing but the cost
    if len(moving_G) < 2:
        return 1.0  # one group under either sign is as far from 0

    def total(sums: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return sums.sum(axis=axis)

    result = stats.permutation_test(
        (moving_G,),
        total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(len(moving_G)),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _batch(groups: int) -> int:
    """Resamples at once: about 4 million numbers."""
    return max(1, 4_000_000 // groups)
