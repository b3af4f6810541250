"""Pruners by name: who stops a bad trial. A step is a rung, an equal share of training, so batch sizes compare."""

from __future__ import annotations

from pathlib import Path

import optuna

from search.spec.sections import PrunerSpec
from search.study.wilcoxon import WilcoxonRungPruner


def make_pruner(spec: PrunerSpec, rungs: int, run: Path, metric: str) -> optuna.pruners.BasePruner:
    """The study's pruner. Its whole state is in the study, so a resumed search has forgotten nothing.

    halving is asynchronous successive halving (Li et al. 2018, arXiv 1810.05934). It decides at the rungs that are
    powers of its reduction, so that each verdict rests on so many times the training of the one before: at 1 and 2 of 4
    rungs, at 1, 2 and 4 of 8. To decide at each rung would be another rule: one in eight, not one in four, would come
    to the end of 4 rungs. hyperband runs several halvings that start at different ones of these rungs (Li et al. 2016,
    arXiv 1603.06560). The other pruners decide at each rung but the last.
    """
    match spec.name:
        case "halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=spec.reduction)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=rungs, reduction_factor=spec.reduction)
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=spec.startup)
        case "percentile":
            return optuna.pruners.PercentilePruner(spec.percentile, n_startup_trials=spec.startup)
        case "wilcoxon":
            return WilcoxonRungPruner(run, metric, spec.p_value)
        case "patient":
            return optuna.pruners.PatientPruner(
                optuna.pruners.MedianPruner(n_startup_trials=spec.startup), spec.patience
            )
        case "none":
            return optuna.pruners.NopPruner()
