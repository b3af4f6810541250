"""Divide labelled rows into training, dev and test: whole groups, and of each label its share.

A part that the source names is taken as it is, and is not cut as well. Else the groups of a label, which is that of a
group's first row, stand in the order of a hash of the group's name and the seed. The first of them are test, the next
dev, the rest training: the share of each, to the nearest group, and at least one where a label has three groups.

Groups are what the `group` column says, else rows that share a text (connected components), so that no text is on two
sides. A group without a column is named after its first row's texts. A group that the source has put into several
parts stays where it was put; but a row that repeats one of a part that goes before (test, then dev) is left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainables.data.splits import DEV, LEFT_OUT, ORDER, TEST, TRAIN, UNDECIDED

ENOUGH = 3  # groups of a label from which each part gets one


def divide(
    groups_N: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    draws_G: NDArray[np.float64],
    given_N: NDArray[np.int8],
    named: frozenset[int],
    dev: float,
    test: float,
) -> NDArray[np.int8]:
    """The part of each row: TRAIN, DEV or TEST.

    Args:
        groups_N: group of each row, 0 to G - 1.
        labels_N: class of each row.
        draws_G: number of each group in [0, 1), from its name and the seed.
        given_N: the part that the source says, UNDECIDED where it does not.
        named: parts that the source names, which are not cut as well.
        dev: share of a label's groups that are not test.
        test: share of a label's groups.
    """
    count = len(draws_G)
    label_G = np.zeros(count, dtype=np.int64)
    label_G[groups_N[::-1]] = labels_N[::-1]  # of the first row
    free_G = np.ones(count, dtype=bool)
    free_G[groups_N[given_N > TRAIN]] = False
    parts_G = np.full(count, TRAIN, dtype=np.int8)
    for part, share in ((TEST, test), (DEV, dev)):
        if part in named:
            continue
        for label in np.unique(label_G[free_G]):
            own = np.flatnonzero(free_G & (label_G == label))
            least = 1 if len(own) >= ENOUGH - (part == DEV) else 0
            taken = own[np.argsort(draws_G[own], kind="stable")[: max(least, round(share * len(own)))]]
            parts_G[taken] = part
            free_G[taken] = False
    parts_N = parts_G[groups_N]
    stays = (given_N != UNDECIDED) & ((given_N > TRAIN) | (parts_N == TRAIN))
    parts_N[stays] = given_N[stays]
    return parts_N


def leave_out_repeated(parts_N: NDArray[np.int8], inputs_N: NDArray[np.uint64]) -> NDArray[np.int8]:
    """Parts with LEFT_OUT for each row whose texts stand in a part that goes before its own.

    Args:
        inputs_N: hash of each row's texts.
    """
    parts_N = parts_N.copy()
    for later, earlier in ORDER:
        parts_N[(parts_N == later) & np.isin(inputs_N, inputs_N[parts_N == earlier])] = LEFT_OUT
    return parts_N
