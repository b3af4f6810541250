"""When a search ends, and what is left of its budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from search.spec.sections import ResourcesSpec, SearchSpec
from trainables.training.rungs import best_rung


def spent(spec: SearchSpec, trials: Sequence[FrozenTrial], hours: float) -> str:
    """Which limit of the budget is reached; empty while none is.

    Args:
        trials: that were proposed to run, in order.
        hours: wall time of the search.
    """
    budget = spec.budget
    if len(trials) >= budget.trials:
        return f"all {budget.trials} trials of the budget were proposed"
    if budget.hours is not None and hours >= budget.hours:
        return f"the budget of {budget.hours:g} h is spent"
    if budget.device_hours is not None and device_hours(trials, spec.resources) >= budget.device_hours:
        return f"the budget of {budget.device_hours:g} device-hours is spent"
    scores = [best_rung(t.intermediate_values)[1] for t in trials if t.state == TrialState.COMPLETE]
    if budget.target is not None and scores and max(scores) >= budget.target:
        return f"the target {budget.target:g} was reached"
    if budget.patience is not None:
        since_best = _since_best(trials)
        if since_best >= budget.patience:
            return f"no better score in {since_best} trials"
    return ""


def left(spec: SearchSpec, trials: Sequence[FrozenTrial], hours: float, concurrent: int) -> str:
    """What the budget still holds and about how long it lasts, as the trials so far went; for people.

    The estimate takes the mean of the ended trials, pruned ones included, for those to come. Targets and patience may
    end a search earlier.
    """
    budget = spec.budget
    ended = [t for t in trials if t.state.is_finished()]
    parts = [f"{len(ended)} of {budget.trials} trials ended, {rounded_time(hours)}"]
    used = device_hours(trials, spec.resources)
    if budget.device_hours is not None:
        parts.append(f"{used:.3g} of {budget.device_hours:g} device-hours used")
    if not ended or len(ended) >= budget.trials:
        return "; ".join(parts)
    mean = sum(map(seconds, ended)) / len(ended) / 3600
    going = sum(max(0.0, mean - seconds(t) / 3600) for t in trials if not t.state.is_finished())
    estimates = [(going + mean * max(0, budget.trials - len(trials))) / concurrent]
    if budget.hours is not None:
        estimates.append(max(0.0, budget.hours - hours))
    if budget.device_hours is not None:
        estimates.append(max(0.0, budget.device_hours - used) / devices(spec.resources) / concurrent)
    parts.append(f"about {rounded_time(min(estimates))} left")
    return "; ".join(parts)


def devices(resources: ResourcesSpec) -> float:
    """Of one trial: its GPUs, or its CPU cores where it has none."""
    return resources.workers * (resources.gpus or resources.cpus)


def device_hours(trials: Sequence[FrozenTrial], resources: ResourcesSpec) -> float:
    """Training and dev evaluation of all trials, in hours, times the devices of a trial."""
    return sum(map(seconds, trials)) / 3600 * devices(resources)


def seconds(trial: FrozenTrial) -> float:
    """Training and dev evaluation of one trial, as far as it has reported."""
    records: list[dict[str, Any]] = [trial.user_attrs[f"rung_{rung}"] for rung in trial.intermediate_values]
    return float(sum(record.get("train_s", 0.0) + record.get("eval_s", 0.0) for record in records))


def rounded_time(hours: float) -> str:
    """`40 s`, `3 min 20 s`, `12 min`, `3.5 h`."""
    seconds = round(hours * 3600)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _since_best(trials: Sequence[FrozenTrial]) -> int:
    """Complete and pruned trials since the best complete one, in the order in which they ended."""
    told = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    finished = [(t.datetime_complete, t) for t in told if t.datetime_complete is not None]
    finished.sort(key=lambda pair: pair[0])
    values = [best_rung(t.intermediate_values)[1] if t.state == TrialState.COMPLETE else -math.inf for _, t in finished]
    return len(values) - 1 - int(np.argmax(values)) if values else 0
