"""Groups of like length: the cheapest ones, and the embeddings and gradients of the whole batch."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from tests.conftest import ARCHITECTURES, TEXTS, Architecture, TinyBase
from trainables.config import TrialConfig
from trainables.model import groups
from trainables.model.build import build_model
from trainables.model.groups import groups_of
from trainables.training.losses import make_loss

QUERIES = tuple(text[: 7 * (place + 1)] for place, text in enumerate(TEXTS))  # of many lengths


def cost(made: list[tuple[np.ndarray, int]], price: int) -> int:
    return sum(len(rows) * width + price for rows, width in made)


@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=7), price=st.integers(0, 100))
def test_groups_cost_the_least_that_any_cuts_of_the_sorted_lengths_do(lengths: list[int], price: int) -> None:
    made = groups_of(np.array(lengths), price)
    assert sorted(np.concatenate([rows for rows, _ in made])) == list(range(len(lengths)))
    assert all(max(lengths[row] for row in rows) == width for rows, width in made)
    ordered, count = sorted(lengths), len(lengths)
    least = min(
        sum((end - begin) * ordered[end - 1] + price for begin, end in zip((0, *cuts), (*cuts, count), strict=True))
        for size in range(count)
        for cuts in combinations(range(1, count), size)
    )
    assert cost(made, price) == least


def gradients(config: TrialConfig, monkeypatch: pytest.MonkeyPatch, price: float) -> tuple[float, dict[str, Any], int]:
    """(loss, gradients, passes through the encoder) of a batch."""
    monkeypatch.setattr(groups, "PASS_TOKENS", price)
    model = build_model(config, "cpu", for_training=True).eval()  # without dropout, whose masks have the batch's shape
    passes = []
    inner: Any = model[0]
    inner.model.embeddings.register_forward_hook(lambda *_: passes.append(1))
    loss = make_loss(model, config)
    columns = [model.preprocess(list(texts)) for texts in (QUERIES, TEXTS, TEXTS[::-1])]
    value = loss(columns, None)
    value.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(value.detach()), found, len(passes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"micro_batch_tokens": 96}, {"loss": "gist"}, {"matryoshka": (8, 16)}, {"method": "full"}],
    ids=["mnrl", "cached", "gist", "matryoshka", "full"],
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_are_those_of_the_batch_as_a_whole(
    tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch, architecture: Architecture, changes: dict[str, Any]
) -> None:
    told = {"base": str(tiny_base(architecture)), "max_length": 32, "precision": "fp32", "batch_size": 8} | changes
    config = TrialConfig.model_validate(told)
    whole, expected, one = gradients(config, monkeypatch, math.inf)
    value, found, passes = gradients(config, monkeypatch, 2)
    assert passes > one
    assert value == pytest.approx(whole, abs=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert gradient.numpy() == pytest.approx(expected[name].numpy(), abs=1e-5), name


def test_recomputed_activations_give_the_same_gradients(tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrialConfig(base=str(tiny_base("bert")), max_length=32, precision="fp32", batch_size=8)
    _, expected, _ = gradients(config, monkeypatch, 2)
    monkeypatch.setattr(groups, "PASS_TOKENS", 2)
    model = build_model(config, "cpu", for_training=True).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    inner: Any = model[0]
    inner.model.activation_checkpointing_enable()
    make_loss(model, config)([model.preprocess(list(t)) for t in (QUERIES, TEXTS, TEXTS[::-1])], None).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.numpy() == pytest.approx(expected[name].numpy(), abs=1e-5), name


def test_texts_are_embedded_as_by_the_library(tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrialConfig(base=str(tiny_base("xlm-roberta")), max_length=32, precision="fp32")
    monkeypatch.setattr(groups, "PASS_TOKENS", 2)
    texts = [*QUERIES, *TEXTS, ""]
    grouped = build_model(config, "cpu", for_training=True).encode_query(texts, convert_to_tensor=True)
    plain = build_model(config, "cpu").encode_query(texts, convert_to_tensor=True)
    assert float(cosine_similarity(grouped, plain).min()) > 1 - 1e-6
