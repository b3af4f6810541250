"""The source read a second time: samples of its texts, and the texts of rows that are shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import numpy as np
import py3langid
from datasketch import MinHash

from evaluation.task import fold
from trainables.data.config import DataConfig
from trainables.data.pairs import read_pairs
from trainables.data.rows import Pair, shortened
from trainables.data.splits import DEV, LEFT_OUT
from trainables.data.survey import Survey

SAMPLE = 10_000  # pairs whose tokens are counted
LANGUAGE_SAMPLE = 300
LANGUAGE_LENGTH = (40, 500)  # characters; shorter texts do not tell, of longer ones the start does
SKETCHED = 20_000  # passages of training, and of dev and test, that are compared
PERMUTATIONS = 128
BLANK = MinHash(num_perm=PERMUTATIONS, hashfunc=crc32)  # copied, since drawing the permutations takes longest


@dataclass
class SecondLook:
    """Samples, spread evenly over the source.

    Attributes:
        anchors, positives: texts of at most SAMPLE pairs.
        passages: starts of long enough passages, at most LANGUAGE_SAMPLE.
        sketches: pair -> MinHash of its passage, for at most SKETCHED distinct passages of training and as many of
            dev and test.
        shown: pair -> what to show of it, for pairs that are asked for and for those that have a sketch.
    """

    anchors: list[str] = field(default_factory=list)
    positives: list[str] = field(default_factory=list)
    passages: list[str] = field(default_factory=list)
    sketches: dict[int, MinHash] = field(default_factory=dict)
    shown: dict[int, str] = field(default_factory=dict)

    def languages(self) -> dict[str, float]:
        """Language (ISO 639-1) -> share of the sampled passages, most common first."""
        counts = Counter(py3langid.classify(text)[0] for text in self.passages)
        return {language: count / len(self.passages) for language, count in counts.most_common()}


def second_look(config: DataConfig, folder: Path, earlier: Path | None, found: Survey, wanted: set[int]) -> SecondLook:
    """Read the source again, sample it, and keep what to show of the `wanted` pairs."""
    sampled = _spread(np.arange(len(found.line_N)), SAMPLE)
    long = np.flatnonzero(found.positive_chars_N >= LANGUAGE_LENGTH[0])
    spoken = _spread(long, LANGUAGE_SAMPLE)
    _, first = np.unique(found.positives_N, return_index=True)
    first = np.sort(first[found.parts_N[first] != LEFT_OUT])
    held_out = found.parts_N[first] >= DEV
    sketched = _spread(first[held_out], SKETCHED) | _spread(first[~held_out], SKETCHED)
    look = SecondLook()
    pairs = (pair for pair in read_pairs(config, folder, earlier) if isinstance(pair, Pair))
    for number, pair in enumerate(pairs):
        if number in sampled:
            look.anchors.append(pair.anchor)
            look.positives.append(pair.positive)
        if number in spoken:
            look.passages.append(pair.positive[: LANGUAGE_LENGTH[1]])
        if number in sketched:
            look.sketches[number] = _sketch(pair.positive)
        if number in wanted or number in sketched:
            look.shown[number] = f"{shortened(pair.anchor, 40)} -> {shortened(pair.positive)}"
    return look


def _spread(numbers: np.ndarray, limit: int) -> set[int]:
    """At most `limit` of the numbers, evenly spaced."""
    if len(numbers) <= limit:
        return set(numbers.tolist())
    return set(numbers[np.linspace(0, len(numbers) - 1, limit).astype(np.int64)].tolist())


def _sketch(text: str) -> MinHash:
    """MinHash over the words and word pairs of a text, case folded."""
    words = fold(text).casefold().split()
    pieces = {*words, *(" ".join(pair) for pair in pairwise(words))}
    sketch = BLANK.copy()
    sketch.update_batch([piece.encode("utf-8") for piece in pieces])
    return sketch
