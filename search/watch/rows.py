"""Each running trial has a row of its own among the dashboard's actors, under a name that a person can read.

Tune gives a warm worker one trial after the other, and Ray takes the name of an actor once, when it starts. So the
worker's own row cannot say which trial it runs; a light actor beside the driver, which does nothing, says it instead.
It takes a process of about 70 MB and a second of a core: worth it on a cluster, not on a laptop.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.tune.callbacks import UntilTheEnd
from search.tune.messages import NUMBER, TRIAL
from search.watch.names import trial_name


class Trial:
    """The row: its class and its name are what the dashboard shows."""


class TrialRows(UntilTheEnd):
    """Makes a trial's row when it starts and ends it, so that it reads DEAD, with the trial."""

    def __init__(self, search: str) -> None:
        self._search = search
        self._rows: dict[str, Any] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.trial_id in self._rows:  # it goes on after a failure
            return
        name = trial_name(self._search, trial.config[NUMBER], trial.config[TRIAL])
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        row = ray.remote(num_cpus=0, max_restarts=0)(Trial)
        self._rows[trial.trial_id] = row.options(name=name, get_if_exists=True, scheduling_strategy=here).remote()

    def end(self, trial: Any) -> None:
        if (row := self._rows.pop(trial.trial_id, None)) is not None:
            ray.kill(row)
