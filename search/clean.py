"""What an ended run no longer needs: its cache, the weights of trials and rungs that are in none of its candidates, and
what exports left that were killed.

Scores, the study, the data and `best/` stay, so the report and the leaderboard can be made anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from evaluation.errors import InputError
from search.paths import RunFolder
from search.results.classifier_benchmark import read_end
from search.staging import locked
from trainables.export.manifest import left_behind
from trainables.training.rungs import WEIGHT_FILES


def removable(run: Path) -> dict[Path, int]:
    """File -> bytes of what can go.

    Raises:
        InputError: no run, or one whose search has not ended.
    """
    folder = RunFolder(run)
    if not folder.benchmark.is_file():
        raise InputError(f"{run}: no {folder.benchmark.name}; expected the folder of a search that has ended")
    return {path: path.stat().st_size for path in sorted(_unneeded(folder))}


def remove(run: Path, files: Mapping[Path, int]) -> None:
    """Delete what `removable` found.

    Raises:
        InputError: a search is at work in the folder.
    """
    with locked(run.resolve()):
        for path in files:
            path.unlink(missing_ok=True)
        for folder in _left(RunFolder(run)):
            shutil.rmtree(folder, ignore_errors=True)


def _unneeded(run: RunFolder) -> Iterator[Path]:
    benchmark = read_end(run.benchmark)
    members = {(share.trial, share.checkpoint) for c in benchmark.candidates for share in c.members}
    kept = {run.checkpoint(trial, checkpoint) for trial, checkpoint in members}
    if not kept:  # of an earlier version: which weights are in best/ is told by its trial alone
        kept = set(run.trial(benchmark.best.trial).glob("*"))
    for name in WEIGHT_FILES:
        yield from (path for path in run.in_trials(f"*/{name}") if path.parent not in kept)
    for folder in (run.cache, *_left(run)):
        yield from (path for path in folder.rglob("*") if path.is_file())


def _left(run: RunFolder) -> list[Path]:
    """Folders of promotions that were killed, of which an end of the search has come since."""
    asides = run.beside_best()
    return [path for dest in (run.best, *asides) for path in left_behind(dest)] + [p for p in asides if p.is_dir()]
