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
from evaluation.files import read_json, settle, to_disk, write_whole

MANIFEST = "manifest.json"
MODEL = (MANIFEST, "modules.json", "adapter_config.json")  # one of them is in a folder that may be replaced


@contextmanager
def appearing(dest: Path, force: bool = False) -> Iterator[Path]:
    """A folder to fill, beside `dest`; when the block ends well it gets its manifest and becomes `dest`, else it goes.

    A process that is killed leaves at most a hidden folder without a manifest, or one under a hidden name; the next
    export to `dest` removes it, or puts it back where it is what `dest` was.

    Args:
        force: a `dest` that exists is replaced, once its successor is complete.

    Raises:
        InputError: `dest` exists and is not to be replaced, or is no exported model.
    """
    _put_back(dest)
    _check_free(dest, force)
    dest.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{dest.name}-", dir=dest.parent))
    try:
        with _held(aside):
            yield aside
            write_manifest(aside)
            settle(aside)
            _check_free(dest, force)  # it may have appeared meanwhile
            _exchange(aside, dest)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for left in left_behind(dest):
        shutil.rmtree(left, ignore_errors=True)


def check_apart(dest: Path, source: Path) -> None:
    """Check that a model can be written to `dest` without writing into what it is made from.

    Raises:
        InputError: `dest` is `source`, lies in it or holds it.
    """
    one, other = dest.resolve(), source.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise InputError(f"{dest}: is {source}, lies in it or holds it; expected a folder of its own")


def _check_free(dest: Path, force: bool) -> None:
    if not dest.exists():
        return
    if not force:
        raise InputError(f"{dest}: exists already; expected a new folder, or --force")
    if not dest.is_dir() or (any(dest.iterdir()) and not any((dest / name).is_file() for name in MODEL)):
        raise InputError(f"{dest}: not an exported model (none of {', '.join(MODEL)}), which alone --force replaces")


def _exchange(aside: Path, dest: Path) -> None:
    """Two renames; what was at `dest` is back there when the second cannot be made."""
    old = _old(aside)
    try:
        if dest.exists():
            dest.rename(old)
        aside.rename(dest)
    except BaseException:  # a Ctrl-C between them, too
        if old.exists() and not dest.exists():
            old.rename(dest)
        raise
    to_disk(dest.parent)
    with suppress(FileNotFoundError):  # there was none, or another export to `dest` has just removed it
        old.rename(aside)  # to be removed: what is called .old is whole, and wanted where there is no `dest`


def _old(aside: Path) -> Path:
    """Where what was at the destination lies between the two renames."""
    return aside.with_name(f"{aside.name}.old")


def _put_back(dest: Path) -> None:
    """Undo the first rename of an export that was killed before the second."""
    if dest.exists():
        return
    for aside in _asides(dest):
        if _old(aside).is_dir() and _abandoned(aside):
            _old(aside).rename(dest)
            return


def left_behind(dest: Path) -> list[Path]:
    """Hidden folders beside `dest` that exports to it left when they were killed; not the one that `dest` was, where
    there is none now."""
    left = [path for aside in _asides(dest) if _abandoned(aside) for path in (aside, _old(aside))]
    return [path for path in left if path.is_dir() and (path.suffix != ".old" or dest.exists())]


def _asides(dest: Path) -> list[Path]:
    """Of all exports to `dest`, living or killed; some may be there under their .old name alone."""
    name = re.compile(rf"(\.{re.escape(dest.name)}-[a-z0-9_]{{8}})(\.old)?")  # as tempfile makes it
    found = dest.parent.iterdir() if dest.parent.is_dir() else ()
    matches = (name.fullmatch(path.name) for path in found if path.is_dir())
    return sorted({dest.with_name(match[1]) for match in matches if match})


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
    """Whether nobody holds the folder; what belongs to another user, who may, is left to them."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # its .old is there alone
        return True
    except OSError:
        return False
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
