"""A worker that Ray's memory guard kills costs its trial one try, not the search its life.

The guard ends a worker when its node is nearly full (95 % by default). Tune is made to take that for the death of any
worker, and retries the trial; see search/tune/ray_internals.py. Here the next try is told of it, so that it trains in
smaller pieces. The count is kept in Tune's configuration of the trial alone: a search that is resumed counts anew. A
trial in several processes is retried as it was, because there Ray Train reports the death and does not say what killed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from search.tune.messages import KILLS
from search.tune.ray_internals import MEMORY_KILL


class CountMemoryKills(tune.Callback):
    """Tells the next try of a trial that the guard ended the one before."""

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last_failure = Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure #")[2]
        if MEMORY_KILL in last_failure:
            trial.config[KILLS] = trial.config.get(KILLS, 0) + 1
