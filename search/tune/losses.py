"""A worker that is lost costs its trial one try, not the search its life; a node that is lost costs it none.

Ray's memory guard ends a worker when its node is nearly full (95 % by default). Tune is made to take that for the death
of any worker, and retries the trial; see search/tune/ray_internals.py. Here the next try is told of it, so that it
trains in smaller pieces. The count is kept in Tune's configuration of the trial alone: a search that is resumed counts
anew. A trial in several processes is retried as it was, because there Ray Train reports the death and does not say what
killed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.tune.callbacks import Unsaved
from search.tune.messages import KILLS, NUMBER, RUNG
from search.tune.ray_internals import MEMORY_KILL, NODE_DEATHS


class Losses(Unsaved):
    """Tells in one line what a trial lost, and sees to its next try."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._trials: dict[str, Any] = {}  # that have started, by Tune's id

    def of_a_node(self, trial_id: str) -> bool:
        """Whether what failed the trial last is the death of its node."""
        trial = self._trials.get(trial_id)
        lost = trial is not None and _is_nodes(_last_failure(trial))
        if lost:
            self._tell(trial, "its node died")
        return lost

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._trials[trial.trial_id] = trial

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        failure = _last_failure(trial)
        if _is_nodes(failure):
            trial.max_failures += 1  # no try of the trial's own
            self._tell(trial, "its node died")
        elif MEMORY_KILL in failure:
            trial.config[KILLS] = trial.config.get(KILLS, 0) + 1
            self._tell(trial, f"{MEMORY_KILL}; the next try takes less")
        else:
            self._tell(trial, "its worker died")

    def _tell(self, trial: Any, what: str) -> None:
        rung = (trial.last_result or {}).get(RUNG, 0)
        self._say(
            f"trial {trial.config[NUMBER]}: {what}; it goes on {f'from rung {rung}' if rung else 'from the start'}"
        )


def _last_failure(trial: Any) -> str:
    return Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure #")[2]


def _is_nodes(failure: str) -> bool:
    return any(words in failure for words in NODE_DEATHS)
