"""Every row that a search reads, as pairs: those of an earlier run, then those of the source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from evaluation.task import read_jsonl
from trainables.data.config import DataConfig
from trainables.data.rows import PARTS, BadRow, DroppedRow, Pair, PairReader
from trainables.data.sources import read_rows

GROUP_PREFIX = "group-"
GROUP_NAME = re.compile(GROUP_PREFIX + "[0-9a-f]{16}")  # of a group whose concept the source does not name


def read_pairs(
    config: DataConfig, folder: Path, earlier: Path | None = None, reader: PairReader | None = None
) -> Iterator[Pair | BadRow | DroppedRow]:
    """Every row of an earlier run's data folder and of the source: a pair, or the reason why it is none."""
    if earlier is not None:
        yield from earlier_pairs(earlier)
    reader = reader or PairReader(config)
    for row in read_rows(config, folder):
        yield row if isinstance(row, BadRow) else reader.pair(row)


def earlier_pairs(folder: Path) -> Iterator[Pair]:
    """The rows of a run's data folder, pinned to their parts. Names that prepare gave to groups are taken off again."""
    for part in PARTS:
        for number, (_, row) in enumerate(read_jsonl(folder / f"{part}.jsonl"), start=1):
            concept = None if GROUP_NAME.fullmatch(row["concept"]) else row["concept"]
            yield Pair(
                file=str(folder / f"{part}.jsonl"),
                line=number,
                part=part,
                anchor=row["anchor"],
                positive=row["positive"],
                negatives=tuple(row["negatives"]),
                concept=concept,
                kind=row["kind"],
                domain=row["domain"],
                pinned=True,
                grade=row.get("grade", 1),  # runs of earlier versions do not say
            )
