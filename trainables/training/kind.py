"""What differs between the trials of two tasks: their model, batches, trainer and dev evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from sentence_transformers.base.trainer import BaseTrainer
from transformers import TrainerCallback

from evaluation.retrieval import Scores
from trainables.training.checkpoint import load_weights, save_weights
from trainables.training.sanity import SanityGate


@dataclass(frozen=True)
class Batches:
    """An epoch's batches.

    Attributes:
        rows: of the training part, the columns that the loss reads in its order.
        sampler: the trainer's `batch_sampler` argument.
        steps: optimizer steps of an epoch.
        examples: rows of an epoch, over all devices.
        device_batch: rows of a batch on one device.
        pieces: batches that one optimizer step adds up.
    """

    rows: Dataset
    sampler: Callable[..., Any]
    steps: int
    examples: int
    device_batch: int
    pieces: int = 1


class Kind(Protocol):
    """A task, with its data. Models and configurations are its own: embedders and their TrialConfig, or classifiers."""

    @property
    def metric(self) -> str:
        """That decides unless another is asked for."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """That every dev evaluation computes."""

    def own_negatives(self) -> int | None:
        """Of the training row that brings the most; None: rows have none."""

    def longest(self, config: Any) -> int | None:
        """Tokens of the longest text that is trained on; None: not known."""

    def build(self, config: Any, place: torch.device, cache: Path | None) -> Any:
        """The trial's model, ready to train."""

    def batches(self, config: Any, model: Any, cache: Path | None, start_step: int, folder: Path) -> Batches:
        """What a trial trains on. Args: start_step: that it goes on from; folder: of the trial."""

    def trainer(
        self,
        config: Any,
        model: Any,
        rows: Dataset,
        arguments: dict[str, Any],
        callbacks: list[TrainerCallback],
    ) -> Any:
        """The library's trainer with the trial's loss. Args: arguments: of the training, by the library's names."""

    def gate(self, config: Any, model: Any) -> SanityGate:
        """That ends a trial which trains nothing."""

    def evaluate(self, model: Any, metrics: tuple[str, ...]) -> Scores:
        """The dev part's scores."""


class TrialCheckpoints(BaseTrainer):
    """Of a trainer: checkpoints that hold what is trained and not the frozen base."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Left out: it embeds sample texts and asks the hub; the exported model gets a card of its own."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        save_weights(self.model, Path(output_dir or str(self.args.output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_weights(self.model, Path(resume_from_checkpoint))
