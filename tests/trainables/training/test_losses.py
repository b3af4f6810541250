"""The losses against their formulas, written out in numpy from the embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from sentence_transformers import SentenceTransformer

from evaluation.errors import InputError
from tests.conftest import TEXTS, TinyBase
from trainables.config import TrialConfig
from trainables.model.build import build_model
from trainables.training.losses import make_loss

ANCHORS = ["secrétariat général", "impôt", "marché public", "congés"]
POSITIVES = [*TEXTS[:3], TEXTS[4]]
NEGATIVES = [TEXTS[5], TEXTS[6], TEXTS[7], TEXTS[3]]


@pytest.fixture(scope="module")
def base(tiny_base: TinyBase) -> str:
    return str(tiny_base("bert"))


def config_of(base: str, **changes: object) -> TrialConfig:
    """No dropout, so that two forward passes give the same numbers."""
    return TrialConfig.model_validate({"base": base, "precision": "fp32", "dropout": 0.0, **changes})


def loss_of(config: TrialConfig, columns: list[list[str]]) -> float:
    model = build_model(config, "cpu").eval()
    features = [model.preprocess(column) for column in columns]
    with torch.no_grad():
        value = make_loss(model, config)(features, torch.zeros(0))
    return float(sum(value.values()) if isinstance(value, dict) else value)


def encoded(model: SentenceTransformer, texts: list[str], size: int | None = None) -> NDArray[np.float64]:
    vectors = np.asarray(model.encode(texts), dtype=np.float64)[:, :size]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def info_nce(queries: NDArray[np.float64], candidates: NDArray[np.float64], temperature: float) -> float:
    logits = queries @ candidates.T / temperature
    picked = logits[np.arange(len(queries)), np.arange(len(queries))]
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - picked))


@pytest.mark.parametrize("temperature", [0.02, 0.05, 0.2])
def test_mnrl_is_info_nce(base: str, temperature: float) -> None:
    config = config_of(base, temperature=temperature)
    model = build_model(config, "cpu").eval()
    anchors, positives, negatives = (encoded(model, texts) for texts in (ANCHORS, POSITIVES, NEGATIVES))
    assert loss_of(config, [ANCHORS, POSITIVES]) == pytest.approx(info_nce(anchors, positives, temperature), rel=1e-4)
    expected = info_nce(anchors, np.concatenate([positives, negatives]), temperature)
    assert loss_of(config, [ANCHORS, POSITIVES, NEGATIVES]) == pytest.approx(expected, rel=1e-4)


def test_symmetric_is_the_mean_of_both_directions(base: str) -> None:
    config = config_of(base, loss="mnrl_symmetric")
    model = build_model(config, "cpu").eval()
    anchors, positives = encoded(model, ANCHORS), encoded(model, POSITIVES)
    expected = (info_nce(anchors, positives, 0.05) + info_nce(positives, anchors, 0.05)) / 2
    assert loss_of(config, [ANCHORS, POSITIVES]) == pytest.approx(expected, rel=1e-4)


def test_gist_masks_what_the_guide_finds_nearer_than_the_positive(base: str) -> None:
    """The fresh adapter changes nothing, so the model is its own guide here."""
    config = config_of(base, loss="gist")
    model = build_model(config, "cpu").eval()
    anchors, positives = encoded(model, ANCHORS), encoded(model, POSITIVES)
    threshold = (anchors * positives).sum(axis=1, keepdims=True)
    blocks = [anchors @ positives.T, anchors @ anchors.T, positives @ positives.T]
    keep = np.concatenate([block <= threshold for block in blocks], axis=1)
    keep[np.arange(4), np.arange(4)] = True
    logits = np.where(keep, np.concatenate(blocks, axis=1) / 0.05, -np.inf)
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), np.arange(4)])
    assert not keep.all()  # the case is worth testing
    assert loss_of(config, [ANCHORS, POSITIVES]) == pytest.approx(expected, rel=1e-3)


def test_matryoshka_adds_the_smaller_sizes(base: str) -> None:
    config = config_of(base, matryoshka=(8,))
    model = build_model(config, "cpu").eval()
    sizes = (None, 8)
    expected = sum(info_nce(encoded(model, ANCHORS, n), encoded(model, POSITIVES, n), 0.05) for n in sizes)
    assert loss_of(config, [ANCHORS, POSITIVES]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["mnrl", "mnrl_symmetric", "gist"])
def test_cached_gradients_equal_plain_ones(base: str, loss: str) -> None:
    gradients = []
    for tokens in (None, 64):
        config = config_of(base, loss=loss, micro_batch_tokens=tokens)
        torch.manual_seed(0)
        model = build_model(config, "cpu").train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # zero at the start: without this lora_A has no gradient
                torch.nn.init.normal_(weight, std=0.05)
        features = [model.preprocess(column) for column in (ANCHORS * 8, POSITIVES * 8)]
        make_loss(model, config)(features, torch.zeros(0)).backward()
        gradients.append({n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None})
    plain, cached = gradients
    assert plain.keys() == cached.keys()
    assert any(gradient.abs().max() > 1e-5 for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(cached[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("changes", [{"loss": "mnrl"}, {"loss": "gist"}, {"matryoshka": (8,)}])
def test_a_micro_batch_bounds_the_tokens_that_are_held_with_their_padding(
    base: str, changes: dict[str, object]
) -> None:
    """A long text among short ones: its micro-batch is padded to it."""
    model = build_model(config_of(base, **changes), "cpu").train()
    config = config_of(base, micro_batch_tokens=512, **changes)
    passages = [" ".join(TEXTS) * 3, *["impôt"] * 31]
    features = [model.preprocess(column) for column in (["congés"] * 32, passages)]
    assert 150 < features[1]["input_ids"].shape[1] <= 512
    assert features[1]["attention_mask"].sum() - features[1]["input_ids"].shape[1] < 256  # the others are short
    held: list[tuple[int, int]] = []
    model[0].register_forward_hook(lambda module, given, out: held.append(tuple(given[0]["input_ids"].shape)))
    make_loss(model, config)(features, torch.zeros(0)).backward()
    assert max(texts * length for texts, length in held) <= 512
    assert sum(texts for texts, _ in held) == 2 * 64  # each text once for the embeddings and once for the gradients


def test_what_cannot_be_is_refused(base: str) -> None:
    model = build_model(config_of(base), "cpu")
    with pytest.raises(ValidationError, match="hard_negatives: loss gist takes 1 negative"):
        config_of(base, loss="gist", batches="mined", hard_negatives=2)
    with pytest.raises(InputError, match="expected sizes from 1 to 32"):
        make_loss(model, config_of(base, matryoshka=(64,)))
