"""A retrieval trial: pairs of query and passage, contrastive losses, rankings of the dev part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import TrainerCallback

from evaluation.metrics import DEFAULT_METRICS
from evaluation.retrieval import Scores, evaluate
from trainables.batches.negatives import most_negatives
from trainables.batches.sampler import batch_sampler_for, training_columns
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.distributed import device_batch, world_size
from trainables.model.build import build_model, training_prompts
from trainables.plan.longest import LongestTexts
from trainables.training.kind import Batches, TrialCheckpoints
from trainables.training.losses import make_loss
from trainables.training.sanity import SanityGate

EVAL_BATCH = 64


class _Trainer(TrialCheckpoints, SentenceTransformerTrainer):
    pass


class Retrieval:
    """The task of a TrialData."""

    metric = "ndcg@10"
    metrics = DEFAULT_METRICS

    def __init__(self, data: TrialData) -> None:
        self._data = data

    def own_negatives(self) -> int | None:
        return most_negatives(self._data.train)

    def longest(self, config: TrialConfig) -> int | None:
        columns = (self._data.train[name] for name in ("anchor", "positive", "negatives"))
        texts = LongestTexts.of((a, (p, *negatives)) for a, p, negatives in zip(*columns, strict=True))
        return texts.tokens(config)

    def build(self, config: TrialConfig, place: torch.device, cache: Path | None) -> SentenceTransformer:
        return build_model(config, place, cache_folder=cache, for_training=True)

    def batches(
        self, config: TrialConfig, model: SentenceTransformer, cache: Path | None, start_step: int, folder: Path
    ) -> Batches:
        pairs, sampler = batch_sampler_for(config, self._data, model, cache, start_step=start_step, folder=folder)
        epoch = sampler(pairs)
        rows = pairs.select_columns(training_columns(pairs))
        return Batches(rows, sampler, len(epoch) // world_size(), epoch.pairs, device_batch(config))

    def trainer(
        self,
        config: TrialConfig,
        model: SentenceTransformer,
        rows: Dataset,
        arguments: dict[str, Any],
        callbacks: list[TrainerCallback],
    ) -> SentenceTransformerTrainer:
        prompts = training_prompts(model, rows.column_names)
        return _Trainer(
            model=model,
            args=SentenceTransformerTrainingArguments(prompts=prompts, **arguments),
            train_dataset=rows,
            loss=make_loss(model, config),
            callbacks=callbacks,
        )

    def gate(self, config: TrialConfig, model: SentenceTransformer) -> SanityGate:
        return SanityGate(config, model, self._data.train[0]["anchor"])

    def evaluate(self, model: SentenceTransformer, metrics: tuple[str, ...]) -> Scores:
        return evaluate(model, self._data.dev, metrics, batch_size=EVAL_BATCH)
