"""Files: written so that they appear whole, read so that what is wrong is named."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from evaluation.errors import InputError


def _beside(path: Path) -> Path:
    """A hidden name beside `path` that no other writer has."""
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}")


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place if the block ends well and is removed if not.

    The name is the writer's own, so that concurrent processes never write to one file; the last to end wins. After a
    power cut too, what stands at `path` is whole: it is on the disk before it gets that name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _beside(path)
    try:
        yield draft
        to_disk(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 text that readers see whole or not at all, after a power cut too."""
    with aside(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write(text)


def put_in_place(draft: Path, folder: Path) -> None:
    """Rename a folder that was written aside. It stands whole or not at all, after a power cut too, for all to read.

    Raises:
        OSError: `folder` exists and is not empty.
    """
    settle(draft)
    draft.rename(folder)
    to_disk(folder.parent)


def settle(draft: Path) -> None:
    """Have the system write out a folder that is to be renamed, with the permissions that the umask says."""
    usual_modes(draft)
    for path in draft.rglob("*"):
        to_disk(path)
    to_disk(draft)


def to_disk(path: Path) -> None:
    """Have the system write a file's content, or a folder's entries, to the disk before anything else is done."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def usual_modes(path: Path) -> None:
    """Give a file, or a folder and all that is in it, the permissions that the user's umask gives to new files.

    safetensors and tempfile make theirs for their owner alone, whatever the umask says.
    """
    probe = _beside(path)  # os.umask tells only by setting another, for every thread
    probe.touch(exist_ok=False)
    usual = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for made in (path, *path.rglob("*")):  # of a file there is nothing more
        may_enter = (usual & 0o444) >> 2 if made.is_dir() else 0
        if stat.S_IMODE(made.stat().st_mode) != usual | may_enter:  # not every file system has permissions to set
            made.chmod(usual | may_enter)


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a JSON Lines file with "file:line" to name it in errors. Blank lines are passed over."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected JSON Lines")
    for where, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: not JSON ({error.msg}), expected one object on each line") from None
        if not isinstance(row, dict):
            raise InputError(f"{where}: {type(row).__name__}, expected one object on each line")
        yield where, row


def text_of(where: str, row: dict[str, Any], key: str) -> str:
    """A row's text, or its number as a text.

    Raises:
        InputError: the key is missing or holds something else.
    """
    value = row.get(key)
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise InputError(f"{where}: key {key!r} is {value!r}, expected a text")
    return str(value)


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line of a UTF-8 text with "file:line"; a byte order mark before the first is passed over.

    Raises:
        InputError: a line that is not UTF-8.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            try:
                yield where, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: not UTF-8 text (byte {error.start + 1} of the line)") from None


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
        InputError: not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}), expected an object") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: {type(value).__name__}, expected a JSON object")
    return value
