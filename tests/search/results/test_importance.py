"""Importance of settings: found where it is, not found where it is not, in a plain and in a conditional space."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial

from search.results.importance import MIN_TRIALS, importances
from search.results.leaderboard import Row, leaderboard

RUNGS = 2


def run_study(trials: int, seed: int, *, branches: bool = False, effect: float = 1.0) -> list[FrozenTrial]:
    """Trials whose score depends on lr alone, pruned by their first rung."""
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
    )
    draw = np.random.default_rng(seed)
    for _ in range(trials):
        trial = study.ask()
        trial.suggest_categorical("r", [4, 8, 16])
        trial.suggest_float("dropout", 0.0, 0.2)
        if branches and trial.suggest_categorical("method", ["lora", "full"]) == "full":
            lr, best = trial.suggest_float("lr|method=full", 1e-6, 1e-4, log=True), 1e-5
        else:
            lr, best = trial.suggest_float("lr", 1e-5, 1e-3, log=True), 1e-4
        score = 0.5 - effect * 0.2 * abs(math.log10(lr / best)) + 0.02 * float(draw.standard_normal())
        for rung in range(1, RUNGS + 1):
            record = {"metrics": {"m": score}, "errors": {"m": 0.01}, "train_s": 1.0, "eval_s": 1.0, "folder": "c"}
            trial.set_user_attr(f"rung_{rung}", record)
            trial.report(score, rung)
            if rung < RUNGS and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, score)
    return study.trials


def rows_of(trials: list[FrozenTrial]) -> list[Row]:
    return leaderboard(trials, "m", RUNGS)


@pytest.mark.parametrize("branches", [False, True])
def test_the_setting_that_decides_is_found(branches: bool) -> None:
    trials = run_study(40, seed=1, branches=branches)
    found = importances(trials, rows_of(trials), seed=0)
    assert any(trial.state == optuna.trial.TrialState.PRUNED for trial in trials)
    assert found[0].field == "lr"  # both branches under one name
    assert found[0].share > max(0.5, found[0].chance)
    assert sum(one.share for one in found) == pytest.approx(1.0)
    assert {one.field for one in found} == {"lr", "r", "dropout"} | ({"method"} if branches else set())


def test_where_nothing_decides_few_settings_pass_what_chance_reaches() -> None:
    passed = tested = 0
    for seed in range(8):
        trials = run_study(24, seed=seed, effect=0.0)
        found = importances(trials, rows_of(trials), seed=seed)
        passed += sum(one.share > one.chance for one in found)
        tested += len(found)
    assert passed / tested < 0.2  # 5 % are expected


def test_the_same_study_gives_the_same_answer() -> None:
    trials = run_study(15, seed=3)
    assert importances(trials, rows_of(trials), seed=5) == importances(trials, rows_of(trials), seed=5)


def test_few_trials_say_nothing() -> None:
    trials = run_study(MIN_TRIALS - 1, seed=0)
    assert importances(trials, rows_of(trials), seed=0) == []
    assert importances([], [], seed=0) == []
