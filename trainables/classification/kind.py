"""A classification trial: labelled texts, cross-entropy, predictions on the dev part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.util import batch_to_device
from torch import nn
from transformers import TrainerCallback

from evaluation.classification.metrics import METRICS, SEARCHED
from evaluation.retrieval import Scores
from trainables.bases.families import resolve_base
from trainables.classification.batches import LengthBatchSampler
from trainables.classification.predict import evaluate_classifier, logits_of
from trainables.classification.prepared import LabelledData
from trainables.classification.task import Text
from trainables.config import ClassifierConfig
from trainables.distributed import device_batch, world_size
from trainables.model.classifier import build_classifier
from trainables.model.precision import autocast, resolve_precision
from trainables.training.kind import Batches, TrialCheckpoints
from trainables.training.sanity import SanityGate


class _Trainer(TrialCheckpoints, CrossEncoderTrainer):
    pass


class ClassLoss(nn.Module):
    """Mean over the batch of each example's cross-entropy, times its class's weight.

    The library's own loss takes pairs alone. It also divides by the weights of the batch, so that the gradient of a
    step is not the mean of its pieces'; balanced weights are one on average, which makes the plain mean the same size.
    """

    def __init__(self, model: CrossEncoder, weights: torch.Tensor | None, smoothing: float) -> None:
        super().__init__()
        self.model, self._weights, self._smoothing = model, weights, smoothing

    def forward(self, inputs: list[list[str]], labels: torch.Tensor, prompt: Any = None, task: Any = None) -> Any:
        texts: list[Any] = inputs[0] if len(inputs) == 1 else list(zip(*inputs, strict=True))
        features = batch_to_device(self.model.preprocess(texts), self.model.device)
        logits = self.model(features)["scores"].float()
        weights = None if self._weights is None else self._weights.to(logits.device)
        losses = nn.functional.cross_entropy(
            logits, labels.view(-1), weight=weights, label_smoothing=self._smoothing, reduction="none"
        )
        return losses.mean()


class Classification:
    """The task of LabelledData."""

    metric = SEARCHED[0]
    metrics = METRICS

    def __init__(self, data: LabelledData) -> None:
        self._data = data

    def own_negatives(self) -> int | None:
        return None

    def longest(self, config: ClassifierConfig) -> int | None:
        return None

    def build(self, config: ClassifierConfig, place: torch.device, cache: Path | None) -> CrossEncoder:
        return build_classifier(config, place, cache_folder=cache)

    def batches(
        self, config: ClassifierConfig, model: CrossEncoder, cache: Path | None, start_step: int, folder: Path
    ) -> Batches:
        rows = self._rows()
        share, devices = device_batch(config), world_size()
        pieces = pieces_of(config, share)
        lengths = [len(text) if isinstance(text, str) else sum(map(len, text)) for text in self._data.texts]

        def sampler(dataset: Dataset, **options: Any) -> LengthBatchSampler:
            made = LengthBatchSampler(dataset, lengths, share * devices, devices, pieces, config.seed, **_kept(options))
            made.set_epoch(start_step // made.steps)
            return made

        epoch = sampler(rows)
        return Batches(rows, sampler, epoch.steps, epoch.examples, epoch.batch_size, pieces)

    def trainer(
        self,
        config: ClassifierConfig,
        model: CrossEncoder,
        rows: Dataset,
        arguments: dict[str, Any],
        callbacks: list[TrainerCallback],
    ) -> CrossEncoderTrainer:
        weights = balanced(self._data.true_N, len(config.labels)) if config.class_weights == "balanced" else None
        return _Trainer(
            model=model,
            args=CrossEncoderTrainingArguments(**arguments),
            train_dataset=rows,
            loss=ClassLoss(model, weights, config.label_smoothing),
            callbacks=callbacks,
        )

    def gate(self, config: ClassifierConfig, model: CrossEncoder) -> SanityGate:
        first = self._data.texts[0]
        precision = resolve_precision(config, model.device)

        def logits(_: str) -> torch.Tensor:
            with autocast(precision, model.device):
                return torch.from_numpy(logits_of(model, [first]))

        return SanityGate(config, model, first if isinstance(first, str) else " | ".join(first), logits)

    def evaluate(self, model: CrossEncoder, metrics: tuple[str, ...]) -> Scores:
        return evaluate_classifier(model, self._data.dev)

    def _rows(self) -> Dataset:
        """Columns text, text_pair where there are pairs, label."""
        texts: tuple[Text, ...] = self._data.texts
        columns: dict[str, list[Any]]
        if isinstance(texts[0], str):
            columns = {"text": list(texts)}
        else:
            columns = {"text": [text[0] for text in texts], "text_pair": [text[1] for text in texts]}
        return Dataset.from_dict(columns | {"label": self._data.true_N.tolist()})


def balanced(true_N: np.ndarray, classes: int) -> torch.Tensor:
    """(C,) weights: rows / (classes x rows of the class), scikit-learn's `balanced`."""
    counts = np.bincount(true_N, minlength=classes)
    return torch.tensor(len(true_N) / (classes * np.maximum(counts, 1)), dtype=torch.float32)


def pieces_of(config: ClassifierConfig, share: int) -> int:
    """Batches that a device's share of a step is cut into, equal ones, so that each stays within micro_batch_tokens."""
    if config.micro_batch_tokens is None:
        return 1
    most = max(1, config.micro_batch_tokens // resolve_base(config).max_length)
    return next(pieces for pieces in range(1, share + 1) if share % pieces == 0 and share // pieces <= most)


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    """Of what the trainer passes, what the sampler does not decide itself."""
    return {name: value for name, value in options.items() if name not in ("batch_size", "drop_last", "seed")}
