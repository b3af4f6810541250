"""Batches of a classification: every row once an epoch, rows of like length together.

A batch is padded to its longest input. So an epoch is shuffled, cut into runs of SORTED batches, each run is sorted by
length and cut into batches, and the batches are shuffled: less than a tenth of the padding, and no two epochs alike.

An epoch follows from the seed and its number alone. Steps are full but the last of an epoch, which takes the rest; on
several devices, or in pieces, whose mean gradient must be the step's, rows that do not fill a step wait for another
epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler

from evaluation.errors import InputError

SORTED = 16  # batches that are sorted together


class LengthBatchSampler(DefaultBatchSampler):
    """Batches of row numbers for one epoch; `set_epoch` chooses which.

    Args:
        lengths: of each row's input, in any unit.
        step: rows of an optimizer step, over all devices.
        devices: that share out a step.
        pieces: batches of one device that make a step.
        options: those that the trainer passes.
    """

    def __init__(
        self, dataset: Dataset, lengths: Sequence[int], step: int, devices: int, pieces: int, seed: int, **options: Any
    ) -> None:
        batch_size = step // (devices * pieces)
        options |= {"batch_size": batch_size, "drop_last": devices * pieces > 1, "seed": seed}
        super().__init__(dataset, **options)
        self._lengths_N, self._step = np.asarray(lengths), step
        full, rest = divmod(len(self._lengths_N), step)
        self._sizes = [step] * full + ([rest] if rest and not self.drop_last else [])
        if not self._sizes:
            raise InputError(f"batch_size: {step}, the training part has {len(self._lengths_N)} rows")

    def __len__(self) -> int:
        """Batches of an epoch, over all devices; the same in each epoch."""
        return len(self._sizes) * (self._step // self.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return len(self._sizes)

    @property
    def examples(self) -> int:
        """Rows of an epoch."""
        return sum(self._sizes)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._epoch_steps():
            yield from (step[at : at + self.batch_size] for at in range(0, len(step), self.batch_size))

    def _epoch_steps(self) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = rng.permutation(len(self._lengths_N))[: self.examples]
        run = SORTED * self._step
        steps: list[list[int]] = []
        for start in range(0, len(rows), run):
            own = rows[start : start + run]
            own = own[np.argsort(self._lengths_N[own], kind="stable")]
            steps += [own[at : at + self._step].tolist() for at in range(0, len(own), self._step)]
        order = rng.permutation(len(steps))
        return [steps[at] for at in order]
