"""The memory of a search: one Optuna study, kept in `study.journal` in the run's folder.

Everything that decides what comes next is in the study: configurations, rung values, states. Nothing else has to
survive a crash. The sampler is made anew for each trial, seeded by the search's seed and the trial's number: a search
that goes on after a crash proposes what the uninterrupted search would have proposed, where a restored or reopened
sampler would start its random numbers again.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from evaluation.errors import InputError
from search.pruners import make_pruner
from search.samplers import make_sampler
from search.spec import SearchSpec
from trainables.config import TrialConfig

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

JOURNAL = "study.journal"
MAX_REPEATS = 100  # proposals in a row that are known already, after which the space counts as exhausted


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its number in the study and its configuration."""

    number: int
    config: TrialConfig


class Study:
    """One search's trials, proposals and verdicts. One process writes it: the driver, which holds the run's lock."""

    def __init__(self, run: Path, spec: SearchSpec, concurrent: int = 1) -> None:
        self.spec = spec
        self.space = spec.parsed_space()
        self._concurrent = concurrent
        self._study = optuna.create_study(
            storage=open_storage(run),
            study_name=spec.name,
            direction="maximize",
            pruner=make_pruner(spec.pruner, self.rungs),
            load_if_exists=True,
        )
        self._resumable = [t.number for t in self._study.get_trials(states=(TrialState.RUNNING,))]
        self._live: dict[int, optuna.Trial] = {}
        self._elapsed_before = float(self._study.user_attrs.get("elapsed_s", 0.0))
        self._opened = time.monotonic()
        if not self._study.user_attrs.get("starts_enqueued"):
            # Once only: a reopened study that enqueues them again would run them again.
            for i, start in enumerate(spec.start):
                self._study.enqueue_trial(self.space.point(start, f"start[{i}]"))
            for point in self.space.grid(spec.seed) if spec.sampler.name == "grid" else ():
                self._study.enqueue_trial(point)
            self._study.set_user_attr("starts_enqueued", True)

    @property
    def rungs(self) -> int:
        """Dev evaluations of a whole trial; the same for all trials."""
        fixed = {d.name: d.values[0] for d in self.space.dimensions if d.constant}
        return int(fixed.get("rungs", TrialConfig.model_fields["rungs"].default))

    @property
    def trials(self) -> list[FrozenTrial]:
        """Trials that have been proposed, in order, without those that repeat a known one."""
        trials = self._study.get_trials(deepcopy=False)
        return [t for t in trials if t.state != TrialState.WAITING and "repeats" not in t.user_attrs]

    def next_trial(self) -> Proposal | None:
        """The next configuration to run: first the trials that a stopped search left running, then new proposals.

        A proposal equal to a finished trial is not run again: its known result is told to the study and another one
        is asked for. None when the budget is spent or the space is exhausted.
        """
        if self._resumable:
            number = self._resumable.pop(0)
            frozen = self._study.get_trials(deepcopy=False)[number]
            self._live[number] = optuna.trial.Trial(self._study, frozen._trial_id)
            if "config" in frozen.user_attrs:
                return Proposal(number, TrialConfig.model_validate(frozen.user_attrs["config"]))
            self.fail(number, "the search was stopped before its configuration was complete")
        for _ in range(MAX_REPEATS):
            if self.exhausted():
                return None
            self._study.sampler = make_sampler(self.spec.sampler, self._next_seed(), self._concurrent)
            trial = self._study.ask()
            try:
                config = self.space.sample(trial)
            except InputError as error:
                trial.set_user_attr("failure", str(error))
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            document = config.model_dump(mode="json")
            twin = next(
                (t for t in self.trials if t.user_attrs.get("config") == document and t.state.is_finished()), None
            )
            if twin is not None and twin.state != TrialState.FAIL:
                self._repeat(trial, twin)
                continue
            trial.set_user_attr("config", document)
            self._live[trial.number] = trial
            return Proposal(trial.number, config)
        return None

    def report(self, number: int, rung: int, record: Mapping[str, Any]) -> bool:
        """Take a trial's dev metrics at a rung; True when the trial should stop here, and is PRUNED from now on.

        A rung that the study has already, as a resumed trial repeats it, is not taken twice.
        """
        trial = self._live[number]
        value = float(record["metrics"][self.spec.metric])
        frozen = self.trial(number)
        if frozen.state.is_finished():
            return True
        if rung not in frozen.intermediate_values:
            # The record first: a rung value without its record would be a rung half told.
            trial.set_user_attr(f"rung_{rung}", dict(record))
            trial.report(value, rung)
            self._study.set_user_attr("elapsed_s", round(self.hours() * 3600, 1))
        if rung < self.rungs and trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
            return True
        return False

    def complete(self, number: int) -> None:
        """The trial ran to its end: told with its best rung's value, since that rung's weights are the ones kept.

        A trial that was stopped before its last rung, as Ctrl-C does, stays RUNNING and is gone on with on a resume.
        """
        frozen = self.trial(number)
        if frozen.state.is_finished() or self.rungs not in frozen.intermediate_values:
            return
        self._study.tell(self._live[number], max(frozen.intermediate_values.values()))

    def fail(self, number: int, reason: str) -> None:
        """The trial cannot go on; the search can."""
        if self.trial(number).state.is_finished():
            return
        self._live[number].set_user_attr("failure", reason)
        self._study.tell(self._live[number], state=TrialState.FAIL)

    def unfinished(self) -> bool:
        """Whether trials were started that have not ended."""
        return any(t.state == TrialState.RUNNING for t in self.trials)

    def trial(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def exhausted(self) -> str:
        """Why no further trial is proposed; empty while the budget lasts."""
        budget = self.spec.budget
        trials = self.trials
        if len(trials) >= budget.trials:
            return f"all {budget.trials} trials of the budget were proposed"
        if budget.hours is not None and self.hours() >= budget.hours:
            return f"the budget of {budget.hours:g} h is spent"
        scores = [best_rung(t)[1] for t in trials if t.state == TrialState.COMPLETE]
        if budget.target is not None and scores and max(scores) >= budget.target:
            return f"the target {budget.target:g} was reached"
        finished = sorted(
            (t for t in trials if t.state.is_finished()), key=lambda t: t.datetime_complete or datetime.max
        )
        values = [best_rung(t)[1] if t.state == TrialState.COMPLETE else -math.inf for t in finished]
        if budget.patience is not None and len(values) > budget.patience:
            since_best = len(values) - 1 - int(np.argmax(values))
            if since_best >= budget.patience:
                return f"no better score in {since_best} trials"
        if self.spec.sampler.name == "grid" and not self._study.get_trials(states=(TrialState.WAITING,)):
            return "every point of the grid was proposed"
        return ""

    def hours(self) -> float:
        """Wall time of the search so far, without the time between a stop and a resume."""
        return (self._elapsed_before + time.monotonic() - self._opened) / 3600

    def _next_seed(self) -> int:
        number = len(self._study.get_trials(deepcopy=False))
        return int(np.random.SeedSequence([self.spec.seed, number]).generate_state(1)[0])

    def _repeat(self, trial: optuna.Trial, twin: FrozenTrial) -> None:
        trial.set_user_attr("repeats", twin.number)
        for rung, value in sorted(twin.intermediate_values.items()):
            trial.report(value, rung)
        self._study.tell(trial, None if twin.state == TrialState.PRUNED else twin.value, state=twin.state)


def open_storage(run: Path) -> JournalStorage:
    """The run's journal. The caller holds the run's lock, so a lock file left by a killed search is stale."""
    journal = run / JOURNAL
    for stale in run.glob(f"{JOURNAL}.lock*"):
        stale.unlink()
    return JournalStorage(JournalFileBackend(str(journal)))


def best_rung(trial: FrozenTrial) -> tuple[int, float]:
    """The rung with the trial's best dev score, the earliest of equals, and that score; (0, -inf) before the first."""
    best, value = 0, -math.inf
    for rung, score in sorted(trial.intermediate_values.items()):
        if score > value:
            best, value = rung, score
    return best, value
