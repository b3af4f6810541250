"""Which trial to keep: dev scores are noisy, so of trials that cannot be told apart the one that is cheapest to run is
kept. Merged, a trial runs at its base's cost whatever was trained, so of one base the best on dev stays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.compare import compare
from evaluation.errors import InputError
from evaluation.retrieval import Scores
from search.paths import RunFolder
from search.results.leaderboard import Row
from trainables.training.rungs import SCORES

RESAMPLES = 2_000  # of each comparison, for a mark and not for a published interval: 0.4 s with 2,000 concepts
RANKED = ("COMPLETE", "PRUNED")


@dataclass(frozen=True)
class Choice:
    """The trial to merge.

    Attributes:
        row: its row.
        reason: one or two sentences for people.
    """

    row: Row
    reason: str


def mark_tied(rows: Sequence[Row], run: Path, metric: str) -> list[Row]:
    """The rows with `tied` set: trials that the dev queries cannot tell from the best one.

    The best is the first row, which is the best complete trial where there is one. Each other trial's best rung is
    compared with the best's query by query, resampling concepts; tied means that the 95 % interval of the difference
    includes zero. The intervals are not corrected for their number: that would tie more trials, not fewer.

    With dev queries of a single concept nothing can be told apart and every trial is tied.

    Raises:
        InputError: a checkpoint's scores are gone.
    """
    best = next((row for row in rows if row.state in RANKED and row.checkpoint), None)
    if best is None:
        return list(rows)
    reference = _scores(run, best)

    def tied(row: Row) -> bool:
        if row.state not in RANKED or not row.checkpoint:
            return False
        if row.trial == best.trial or len(set(reference.groups)) < 2:
            return True
        difference = compare(reference, _scores(run, row), metric, RESAMPLES)
        return difference.low <= 0 <= difference.high

    return [replace(row, tied=tied(row)) for row in rows]


def choose(rows: Sequence[Row]) -> Choice | None:
    """Of the complete trials that are tied with the best, the cheapest to run: the smaller base, then the shorter
    maximum length, then fewer embedding dimensions; of those that cost the same, the highest dev score. None when no
    trial is complete.

    Args:
        rows: a leaderboard that `mark_tied` has marked.
    """
    complete = [row for row in rows if row.state == "COMPLETE"]
    if not complete:
        return None
    best = complete[0]
    tied = [row for row in complete if row.tied]
    chosen = min(tied, key=lambda row: (*running_cost(row), row.rank), default=best)
    if len(tied) < 2:
        reason = f"Trial {best.trial} is the best: no other complete trial is tied with it on dev."
    else:
        reason = f"Complete trials {_listed([row.trial for row in tied])} are tied on dev (95 %): "
        if chosen is best:
            reason += f"trial {best.trial} scores best and none of them is cheaper to run, so it is kept."
        else:
            reason += (
                f"the cheapest to run is kept, trial {chosen.trial}, dev {chosen.score:.4f} with {_cost(chosen)}, "
                f"rather than trial {best.trial}, {best.score:.4f} with {_cost(best)}."
            )
    return Choice(chosen, reason + stage(chosen))


def running_cost(row: Row) -> tuple[float, float, float]:
    """What a merged trial costs to run, less is cheaper: parameters of its base, tokens of the longest text, smallest
    embedding size that was trained (what it leaves open counts as the base's whole)."""
    length, sizes = row.config.get("max_length"), row.config.get("matryoshka") or ()
    return (base_size(row), length or math.inf, min(sizes, default=math.inf))


def base_size(row: Row) -> int:
    """Parameters of a trial's base; 0 where an earlier version did not record them."""
    if row.total is None:
        return 0
    return row.total if row.config.get("method") == "full" else row.total - (row.trainable or 0)


def stage(row: Row) -> str:
    """A sentence on weights that are not those of a whole training; empty where they are."""
    if row.best_rung == row.rungs:
        return ""
    stopped = f"; the pruner stopped it at rung {row.rung}" if row.state == "PRUNED" else ""
    return f" The weights are those of rung {row.best_rung} of {row.rungs}, which scored best on dev{stopped}."


def _scores(run: Path, row: Row) -> Scores:
    path = RunFolder(run).checkpoint(row.trial, row.checkpoint) / SCORES
    try:
        return Scores.load(path)
    except InputError:
        raise InputError(f"{path}: no such file, expected the dev scores of trial {row.trial}") from None


def _cost(row: Row) -> str:
    _, length, dimensions = running_cost(row)
    told = [f"a base of {base_size(row):,} parameters"]
    told += [f"texts of {length:,.0f} tokens"] if length < math.inf else []
    told += [f"embeddings of {dimensions:,.0f} dimensions"] if dimensions < math.inf else []
    return ", ".join(told)


def _listed(trials: Sequence[int]) -> str:
    return ", ".join(map(str, trials[:-1])) + f" and {trials[-1]}"
