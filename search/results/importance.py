"""How much each hyper-parameter mattered for standing near the top of the leaderboard."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from search.results.leaderboard import Row

MIN_TRIALS = 8  # fewer say nothing about several parameters
TOP = 0.25  # share of the trials that count as the top
MIN_TOP = 5  # trials in the top, which Optuna asks for
SHUFFLES = 100


@dataclass(frozen=True)
class Importance:
    """One field of the configuration.

    Attributes:
        field: its name.
        share: of the whole importance, 0 to 1.
        chance: on the same scale and at most 1, what the field stays below in 95 % of the leaderboards in shuffled
            order; a share below it means nothing.
    """

    field: str
    share: float
    chance: float


def field_of(key: str) -> str:
    """The configuration's field behind a parameter of the study: branches of a field are parameters of their own."""
    return key.split("|", 1)[0]


def importances(trials: Sequence[FrozenTrial], rows: Sequence[Row], seed: int) -> list[Importance]:
    """Importance of each searched field, greatest first; empty with too few ranked trials.

    PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255) asks how differently a field is spread among the top trials and
    among all. It needs their order only, so pruned trials count as well, at their places in the leaderboard: below the
    complete ones, where a comparison of scores of whole and of stopped trainings would not be fair.
    """
    places = {row.trial: row.rank for row in rows if row.rank}
    ranked = [trial for trial in trials if trial.number in places and trial.params]
    if len(ranked) < MIN_TRIALS:
        return []
    ranks = np.array([places[trial.number] for trial in ranked])
    found = _divergences(ranked, ranks)
    total = sum(found.values()) or 1.0
    draw = np.random.default_rng(seed)
    shuffled = [_divergences(ranked, draw.permutation(ranks)) for _ in range(SHUFFLES)]
    # Divergences, not shares, are compared: in a shuffled leaderboard, too, some field has the greatest share.
    chance = {field: float(np.quantile([other[field] for other in shuffled], 0.95)) for field in found}
    return [
        Importance(field, value / total, min(1.0, chance[field] / total))
        for field, value in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    ]


def _divergences(trials: Sequence[FrozenTrial], ranks: np.ndarray) -> Mapping[str, float]:
    """Field -> how differently it is spread among the top trials and among all.

    One field's branches share its name: the evaluator keeps their domains apart by itself.
    """
    study = optuna.create_study(direction="minimize")
    for trial, rank in zip(trials, ranks, strict=True):
        study.add_trial(
            create_trial(
                params={field_of(key): value for key, value in trial.params.items()},
                distributions={field_of(key): domain for key, domain in trial.distributions.items()},
                value=float(rank),
            )
        )
    top = min(0.5, max(TOP, MIN_TOP / len(trials)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=top), normalize=False)
