"""A run's folder: who works in it, what happens to an earlier run of the same name, what may change on a resume."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
from rich.console import Console
from rich.markup import escape

from evaluation.errors import InputError
from search.paths import RunFolder
from search.results.guard import write_guard
from search.results.leaderboard import read_leaderboard
from search.spec.record import read_record, write_spec
from search.spec.sections import ClassificationSpec, GuardSpec, ResourcesSpec, SearchSpec
from search.spec.task_data import data_line, prepare_data, report_of, require_same_data, with_labels
from trainables.bases.hub import fetch
from trainables.bases.token_counts import token_counts
from trainables.classification.report import LabelReport

WATCHED_S = 1.0  # `embtune watch` holds the lock for a moment to see whether anybody else does
FREE_TO_CHANGE = ("budget", "resources", "name", "logging")


def lock_file(run: Path) -> Path:
    """The file that is locked while a search is at work in the run's folder."""
    return run.with_name(f".{run.name}.lock")


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's lock; the system lets go of it when the process dies, however it dies.

    Raises:
        InputError: another search holds it.
    """
    lock = filelock.FileLock(lock_file(run), timeout=WATCHED_S)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(
            f"{run}: another `embtune search` is at work in this folder; expected it to end first"
        ) from None
    try:
        yield
    finally:
        lock.release()


class Staging:
    """A run's folder in the making: nothing of an earlier run is touched, and nothing appears, before `settle`."""

    def __init__(self, spec: SearchSpec, run: Path, resume: bool, where: str = "") -> None:
        """Decide between a new run and going on with the one that is there.

        Args:
            where: what people call the folder; empty: its path.

        Raises:
            InputError: the folder holds an unfinished search and --resume is missing, or is the run to continue from.
        """
        self._spec, self._run, self._resume, self._where = spec, run, resume, where or str(run)
        if spec.continue_from is not None and (spec.folder / spec.continue_from).resolve() == run.resolve():
            raise InputError(f"{run}: is the run that continue_from names; expected another name for the new one")
        there = RunFolder(run)
        unfinished = there.journal.exists() and not there.benchmark.exists()
        if unfinished and not resume and not _all_failed(run):
            raise InputError(
                f"{run}: holds a search that has not ended; expected --resume to go on with it, or another name"
            )
        self.going_on = resume and there.journal.exists()
        self._folder = run.with_name(f".{run.name}.new")

    def __enter__(self) -> Staging:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def prepare(self, console: Console) -> None:
        """Fetch the bases, read, check and split the data, and record the spec.

        On a resume the run's parts stay as they are: the data, the spec and the bases are compared with the run's.

        Raises:
            InputError: a base cannot be had or has no safetensors; the data cannot be used; the guard shares texts with
                training; or, on a resume, the data or the spec is not the run's.
        """
        stored = read_record(self._run) if self.going_on else None
        if stored is not None:
            self._spec = as_begun(self._spec, stored)
        configs = {config.base: config for config in self._spec.parsed_space.configs()}
        with console.status("Fetching " + ", ".join(configs)):
            commits = {
                base: fetch(base, config.revision, code=config.trust_remote_code)[1] for base, config in configs.items()
            }
        if stored is not None:
            check_same_search(self._spec, stored, self._run)
            for base, commit in stored["record"]["base_commits"].items():
                if commit != commits.get(base):
                    raise InputError(
                        f"{self._run}: {base} was at commit {commit} and is now at {commits.get(base)}; "
                        "expected the same weights (pin them with revision), or another name"
                    )
            try:
                with console.status("Reading the data"):
                    require_same_data(self._spec, RunFolder(self._run).data)
            except InputError as error:
                raise InputError(f"{self._run}: {error}; expected the same rows, or another name") from None
            report = report_of(self._spec, RunFolder(self._run).data)
            if self.resources.gpus is None:  # what was decided then holds: other number formats give other scores
                gpus = stored["resources"]["gpus"]
                self._spec = _with_resources(self._spec, self.resources.model_copy(update={"gpus": gpus}))
            guarded = isinstance(self._spec, ClassificationSpec) or RunFolder(self._run).guard.exists()
            if not guarded:  # begun by a version that had none
                write_guard(self._spec.guard, self._spec.folder, RunFolder(self._run))
        else:
            with console.status("Reading and splitting the data"):
                tokens = token_counts(next(iter(configs.values())))
                report = prepare_data(self._spec, RunFolder(self._folder).data, tokens)
            if isinstance(report, LabelReport) and isinstance(self._spec, ClassificationSpec):
                self._spec = with_labels(self._spec, report.labels)
            elif isinstance(self._spec, SearchSpec):
                write_guard(self._spec.guard, self._spec.folder, RunFolder(self._folder))
        self._recorded = report.content_hash, commits
        write_spec(self._spec, self._folder, *self._recorded)
        for line in _unlike(self._spec.record, read_record(self._folder)["record"]):
            console.print(f"[yellow]not as in the recorded run:[/] {line}", highlight=False, soft_wrap=True)
        console.print(f"data: {data_line(report)}", highlight=False)
        for finding in report.findings:
            console.print(f"  {finding.count:,} {finding.what} ({finding.action})", markup=False, highlight=False)

    @property
    def resources(self) -> ResourcesSpec:
        """Of a trial, as far as the spec or the run that goes on says."""
        return self._spec.resources

    def decide(self, resources: ResourcesSpec) -> SearchSpec:
        """The spec with its resources as the cluster decides them, and recorded so."""
        self._spec = _with_resources(self._spec, resources)
        write_spec(self._spec, self._folder, *self._recorded)
        return self._spec

    def settle(self, console: Console) -> str:
        """Put the folder in place. An ended run of the same name is kept under another, which is returned."""
        from search.tune.ray_internals import submitted_as

        if self.going_on:
            RunFolder(self._folder).spec.replace(RunFolder(self._run).spec)  # the budget may be another
            console.print(f"Going on with {self._where}", highlight=False)
            return ""
        if self._resume and not submitted_as():  # a submitted search goes on with whatever there is
            console.print(
                f"[yellow]Nothing to resume in {escape(self._where)}:[/] a new search begins", highlight=False
            )
        kept = self._run
        if self._run.exists():
            benchmark = RunFolder(self._run).benchmark
            ended = benchmark if benchmark.exists() else self._run
            stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(ended.stat().st_mtime))
            kept = self._run.with_name(f"{self._run.name}-{stamp}")
            self._run.rename(kept)
            console.print(
                f"The earlier run was kept: {self._where.removesuffix(self._run.name)}{kept.name}", highlight=False
            )
        self._folder.rename(self._run)
        return "" if kept == self._run else kept.name


def _with_resources(spec: SearchSpec, resources: ResourcesSpec) -> SearchSpec:
    return spec.model_copy(update={"resources": resources})


def _unlike(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What makes a run that repeats another one from its spec.json score otherwise."""
    if not recorded:
        return []
    lines = [] if recorded["data_hash"] == now["data_hash"] else ["the data"]
    for key in ("base_commits", "versions"):
        for name, before in recorded[key].items():
            if name in now[key] and before != now[key][name]:  # --base may have put another base in its place
                lines.append(f"{name} was {before}, is {now[key][name]}")
    return lines


def _all_failed(run: Path) -> bool:
    """Whether the search came to its end without a model: nothing is left that could go on."""
    if not RunFolder(run).leaderboard.exists():
        return False
    _, rows = read_leaderboard(run)
    return bool(rows) and all(row.state not in ("RUNNING", "COMPLETE") for row in rows)


def as_begun(spec: SearchSpec, stored: Mapping[str, Any]) -> SearchSpec:
    """The spec with what it leaves open as it was when the run began: defaults may have changed since."""
    if isinstance(spec, ClassificationSpec):
        return spec if spec.data.labels is not None else with_labels(spec, stored["data"]["labels"])
    if "distractors" in spec.data.model_fields_set:
        return spec
    data = spec.data.model_copy(update={"distractors": stored["data"]["distractors"]})
    return spec.model_copy(update={"data": data})


def check_same_search(spec: SearchSpec, stored: dict[str, Any], run: Path) -> None:
    """More trials or other resources may be asked for; anything else would mix two experiments in one study.

    Raises:
        InputError: names the first key that differs, with both values.
    """
    now = spec.model_dump(mode="json")
    # Keys that the version which began the search did not know stand at their defaults.
    stored = {"task": "retrieval"} | stored
    if stored["task"] == spec.task:
        stored = stored | {"data": type(spec.data).model_validate(stored["data"]).model_dump(mode="json")}
    stored["guard"] = stored.get("guard") or GuardSpec().model_dump(mode="json")
    resources = stored["resources"]
    before, after = resources.get("workers", 1), spec.resources.workers
    if before != after:  # a trial that goes on would have its rungs at other shares of its training
        raise InputError(
            f"{run}: resources.workers was {before} and is now {after}; expected the same, or another name"
        )
    gpus = spec.resources.gpus
    if gpus is not None and bool(resources["gpus"]) != bool(gpus):  # other number formats give other scores
        raise InputError(
            f"{run}: resources.gpus was {resources['gpus'] or 0:g} and is now {gpus:g}; expected trials on "
            "the same kind of device, or another name"
        )
    for key in now:
        if key not in FREE_TO_CHANGE and now[key] != stored.get(key):
            where, before, after = _first_difference(stored.get(key), now[key], key)
            raise InputError(
                f"{run}: {where} was {before!r} and is now {after!r}; expected the same spec, or another name"
            )


def _first_difference(before: Any, after: Any, where: str) -> tuple[str, Any, Any]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(k for k in after if k not in before)]:
            if before.get(key) != after.get(key):
                return _first_difference(before.get(key), after.get(key), f"{where}.{key}")
    return where, before, after
