"""The live table of trials: a Tune callback that draws the study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from search.results.leaderboard import Row, leaderboard, row_of
from search.results.table import as_table, rate
from search.study.study import Study
from search.tune.callbacks import Unsaved

FRAME = 8  # lines of a terminal that are not rows: head, captions, what is left


class LiveTable(Unsaved):
    """Draws the table anew at each event; without a terminal, prints one line for each rung and each end instead."""

    def __init__(self, study: Study, console: Console) -> None:
        self._study = study
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._told: dict[int, tuple[int, TrialState]] = {}  # trial -> rung and state
        self._entries = -1  # of the study when it was looked at last

    def __enter__(self) -> LiveTable:
        if self._study.note:
            self._console.print(f"[yellow]{escape(self._study.note)}[/]", highlight=False, soft_wrap=True)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()
        if self._study.halted:
            self._console.print(f"[red]The search cannot go on:[/] {escape(self._study.halted)}", soft_wrap=True)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._study.entries == self._entries:  # Tune calls this many times a second
            return
        self._entries = self._study.entries
        found = self._study.trials
        if self._console.is_terminal:
            self._draw(found)
        else:
            self._tell(found)

    def _draw(self, trials: Sequence[FrozenTrial]) -> None:
        metric, rungs = self._study.spec.metric, self._study.space.rungs
        rows = leaderboard(trials, metric, rungs, limit=max(1, self._console.height - FRAME))
        hidden = len(trials) - len(rows)
        line = Text(self._study.left() + (f"; {hidden} lower rows not shown" if hidden else ""), style="dim")
        self._live.update(Group(as_table(rows, metric, width=self._console.width), line), refresh=True)

    def _tell(self, trials: Sequence[FrozenTrial]) -> None:
        now = {trial.number: (max(trial.intermediate_values, default=0), trial.state) for trial in trials}
        new = [trial for trial in trials if self._told.get(trial.number) != now[trial.number]]
        self._told = now
        for row in (row_of(trial, 0, self._study.spec.metric, self._study.space.rungs) for trial in new):
            if row.failure:
                self._console.print(
                    f"trial {row.trial}: failed: {row.failure}", highlight=False, markup=False, soft_wrap=True
                )
            elif row.score is not None:
                self._console.print(self._line(row), highlight=False, soft_wrap=True)
        if any(trial.state.is_finished() for trial in new):
            self._console.print(self._study.left(), style="dim", highlight=False)

    def _line(self, row: Row) -> str:
        score = self._study.trial(row.trial).intermediate_values[row.rung]
        best = f" (best {row.score:.4f} at rung {row.best_rung})" if row.best_rung < row.rung else ""
        config = row.config
        told = [config["method"], config["targets"], f"r {config['r']}", f"lr {rate(config['lr'])}"]
        told += [config["batches"]] if "batches" in config else []
        return (
            f"trial {row.trial}: rung {row.rung}/{row.rungs}, {self._study.spec.metric} {score:.4f}{best}, {row.state} "
            f"({' '.join(told)})"
        )
