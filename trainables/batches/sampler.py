"""Batch strategies: which pairs meet in a batch, and so which passages are each other's negatives.

in_batch    shuffled. No two rows of a batch share a concept or a text, else they would be false negatives.
sorted      the source notebooks' strategy, kept for comparison: the first row of each anchor, sorted by concept, read
            in order. Neighbours of one concept meet and are each other's false negatives.
clustered   rows of distinct concepts that the base finds near each other (k-means over the concepts' passages):
            implicit hard negatives.
mined       in_batch over rows with explicit hard negatives; see trainables/batches/negatives.py.
mixed       a share of clustered batches, the rest shuffled.

All but sorted promise: no batch holds two rows of one concept, one text twice, or a row whose negative answers another
row of the batch; every row is seen once an epoch. Exceptions, both stated in the log: a concept with more rows than
there are batches shows as many of them as there are batches, drawn anew each epoch; and a row whose texts conflict
with some row of every batch is left out.

An epoch's batches follow from the seed and the epoch's number alone, so a run that resumes finds the same ones. With
`refresh` they depend on the model at the epoch's start, too: there they are kept in the trial's folder.

On one device, the sizes of the batches differ by one at most. No step trains on a tiny remainder.

On W devices, W consecutive batches make one step. They are cut from one batch of W x batch_size rows, which keeps the
promise as a whole, because the losses gather negatives over the devices. All of them are full: rows that do not fill a
step are left for another epoch. Where no unseen row fits a batch, a row that was seen earlier takes its place.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.sampler import DefaultBatchSampler

from evaluation.errors import InputError
from evaluation.files import write_whole
from trainables.batches.clusters import clustered_order
from trainables.batches.compose import RowKeys, batch_sizes, capped, compose, row_keys, spread_order
from trainables.batches.negatives import with_mined, with_own
from trainables.batches.passages import passage_embeddings, passage_embeddings_now
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.distributed import device_batch, world_size

log = logging.getLogger(__name__)
SamplerFactory = Callable[..., "ConceptBatchSampler"]
Passages = NDArray[np.float32]


def training_columns(pairs: Dataset) -> list[str]:
    """The columns that the loss reads, in the order in which it reads them: it goes by position, not by name."""
    negatives = sorted(
        (name for name in pairs.column_names if name.startswith("negative_")), key=lambda name: int(name[9:])
    )
    return ["anchor", "positive", *negatives]


def batch_sampler_for(
    config: TrialConfig,
    data: TrialData,
    model: SentenceTransformer,
    cache: Path | None = None,
    *,
    start_step: int = 0,
    folder: Path | None = None,
) -> tuple[Dataset, SamplerFactory]:
    """The rows that a trial trains on and the `batch_sampler` argument for sentence-transformers' trainer.

    Args:
        config: batches, batch_size, seed, mixed_share, refresh, hard_negatives, margin decide.
        data: the training part.
        model: the trial's model before its first step, which embeds as the base does; where config.refresh, it embeds
            the passages anew at each epoch after the first.
        cache: folder where trials of one base share its embeddings and mined negatives; None: nothing is kept.
        start_step: the optimizer step that a resumed run goes on from. On one device the trainer tells the sampler the
            epoch itself; on several, accelerate hides the sampler from it for the rest of that epoch.
        folder: of the trial, which keeps refreshed epochs for a run that resumes; None: they are not kept.

    Returns:
        The training rows with `negative_1`, ... where they have negatives, and a function that makes the sampler from
        them (or from their training columns alone).

    Raises:
        InputError: fewer than two concepts to fill a batch with.
    """
    mined = config.batches == "mined"
    pairs = with_mined(data, config, model, cache) if mined else with_own(data.train, config)
    embed: Callable[[int], Passages] | None = None
    if config.batches in ("clustered", "mixed"):
        base = passage_embeddings(config, data, model, cache)

        def embed(epoch: int) -> Passages:
            return passage_embeddings_now(data, model) if config.refresh and epoch > 0 else base

    keys = row_keys(pairs)
    anchors, concepts = list(pairs["anchor"]), list(pairs["concept"])

    def sampler(dataset: Dataset, **options: Any) -> ConceptBatchSampler:
        if len(dataset) != len(concepts):
            raise ValueError(f"the sampler was made for {len(concepts)} rows, got a data set of {len(dataset)}")
        made = ConceptBatchSampler(dataset, config, keys, concepts, anchors, embed, folder, **options)
        made.set_epoch(start_step * world_size() // len(made))
        return made

    return pairs, sampler


class ConceptBatchSampler(DefaultBatchSampler):
    """Batches of row numbers for one epoch; `set_epoch` chooses which."""

    def __init__(
        self,
        dataset: Dataset,
        config: TrialConfig,
        keys: RowKeys,
        concepts: list[str],
        anchors: list[str],
        embed: Callable[[int], Passages] | None,
        folder: Path | None = None,
        *,
        batch_size: int | None = None,
        drop_last: bool = False,
        valid_label_columns: list[str] | None = None,
        generator: Any = None,
        seed: int | None = None,
    ) -> None:
        """Args: those of DefaultBatchSampler, which the trainer passes; batch_size is that of one device."""
        devices = world_size()
        super().__init__(
            dataset,
            batch_size=batch_size or device_batch(config),
            drop_last=drop_last or devices > 1,
            valid_label_columns=valid_label_columns,
            generator=generator,
            seed=config.seed if seed is None else seed,
        )
        self._devices, self._config, self._keys, self._embed = devices, config, keys, embed
        self._folder = folder
        self._sorted = _notebook_order(anchors, concepts) if config.batches == "sorted" else None
        step = self.batch_size * devices
        if self._sorted is not None:
            full, rest = divmod(len(self._sorted), step)
            if not full and self.drop_last:
                raise InputError(f"batch_size: {step}, the training part has {len(self._sorted)} distinct anchors")
            self._sizes = [step] * full + ([rest] if rest and not self.drop_last else [])
        else:
            self._sizes = batch_sizes(keys, step, full_only=self.drop_last)
        left_out = len(keys.concepts) - sum(self._sizes)
        if left_out and self._sorted is None:
            log.info(
                "each epoch leaves %d of %d rows out (trainables/batches/sampler.py)", left_out, len(keys.concepts)
            )

    def __len__(self) -> int:
        """Batches of an epoch, over all devices; the same in each epoch."""
        return len(self._sizes) * self._devices

    @property
    def pairs(self) -> int:
        """Pairs of an epoch, over all devices; the same in each epoch."""
        return sum(self._sizes)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps(self.epoch):
            size = len(step) // self._devices
            if self._devices == 1:
                yield step
            else:
                yield from (step[at * size : (at + 1) * size] for at in range(self._devices))

    def steps(self, epoch: int) -> list[list[int]]:
        """Row numbers of each optimizer step of an epoch, over all devices."""
        if self._sorted is not None:
            ends = np.cumsum(self._sizes)
            return [self._sorted[end - size : end] for size, end in zip(self._sizes, ends, strict=True)]
        if self._folder is None or not self._config.refresh or epoch == 0:
            return self._composed(epoch)
        kept = self._folder / f"epoch-{epoch}.json"
        if not kept.is_file():
            write_whole(kept, json.dumps([list(map(int, batch)) for batch in self._composed(epoch)]))
        batches: list[list[int]] = json.loads(kept.read_text(encoding="utf-8"))
        return batches

    def _composed(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, epoch])
        rows = capped(self._keys, len(self._sizes), rng)
        strategy = self._config.batches
        if strategy in ("clustered", "mixed"):
            assert self._embed is not None
            order = clustered_order(self._embed(epoch), self._keys, rows, max(self._sizes), rng)
        else:
            order = spread_order(self._keys, rows, rng)
        batches = compose(order, self._sizes, self._keys, rng, full=self.drop_last)
        if strategy == "mixed":
            batches = self._partly_shuffled(batches, rng)
        rng.shuffle(batches)
        return batches

    def _partly_shuffled(self, batches: list[list[int]], rng: np.random.Generator) -> list[list[int]]:
        """Keep mixed_share of the batches; compose the rows of the others anew in shuffled order."""
        rng.shuffle(batches)
        keep = round(self._config.mixed_share * len(batches))
        rest = batches[keep:]
        rows = np.array([row for batch in rest for row in batch], dtype=np.int64)
        order = spread_order(self._keys, rows, rng)
        return batches[:keep] + compose(order, [len(batch) for batch in rest], self._keys, rng, full=self.drop_last)


def _notebook_order(anchors: list[str], concepts: list[str]) -> list[int]:
    """Row numbers: the first row of each anchor, sorted by concept (as numbers where all of them are)."""
    first = {anchor: row for row, anchor in reversed(list(enumerate(anchors)))}
    rows = sorted(first.values())
    if all(concepts[row].isdecimal() for row in rows):
        return sorted(rows, key=lambda row: int(concepts[row]))
    return sorted(rows, key=lambda row: concepts[row])
