"""`study.journal`: the study on disk, in lines of JSON that Optuna and optuna-dashboard read.

What belongs together is written together: a proposal with its configuration, a rung with its verdict. A search that is
killed leaves a whole proposal or none, so a resumed one need not guess.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from evaluation.errors import InputError

TOGETHER = "together"  # of the first entry of several that are valid only as a whole: how many they are


class Journal(JournalFileBackend):
    """A journal file with one writer, which holds the run's lock.

    After a write that failed (a full disk) the file ends with its last complete entry and nothing more is written:
    what this process believes and what the file holds may differ from then on.
    """

    def __init__(self, path: Path, keep: Callable[[int, bytes], None] | None = None) -> None:
        """Open the journal.

        Args:
            keep: takes the byte at which new entries begin, and these. They count once it has returned; an OSError of
                its is a write that failed.
        """
        for stale in path.parent.glob(f"{path.name}.lock*"):
            stale.unlink()  # of a killed search: the caller holds the run's own lock
        self.note, self._written = repair(path) if path.exists() else ("", 0)
        super().__init__(str(path))
        self._path, self._keep = path, keep
        self._held: list[dict[str, Any]] | None = None
        self._failure: OSError | None = None

    @property
    def entries(self) -> int:
        """How many there are: as long as it stays, so does the study."""
        return self._written

    @contextmanager
    def together(self) -> Iterator[None]:
        """Entries made within the block are written at its end, in one piece; not at all if it raises."""
        self._held = []
        try:
            yield
            held, self._held = self._held, None
            if held:
                held[0][TOGETHER] = len(held)  # a key that Optuna does not know and passes over
            self._write(held)
        except BaseException as error:
            self._failure = self._failure or OSError(f"an earlier entry was not written: {error}")
            raise
        finally:
            self._held = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self._held is None:
            self._write(logs)
        else:
            self._held += json.loads(json.dumps(logs))  # as they will be read

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        if log_number_from < self._written:
            try:
                yield from super().read_logs(log_number_from)
            except ValueError:
                require_whole(self._path)
                raise
        yield from (self._held or [])[max(0, log_number_from - self._written) :]

    def _write(self, logs: list[dict[str, Any]]) -> None:
        if self._failure is not None:
            raise self._failure
        if not logs:
            return
        size = self._path.stat().st_size
        try:
            super().append_logs(logs)
            if self._keep is not None:
                with self._path.open("rb") as file:
                    file.seek(size)
                    self._keep(size, file.read())
        except OSError as error:
            self._failure = error
            os.truncate(self._path, size)
            raise
        self._written += len(logs)


def require_whole(path: Path) -> None:
    """Find what is wrong with a journal that cannot be read.

    Raises:
        InputError: names the line.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(lines):
        _parsed(path, number, line, lines)


def _parsed(path: Path, number: int, line: bytes, lines: Sequence[bytes]) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        raise InputError(
            f"{path}, line {number + 1} of {len(lines)}: not JSON; the file was damaged, not merely cut short; "
            "expected the file as embtune wrote it"
        ) from None
    return entry


def repair(path: Path) -> tuple[str, int]:
    """Drop what a crash left at the end: a line cut short, after which nothing could be read, and the entries before
    it that are valid only together with it.

    Returns:
        What was done, empty if nothing; and the number of entries that stay.

    Raises:
        InputError: a line that says what belongs together, or the last, cannot be read.
    """
    text = path.read_bytes()
    lines = text.split(b"\n")[:-1]
    start, stop = 0, 0  # of the entries that belong together with the last line
    marked = f'"{TOGETHER}"'.encode()
    for number, line in enumerate(lines):
        if number < stop:
            continue
        # Most lines are read by Optuna alone, which reads them anyway: it takes seconds for thousands of trials.
        size = _parsed(path, number, line, lines).get(TOGETHER, 1) if marked in line else 1
        start, stop = number, number + size
    if stop == len(lines) and lines:
        _parsed(path, len(lines) - 1, lines[-1], lines)
    kept = lines if stop <= len(lines) else lines[:start]
    size = sum(len(line) + 1 for line in kept)
    if size == len(text):
        return "", len(kept)
    os.truncate(path, size)
    return (
        f"{path.name}: the last entry was cut short by a crash and was dropped ({len(text) - size} bytes); "
        f"the {len(kept)} before it are complete",
        len(kept),
    )
