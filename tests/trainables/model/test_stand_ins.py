"""Stand-ins: the base's architecture and names, tiny, with a tokenizer of the user's texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from evaluation.errors import InputError
from tests.conftest import TEXTS
from trainables.bases.families import resolve_base
from trainables.config import TrialConfig
from trainables.model.build import build_model
from trainables.model.stand_ins import make_stand_in
from trainables.plan.parameters import meta_model

FOUR = (
    "intfloat/multilingual-e5-large-instruct",
    "OrdalieTech/Solon-embeddings-large-0.1",
    "BAAI/bge-m3",
    "almanach/camemberta-base",
)


@pytest.mark.parametrize("base", FOUR)
def test_same_modules_prompts_and_pooling(base: str, tmp_path: Path) -> None:
    config = TrialConfig(base=base)
    path = make_stand_in(config, TEXTS, tmp_path)
    assert path == tmp_path / base.split("/")[1]
    real, stand_in = meta_model(resolve_base(config)), AutoModel.from_pretrained(path)
    assert [name for name, _ in stand_in.named_modules()] == [name for name, _ in real.named_modules()]
    # Without the tables of tokens and positions a few thousand parameters a layer remain.
    layers = [p.numel() for name, p in stand_in.named_parameters() if ".layer." in name]
    assert sum(layers) / stand_in.config.num_hidden_layers < 4000
    mine, theirs = resolve_base(TrialConfig(base=str(path))), resolve_base(config)
    assert (mine.family, mine.model_type) == (theirs.family, theirs.model_type)
    assert (mine.query_prompt, mine.passage_prompt, mine.pooling, mine.max_length) == (
        theirs.query_prompt,
        theirs.passage_prompt,
        theirs.pooling,
        theirs.max_length,
    )
    assert mine.conflicts == ()


def test_what_a_spec_may_say_of_the_base_holds_for_the_stand_in(tmp_path: Path) -> None:
    """last_n and max_length of the real base are valid, so that a smoke run checks the spec as it is."""
    base = "intfloat/multilingual-e5-large-instruct"
    path = make_stand_in(TrialConfig(base=base), TEXTS, tmp_path)
    config = TrialConfig(base=str(path), last_n=24, targets="all-linear", max_length=512, precision="fp32")
    model = build_model(config, "cpu")
    assert model.encode_query(["Le SG " * 400]).shape == (1, 16)


def test_the_tokenizer_is_of_the_texts(tmp_path: Path) -> None:
    path = make_stand_in(TrialConfig(base="almanach/camembert-base"), TEXTS, tmp_path, layers=1)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert len(tokenizer) <= 500
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        decoded = str(tokenizer.decode(ids, skip_special_tokens=True))
        assert re.sub(r"\s+", "", decoded) == re.sub(r"\s+", "", text)


def test_stand_ins_of_one_base_are_equal(tmp_path: Path) -> None:
    config = TrialConfig(base="almanach/camemberta-base")
    one, two = (make_stand_in(config, TEXTS, tmp_path / name, layers=1) for name in ("one", "two"))
    state, other = AutoModel.from_pretrained(one).state_dict(), AutoModel.from_pretrained(two).state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_unknown_base(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        make_stand_in(TrialConfig(base="./nowhere"), TEXTS, tmp_path)
