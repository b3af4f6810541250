"""A run in a bucket, and this machine's copy of it.

The bucket holds what has to outlive a machine: spec, data, study, adapters, scores, results. Machines write to their
copies, and what they wrote goes up file by file; what a file says of others (a rung's marker) goes up after them. What
only saves time, such as cached embeddings, and Tune's own logs stay where they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from pyarrow.fs import FileSelector, FileType

from evaluation.errors import first_line
from search.storage.where import file_system
from trainables.training.rungs import ADAPTER, MARKER, RESUME_FILES, WEIGHTS, best_of, rungs_done

FILES_AT_ONCE = 16
CHUNK = 1 << 24  # bytes
WEIGHT_FILES = (ADAPTER, WEIGHTS, "adapter_config.json")


class BucketError(OSError):
    """A bucket that cannot be read or written now."""


class Mirror:
    """Carries files between a run's folder here and in the bucket. Names are paths within the run.

    All methods raise BucketError where the bucket cannot be read or written.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        with self._told():
            self._system, self._root = file_system(url)
        self._known: dict[str, tuple[int, int]] = {}  # name -> (bytes, time) here, of what is the same there

    def there(self, *names: str) -> dict[str, int]:
        """Files of these names, or in folders of these names, in the bucket: name -> bytes."""
        found = []
        with self._told():
            for name in names:
                path = f"{self._root}/{name}".rstrip("/")
                found += self._system.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
                found.append(self._system.get_file_info(path))
        return {info.path.removeprefix(f"{self._root}/"): info.size for info in found if info.type == FileType.File}

    def read(self, name: str) -> bytes | None:
        """A small file's content; None where it is not there."""
        try:
            with self._told(), self._system.open_input_stream(f"{self._root}/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Put a small file there; it appears whole."""
        with self._told(), self._system.open_output_stream(f"{self._root}/{name}") as file:
            file.write(content)

    def delete(self, names: Iterable[str]) -> None:
        self._each(lambda name: self._system.delete_file(f"{self._root}/{name}"), names)

    def pull(self, *names: str, wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Fetch what is there and is not here, or is of another size; documents always."""
        found = {name: size for name, size in self.there(*names).items() if wanted(name)}
        same = [name for name, size in found.items() if self._size(name) == size and not name.endswith(".json")]
        self._each(self._fetch, found.keys() - same)
        self._known.update({name: self._state(name) for name in found})

    def fetch(self, *names: str) -> None:
        """Fetch files of these names, but for those that are not there."""
        with self._told():
            for name in names:
                try:
                    self._fetch(name)
                except FileNotFoundError:
                    continue

    def push(self, *names: str) -> None:
        """Send what is new or was changed here since it was last carried, and delete there what was deleted here."""
        files = [p.relative_to(self.folder).as_posix() for name in names for p in _files(self.folder / name)]
        states = {name: self._state(name) for name in files}
        new = [name for name, state in states.items() if self._known.get(name) != state]
        for last in (False, True):
            self._each(self._send, [name for name in new if name.endswith(MARKER) is last])
        gone = [name for name in self._known if name not in states and any(_within(name, top) for top in names)]
        self.delete(gone)
        for name in gone:
            del self._known[name]
        self._known.update(states)

    def replace(self, *names: str) -> None:
        """Send everything under these names, and delete there what is not here."""
        self._known.update(dict.fromkeys(self.there(*names), (-1, -1)))
        self.push(*names)

    def keep_best(self, trial: str, metric: str, last: int = 0) -> None:
        """Do to a trial in the bucket what `keep_best` of trainables does to one here, whose markers say the rungs."""
        done, there = rungs_done(self.folder / trial), self.there(trial)
        names = {rung.rung: f"{trial}/{Path(rung.folder).name}" for rung in done}
        kept = {names[best_of(done, metric).rung]} if done else set()
        kept |= {n for rung, n in names.items() if rung > done[-1].rung - last and f"{n}/{ADAPTER}" in there}
        for_a_resume = [name for name in there if any(fnmatch(Path(name).name, p) for p in RESUME_FILES)]
        worse = [n for n in there if Path(n).name in WEIGHT_FILES and Path(n).parent.as_posix() not in kept]
        self.delete([*for_a_resume, *worse])

    def move(self, name: str) -> None:
        """Give the whole run another name beside it: a bucket has no folders, so file by file."""
        target = f"{self._root.rpartition('/')[0]}/{name}"
        files = list(self.there(""))
        self._each(lambda file: self._system.copy_file(f"{self._root}/{file}", f"{target}/{file}"), files)
        self.delete(files)

    def _fetch(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._system.open_input_stream(f"{self._root}/{name}") as source:
            draft = path.with_name(f".{path.name}.part")
            with draft.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
        draft.replace(path)

    def _send(self, name: str) -> None:
        with (
            (self.folder / name).open("rb") as file,
            self._system.open_output_stream(f"{self._root}/{name}") as target,
        ):
            shutil.copyfileobj(file, target, CHUNK)

    def _size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else -1

    def _state(self, name: str) -> tuple[int, int]:
        found = (self.folder / name).stat()
        return found.st_size, found.st_mtime_ns

    def _each(self, work: Callable[[str], None], names: Iterable[str]) -> None:
        with self._told(), ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(work, names))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The errors of pyarrow and of the hub's file system, which are of many kinds, as one."""
        try:
            yield
        except (FileNotFoundError, BucketError):
            raise
        except Exception as error:
            raise BucketError(f"{self.url}: cannot be read or written ({first_line(error)})") from error


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _within(name: str, top: str) -> bool:
    return name == top or name.startswith(f"{top}/")
