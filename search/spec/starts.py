"""Starting points taken from an earlier run: its best configurations, tried first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.errors import InputError
from search.paths import RunFolder
from search.spec.space import Space


def starts_from(run: Path, space: Space, top: int) -> list[dict[str, Any]]:
    """Starting points from the best trials of a run, at most `top`, as far as they lie in the space.

    Only fields that this space searches are taken over; two trials that agree in those are one point.

    Raises:
        InputError: the folder is no run that ended, or none of its trials lies in the space.
    """
    path = RunFolder(run).leaderboard
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError):
        raise InputError(f"start_from.run: {path} cannot be read; expected the folder of an earlier search") from None
    points: list[dict[str, Any]] = []
    reason = "it ranks none"
    for row in rows:
        if not row["rank"]:
            continue
        try:
            point = space.start_at(row["config"])
        except InputError as error:
            reason = str(error)
            continue
        if point not in points:
            points.append(point)
    if not points:
        raise InputError(f"start_from.run: no trial of {run} lies in this space ({reason})")
    return points[:top]
