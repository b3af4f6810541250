"""A leaderboard's rows for people: a table for the terminal, CSV, and how single values are written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from search.results.leaderboard import Row

USUAL = ("base", "targets", "r", "lr", "batches")  # fields that every table shows
TOLD = ("method", "batch_size", "epochs", "loss", "max_length")
HEADS = {"batch_size": "batch"}
FRONT = "* "  # before the score of a trial on the Pareto front of two objectives
TIED = "= "  # before the score of a trial that is tied with the best
NARROW = 110  # terminal columns that the usual fields fill


def as_table(rows: Sequence[Row], metric: str, title: str = "", width: int = 120) -> Table:
    """The rows for a terminal of so many columns.

    Fields in which all trials agree are named once, in the caption; fields that differ but are not among the usual
    ones have columns where there is room. "=" marks the trials that are tied with the best on dev.
    """
    differ = _differing(rows)
    room = max(0, (width - NARROW) // 11)
    usual = [name for name in USUAL if not rows or any(name in row.config for row in rows)]  # of its task
    fields = [*usual, *[name for name in differ if name not in USUAL][: room + len(USUAL) - len(usual)]]
    caption = ", ".join(
        f"{name} {shown(rows[0].config[name])}"
        for name in TOLD
        if rows and name not in (*differ, *USUAL) and rows[0].config.get(name) is not None
    )
    if any(row.best_rung < row.rung for row in rows):
        caption += "\nscores are of each trial's best rung, whose weights are kept"
    if sum(row.tied for row in rows) > 1:
        caption += f"\n{TIED}statistically tied with the best on dev"
    if any(row.front for row in rows):
        caption += f"\n{FRONT}on the Pareto front"
    wide = width >= NARROW
    table = Table(title=title or None, caption=caption or None, box=box.SIMPLE_HEAD if wide else None, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    for name in ("#", "id"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in fields:
        side: Literal["left", "right"] = "right" if name == "r" else "left"
        table.add_column(HEADS.get(name, name), justify=side, max_width=19 if wide else 10, no_wrap=True)
    for name in ("rung", metric):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", min_width=8)
    for row in rows:
        score = "" if row.score is None else f"{FRONT if row.front else ''}{TIED if row.tied else ''}{row.score:.4f}"
        if row.error is not None and wide:
            score += f" ±{row.error:.3f}"
        table.add_row(
            str(row.rank or ""),
            str(row.trial),
            *(rate(row.config["lr"]) if name == "lr" else shown(row.config.get(name)) for name in fields),
            f"{row.rung}/{row.rungs}",
            score,
            state_text(row.state) + (f" {escape(row.failure[:60])}" if row.failure else ""),
            style="dim" if row.state in ("PRUNED", "FAIL") else "",
        )
    return table


def as_csv(rows: Sequence[Row]) -> str:
    """One line a trial, the configuration's fields as columns of their own."""
    flat = [
        {**{k: v for k, v in asdict(r).items() if k not in ("config", "metrics")}, **r.config, **r.metrics}
        for r in rows
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in flat for name in row)))
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def state_text(state: str) -> str:
    colour = {"COMPLETE": "green", "PRUNED": "yellow", "FAIL": "red", "RUNNING": "cyan"}[state]
    return f"[{colour}]{state}[/{colour}]"


def rate(lr: float) -> str:
    """A learning rate, as tables and lines on screen write it."""
    return f"{lr:.1e}"


def shown(value: Any) -> str:
    """A field's value, short enough for a column."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, str) and "/" in value:
        return value.rsplit("/", 1)[-1]
    return "" if value is None else str(value)


def _differing(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(name for row in rows for name in row.config)
    return [name for name in names if len({json.dumps(row.config.get(name)) for row in rows}) > 1]
