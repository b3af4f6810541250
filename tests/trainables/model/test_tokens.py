"""Kept tokens are those that the library makes, and are made once."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from sentence_transformers.base.modules import Transformer

from tests.conftest import ARCHITECTURES, TEXTS, Architecture, TinyBase
from trainables.config import TrialConfig
from trainables.model import kept_tokens as tokens_module
from trainables.model.build import build_model
from trainables.model.loaded import forget_bases


def same(got: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Names, types and values."""
    return dict(got).keys() == dict(expected).keys() and all(
        torch.equal(value, expected[name]) and value.dtype == expected[name].dtype
        if torch.is_tensor(value)
        else value == expected[name]
        for name, value in got.items()
    )


@pytest.mark.parametrize("kept", [tokens_module.KEPT_BYTES, 2000])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tokens_are_the_librarys(
    tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch, architecture: Architecture, kept: int
) -> None:
    monkeypatch.setattr(tokens_module, "KEPT_BYTES", kept)
    forget_bases()
    config = TrialConfig(base=str(tiny_base(architecture)), max_length=16)
    module: Any = build_model(config, "cpu", for_training=True)[0]
    draw = random.Random(0)
    mixed = [" ".join(draw.choices(TEXTS, k=3)) for _ in range(8)]
    texts = [
        *TEXTS,
        "",
        "l'\u00c9tat  \t \u00e9",
        "\U0001f600",
        *mixed,
    ]
    for _ in range(60):
        module.max_seq_length = draw.choice([8, 16])
        batch = draw.choices(texts, k=draw.randint(1, 6))
        options = {"prompt": draw.choice([None, "", "query: ", "passage: "]), "task": draw.choice([None, "query"])}
        assert same(module.preprocess(batch, **options), Transformer.preprocess(module, batch, **options))


def test_a_later_trial_finds_the_tokens_of_an_earlier_one(tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrialConfig(base=str(tiny_base("bert")))
    forget_bases()
    first = build_model(config, "cpu", for_training=True).preprocess(list(TEXTS), prompt="query: ")

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(Transformer, "preprocess", refuse)
    later = build_model(config.model_copy(update={"r": 4}), "cpu", for_training=True)
    again = later.preprocess(list(TEXTS), prompt="query: ")
    assert same(again, first)
    with pytest.raises(AssertionError, match="tokenized again"):
        later.preprocess(list(TEXTS), prompt="passage: ")
