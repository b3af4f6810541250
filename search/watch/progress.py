"""How a search stands, as figures and as short texts: from its rows, whoever has read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from search.results.leaderboard import Row
from search.results.table import as_table
from search.screen.console import plain_text

SHOWN = 20  # rows of the table that goes along
WIDTH = 110  # its columns


@dataclass(frozen=True)
class Progress:
    """A search at one moment.

    Attributes:
        states: COMPLETE, PRUNED, RUNNING, FAIL -> trials.
        best: the complete or else any trial that scores highest; none has a score yet.
        rungs: rung -> trials that reached it, and their best score there or later.
        spent, saved: device-hours that trials took, and that pruning saved if the rest had gone at the same pace.
    """

    states: dict[str, int]
    best: Row | None
    rungs: dict[int, tuple[int, float]]
    spent: float
    saved: float

    @classmethod
    def of(cls, rows: Sequence[Row], devices: float) -> Progress:
        """Of a leaderboard's rows.

        Args:
            devices: of one trial.
        """
        scored = [row for row in rows if row.score is not None]
        rungs: dict[int, tuple[int, float]] = {}
        for row in scored:
            for rung in range(1, row.rung + 1):
                reached, best = rungs.get(rung, (0, 0.0))
                rungs[rung] = (reached + 1, max(best, row.score or 0.0))
        hours = devices / 3600
        return cls(
            states=dict(Counter(row.state for row in rows)),
            best=min(scored, key=lambda row: (row.state != "COMPLETE", -(row.score or 0.0)), default=None),
            rungs=dict(sorted(rungs.items())),
            spent=sum(row.seconds for row in rows) * hours,
            saved=sum(_saved_seconds(row) for row in rows) * hours,
        )

    def told(self, metric: str, budget: int) -> dict[str, str]:
        """Label -> text, in the order in which people want them."""
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "RUNNING": "running", "FAIL": "failed"}
        states = ", ".join(f"{self.states[state]} {name}" for state, name in names.items() if state in self.states)
        ended = sum(count for state, count in self.states.items() if state != "RUNNING")
        told = {"trials": f"{ended} of {budget} ended" + (f": {states}" if states else "")}
        if self.best is not None:
            told["best"] = f"{metric} {self.best.score:.4f}, trial {self.best.trial}, rung {self.best.best_rung}"
        if self.rungs:
            steps = (f"{rung}: {reached} up to {best:.4f}" for rung, (reached, best) in self.rungs.items())
            told["trials at rungs"] = "; ".join(steps)
        told["device-hours"] = f"{self.spent:.3g} spent, about {self.saved:.3g} saved by pruning"
        return told


def table_text(rows: Sequence[Row], metric: str) -> str:
    """The first rows as a table in plain text."""
    left_out = f"\n({len(rows) - SHOWN} more)" if len(rows) > SHOWN else ""
    return plain_text(as_table(rows[:SHOWN], metric, width=WIDTH), WIDTH) + left_out


def _saved_seconds(row: Row) -> float:
    """What a pruned trial did not take."""
    if row.state != "PRUNED" or not row.pairs:
        return 0.0
    return row.seconds * (row.planned_pairs - row.pairs) / row.pairs
