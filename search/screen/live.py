"""The live table of trials: a Tune callback that draws the study."""

from __future__ import annotations

from typing import Any

from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from search.results.leaderboard import Row, leaderboard
from search.results.table import as_table, rate
from search.study.study import Study


class LiveTable(tune.Callback):
    """Draws the table anew at each event; without a terminal, prints one line for each rung and each end instead."""

    def __init__(self, study: Study, console: Console) -> None:
        self._study = study
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._told: set[tuple[int, int, str]] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return (tune.Callback, ())  # Tune pickles callbacks for a snapshot that nobody reads

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
        rows = leaderboard(self._study.trials, self._study.spec.metric, self._study.space.rungs)
        events = {(row.trial, row.rung, row.state) for row in rows}
        if events == self._told:
            return
        if self._console.is_terminal:
            line = Text(self._study.left(), style="dim")
            self._live.update(
                Group(as_table(rows, self._study.spec.metric, width=self._console.width), line), refresh=True
            )
        else:
            for row in sorted(rows, key=lambda r: r.trial):
                if (row.trial, row.rung, row.state) in self._told:
                    continue
                if row.failure:
                    self._console.print(
                        f"trial {row.trial}: failed: {row.failure}", highlight=False, markup=False, soft_wrap=True
                    )
                elif row.score is not None:
                    self._console.print(self._line(row), highlight=False, soft_wrap=True)
            if {e for e in events if e[2] != "RUNNING"} - self._told:
                self._console.print(self._study.left(), style="dim", highlight=False)
        self._told = events

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
