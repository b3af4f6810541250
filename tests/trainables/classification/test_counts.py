"""Parameters of a classifier on torch's meta device: the published counts, exactly, and no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ARCHITECTURES, Architecture, TinyBase
from trainables.config import ClassifierConfig
from trainables.model.classifier import build_classifier
from trainables.plan.memory import fit_to_memory
from trainables.plan.parameters import count_parameters
from trainables.training.checkpoint import trainable_parameters

LABELS = ("entailment", "neutral", "contradiction")
PUBLISHED: dict[str, Any] = {"labels": LABELS, "r": 8, "alpha": 32.0, "dropout": 0.1, "targets": "qv"}


@pytest.mark.parametrize(
    ("base", "head", "trainable", "total"),
    [
        ("almanach/camembert-base", "as_published", 887_811, 111_512_070),
        ("almanach/camemberta-base", "as_published", 297_219, 112_694_790),
        # PEFT keeps the head a second time beside the one that it trains; a fair run has it once.
        ("almanach/camembert-base", "fair", 887_811, 111_512_070 - 592_899),
        ("almanach/camemberta-base", "fair", 887_811, 112_694_790 - 2_307),
    ],
)
def test_the_published_counts_come_out_exactly(base: str, head: str, trainable: int, total: int) -> None:
    counts = count_parameters(ClassifierConfig(base=base, head=head, **PUBLISHED))
    assert (counts.trainable, counts.total) == (trainable, total)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "fields", [{}, {"method": "full"}, {"method": "full", "last_n": 1}, {"last_n": 1, "dora": True}]
)
def test_the_plan_counts_what_is_built(architecture: Architecture, fields: dict[str, Any], tiny_base: TinyBase) -> None:
    config = ClassifierConfig(base=str(tiny_base(architecture)), **(PUBLISHED | fields))
    counts = count_parameters(config)
    assert (counts.trainable, counts.total) == trainable_parameters(build_classifier(config, "cpu"))


def test_a_step_that_does_not_fit_is_taken_in_pieces(tmp_path: Path) -> None:
    config = ClassifierConfig(base="almanach/camembert-base", max_length=128, batch_size=256, **PUBLISHED)
    fitted = fit_to_memory(config, 6 * 2**30, "cuda", "fp32", "sdpa")
    assert fitted.micro_batch_tokens is not None
    assert fitted.micro_batch_tokens < 256 * 128
    assert fit_to_memory(config, 200 * 2**30, "cuda", "fp32", "sdpa") == config
