"""`manifest.json`: the sha256 of every file of a saved model, written last. A folder without it is not complete."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evaluation.errors import InputError
from evaluation.files import put_in_place, read_json, to_disk, write_whole

MANIFEST = "manifest.json"


@contextmanager
def appearing(dest: Path, force: bool = False) -> Iterator[Path]:
    """A folder to fill, beside `dest`; when the block ends well it gets its manifest and becomes `dest`, else it goes.

    A process that is killed leaves at most a hidden folder without a manifest, or one under a hidden name; the next
    export to `dest` removes it.

    Args:
        force: a `dest` that exists is replaced, once its successor is complete.

    Raises:
        InputError: `dest` exists and is not to be replaced.
    """
    if dest.exists() and not force:
        raise InputError(f"{dest}: exists already; expected a new folder")
    dest.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{dest.name}-", dir=dest.parent))
    old = aside.with_name(f"{aside.name}.old")
    try:
        with _held(aside):
            yield aside
            write_manifest(aside)
            if dest.exists():
                dest.rename(old)
            put_in_place(aside, dest)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    for left in left_behind(dest):
        shutil.rmtree(left, ignore_errors=True)


def left_behind(dest: Path) -> list[Path]:
    """Hidden folders beside `dest` that exports to it left when they were killed."""
    name = re.compile(rf"\.{re.escape(dest.name)}-[a-z0-9_]{{8}}(\.old)?")  # as tempfile makes it
    found = dest.parent.iterdir() if dest.parent.is_dir() else ()
    return sorted(path for path in found if name.fullmatch(path.name) and path.is_dir() and _abandoned(path))


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Mark a folder as in use; the system lets go of it when the process dies, however it dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network file system may not lock folders: then none is taken for abandoned
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _abandoned(folder: Path) -> bool:
    """Whether nobody holds the folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def write_manifest(folder: Path) -> None:
    """Have the system write every file of the folder out, then write their hashes."""
    hashes = _hashes(folder)
    for name in hashes:
        to_disk(folder / name)
    write_whole(folder / MANIFEST, json.dumps({"sha256": hashes}, indent=1))


def verify(folder: Path) -> None:
    """Hold a folder's files against its manifest.

    Raises:
        InputError: no manifest, or the first file that is missing, changed or not listed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: no {MANIFEST}, expected a folder that an export wrote to its end")
    stated = read_json(path).get("sha256")
    if not isinstance(stated, dict):
        raise InputError(f"{path}: no key 'sha256', expected the hash of each file")
    found = _hashes(folder)
    for name in sorted(stated.keys() | found.keys()):
        if stated.get(name) != found.get(name):
            state = "is missing" if name not in found else "is not listed" if name not in stated else "has changed"
            raise InputError(f"{folder}: {name} {state}, expected the files of {MANIFEST}")


def replace_card(folder: Path, card: str) -> None:
    """Put another README.md into a complete folder, which is incomplete while that lasts."""
    (folder / MANIFEST).unlink(missing_ok=True)
    write_whole(folder / "README.md", card)
    write_manifest(folder)


def _hashes(folder: Path) -> dict[str, str]:
    """Path within the folder -> sha256, of every file but the manifest."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
