"""Differences of an F1 between two models: intervals and p-values that compute it anew for each draw of groups.

An F1 is a function of sums over examples, so a draw needs the sums of each group alone, and a thousand draws are one
product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from evaluation.classification.metrics import F1, Floats, Integers
from evaluation.classification.outcome import Outcome

NUMBERS = 4_000_000  # held at once


class Resampled:
    """Two models on the same examples, one metric.

    Args:
        base, other: what they said.
        group_Q: number of each example's group, 0 to G - 1.
        metric: a key of F1.
    """

    def __init__(self, base: Outcome, other: Outcome, group_Q: Integers, metric: str) -> None:
        self._value: Callable[[Floats], Floats] = F1[metric]
        self._base_GK, self._other_GK = (_by_group(outcome.counts, group_Q) for outcome in (base, other))

    def interval(self, level: float, resamples: int, seed: int) -> tuple[float, float]:
        """Percentile bootstrap over the groups, both models on the same draw.

        Args:
            level: share of the draws that it holds.
        """
        groups = len(self._base_GK)
        rng = np.random.default_rng(seed)
        draws = [
            self._difference(weights @ self._base_GK, weights @ self._other_GK)
            for size in _sizes(resamples, groups)
            for weights in [rng.multinomial(groups, np.full(groups, 1 / groups), size=size).astype(np.float64)]
        ]
        low, high = np.quantile(np.concatenate(draws), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def p_value(self, resamples: int, seed: int) -> float:
        """Two-sided permutation test that swaps the models in whole groups (Phipson and Smyth 2010: never zero)."""
        seen = abs(float(self._difference(self._base_GK.sum(axis=0), self._other_GK.sum(axis=0))))
        moving = (self._base_GK != self._other_GK).any(axis=1)  # a swap leaves the others as they are
        if moving.sum() < 2:
            return 1.0
        still = self._base_GK[~moving].sum(axis=0)
        base_MK, other_MK = self._base_GK[moving], self._other_GK[moving]
        rng = np.random.default_rng(seed)
        beyond = 0
        for size in _sizes(resamples, int(moving.sum())):
            swapped = rng.integers(0, 2, size=(size, len(base_MK))).astype(np.float64)
            one = still + base_MK.sum(axis=0) + swapped @ (other_MK - base_MK)
            two = still + other_MK.sum(axis=0) + swapped @ (base_MK - other_MK)
            beyond += int((np.abs(self._difference(one, two)) >= seen - 1e-12).sum())
        return (beyond + 1) / (resamples + 1)

    def _difference(self, base: Floats, other: Floats) -> Floats:
        return np.asarray(self._value(other) - self._value(base))


def _by_group(counts_QK: Floats, group_Q: Integers) -> Floats:
    sums_GK = np.zeros((int(group_Q.max()) + 1, counts_QK.shape[1]))
    np.add.at(sums_GK, group_Q, counts_QK)
    return sums_GK


def _sizes(resamples: int, groups: int) -> Iterator[int]:
    """Draws at once, so many that they stay within NUMBERS."""
    most = max(1, NUMBERS // groups)
    while resamples > 0:
        yield min(most, resamples)
        resamples -= most
