"""What goes to the cluster with a search: the spec, its data, its guard, earlier runs, and bases that are small.

All of them keep their places to each other, so that the spec is sent as it stands. Nothing else goes along: no other
file of the spec's folder, no environment, no cache. What a spec names by an absolute path is taken to be on the
cluster, under that path on every node.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluation.errors import InputError
from search.paths import RunFolder
from search.spec.sections import SearchSpec
from trainables.bases.hub import local_folder
from trainables.data.config import Files

LIMIT = 100 * 2**20  # bytes of a request that Ray's dashboard takes


@dataclass(frozen=True)
class Parcel:
    """The files of a search, below one folder.

    Attributes:
        root: folder that holds all of them.
        files: what goes along.
        absolute: what the spec names by an absolute path: expected on the cluster.
    """

    root: Path
    files: tuple[Path, ...]
    absolute: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(path.stat().st_size for path in self.files)

    def lay_out(self, folder: Path) -> None:
        """Put links to the files into an empty folder, in their places."""
        for path in self.files:
            link = folder / path.relative_to(self.root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


def pack(path: Path, spec: SearchSpec) -> Parcel:
    """What the spec in the file `path` needs.

    Raises:
        InputError: something that it names is not there, or all of it is more than a job takes.
    """
    files, absolute = {path.resolve(): "the spec"}, []
    for key, name in _named(spec):
        if Path(name).is_absolute():
            absolute.append(name)
            continue
        found = (spec.folder / name).resolve()
        if not found.exists():
            raise InputError(f"{path}: {key}: {found}: no such file; nothing was sent")
        files |= dict.fromkeys(_below(found, key), key)
    for folder in spec.local_bases:
        local_folder(folder)  # says where it is no model's
        files |= dict.fromkeys(_below(Path(folder), "space.base"), "space.base")
    parcel = Parcel(Path(os.path.commonpath([file.parent for file in files])), tuple(files), tuple(absolute))
    if parcel.size > LIMIT:
        largest = max(files, key=lambda file: file.stat().st_size)
        raise InputError(
            f"{path}: {files[largest]}: {largest} has {_mib(largest.stat().st_size)} of the {_mib(parcel.size)} that "
            f"would go along, and a job takes {_mib(LIMIT)}; nothing was sent: expected an absolute path that every "
            "node sees, or a name on the hub"
        )
    return parcel


def _named(spec: SearchSpec) -> Iterator[tuple[str, str]]:
    """Key -> file or folder that it names."""
    source = spec.data.source
    if isinstance(source, str):
        yield "data.source", source
    elif isinstance(source, Files):
        for part, name in source.model_dump(exclude_none=True).items():
            yield f"data.source.{part}", name
    if spec.guard.source is not None:
        yield "guard.source", spec.guard.source
    if spec.continue_from is not None:
        yield "continue_from", spec.continue_from
    if spec.started_from is not None:
        yield "start_from.run", spec.started_from.run


def _below(path: Path, key: str) -> Iterator[Path]:
    """The files that go along: of a folder all but the hidden ones, of an earlier run what is read of it."""
    if path.is_file():
        yield path
        return
    run = RunFolder(path)
    if key == "start_from.run":
        yield run.leaderboard
        return
    tops = [run.data, run.best] if key == "continue_from" else [path]
    for top in tops:
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(folder, name) for name in names if not name.startswith("."))


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
