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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from evaluation.errors import InputError
from search.paths import RunFolder
from search.spec.sections import SearchSpec
from search.storage.bucket import Bucket
from search.study.budget import left, spent
from search.study.journal import Journal
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from trainables.config import TrialConfig, config_of
from trainables.training.rungs import LAST, best_rung, keep_best

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

MAX_REPEATS = 100  # proposals in a row that are known already, after which the space counts as exhausted


class Verdict(Enum):
    """What becomes of a trial after a rung."""

    GO_ON = "go on"
    STOP = "stop"


@dataclass(frozen=True)
class Proposal:
    """A trial to run: its number in the study and its configuration."""

    number: int
    config: TrialConfig


# Of a configuration: what a merged trial is read by, and what it costs to run (search/results/choice.py).
RUN_BY = ("base", "revision", "pooling", "query_prompt", "passage_prompt", "max_length", "matryoshka")


def _run_alike(one: FrozenTrial, other: FrozenTrial) -> bool:
    return all(one.user_attrs["config"].get(key) == other.user_attrs["config"].get(key) for key in RUN_BY)


def proposed_to_run(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that were proposed to run, in order: without those that repeat a known one, are infeasible or wait."""
    return [trial for trial in trials if "config" in trial.user_attrs]


class Study:
    """One search's trials, proposals and verdicts. One process writes it: the driver, which holds the run's lock."""

    def __init__(self, run: Path, spec: SearchSpec, concurrent: int = 1, bucket: Bucket | None = None) -> None:
        """Open the study of a run, or begin it.

        Args:
            concurrent: trials at once.
            bucket: that the run is kept in, where its folder is a copy.
        """
        self.spec = spec
        self.space = spec.parsed_space
        self._run, self.concurrent = run, concurrent
        self._bucket = bucket
        self._journal = Journal(RunFolder(run).journal, None if bucket is None else bucket.add)
        self._storage = JournalStorage(self._journal)
        # A run that goes on under another name goes on with the study that it has.
        stored = optuna.get_all_study_names(self._storage)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=stored[0] if stored else spec.name,
            directions=["maximize", "minimize"] if spec.minimize else ["maximize"],
            pruner=make_pruner(spec.pruner, self.space.rungs, run, spec.metric),
            load_if_exists=True,
        )
        self.halted = ""  # why the search cannot go on now, such as a full disk; it can be resumed
        # A journal of an earlier version may lack the reason: such a search asks once more.
        self._used_up = str(self._study.user_attrs.get("used_up", ""))
        self._wait_for: int | None = None  # ended trials at which no new proposal came
        self._live: dict[int, optuna.Trial] = {}
        self._resumable = [t.number for t in self._study.get_trials(states=(TrialState.RUNNING,))]
        self._elapsed_before = float(self._study.user_attrs.get("elapsed_s", 0.0))
        self._opened = time.monotonic()
        if not self._study.user_attrs.get("starts_enqueued"):
            # Once only: a reopened study that enqueues them again would run them again.
            with self._journal.together():
                for i, start in enumerate(spec.start):
                    self._study.enqueue_trial(self.space.point(start, f"start[{i}]"))
                for point in self.space.grid(spec.seed) if spec.sampler.name == "grid" else ():
                    self._study.enqueue_trial(point)
                self._study.set_user_attr("starts_enqueued", True)

    @property
    def note(self) -> str:
        """What was found wrong with the journal and set right; empty when all was well."""
        return self._journal.note

    @property
    def entries(self) -> int:
        """Of the journal: as long as their number stays, nothing has changed."""
        return self._journal.entries

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that were proposed to run, in order."""
        return proposed_to_run(self._study.get_trials(deepcopy=False))

    def next_trial(self) -> Proposal | None:
        """The next configuration to run: first the trials that a stopped search left running, then new proposals.

        A proposal equal to an ended trial is not run again: its known result is told to the study and another one is
        asked for. So is an infeasible combination, which the study learns as a violated constraint. One equal to a
        running or a failed trial is dropped: there is nothing to tell. None when there is nothing to propose, now or,
        as `exhausted` then says, ever.
        """
        if self._resumable:
            number = self._resumable.pop(0)
            frozen = self.trial(number)
            self._live[number] = optuna.trial.Trial(self._study, frozen._trial_id)
            return Proposal(number, config_of(frozen.user_attrs["config"]))
        if self._wait_for == self._ended():
            return None
        turns_down = 0
        while not self.exhausted():
            with self._journal.together():
                self._study.sampler = make_sampler(self.spec.sampler, self._next_seed(), self.concurrent)
                trial = self._study.ask()
                config = self._feasible(trial)
                if config is not None and not self._known(trial, config):
                    trial.set_user_attr("config", config.model_dump(mode="json"))
                    self._live[trial.number] = trial
                    return Proposal(trial.number, config)
            turns_down += 1
            if turns_down == MAX_REPEATS and self.spec.sampler.name != "grid":
                if self.unfinished():
                    self._wait_for = self._ended()  # what the running trials teach may lead elsewhere
                    return None
                self._used_up = f"{MAX_REPEATS} proposals in a row were known already or infeasible"
                self._study.set_user_attr("used_up", self._used_up)
        self._keep_time()
        return None

    def put_back(self, number: int) -> None:
        """Have a trial that was proposed and could not go on where it was proposed again, before all others."""
        if not self.trial(number).state.is_finished():
            self._resumable.append(number)

    def report(self, number: int, rung: int, record: Mapping[str, Any]) -> Verdict:
        """Take a trial's dev metrics at a rung, and say whether it goes on.

        A trial that is stopped is PRUNED from now on, and of its weights those of its best rung alone stay. A rung
        that the study has already, as a resumed trial repeats it, is not taken twice.
        """
        trial = self._live[number]
        value = float(record["metrics"][self.spec.metric])
        frozen = self.trial(number)
        if frozen.state.is_finished():
            return Verdict.STOP
        if rung in frozen.intermediate_values:
            return Verdict.GO_ON  # its verdict was to go on
        if self._bucket is not None:
            self._bucket.fetch_rung(number, record)  # which the pruner may read
        with self._journal.together():
            trial.set_user_attr(f"rung_{rung}", dict(record))
            self._study.set_user_attr("elapsed_s", round(self.hours() * 3600, 1))
            if self.spec.minimize:  # trial.report and should_prune refuse two objectives
                self._storage.set_trial_intermediate_value(frozen._trial_id, rung, value)
                return Verdict.GO_ON
            trial.report(value, rung)
            stopped = rung < self.space.rungs and trial.should_prune()
            if not stopped:
                return Verdict.GO_ON
            self._study.tell(trial, state=TrialState.PRUNED)
        self._tidy(number)  # it never goes on
        return Verdict.STOP

    def complete(self, number: int) -> None:
        """The trial ran to its end: told with its best rung's value, since that rung's weights are the ones kept.

        A trial that was stopped before its last rung, as Ctrl-C does, stays RUNNING and is gone on with on a resume.
        """
        frozen = self.trial(number)
        if frozen.state.is_finished() or self.space.rungs not in frozen.intermediate_values:
            return
        best, value = best_rung(frozen.intermediate_values)
        second = [float(frozen.user_attrs[f"rung_{best}"][self.spec.minimize])] if self.spec.minimize else []
        with self._journal.together():
            self._study.tell(self._live[number], [value, *second])
        if self._bucket is not None:  # the trial has tidied its node's copy
            self._bucket.keep_best(number, self.spec.metric, LAST)
        for beaten in self._beaten(frozen, value):
            self._tidy(beaten.number)

    def _beaten(self, ended: FrozenTrial, value: float) -> list[FrozenTrial]:
        """The trials whose last rungs can no longer be averaged now that this one has ended with this value: of those
        that are run alike once merged, the one with the highest score alone can win."""
        rivals = {
            t.number: best_rung(t.intermediate_values)[1]
            for t in self.trials
            if t.state == TrialState.COMPLETE and t.number != ended.number and _run_alike(t, ended)
        }
        leader = max(rivals.values(), default=value)
        if value < leader:
            return [ended]
        return [self.trial(number) for number, score in rivals.items() if score == leader < value]

    def fail(self, number: int, reason: str) -> None:
        """The trial cannot go on; the search can."""
        frozen = self.trial(number)
        if frozen.state.is_finished():
            return
        with self._journal.together():
            self._live[number].set_user_attr("failure", reason)
            self._study.tell(self._live[number], state=TrialState.FAIL)
        if frozen.last_step is not None:
            self._tidy(number)

    def _tidy(self, number: int) -> None:
        """Keep the weights of a trial's best rung alone, in the run's folder as it is found."""
        keep_best(RunFolder(self._run).trial(number), self.spec.metric)
        if self._bucket is not None:
            self._bucket.keep_best(number, self.spec.metric)

    def _ended(self) -> int:
        return sum(t.state.is_finished() for t in self.trials)

    def unfinished(self) -> bool:
        """Whether trials were started that have not ended."""
        return any(t.state == TrialState.RUNNING for t in self.trials)

    def trial(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def exhausted(self) -> str:
        """Why no further trial is proposed; empty while the budget lasts."""
        if self._used_up:
            return self._used_up
        if reason := spent(self.spec, self.trials, self.hours()):
            return reason
        if self.spec.sampler.name == "grid" and not self._study.get_trials(states=(TrialState.WAITING,)):
            return "every point of the grid was proposed"
        return ""

    def left(self) -> str:
        """What the budget still holds, for people."""
        return left(self.spec, self.trials, self.hours(), self.concurrent)

    def hours(self) -> float:
        """Wall time of the search so far, without the time between a stop and a resume."""
        return (self._elapsed_before + time.monotonic() - self._opened) / 3600

    def _keep_time(self) -> None:
        """Have a reopened study know that its hours are spent: rungs write the time, the last before the end."""
        budget, known = self.spec.budget.hours, float(self._study.user_attrs.get("elapsed_s", 0.0)) / 3600
        if budget is not None and known < budget <= (hours := self.hours()):
            self._study.set_user_attr("elapsed_s", math.ceil(hours * 36000) / 10)

    def _next_seed(self) -> int:
        number = len(self._study.get_trials(deepcopy=False))
        return int(np.random.SeedSequence([self.spec.seed, number]).generate_state(1)[0])

    def _feasible(self, trial: optuna.Trial) -> TrialConfig | None:
        """The trial's configuration; none, and the trial told as a violated constraint, where it is infeasible."""
        try:
            config = self.space.sample(trial)
        except InputError as error:
            trial.set_user_attr("infeasible", str(error))
            trial.set_constraint("feasible", 1.0)
            self._study.tell(trial, state=TrialState.PRUNED)
            return None
        if self.space.constraints:
            trial.set_constraint("feasible", 0.0)
        return config

    def _known(self, trial: optuna.Trial, config: TrialConfig) -> bool:
        """Whether another trial has this configuration; where it has ended, its result is told as this trial's."""
        document = config.model_dump(mode="json")
        twin = next((t for t in self.trials if t.user_attrs["config"] == document), None)
        if twin is None:
            return False
        trial.set_user_attr("repeats", twin.number)
        if twin.state in (TrialState.RUNNING, TrialState.FAIL):
            self._study.tell(trial, state=TrialState.FAIL)  # nothing is known of it, yet or ever
            return True
        for rung, value in sorted(twin.intermediate_values.items()):
            self._storage.set_trial_intermediate_value(trial._trial_id, rung, value)
        pruned = twin.state == TrialState.PRUNED
        self._study.tell(trial, None if pruned else twin.values, state=twin.state)
        return True
