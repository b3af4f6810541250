"""What a driver, a node and a reader do with a run that is kept in a bucket. Of one that is not, they do nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

from evaluation.errors import InputError
from search.paths import RunFolder
from search.storage.mirror import WEIGHT_FILES, BucketError, Mirror
from search.storage.parts import PARTS, JournalParts
from search.storage.where import SCHEMES, copy_of
from trainables.training.rungs import MARKER, RESUME_FILES, SCORES

ID = "run.id"  # which run of its name: a node's copy may be of an earlier one
RESULTS = ("leaderboard.json", "benchmark.json", "report.html", "plots")


class Bucket:
    """A run in a bucket, as its driver keeps it: the copy here is made anew, and grows with the bucket."""

    def __init__(self, run: RunFolder) -> None:
        """Make this machine's copy, without weights, which the driver needs none of."""
        self._mirror = Mirror(run.url, run.path)
        self._parts = JournalParts(self._mirror)
        self._run = run
        shutil.rmtree(run.path, ignore_errors=True)
        _pull_light(self._mirror, run)

    def settle(self, kept_as: str) -> RunFolder:
        """Send the spec and the data of a run that has been put in place here; returns it with its id.

        Args:
            kept_as: name that the earlier run got; empty where there was none, or it goes on.
        """
        run = self._run
        if kept_as:
            self._mirror.move(kept_as)
            shutil.rmtree(run.path.with_name(kept_as))
        identity = self._mirror.read(ID)
        if identity is None:
            identity = uuid4().hex.encode()
            self._mirror.replace(run.data.name, run.guard.name)
            self._mirror.write(ID, identity)
        (run.path / ID).write_bytes(identity)
        self._mirror.push(run.spec.name)
        if entries := self._parts.take_over():
            run.journal.write_bytes(entries)
        return RunFolder(run.path, run.url, identity.decode())

    def add(self, offset: int, entries: bytes) -> None:
        """Keep entries of the study that begin at a byte of its journal.

        Raises:
            OSError: they were not kept.
        """
        self._parts.add(offset, entries)

    def fetch_rung(self, number: int, record: Mapping[str, Any]) -> None:
        """Have a rung's marker and scores here."""
        checkpoint = _within(self._run, self._run.checkpoint(number, record["folder"]))
        self._mirror.fetch(f"{checkpoint}/{MARKER}", f"{checkpoint}/{SCORES}")

    def keep_best(self, number: int, metric: str, last: int = 0) -> None:
        """Of the weights of a trial that has ended, keep those of its best rung and the adapters of its last ones."""
        self._mirror.keep_best(_within(self._run, self._run.trial(number)), metric, last)

    def push_results(self) -> None:
        """Send what the driver made, and why trials failed."""
        errors = [_within(self._run, path) for path in self._run.in_trials("error.txt")]
        self._mirror.push(*RESULTS, *errors)


def on_this_node(run: RunFolder, *names: str) -> RunFolder:
    """The copy of a run on the node that this process is on, with its data and what else is named.

    Raises:
        BucketError: the bucket cannot be read from here.
    """
    folder = copy_of(run.url)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.node.lock")):
        mark = folder / ID
        if not mark.exists() or mark.read_text() != run.id:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        Mirror(run.url, folder).pull(run.data.name, run.guard.name, *names)
        mark.write_text(run.id)
    return RunFolder(folder, run.url, run.id)


def opened(run: str, *names: str) -> Path:
    """The folder of a run that a command was given: a path as it is, of an address a copy for reading.

    Args:
        names: of what the command needs beyond what is not large: best, or tune for the weights of trials.

    Raises:
        InputError: there is no run at the address, or it cannot be read.
    """
    if "://" not in run:
        return Path(run)
    url = run.rstrip("/")
    if url.partition("://")[0] not in SCHEMES:
        raise InputError(f"{run}: expected the folder of a run, or {', '.join(f'{name}://' for name in SCHEMES)}")
    folder = RunFolder(copy_of(url).parent / ".read" / copy_of(url).name, url)
    try:
        mirror = Mirror(url, folder.path)
        if mirror.read(folder.spec.name) is None:
            raise InputError(f"{run}: no {folder.spec.name} there; expected the address of a run")
        shutil.rmtree(folder.path, ignore_errors=True)
        _pull_light(mirror, folder)
        if names:
            mirror.pull(*names)
    except BucketError as error:
        raise InputError(str(error)) from None
    return folder.path


def _pull_light(mirror: Mirror, run: RunFolder) -> None:
    """Everything but weights, and the study in one file."""
    heavy = (*WEIGHT_FILES, *RESUME_FILES)

    def light(name: str) -> bool:
        inner = Path(name)
        return inner.parts[0] not in (run.best.name, PARTS) and not any(inner.match(pattern) for pattern in heavy)

    mirror.pull("", wanted=light)
    if entries := JournalParts(mirror).read():
        run.journal.write_bytes(entries)


def _within(run: RunFolder, path: Path) -> str:
    return path.relative_to(run.path).as_posix()
