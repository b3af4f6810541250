"""The study's trials as ranked rows, for people and for `leaderboard.json`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.markup import escape
from rich.table import Table

from evaluation.errors import InputError
from evaluation.files import write_whole
from search.study.study import best_rung

LEADERBOARD = "leaderboard.json"
USUAL = ("base", "targets", "r", "lr", "batches")  # fields that every table shows
TOLD = ("method", "batch_size", "epochs", "loss", "max_length")
HEADS = {"batch_size": "batch"}
FRONT = "* "  # before the score of a trial on the Pareto front of two objectives
TIED = "= "  # before the score of a trial that is tied with the best
NARROW = 110  # terminal columns that the usual fields fill


@dataclass(frozen=True)
class Row:
    """One trial. Scores are of its best rung, the one whose weights are kept.

    Attributes:
        rank: among the finished and the pruned, from 1; 0 for the others.
        trial: number in the study.
        state: COMPLETE, PRUNED, FAIL or RUNNING.
        score, error: dev metric of the best rung and its cluster-robust standard error; None before the first rung.
        rung, best_rung, rungs: reached, best, and of a whole trial.
        trainable: parameters that are trained.
        pairs, planned_pairs: training pairs seen, and of a whole trial.
        seconds: training and dev evaluation.
        checkpoint: folder of the best rung's weights.
        failure: why it failed; empty otherwise.
        config: the trial's configuration.
        metrics: every dev metric of the best rung.
        steps: optimizer steps of a whole trial.
        second: value of the second objective, which is minimised; None where there is one objective.
        front: whether no other complete trial is at least as good in both objectives and better in one.
        tied: whether the dev queries cannot tell it from the best trial; search/results/choice.py says.
    """

    rank: int
    trial: int
    state: str
    score: float | None
    error: float | None
    rung: int
    best_rung: int
    rungs: int
    trainable: int | None
    pairs: int
    planned_pairs: int
    seconds: float
    checkpoint: str
    failure: str
    config: dict[str, Any]
    metrics: dict[str, float]
    steps: int = 0
    tied: bool = False
    second: float | None = None
    front: bool = False


def leaderboard(trials: Sequence[FrozenTrial], metric: str, rungs: int) -> list[Row]:
    """Rows, best first: complete trials by score, then pruned ones by how far they came, then the rest."""
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1, TrialState.RUNNING: 2, TrialState.FAIL: 3}

    def place(trial: FrozenTrial) -> tuple[float, ...]:
        _, score = best_rung(trial)
        reached = max(trial.intermediate_values, default=0)
        return (order[trial.state], -reached if trial.state == TrialState.PRUNED else 0, -score, trial.number)

    rows: list[Row] = []
    for trial in sorted(trials, key=place):
        ranked = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        rows.append(_row(trial, len(rows) + 1 if ranked else 0, metric, rungs))
    return [replace(row, front=on_front(row, rows)) for row in rows]


def on_front(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a trial is on the Pareto front: higher score, lower second objective."""
    if row.second is None or row.score is None:
        return False
    others = [(r.score, r.second) for r in rows if r.score is not None and r.second is not None]
    return not any(
        score >= row.score and second <= row.second and (score, second) != (row.score, row.second)
        for score, second in others
    )


def _row(trial: FrozenTrial, rank: int, metric: str, rungs: int) -> Row:
    records = {
        int(name.removeprefix("rung_")): value
        for name, value in trial.user_attrs.items()
        if name.startswith("rung_") and int(name.removeprefix("rung_")) in trial.intermediate_values
    }
    best, score = best_rung(trial)
    last = records.get(max(records, default=0), {})
    step, steps = last.get("step", 0), last.get("steps", 0)
    pairs = last.get("pairs", 0)
    return Row(
        rank=rank,
        trial=trial.number,
        state=trial.state.name,
        score=score if best else None,
        error=records[best]["errors"][metric] if best else None,
        rung=max(records, default=0),
        best_rung=best,
        rungs=rungs,
        trainable=last.get("trainable"),
        pairs=pairs,
        planned_pairs=round(pairs * steps / step) if step else 0,
        seconds=round(sum(r["train_s"] + r["eval_s"] for r in records.values()), 2),
        checkpoint=records[best]["folder"] if best else "",
        failure=trial.user_attrs.get("failure", ""),
        config=trial.user_attrs.get("config", {}),
        metrics=records[best]["metrics"] if best else {},
        steps=steps,
        second=trial.values[1] if trial.values is not None and len(trial.values) > 1 else None,
    )


def write_leaderboard(rows: Sequence[Row], metric: str, run: Path) -> None:
    """Write `leaderboard.json` whole."""
    write_whole(run / LEADERBOARD, json.dumps({"metric": metric, "rows": [asdict(row) for row in rows]}, indent=1))


def read_leaderboard(run: Path) -> tuple[str, list[Row]]:
    """(metric, rows) of a run.

    Raises:
        InputError: the folder is no run, or its search has not come to a leaderboard.
    """
    path = run / LEADERBOARD
    if not path.exists():
        raise InputError(f"{run}: no {LEADERBOARD}; expected the folder of a search, such as runs/demo")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return document["metric"], [Row(**row) for row in document["rows"]]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a leaderboard that this version wrote ({error})") from None


def as_table(rows: Sequence[Row], metric: str, title: str = "", width: int = 120) -> Table:
    """The rows for a terminal of so many columns.

    Fields in which all trials agree are named once, in the caption; fields that differ but are not among the usual
    ones have columns where there is room. "=" marks the trials that are tied with the best on dev.
    """
    differ = _differing(rows)
    room = max(0, (width - NARROW) // 11)
    fields = [*USUAL, *[name for name in differ if name not in USUAL][:room]]
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


def stage(row: Row) -> str:
    """A sentence on weights that are not those of a whole training; empty where they are."""
    if row.best_rung == row.rungs:
        return ""
    stopped = f"; the pruner stopped it at rung {row.rung}" if row.state == "PRUNED" else ""
    return f" The weights are those of rung {row.best_rung} of {row.rungs}, which scored best on dev{stopped}."


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
