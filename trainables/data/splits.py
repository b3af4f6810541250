"""Divide pairs into training, dev and test so that no group of rows stands on two sides.

How a part is chosen
    test: a group is test when a hash of its key and the seed, read as a number in [0, 1), is below the test share.
        The answer depends on that group alone, so adding rows, or taking others away, never moves it. The price is
        that the share is met on average only, over the whole and within each domain: an exact quota for each domain
        would depend on the other groups of the domain, and the next row could push an old test group into training.
    dev: of the groups that are not test, each domain gives its share to within one group (lowest hashes first).
        Dev groups may change sides when rows are added, between dev and training only: dev chooses, test judges.

Groups
    The concept, where rows have one. Otherwise rows that share an anchor or a passage are one group (connected
    components), keyed by each of their passages: the group is test when any of them hashes below the share. A row
    that joins two groups can therefore bring a training group into test, never the reverse.

Texts on both sides
    Two concepts may share an anchor or a passage. Test keeps its rows, then dev; training loses those that share a
    text with either, so that no text of the test part is ever trained on.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evaluation.errors import InputError

TRAIN, DEV, TEST = 0, 1, 2
UNDECIDED, LEFT_OUT = -1, -2
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


def assign(
    groups_N: IntArray,
    test_draws_N: NDArray[np.float64],
    dev_draws_N: NDArray[np.float64],
    domains_N: IntArray,
    given_N: NDArray[np.int8],
    pinned_N: NDArray[np.bool_],
    dev: float,
    test: float,
) -> NDArray[np.int8]:
    """The part of each row: TRAIN, DEV, TEST, or LEFT_OUT where its group has a row in a part that goes before.

    Args:
        groups_N: group of each row, 0..G-1.
        test_draws_N, dev_draws_N: numbers in [0, 1), from `draw` over the row's key.
        domains_N: domain of each row, any whole numbers.
        given_N: the part that the source says, UNDECIDED where it does not.
        pinned_N: rows of an earlier run. Their parts stay, and rows without a part follow their group's.
        dev: share of the groups that are not test.
        test: share of all groups.

    A part that the source itself names anywhere (not an earlier run) is not cut by shares as well: its rows without a
    part then go to training.
    """
    count = int(groups_N.max()) + 1 if len(groups_N) else 0
    parts_N = given_N.copy()
    # A part that is cut by shares takes whole groups from what would be training.
    free_G = np.ones(count, dtype=bool)
    free_G[groups_N[pinned_N | (given_N > TRAIN)]] = False
    if not (given_N[~pinned_N] == TEST).any():
        lowest_G = np.full(count, 2.0)
        np.minimum.at(lowest_G, groups_N, test_draws_N)
        test_G = free_G & (lowest_G < test)
        parts_N[test_G[groups_N]] = TEST
        free_G &= ~test_G
    if not (given_N[~pinned_N] == DEV).any():
        parts_N[_dev_groups(groups_N, dev_draws_N, domains_N, free_G, dev)[groups_N]] = DEV
    highest_G = np.full(count, TRAIN, dtype=np.int8)
    np.maximum.at(highest_G, groups_N, parts_N)
    undecided = parts_N == UNDECIDED
    parts_N[undecided] = highest_G[groups_N[undecided]]
    parts_N[parts_N < highest_G[groups_N]] = LEFT_OUT
    return parts_N


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
    parts_N: NDArray[np.int8], anchors_N: NDArray[np.uint64], positives_N: NDArray[np.uint64]
) -> NDArray[np.int8]:
    """Parts with LEFT_OUT for each row whose anchor or passage stands in a part that goes before its own.

    Args:
        parts_N: TRAIN, DEV, TEST or LEFT_OUT.
        anchors_N, positives_N: hashes of the texts as they are matched.
    """
    parts_N = parts_N.copy()
    for later, earlier in ((DEV, (TEST,)), (TRAIN, (TEST, DEV))):
        shares_N = shares_text(anchors_N, positives_N, np.isin(parts_N, earlier))
        parts_N[(parts_N == later) & shares_N] = LEFT_OUT
    return parts_N


def shares_text(
    anchors_N: NDArray[np.uint64], positives_N: NDArray[np.uint64], with_N: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Whether each row has an anchor or a passage that one of the rows `with_N` has, as its anchor or its passage."""
    held = np.concatenate([anchors_N[with_N], positives_N[with_N]])
    return np.isin(anchors_N, held) | np.isin(positives_N, held)


def require_parts(parts_N: NDArray[np.int8], groups_N: IntArray, dev: float, test: float) -> None:
    """Refuse a split with an empty part, or with a single concept to test on: no interval can be given then.

    Raises:
        InputError: names the part and what would fill it.
    """
    groups = len(np.unique(groups_N)) if len(groups_N) else 0
    for part, name, share, least in ((TEST, "test", test, 2), (DEV, "dev", dev, 1), (TRAIN, "train", None, 1)):
        own = len(np.unique(groups_N[parts_N == part]))
        if own < least:
            what = "is empty" if not own else "holds 1 concept, and an interval needs 2"
            advice = "fewer concepts for dev and test" if share is None else f"a larger split.{name} than {share}"
            raise InputError(f"split: the {name} part {what} ({groups} concepts in all): {advice}, or more data")
