"""The live table of a run, from any machine that sees its folder."""

from __future__ import annotations

import time
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from search.paths import RunFolder
from search.results.so_far import Ranking, ranking
from search.results.table import as_table
from search.spec.record import read_record
from search.spec.sections import ResourcesSpec
from search.staging import lock_file
from search.study.budget import devices
from search.watch.progress import Progress

EVERY_S = 2.0


def watch_run(run: Path, console: Console) -> None:
    """Draw the table until no search is at work in the folder; without a terminal, once at the end.

    Raises:
        InputError: the folder is no run.
    """
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            at_work = is_at_work(run)
            live.update(_drawn(run, ranking(run), console.width), refresh=console.is_terminal)
            if not at_work:
                return
            time.sleep(EVERY_S)


def is_at_work(run: Path) -> bool:
    """Whether a search holds the run's lock."""
    if not (lock := lock_file(run.resolve())).exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _drawn(run: Path, found: Ranking, width: int) -> RenderableType:
    record = read_record(run)
    progress = Progress.of(found.rows, devices(ResourcesSpec.model_validate(record["resources"])))
    told = progress.told(found.metric, record["budget"]["trials"])
    table = as_table(found.rows, found.metric, title=f"{RunFolder(run).path}{found.title}", width=width)
    return Group(table, Text("\n".join(f"{key}: {text}" for key, text in told.items())))
