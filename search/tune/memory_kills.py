"""A worker that Ray's memory guard kills costs its trial one try, not the search its life.

The guard ends a worker when its node is nearly full (95 % by default) and calls that `OutOfMemoryError`, which Tune of
ray 2.60 does not know: the whole search would end. Here it is the death of one worker like any other, and the trial's
next try is told of it, so that it trains in smaller pieces. A search that is resumed forgets it. Of a trial in several
processes Ray Train reports the death, and it is retried as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager, TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError

from search.tune.messages import KILLS

REASON = "Ray's memory guard ended its worker"


class CountMemoryKills(tune.Callback):
    """Tells the next try of a trial that the guard ended the one before."""

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last_failure = Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure #")[2]
        if REASON in last_failure:
            trial.config[KILLS] = trial.config.get(KILLS, 0) + 1


def take_memory_kills_for_deaths() -> None:
    """Have Tune retry the trial of a worker that the guard killed; asking twice changes nothing.

    Uses private names of ray 2.60; tests/soak/test_memory_kills.py has the guard kill workers for real.
    """
    RayActorManager._actor_task_failed = _actor_task_failed  # type: ignore[method-assign]


_tunes_own = RayActorManager._actor_task_failed


def _actor_task_failed(self: RayActorManager, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
    if isinstance(exception, OutOfMemoryError):
        exception = RayActorError(error_msg=f"{REASON}: {exception}")
    _tunes_own(self, tracked_actor_task, exception)
