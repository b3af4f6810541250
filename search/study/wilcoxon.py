"""A pruner that asks whether a trial is worse, not merely lower: dev scores are noisy, and a dev set is small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from scipy.stats import wilcoxon

from search.paths import RunFolder
from trainables.training.rungs import SCORES


class WilcoxonRungPruner(optuna.pruners.BasePruner):
    """Stops a trial that is significantly worse than the best trial at the same rung.

    One-sided Wilcoxon signed-rank test (Wilcoxon 1945) of the two trials' dev scores, paired by concept: queries of one
    concept are averaged first, because they are right or wrong together and would count as evidence many times over.
    Concepts that score alike are kept and split between the signs, so that trials which agree on most concepts are not
    told apart by a few.

    Optuna's WilcoxonPruner takes each step for another instance and pairs trials by step; here a step is a rung and the
    instances are within it.
    """

    def __init__(self, run: Path, metric: str, p_value: float) -> None:
        self._run, self._metric, self._p_value = run, metric, p_value

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        rung = trial.last_step
        if rung is None:
            return False
        rivals = [t for t in study.get_trials(deepcopy=False) if rung in t.intermediate_values]
        # Trials that repeat a known configuration have the values and not the scores of it.
        rivals = [t for t in rivals if f"rung_{rung}" in t.user_attrs]
        best = max(rivals, key=lambda t: (t.intermediate_values[rung], -t.number))
        if best.number == trial.number:
            return False
        return self._p_worse(self._by_concept(trial, rung), self._by_concept(best, rung)) < self._p_value

    def _by_concept(self, trial: FrozenTrial, rung: int) -> NDArray[np.float64]:
        """(concepts,) means, in the order of the concepts' names."""
        from evaluation.retrieval import Scores  # imports torch and faiss, which other pruners do without

        folder = Path(trial.user_attrs[f"rung_{rung}"]["folder"])
        # Within the run's folder as it is found: a run that was moved goes on.
        scores = Scores.load(RunFolder(self._run).tune / folder.parent.name / folder.name / SCORES)
        _, concept = np.unique(scores.groups, return_inverse=True)
        values = scores.values(self._metric)
        means: NDArray[np.float64] = np.bincount(concept, weights=values) / np.bincount(concept)
        return means

    @staticmethod
    def _p_worse(trial: NDArray[np.float64], best: NDArray[np.float64]) -> float:
        if np.array_equal(trial, best):
            return 1.0
        return float(wilcoxon(trial, best, alternative="less", zero_method="zsplit", method="approx").pvalue)
