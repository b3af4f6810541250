"""A run's leaderboard at any time: the one that its end has written, else what its study tells so far."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.errors import InputError
from search.paths import RunFolder
from search.results.choice import choose
from search.results.leaderboard import Row, leaderboard, read_leaderboard
from search.spec.record import read_record
from search.study.read import read_study
from search.study.study import proposed_to_run


@dataclass(frozen=True)
class Ranking:
    """A run's trials, best first.

    Attributes:
        metric: that is maximised.
        rows: one for each trial.
        so_far: whether the search is at work or was stopped. Ties are not marked then.
    """

    metric: str
    rows: list[Row]
    so_far: bool

    def as_json(self) -> str:
        """As `leaderboard.json` has it, and whether it is so far."""
        document = {"metric": self.metric, "so_far": self.so_far, "rows": [asdict(row) for row in self.rows]}
        return json.dumps(document, indent=1)

    @property
    def title(self) -> str:
        """What is put behind the run's name."""
        return " (so far)" if self.so_far else ""


def ranking(run: Path) -> Ranking:
    """The ranking of a run.

    Raises:
        InputError: the folder is no run.
    """
    folder = RunFolder(run)
    if folder.leaderboard.exists():
        metric, rows = read_leaderboard(run)
        return Ranking(metric, rows, so_far=not folder.benchmark.exists())
    study = read_study(folder)
    trials = proposed_to_run(study.get_trials(deepcopy=False))
    rungs = next((t.user_attrs["rung_1"].get("rungs", 0) for t in trials if "rung_1" in t.user_attrs), 0)
    metric = str(read_record(run)["metric"])
    return Ranking(metric, leaderboard(trials, metric, rungs), so_far=True)


def best_so_far(run: Path) -> int | None:
    """The trial that is exported while there is no best model yet: the best complete one. None: the search has ended.

    Raises:
        InputError: the folder is no run, or no trial is complete.
    """
    found = ranking(run)
    if not found.so_far:
        return None
    if (choice := choose(found.rows)) is not None:
        return choice.row.trial
    reached = ", ".join(str(row.trial) for row in found.rows if row.checkpoint) or "none yet"
    raise InputError(f"{run}: no trial is complete; expected --trial with one that has come to a rung ({reached})")
