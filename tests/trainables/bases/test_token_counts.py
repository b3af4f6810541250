"""Token counts agree with what the model's own tokenizer makes of a prompted text."""

from __future__ import annotations

from tests.conftest import TEXTS, TinyBase
from trainables.bases.token_counts import token_counts
from trainables.config import TrialConfig
from trainables.model.build import build_model


def test_counts_are_those_of_the_models_tokenizer(tiny_base: TinyBase) -> None:
    config = TrialConfig(base=str(tiny_base("xlm-roberta")), method="none")
    tokens = token_counts(config)
    assert tokens is not None
    model = build_model(config)
    assert tokens.max_length == model.max_seq_length
    for column, prompt in (("anchor", "query: "), ("positive", "passage: ")):
        expected = [len(model.tokenizer(prompt + text)["input_ids"]) for text in TEXTS]
        assert tokens.count(column, TEXTS) == expected


def test_a_base_out_of_reach_counts_nothing() -> None:
    assert token_counts(TrialConfig(base="no-such-owner/multilingual-e5-small")) is None
