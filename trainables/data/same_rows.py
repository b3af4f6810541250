"""Does a source still hold the rows that a run's parts were written from?"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from evaluation.errors import InputError
from trainables.data.config import DataConfig
from trainables.data.pairs import earlier_pairs, read_pairs
from trainables.data.prepared import load_report
from trainables.data.rows import BadRow, Pair
from trainables.data.splits import text_hash


def require_same_rows(config: DataConfig, folder: Path, out: Path, earlier: Path | None) -> None:
    """Refuse a source that has not the rows any more that it had when `out` was prepared.

    The parts themselves are not made again: how rows are divided may differ between versions, a run's parts may not.
    A row that took no part may have changed; it has no say in the run.

    Args:
        config: the `data:` section.
        folder: where its relative paths start.
        out: the run's data folder.
        earlier: data folder of the run that this one continues.

    Raises:
        InputError: rows were added or taken away, a row of a part is not there any more, or the source cannot be read.
    """
    report = load_report(out)
    rows, there = 0, array("Q")
    for pair in read_pairs(config, folder, earlier):
        rows += 1
        if isinstance(pair, BadRow):
            raise InputError(f"{pair.file}:{pair.line}: {pair.problem}")
        if isinstance(pair, Pair):
            there.append(_content(pair))
    if rows != report.rows:
        raise InputError(f"the data has {rows:,} rows and had {report.rows:,} when the search began")
    written = list(earlier_pairs(out))
    gone = np.flatnonzero(~np.isin(np.array([_content(pair) for pair in written], dtype=np.uint64), np.array(there)))
    if len(gone):
        first = written[gone[0]]
        where = f"{Path(first.file).name}:{first.line} ({first.anchor[:60]!r})"
        raise InputError(f"the data has changed since the search began: {where} is no row of it any more")


def _content(pair: Pair) -> int:
    return text_hash("\0".join((pair.anchor, pair.positive, str(pair.concept), str(pair.kind), str(pair.domain))))
