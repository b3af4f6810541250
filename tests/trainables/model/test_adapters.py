"""LoRA targets by meaning: which modules they are, and counts against PEFT's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AlbertConfig, AutoConfig, AutoModel, PreTrainedModel

from evaluation.errors import InputError
from tests.conftest import ARCHITECTURES, FIGURES
from trainables.bases.architectures import role_of
from trainables.config import TrialConfig
from trainables.model.adapters import lora_config, parse_targets, resolve_targets, trained_names

TARGET_SETS = ("q", "k", "v", "o", "ffn", "qk", "qv", "qkv", "attention", "all-linear", "qv+ffn")
QUERY = {"deberta-v2": "query_proj"}


def _model(figures: dict[str, Any], layers: int = 3) -> PreTrainedModel:
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
    config = AutoConfig.for_model(**(figures | small | {"num_hidden_layers": layers, "max_position_embeddings": 40}))
    with torch.device("meta"):
        return AutoModel.from_config(config)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_names_of_each_architecture(architecture: str) -> None:
    model = _model(FIGURES[architecture], layers=1)
    suffix = "_proj" if architecture == "deberta-v2" else ""
    layer = "encoder.layer.0"
    attention = [f"{layer}.attention.self.{name}{suffix}" for name in ("query", "key", "value")]
    output = f"{layer}.attention.output.dense"
    feed_forward = [f"{layer}.intermediate.dense", f"{layer}.output.dense"]
    assert resolve_targets(model, "qkv") == attention
    assert resolve_targets(model, "qv") == [attention[0], attention[2]]
    assert resolve_targets(model, "o") == [output]
    assert resolve_targets(model, "ffn") == feed_forward
    assert resolve_targets(model, "attention") == [*attention, output]
    assert resolve_targets(model, "all-linear") == [*attention, output, *feed_forward]  # and no pooler


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("targets", TARGET_SETS)
def test_peft_adapts_exactly_the_resolved_modules(architecture: str, targets: str) -> None:
    model = _model(FIGURES[architecture])
    expected = resolve_targets(model, targets, last_n=2)
    adapted = get_peft_model(model, lora_config(TrialConfig(base="x", targets=targets, last_n=2, r=4), model))
    found = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    assert found == expected
    assert not any(".0." in name for name in found)
    # PEFT's own way to adapt every linear module is the oracle for the largest set, the pooler apart.
    if targets == "all-linear":
        oracle = _model(FIGURES[architecture])
        get_peft_model(oracle, LoraConfig(r=4, target_modules="all-linear", layers_to_transform=None))
        theirs = [name for name, module in oracle.named_modules() if hasattr(module, "lora_A")]
        assert [name for name in theirs if name != "pooler.dense" and ".0." not in name] == found
    assert adapted.get_nb_trainable_parameters()[0] > 0


def test_scale_dropout_and_variants_reach_peft() -> None:
    model = _model(FIGURES["bert"])
    config = TrialConfig(base="x", r=4, alpha=16, dropout=0.25, rslora=True, dora=True)
    lora = lora_config(config, model)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.bias) == (4, 16, 0.25, "none")
    assert lora.use_rslora
    assert lora.use_dora
    get_peft_model(model, lora)
    query: Any = model.get_submodule("encoder.layer.0.attention.self.query")
    assert query.scaling["default"] == pytest.approx(16 / 4**0.5)  # arXiv 2312.03732, eq. 4


@pytest.mark.parametrize("targets", ["", "qq", "query", "q+", "Q", "all", "qkvx"])
def test_a_target_that_is_none(targets: str) -> None:
    with pytest.raises(InputError, match="is not a LoRA target, expected q, k, v"):
        parse_targets(targets)


def test_letters_in_any_order() -> None:
    assert parse_targets("vq") == ("q", "v")
    assert parse_targets("ffn+attention") == parse_targets("all-linear") == ("q", "k", "v", "o", "ffn")


def test_target_that_matches_nothing_names_what_exists() -> None:
    with torch.device("meta"):  # its feed-forward modules lie in the layer itself, beside no parent that says so
        albert = AutoModel.from_config(AlbertConfig(num_hidden_layers=1, vocab_size=50))
    with pytest.raises(InputError, match=r"ffn matches nothing in 1 of 1 layers of Albert.*\.ffn_output.*all-linear"):
        resolve_targets(albert, "ffn")
    linears = {name for name, module in albert.named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(resolve_targets(albert, "all-linear")) == {name for name in linears if ".0." in name}


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("attention.attn.o", "o"),
        ("attention.output.dense", "o"),
        ("intermediate.dense", "ffn"),
        ("output.dense", "ffn"),
        ("layer.0.SelfAttention.o", "o"),
        ("layer.1.DenseReluDense.wo", "ffn"),
        ("mlp.Wo", "ffn"),
        ("attn.Wo", "o"),
        ("attn.Wqkv", "qkv"),
        ("attention.out_lin", "o"),
        ("mlp.fc1", "ffn"),
        ("q_proj", None),
        ("experts.0.o_proj", None),
    ],
)
def test_a_role_is_decided_by_the_parent_where_no_layout_is_known(path: str, role: str | None) -> None:
    assert role_of("an-architecture-without-layout", path) == role


def test_target_that_misses_a_layer() -> None:
    model = _model(FIGURES["bert"])
    model.set_submodule("encoder.layer.1.attention.self.value", torch.nn.Identity())
    with pytest.raises(InputError, match="v matches nothing in 1 of 3 layers"):
        resolve_targets(model, "qv")
    assert len(resolve_targets(model, "qv", last_n=1)) == 2


def test_more_layers_than_there_are() -> None:
    model = _model(FIGURES["bert"])
    for resolve in (lambda: resolve_targets(model, "q", last_n=4), lambda: trained_names(model, last_n=4)):
        with pytest.raises(InputError, match="last_n: 4 is more than the 3 layers of BertModel"):
            resolve()


def test_full_fine_tuning_leaves_out_the_pooler() -> None:
    model = _model(FIGURES["bert"])
    every = {name for name, _ in model.named_parameters()}
    assert every - set(trained_names(model)) == {"pooler.dense.weight", "pooler.dense.bias"}
    last = trained_names(model, last_n=1)
    assert last
    assert all(name.startswith("encoder.layer.2.") for name in last)
