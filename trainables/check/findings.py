"""What a survey's numbers tell: one function for each finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.data.config import DataConfig
from trainables.data.rows import PARTS
from trainables.data.splits import DEV, TEST, TRAIN
from trainables.data.survey import DUPLICATE, SHARED_TEXT, SHOWN, TWO_SIDES, Hashes, Survey

SMALL_PART = 50  # concepts; below it a 95 % interval of nDCG is wider than most gains
LARGE_CONCEPT = 0.05  # of the training rows


@dataclass(frozen=True)
class Draft:
    """A finding whose examples are still numbers.

    Attributes:
        name: what the report calls it.
        count: how many rows, or what `what` says.
        what: what was found; {count} stands in it.
        action: what the search does about it.
        pairs: examples, each of one or several pairs that are shown together.
        places: examples that are no pairs (rows that were dropped or could not be read): where, and what to show.
    """

    name: str
    count: int
    what: str
    action: str
    pairs: tuple[tuple[int, ...], ...] = ()
    places: tuple[tuple[str, str], ...] = ()


def findings(config: DataConfig, found: Survey) -> list[Draft]:
    """All that the survey shows, most severe first. Nothing is listed with a count of 0."""
    drafts = [*_rows(found)]
    if len(found.line_N):
        drafts += [*_texts(found), *_sides(found), *_negatives(found), *_concepts(config, found), *_domains(found)]
    return [draft for draft in drafts if draft.count]


def _rows(found: Survey) -> Iterator[Draft]:
    yield Draft(
        "unreadable rows",
        found.bad.count,
        "rows that cannot be read",
        "the search does not start: put them right or take them out",
        places=tuple(found.bad.places),
    )
    for rule, tally in found.dropped.items():
        yield Draft(f"dropped: {rule}", tally.count, "rows that a rule drops", "dropped", places=tuple(tally.places))
    repeats = np.flatnonzero(found.reasons_N == DUPLICATE)
    yield Draft(
        "duplicate rows",
        len(repeats),
        "rows with the anchor, passage and concept of another",
        "dropped, the first stays",
        _singles(repeats),
    )


def _texts(found: Survey) -> Iterator[Draft]:
    several = _with_several(found.anchors_N, found.positives_N)
    yield Draft(
        "anchors with several passages",
        len(np.unique(found.anchors_N[several])),
        "anchors that have more than one passage",
        "each passage counts as relevant; the rows never meet in a batch",
        _together(several, found.anchors_N),
    )
    homonyms = _with_several(found.anchors_N, found.groups_N.astype(np.uint64))
    yield Draft(
        "anchors under several concepts",
        len(np.unique(found.anchors_N[homonyms])),
        "anchors that stand under more than one concept",
        "the passages of each concept count as relevant; the rows never meet in a batch",
        _together(homonyms, found.anchors_N),
    )
    shared = _with_several(found.positives_N, found.groups_N.astype(np.uint64))
    yield Draft(
        "passages under several concepts",
        len(np.unique(found.positives_N[shared])),
        "passages that stand under more than one concept",
        "the rows never meet in a batch; if they are one concept, give them one name",
        _together(shared, found.positives_N),
    )
    same = np.flatnonzero(found.anchors_N == found.positives_N)
    yield Draft(
        "anchor is the passage",
        len(same),
        "rows whose anchor and passage are one text",
        "kept; they teach nothing",
        _singles(same),
    )


def _sides(found: Survey) -> Iterator[Draft]:
    two = np.flatnonzero(found.reasons_N == TWO_SIDES)
    yield Draft(
        "concepts on two sides",
        len(two),
        "rows whose concept the given split also has in a part that goes before (test, then dev)",
        "left out",
        _singles(two),
    )
    shared = np.flatnonzero(found.reasons_N == SHARED_TEXT)
    yield Draft(
        "texts on two sides",
        len(shared),
        "rows whose anchor or passage stands in a part that goes before (test, then dev), case and white space folded",
        "left out, so that no text of the test part is trained on",
        _singles(shared),
    )


def _negatives(found: Survey) -> Iterator[Draft]:
    false = found.false_negatives_M
    yield Draft(
        "negatives that answer",
        int(false.sum()),
        "negatives that are passages of the row's own concept",
        "taken out of the row's negatives",
        _singles(np.unique(found.negative_rows_M[false])),
    )
    rows, counts = np.unique(found.negative_rows_M[~false], return_counts=True)
    yield Draft(
        "rows with several negatives",
        int((counts > 1).sum()),
        "rows with more than one negative of their own",
        "a trial takes as many as its hard_negatives says, 1 unless the space says more",
        _singles(rows[counts > 1]),
    )
    positives = np.isin(found.negatives_M, found.positives_N) & ~false
    yield Draft(
        "negatives that answer other rows",
        int(positives.sum()),
        "negatives that are passages of another concept",
        "kept; their row never meets a row of that concept in a batch",
        _singles(np.unique(found.negative_rows_M[positives])),
    )


def _concepts(config: DataConfig, found: Survey) -> Iterator[Draft]:
    if found.has_concept_N.any():
        without = np.flatnonzero(~found.has_concept_N)
        yield Draft(
            "rows without a concept",
            len(without),
            "rows without a concept, where others have one",
            "rows of one passage make a concept of their own",
            _singles(without),
        )
    training = np.flatnonzero(found.parts_N == TRAIN)
    counts = np.bincount(found.groups_N[training]) if len(training) else np.zeros(0, dtype=np.int64)
    large = np.flatnonzero(counts > max(2, LARGE_CONCEPT * len(training)))
    yield Draft(
        "large concepts",
        len(large),
        f"concepts with more than {LARGE_CONCEPT:.0%} of the training rows",
        "a batch holds one row of a concept, so an epoch shows at most as many of its rows as it has batches",
        tuple((int(training[found.groups_N[training] == group][0]),) for group in large[:SHOWN]),
    )
    for part in (TEST, DEV):
        count = len(np.unique(found.groups_N[found.parts_N == part]))
        if count < SMALL_PART:
            yield Draft(
                f"small {PARTS[part]} part",
                count,
                f"concepts in the {PARTS[part]} part, fewer than {SMALL_PART}",
                "used as it is; expect a wide interval on each score",
            )
    if config.protocol == "definition":
        judged = np.flatnonzero(found.parts_N > TRAIN)
        defined = np.unique(found.groups_N[judged][found.kinds_N[judged] == 1])
        without = judged[~np.isin(found.groups_N[judged], defined)]
        yield Draft(
            "concepts without a definition",
            len(np.unique(found.groups_N[without])),
            "concepts of dev and test without a row of kind definition",
            "their anchors are left out of the evaluation; their passages stay in the corpus",
            _singles(without),
        )


def _domains(found: Survey) -> Iterator[Draft]:
    for part in (TEST, DEV):
        there = np.unique(found.domains_N[found.parts_N == part])
        lacking = [name for at, name in enumerate(found.domains) if at not in there]
        yield Draft(
            f"domains without {PARTS[part]}",
            len(lacking),
            f"domains with no concept in the {PARTS[part]} part: {', '.join(lacking[:SHOWN])}",
            f"nothing; {PARTS[part]} says nothing about them",
        )


def _singles(pairs: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    return tuple((int(pair),) for pair in pairs[:SHOWN])


def _with_several(keys_N: Hashes, values_N: Hashes) -> NDArray[np.int64]:
    """Pairs whose key has more than one distinct value."""
    distinct = np.unique(np.stack([keys_N, values_N], axis=1), axis=0)
    keys, counts = np.unique(distinct[:, 0], return_counts=True)
    return np.flatnonzero(np.isin(keys_N, keys[counts > 1]))


def _together(pairs: NDArray[np.int64], keys_N: Hashes) -> tuple[tuple[int, ...], ...]:
    """The first two pairs of each of the first few keys."""
    shown: dict[int, list[int]] = {}
    for pair in pairs.tolist():
        own = shown.get(int(keys_N[pair]))
        if own is None and len(shown) == SHOWN:
            continue
        if own is None or len(own) < 2:
            shown.setdefault(int(keys_N[pair]), []).append(pair)
    return tuple(tuple(own) for own in shown.values())
