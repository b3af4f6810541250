"""Figures of the bases that are known without a network: values of transformers' configuration classes.

With them the parameter counts come out as published (tests/trainables/bases/test_known_bases.py).
"""

from __future__ import annotations

from typing import Any

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

MODERNBERT_BASE: dict[str, Any] = {
    "model_type": "modernbert",
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
}
MODERNCAMEMBERT_BASE = MODERNBERT_BASE | {
    "vocab_size": 32768,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
}
GRANITE_311M = MODERNBERT_BASE | {"vocab_size": 262152, "max_position_embeddings": 32768}
GRANITE_97M = GRANITE_311M | {
    "vocab_size": 180000,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "intermediate_size": 1536,
    "hidden_activation": "silu",
}
QWEN3_06B: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151669,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "pad_token_id": 151643,
    "eos_token_id": 151643,
}
HARRIER_06B = QWEN3_06B | {"vocab_size": 151936}
GEMMA3_270M: dict[str, Any] = {
    "model_type": "gemma3_text",
    "vocab_size": 262144,
    "hidden_size": 640,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "intermediate_size": 2048,
    "max_position_embeddings": 32768,
    "sliding_window": 512,
}
EMBEDDINGGEMMA_300M = GEMMA3_270M | {
    "hidden_size": 768,
    "num_hidden_layers": 24,
    "num_attention_heads": 3,
    "intermediate_size": 1152,
    "max_position_embeddings": 2048,
    "use_bidirectional_attention": True,
}
GTE_BASE: dict[str, Any] = {
    "model_type": "gte",
    "vocab_size": 250048,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 8192,
}
EUROBERT_210M: dict[str, Any] = {
    "model_type": "eurobert",
    "vocab_size": 128256,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 8192,
}
