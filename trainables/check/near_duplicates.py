"""Passages of training that nearly are passages of dev or test (MinHash, by datasketch)."""

from __future__ import annotations

from datasketch import MinHashLSH

from trainables.check.findings import Draft
from trainables.check.second_look import PERMUTATIONS, SecondLook
from trainables.data.splits import DEV
from trainables.data.survey import SHOWN, Survey

ALIKE = 0.8  # Jaccard similarity of the sets of words and word pairs


def near_duplicates(look: SecondLook, found: Survey) -> list[Draft]:
    """At most one finding: how many sampled training passages have a near duplicate in dev or test."""
    index = MinHashLSH(threshold=ALIKE, num_perm=PERMUTATIONS)
    for pair, sketch in look.sketches.items():
        if found.parts_N[pair] >= DEV:
            index.insert(pair, sketch)
    shown: list[tuple[int, int]] = []
    count = 0
    training = [pair for pair in look.sketches if found.parts_N[pair] < DEV]
    for pair in training:
        # The index proposes; the sketches decide.
        near = [
            other
            for other in sorted(index.query(look.sketches[pair]))
            if look.sketches[pair].jaccard(look.sketches[other]) >= ALIKE
        ]
        if near:
            count += 1
            shown += [(pair, near[0])]
    if not count:
        return []
    return [
        Draft(
            "near duplicates across the split",
            count,
            f"of {len(training)} training passages compared are nearly a passage of dev or test "
            f"(Jaccard similarity of their words {ALIKE} or more)",
            "kept: other concepts may differ by one word; if they are one concept, give them one name",
            tuple(shown[:SHOWN]),
        )
    ]
