"""What embtune's callbacks of Tune have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from ray import tune


class Unsaved(tune.Callback):
    """Tune pickles callbacks for a snapshot that nobody reads: nothing of this one goes into it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (tune.Callback, ())


class UntilTheEnd(Unsaved):
    """Holds something of each trial, which `end` lets go of: with the trial, or with the search."""

    @abstractmethod
    def end(self, trial: Any) -> None:
        """Called at least once; a second time changes nothing."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.end(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.end(trial)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        for trial in trials:
            self.end(trial)
