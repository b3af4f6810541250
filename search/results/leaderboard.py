"""The study's trials as ranked rows, and the file that keeps them: `leaderboard.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from evaluation.errors import InputError
from evaluation.files import write_whole
from search.paths import RunFolder
from trainables.training.rungs import best_rung


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
        total: parameters of the model, the adapter's among them.
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
    total: int | None = None


ORDER = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1, TrialState.RUNNING: 2, TrialState.FAIL: 3}


def leaderboard(trials: Sequence[FrozenTrial], metric: str, rungs: int, limit: int | None = None) -> list[Row]:
    """Rows, best first: complete trials by score, then pruned ones by how far they came, then the rest.

    Args:
        limit: rows at most, those of running trials and then the first; None: all.
    """
    placed = sorted(trials, key=_place)
    ranks = {t.number: i for i, t in enumerate(placed, 1) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)}
    if limit is not None and len(placed) > limit:
        running = [trial for trial in placed if trial.state == TrialState.RUNNING][:limit]
        others = (trial for trial in placed if trial.state != TrialState.RUNNING)
        placed = sorted([*islice(others, limit - len(running)), *running], key=_place)
    rows = [row_of(trial, ranks.get(trial.number, 0), metric, rungs) for trial in placed]
    return [replace(row, front=True) if on_front(row, rows) else row for row in rows]


def _place(trial: FrozenTrial) -> tuple[float, ...]:
    _, score = best_rung(trial.intermediate_values)
    reached = max(trial.intermediate_values, default=0)
    return (ORDER[trial.state], -reached if trial.state == TrialState.PRUNED else 0, -score, trial.number)


def on_front(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a trial is on the Pareto front: higher score, lower second objective."""
    if row.second is None or row.score is None:
        return False
    others = [(r.score, r.second) for r in rows if r.score is not None and r.second is not None]
    return not any(
        score >= row.score and second <= row.second and (score, second) != (row.score, row.second)
        for score, second in others
    )


def row_of(trial: FrozenTrial, rank: int, metric: str, rungs: int) -> Row:
    """One trial's row."""
    records = {
        int(name.removeprefix("rung_")): value
        for name, value in trial.user_attrs.items()
        if name.startswith("rung_") and int(name.removeprefix("rung_")) in trial.intermediate_values
    }
    best, score = best_rung(trial.intermediate_values)
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
        total=last.get("total"),
        second=trial.values[1] if trial.values is not None and len(trial.values) > 1 else None,
    )


def write_leaderboard(rows: Sequence[Row], metric: str, run: Path) -> None:
    """Write `leaderboard.json` whole."""
    write_whole(
        RunFolder(run).leaderboard, json.dumps({"metric": metric, "rows": [asdict(row) for row in rows]}, indent=1)
    )


def read_leaderboard(run: Path) -> tuple[str, list[Row]]:
    """(metric, rows) of a run.

    Raises:
        InputError: the folder is no run, or its search has not come to a leaderboard.
    """
    path = RunFolder(run).leaderboard
    if not path.exists():
        raise InputError(f"{run}: no {path.name}; expected the folder of a search, such as runs/demo")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return document["metric"], [Row(**row) for row in document["rows"]]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a leaderboard that this version wrote ({error})") from None
