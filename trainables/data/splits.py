"""Divide pairs into training, dev and test so that no group of rows stands on two sides.

How a part is chosen
    test: a group is test when a hash of its key and the seed, read as a number in [0, 1), is below the test share.
        The answer depends on that group alone, so adding rows, or taking others away, never moves it. The price is
        that the share is met on average only, over the whole and within each domain: an exact quota for each domain
        would depend on the other groups of the domain, and the next row could push an old test group into training.
    dev: of the groups that are not test, each domain gives its share to within one group (lowest hashes first).
        Dev groups may change sides when rows are added, between dev and training only: dev chooses, test judges.
    A part that the source names is taken as it is, and is not cut as well.

Groups
    The concept, where rows have one. With `by: query` the question: new questions on known passages. Otherwise rows
    that share an anchor or a passage are one group (connected components). Such a group has no name, so it is drawn
    once, by the passage of the row that began it, the first in the file; rows that join it later follow. Where a row
    joins two groups, the whole is test when either was: rows added at the end can bring a training group into test,
    never the reverse. Rows put before a group's first may: a rule that holds the share and looks at texts alone cannot
    promise more, since a group that each of its texts might once have brought into test is test more often the more
    texts it has. A concept column, or continuing from the earlier run, keeps the test part whatever the order.

Texts on both sides
    Two concepts may share an anchor or a passage. Between parts of which one is cut here test keeps its rows, then dev;
    training loses those that share a text with either, so that no text of the test part is ever trained on.
    Between parts that both are kept as they are (see `shared`) passages and concepts may be common: then a row leaves
    training, or dev, only when its question stands in a part that goes before. What is tested was never asked before.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

TRAIN, DEV, TEST = 0, 1, 2
UNDECIDED, LEFT_OUT = -1, -2
ORDER = ((DEV, TEST), (TRAIN, TEST), (TRAIN, DEV))  # which part gives way to which
IntArray = NDArray[np.int64]


def text_hash(text: str) -> int:
    """64 bits of a text. Two of a million different texts collide once in 40 million data sets."""
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def draw(seed: int, salt: str, key: str) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    return text_hash(f"{seed}\0{salt}\0{key}") / 2**64


def components(left_N: NDArray[np.uint64], right_N: NDArray[np.uint64]) -> IntArray:
    """Group number of each row: rows with an equal left or right value are in one group, transitively."""
    if not len(left_N):
        return np.zeros(0, dtype=np.int64)
    left_names, left = np.unique(left_N, return_inverse=True)
    right_names, right = np.unique(right_N, return_inverse=True)
    size = len(left_names) + len(right_names)
    edges = coo_array((np.ones(len(left), dtype=np.int8), (left, len(left_names) + right)), shape=(size, size))
    _, labels = connected_components(edges, directed=False)
    return np.unique(labels[left], return_inverse=True)[1].astype(np.int64)


def begins_group(anchors_N: NDArray[np.uint64], positives_N: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether neither text of a row stands in a row before it, so that it begins one of the `components`."""
    begins_N = np.zeros(len(anchors_N), dtype=bool)
    first_anchors, first_positives = (np.unique(texts_N, return_index=True)[1] for texts_N in (anchors_N, positives_N))
    begins_N[np.intersect1d(first_anchors, first_positives)] = True
    return begins_N


def assign(
    groups_N: IntArray,
    test_draws_N: NDArray[np.float64],
    dev_draws_N: NDArray[np.float64],
    domains_N: IntArray,
    given_N: NDArray[np.int8],
    pinned_N: NDArray[np.bool_],
    named: frozenset[int],
    dev: float,
    test: float,
) -> NDArray[np.int8]:
    """The part that each row is meant for: TRAIN, DEV or TEST. See `two_sides` for groups that are in several.

    Args:
        groups_N: group of each row, 0..G-1.
        test_draws_N, dev_draws_N: numbers in [0, 1), from `draw` over the row's key; a group's lowest counts, so 1
            for a row that has no say.
        domains_N: domain of each row, any whole numbers.
        given_N: the part that the source says, UNDECIDED where it does not.
        pinned_N: rows of an earlier run. Their parts stay, and rows without a part follow their group's.
        named: parts that the source names (not an earlier run). They are not cut by shares as well: rows without a part
            then go to training, or to the part of their group.
        dev: share of the groups that are not test.
        test: share of all groups.
    """
    count = int(groups_N.max()) + 1 if len(groups_N) else 0
    parts_N = given_N.copy()
    # A part that is cut by shares takes whole groups from what would be training.
    free_G = np.ones(count, dtype=bool)
    free_G[groups_N[pinned_N | (given_N > TRAIN)]] = False
    if TEST not in named:
        lowest_G = np.full(count, 2.0)
        np.minimum.at(lowest_G, groups_N, test_draws_N)
        test_G = free_G & (lowest_G < test)
        parts_N[test_G[groups_N]] = TEST
        free_G &= ~test_G
    if DEV not in named:
        parts_N[_dev_groups(groups_N, dev_draws_N, domains_N, free_G, dev)[groups_N]] = DEV
    highest_G = np.full(count, TRAIN, dtype=np.int8)
    np.maximum.at(highest_G, groups_N, parts_N)
    undecided = parts_N == UNDECIDED
    parts_N[undecided] = highest_G[groups_N[undecided]]
    return parts_N


def two_sides(parts_N: NDArray[np.int8], groups_N: IntArray, kept: frozenset[int] = frozenset()) -> NDArray[np.bool_]:
    """Whether the group of each row has a row in a part that goes before the row's own (test, then dev).

    Args:
        parts_N: TRAIN, DEV, TEST or LEFT_OUT.
        groups_N: group of each row.
        kept: parts that may have groups in common.
    """
    result_N = np.zeros(len(parts_N), dtype=bool)
    for later, earlier in ORDER:
        if not {later, earlier} <= kept:
            result_N |= (parts_N == later) & np.isin(groups_N, groups_N[parts_N == earlier])
    return result_N


def _dev_groups(
    groups_N: IntArray, draws_N: NDArray[np.float64], domains_N: IntArray, free_G: NDArray[np.bool_], share: float
) -> NDArray[np.bool_]:
    """Whether each group goes to dev: of each domain its share, by largest remainder, lowest draws first."""
    count = len(free_G)
    lowest_G = np.full(count, 2.0)
    np.minimum.at(lowest_G, groups_N, draws_N)
    domain_G = np.zeros(count, dtype=np.int64)
    domain_G[groups_N[::-1]] = domains_N[::-1]  # the first row of a group names its domain
    chosen_G = np.zeros(count, dtype=bool)
    free = np.flatnonzero(free_G)
    if len(free) < 2:
        return chosen_G
    domains, sizes = np.unique(domain_G[free], return_counts=True)
    wanted = sizes * share
    quotas = np.floor(wanted).astype(np.int64)
    missing = max(1, round(len(free) * share)) - int(quotas.sum())
    quotas[np.argsort(quotas - wanted, kind="stable")[: max(0, missing)]] += 1
    for domain, quota in zip(domains, quotas, strict=True):
        own = free[domain_G[free] == domain]
        chosen_G[own[np.argsort(lowest_G[own], kind="stable")[:quota]]] = True
    return chosen_G


def leave_out_shared(
    parts_N: NDArray[np.int8],
    anchors_N: NDArray[np.uint64],
    positives_N: NDArray[np.uint64],
    kept: frozenset[int] = frozenset(),
) -> NDArray[np.int8]:
    """Parts with LEFT_OUT for each row whose anchor or passage stands in a part that goes before its own.

    Args:
        parts_N: TRAIN, DEV, TEST or LEFT_OUT.
        anchors_N, positives_N: hashes of the texts as they are matched.
        kept: parts that may share texts with one another.
    """
    parts_N = parts_N.copy()
    for later, earlier in ORDER:
        if not {later, earlier} <= kept:
            shares_N = shares_text(anchors_N, positives_N, parts_N == earlier)
            parts_N[(parts_N == later) & shares_N] = LEFT_OUT
    return parts_N


def leave_out_questions(
    parts_N: NDArray[np.int8], anchors_N: NDArray[np.uint64], positives_N: NDArray[np.uint64]
) -> NDArray[np.int8]:
    """Parts with LEFT_OUT for each row that holds, as anchor or passage, a question of a part that goes before."""
    parts_N = parts_N.copy()
    for later, earlier in ORDER:
        asked = anchors_N[parts_N == earlier]
        parts_N[(parts_N == later) & (np.isin(anchors_N, asked) | np.isin(positives_N, asked))] = LEFT_OUT
    return parts_N


def shares_text(
    anchors_N: NDArray[np.uint64], positives_N: NDArray[np.uint64], with_N: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether each row has an anchor or a passage that one of the rows `with_N` has, as its anchor or its passage."""
    held = np.concatenate([anchors_N[with_N], positives_N[with_N]])
    return np.isin(anchors_N, held) | np.isin(positives_N, held)
