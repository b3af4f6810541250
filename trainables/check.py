"""What is wrong with the data, row by row, and what the search does about it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluation.errors import InputError
from trainables.data_config import DataConfig
from trainables.rows import PARTS
from trainables.splits import require_parts
from trainables.survey import Survey, survey


class DataReport(BaseModel):
    model_config = ConfigDict(extra="forbid")

    config: DataConfig
    seed: int
    rows: int
    dropped: dict[str, int] = {}
    parts: dict[str, int] = {}
    unusable: str | None = None
    content_hash: str = ""


def check(config: DataConfig, folder: Path, seed: int) -> tuple[Survey, DataReport]:
    found = survey(config, folder, seed)
    report = DataReport(
        config=config,
        seed=seed,
        rows=found.rows,
        dropped={rule: tally.count for rule, tally in found.dropped.items()},
        parts={name: int((found.parts_N == part).sum()) for part, name in enumerate(PARTS)},
    )
    report.unusable = _unusable(config, found)
    return found, report


def _unusable(config: DataConfig, found: Survey) -> str | None:
    if found.bad.count:
        return found.bad.places[0]
    if found.missing_column:
        return found.missing_column
    if not len(found.line_N):
        return "no row with an anchor and a positive"
    try:
        require_parts(found.parts_N, found.groups_N, config.split.dev, config.split.test)
    except InputError as error:
        return str(error)
    return None
