"""Why a part of the data ends up empty, or too small to be used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainables.data.config import DataConfig
from trainables.data.rows import PARTS
from trainables.data.splits import DEV, TEST, TRAIN, components
from trainables.data.survey import DUPLICATE, LOW_GRADE, SHARED_QUESTION, SHARED_TEXT, TRAINED_ON, TWO_SIDES, Survey

REASONS = {
    DUPLICATE: "repeat another row",
    TWO_SIDES: "are of a concept that {before} has too",
    SHARED_TEXT: "share a question or a passage with {before}",
    SHARED_QUESTION: "ask a question that {before} has too",
    TRAINED_ON: "were trained on by the earlier run",
    LOW_GRADE: "have a grade below min_grade {least}",
}
BEFORE = {TRAIN: "dev or test", DEV: "test", TEST: "another part"}
LEAST = {TEST: 2, DEV: 1, TRAIN: 1}  # independent groups; no interval of one


def empty_part(config: DataConfig, found: Survey) -> str | None:
    """What is wrong with the first part that cannot be used: how many rows it had, why they left, what would help."""
    for part, least in LEAST.items():
        own = found.parts_N == part
        groups = len(np.unique(components(found.anchors_N[own], found.group_names_N[own])))
        if groups >= least:
            continue
        what = "is empty" if not groups else "holds 1 concept, and an interval needs 2"
        return f"split: the {PARTS[part]} part {what}: {'; '.join(_why(config, found, part, int(own.sum())))}"
    return None


def _why(config: DataConfig, found: Survey, part: int, left: int) -> Iterator[str]:
    gone = (found.meant_N == part) & (found.parts_N != part)
    repeats = found.given_N == part if part in found.named else np.zeros(len(gone), dtype=bool)
    gone |= repeats & (found.reasons_N == DUPLICATE)
    reasons, counts = np.unique(found.reasons_N[gone], return_counts=True)
    if len(reasons):
        words = {"before": BEFORE[part], "least": config.min_grade}
        told = [f"{n:,} {REASONS[int(r)].format(**words)}" for r, n in zip(reasons, counts, strict=True)]
        yield f"of its {left + int(gone.sum()):,} rows " + ", ".join(told)
    elif part in found.named:
        told = [f"{n:,} {rule}" for rule, tally in found.dropped.items() if (n := tally.parts[PARTS[part]])]
        yield f"the source names it for {left:,} rows" + (f" beside those dropped ({', '.join(told)})" if told else "")
    else:
        yield from _cut(config, found, part)
        return
    shared = int(np.isin(found.reasons_N[gone], [TWO_SIDES, SHARED_TEXT]).sum())
    if shared and found.named and not found.kept:
        yield "data.shared: keep takes the parts as the source names them"
    elif shared and not found.named:
        yield "split.by: query cuts new questions on known passages"
    elif LOW_GRADE in reasons:
        yield "a lower min_grade"
    elif SHARED_QUESTION in reasons:
        yield "give each part questions of its own"
    else:
        yield "more data"


def _cut(config: DataConfig, found: Survey, part: int) -> Iterator[str]:
    """Why nothing was meant for a part that the source does not name."""
    unit, keys_N = ("questions", found.anchors_N) if config.split.by == "query" else ("concepts", found.groups_N)
    meant = found.meant_N >= TRAIN
    count = len(np.unique(keys_N[meant]))
    if part == TRAIN:
        yield f"dev and test take all {count:,} {unit}; fewer of them for dev and test, or more data"
        return
    elsewhere = np.unique(keys_N[meant & (found.meant_N > TRAIN)])
    taken = len(elsewhere)
    free = count - taken
    yield (
        f"it is cut from training, {count:,} {unit} in all"
        + (f", of which {taken:,} stand in other parts" if taken else "")
        + f", and a share of {getattr(config.split, PARTS[part])} of {free:,} took none"
    )
    if found.named and not free:
        yield f"give the source a {PARTS[part]} part, or cut all parts by question with split.by: query"
    else:
        yield f"a larger split.{PARTS[part]}, or more data"
