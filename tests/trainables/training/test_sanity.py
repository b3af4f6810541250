"""The gate that ends a trial which trains nothing."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from tests.conftest import TEXTS, TinyBase
from trainables.config import TrialConfig
from trainables.model.build import build_model
from trainables.training.sanity import SanityGate, TrialFailed


class _Trainer(SentenceTransformerTrainer):
    scaled = False

    def create_accelerator_and_postprocess(self) -> None:
        """As for fp16 on a GPU: gradients are scaled, and a step is left out when they overflow."""
        super().create_accelerator_and_postprocess()
        if self.scaled:
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-20)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Left out, as in a trial."""


def _run(
    tiny_base: TinyBase,
    tmp_path: Path,
    *,
    loss: type[torch.nn.Module] = MultipleNegativesRankingLoss,
    steps: int = 8,
    freeze: bool = False,
    scaled: bool = False,
    **arguments: Any,
) -> SanityGate:
    config = TrialConfig(base=str(tiny_base("bert")), r=2, precision="fp32")
    model: SentenceTransformer = build_model(config, "cpu")
    if freeze:
        model.requires_grad_(False)
        model[1].weight = torch.nn.Parameter(torch.zeros(3))  # trained, but of no use
    gate = SanityGate(config, model, TEXTS[0])
    settings = {"learning_rate": 1e-3, "logging_steps": 1, "logging_nan_inf_filter": False} | arguments
    trainer = type("_", (_Trainer,), {"scaled": scaled})(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=steps,
            per_device_train_batch_size=4,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_dict({"anchor": list(reversed(TEXTS)), "positive": list(TEXTS)}),
        loss=loss(model),
        callbacks=[gate],
    )
    trainer.train()
    return gate


class _Disconnected(MultipleNegativesRankingLoss):
    """A loss that reaches no weight of the adapter."""

    def forward(self, sentence_features: Any, labels: Any) -> torch.Tensor:
        return torch.stack([p.sum() for p in self.model.parameters() if p.requires_grad]).sum() * 0.0


class _NotFinite(MultipleNegativesRankingLoss):
    def forward(self, sentence_features: Any, labels: Any) -> torch.Tensor:
        return super().forward(sentence_features, labels) * math.nan


def test_a_healthy_trial_passes_at_its_second_step(tiny_base: TinyBase, tmp_path: Path) -> None:
    assert _run(tiny_base, tmp_path, steps=2)._passed


def test_a_long_warmup_is_waited_for(tiny_base: TinyBase, tmp_path: Path) -> None:
    assert _run(tiny_base, tmp_path, steps=8, learning_rate=1e-4, warmup_steps=8)._passed


def test_steps_that_overflow_are_not_counted(tiny_base: TinyBase, tmp_path: Path) -> None:
    """fp16's scaler starts high and comes down until the gradients fit. The trainer counts those steps as any other.

    Here it starts so high that float32 overflows, for the first four steps.
    """
    assert _run(tiny_base, tmp_path, steps=8, scaled=True, max_grad_norm=0.0)._passed


def test_a_trial_whose_steps_all_overflow_has_trained_nothing(tiny_base: TinyBase, tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match=r"after all 3 optimizer steps \(3 left out, .* no trained weight has moved"):
        _run(tiny_base, tmp_path, steps=3, scaled=True, max_grad_norm=0.0)


def test_an_adapter_that_does_not_move(tiny_base: TinyBase, tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match=r"after 2 optimizer steps no trained weight has moved; configuration: "):
        _run(tiny_base, tmp_path, loss=_Disconnected)


def test_a_learning_rate_too_small_to_matter(tiny_base: TinyBase, tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match=r"the embedding of 'Le SG.*has not changed"):
        _run(tiny_base, tmp_path, learning_rate=1e-30)


def test_weights_that_no_embedding_depends_on(tiny_base: TinyBase, tmp_path: Path) -> None:
    class Useless(MultipleNegativesRankingLoss):
        def forward(self, sentence_features: Any, labels: Any) -> torch.Tensor:
            return next(p for p in self.model.parameters() if p.requires_grad).sum()

    with pytest.raises(TrialFailed, match=r"the embedding of 'Le SG.*has not changed"):
        _run(tiny_base, tmp_path, loss=Useless, freeze=True)


def test_a_loss_of_nan(tiny_base: TinyBase, tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match=r"the loss is nan at step 1; configuration: "):
        _run(tiny_base, tmp_path, loss=_NotFinite)


def test_weights_of_nan_between_logs(tiny_base: TinyBase, tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match="a trained weight is NaN or infinite"):
        _run(tiny_base, tmp_path, loss=_NotFinite, logging_steps=100)


def test_the_filter_that_hides_nan_is_refused(tiny_base: TinyBase, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="logging_nan_inf_filter=False"):
        _run(tiny_base, tmp_path, logging_nan_inf_filter=True)


def test_the_failure_survives_pickling_between_processes() -> None:
    failure = TrialFailed("the loss is nan", TrialConfig(base="x", r=4))
    assert (
        str(pickle.loads(pickle.dumps(failure)))
        == str(failure)
        == ('the loss is nan; configuration: {"base":"x","r":4}')
    )
