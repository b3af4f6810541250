"""Encoder architectures: what their projections are called, and the figures of those we know without a network.

The names come from the modules of transformers 5.23 (`models/<model_type>/modeling_<model_type>.py`);
tests/trainables/model/test_adapters.py checks them against real modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainables.targets import Role


@dataclass(frozen=True)
class Layout:
    """Where an architecture keeps the projections of a layer.

    Attributes:
        layers: dotted path of the list of layers, inside the transformers model.
        roles: role -> paths inside one layer. A role that is absent cannot be adapted alone (fused projections).
        position_offset: positions that the embedding table reserves before the first token (RoBERTa: padding_idx + 1
            = 2), so that the longest input has max_position_embeddings - position_offset tokens.
    """

    layers: str
    roles: dict[Role, tuple[str, ...]]
    position_offset: int = 0


def _bert_like(query: str, key: str, value: str) -> dict[Role, tuple[str, ...]]:
    return {
        "q": (f"attention.self.{query}",),
        "k": (f"attention.self.{key}",),
        "v": (f"attention.self.{value}",),
        "o": ("attention.output.dense",),
        "ffn": ("intermediate.dense", "output.dense"),
    }


_BERT = _bert_like("query", "key", "value")
LAYOUTS: dict[str, Layout] = {
    "bert": Layout("encoder.layer", _BERT),
    "roberta": Layout("encoder.layer", _BERT, position_offset=2),
    "xlm-roberta": Layout("encoder.layer", _BERT, position_offset=2),
    "camembert": Layout("encoder.layer", _BERT, position_offset=2),
    "deberta-v2": Layout("encoder.layer", _bert_like("query_proj", "key_proj", "value_proj")),
}

# What a projection is called elsewhere, by the last part of its name: for architectures that have no Layout.
LEAF_NAMES: dict[Role, frozenset[str]] = {
    "q": frozenset({"query", "query_proj", "q_proj", "q_lin", "q", "wq"}),
    "k": frozenset({"key", "key_proj", "k_proj", "k_lin", "k", "wk"}),
    "v": frozenset({"value", "value_proj", "v_proj", "v_lin", "v", "wv"}),
    "o": frozenset({"o_proj", "out_proj", "out_lin", "o", "wo"}),
    "ffn": frozenset({"gate_proj", "up_proj", "down_proj", "lin1", "lin2", "fc1", "fc2", "wi", "wi_0", "wi_1", "fc"}),
}

# Figures of transformers' configuration classes, for parameter counts with no network. What is known of the counts of
# trained models they give exactly (tests/trainables/model/test_memory.py).
_XLMR: dict[str, Any] = {
    "model_type": "xlm-roberta",
    "vocab_size": 250002,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-5,
}
XLMR_BASE = _XLMR | {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
XLMR_LARGE = _XLMR | {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
BGE_M3 = XLMR_LARGE | {"max_position_embeddings": 8194}
E5_SMALL: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 250037,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
MINILM_L6 = E5_SMALL | {"vocab_size": 30522, "num_hidden_layers": 6}
CAMEMBERT_BASE: dict[str, Any] = XLMR_BASE | {
    "model_type": "camembert",
    "vocab_size": 32005,
    "bos_token_id": 5,
    "eos_token_id": 6,
}
CAMEMBERTA_BASE: dict[str, Any] = {
    "model_type": "deberta-v2",
    "vocab_size": 32008,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "max_relative_positions": -1,
    "conv_kernel_size": 3,
    "conv_act": "gelu",
    "layer_norm_eps": 1e-7,
}
CAMEMBERTAV2_BASE = CAMEMBERTA_BASE | {"vocab_size": 32768, "max_position_embeddings": 1024, "conv_kernel_size": 0}
