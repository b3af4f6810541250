"""How a search's new best model takes the place of `best/`, whatever its task."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from search.paths import RunFolder

T = TypeVar("T")


def renew_best(run: RunFolder, export: Callable[[Path], T]) -> T:
    """Have `export` write the model beside `best/`, then let it take its place. Returns what `export` does."""
    new, old = run.beside_best()
    for stale in (new, old):  # of an earlier end of this search
        shutil.rmtree(stale, ignore_errors=True)
    found = export(new)
    if run.best.exists():
        run.best.rename(old)
    new.rename(run.best)
    shutil.rmtree(old, ignore_errors=True)
    return found
