"""Tiny stand-ins of base models: same architecture and module names, random weights, a tokenizer of the user's texts.

A search on stand-ins checks a specification and a cluster with no download; its scores mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from evaluation.errors import InputError
from evaluation.files import usual_modes
from trainables.bases.families import ResolvedBase, resolve_base, usable_positions
from trainables.bases.foreign import foreign_config
from trainables.config import TrialConfig
from trainables.model.loaded import no_bars

# <pad> has id 1, as in RoBERTa, whose positions start after it.
_SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
_ROLES = {"cls_token": "<s>", "sep_token": "</s>"}


def make_stand_in(
    config: TrialConfig,
    texts: Iterable[str],
    folder: Path,
    *,
    width: int = 16,
    layers: int | None = None,
    vocabulary: int = 500,
) -> Path:
    """Write a stand-in of config.base under `folder`, named like the base, and return its path.

    It has the base's architecture, layers (or `layers` of them), positions, prompts, pooling, padding, Dense modules
    and maximum length, with `width` for the hidden size and a vocabulary of at most `vocabulary` pieces. Works without
    network for the known families; of a base that runs code of its own, it runs that code.

    Raises:
        InputError: nothing is known of the base.
    """
    base = resolve_base(config)
    path = folder / config.base.rstrip("/").rsplit("/", 1)[-1]
    original = foreign_config(base) if base.foreign else None
    tokenizer = train_tokenizer(texts, vocabulary)
    tokenizer.padding_side = base.padding
    encoder = _write_encoder(base.figures, original, tokenizer, path, width, layers)
    model = SentenceTransformer(
        modules=[encoder, Pooling(width, base.pooling.split("+")), *_dense(base, width), Normalize()],
        prompts={**base.prompts, "query": base.query_prompt, "document": base.passage_prompt},
        device="cpu",
    )
    model.max_seq_length = base.max_length
    with no_bars():
        model.save(str(path), create_model_card=False)
    usual_modes(path)
    return path


def make_encoder(
    figures: dict[str, Any],
    texts: Iterable[str],
    path: Path,
    *,
    width: int = 16,
    layers: int | None = None,
    vocabulary: int = 500,
) -> Transformer:
    """Write a plain encoder of these figures' architecture, shrunk, with its tokenizer to `path`; return it loaded."""
    return _write_encoder(figures, None, train_tokenizer(texts, vocabulary), path, width, layers)


def _write_encoder(
    figures: dict[str, Any],
    original: PretrainedConfig | None,
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    width: int,
    layers: int | None,
) -> Transformer:
    """`original`: the configuration of code of its own, which is shrunk instead of the figures."""
    tokenizer.model_max_length = usable_positions(figures) or 512
    config = shrink(figures, width, layers, tokenizer) if original is None else _smaller(original, width, tokenizer)
    code = {"trust_remote_code": original is not None}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(config, dtype=torch.float32, **code)
    with no_bars():
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        return Transformer(str(path), model_kwargs=dict(code), processor_kwargs=dict(code), config_kwargs=dict(code))


def shrink(
    figures: dict[str, Any], width: int, layers: int | None, tokenizer: PreTrainedTokenizerFast
) -> PretrainedConfig:
    """The figures' configuration with `width` for the hidden size and the tokenizer's vocabulary.

    Attention keeps its shape: fewer key and value heads than query heads where the base has fewer, and heads that are
    together wider than the hidden size where the base's are.
    """
    model_type = figures.get("model_type")
    if model_type is None:
        raise InputError("config.json has no model_type, expected the configuration of a transformers model")
    small = _sizes(width) | _tokens(tokenizer)
    if layers is not None:
        small["num_hidden_layers"] = layers
        if figures.get("layer_types"):  # the last ones: in those that mix kinds of attention, both are among them
            small["layer_types"] = figures["layer_types"][-layers:]
    heads = figures.get("num_attention_heads", 2)
    if key_value := figures.get("num_key_value_heads"):
        small["num_key_value_heads"] = 1 if key_value < heads else 2
    if head := figures.get("head_dim"):
        small["head_dim"] = width // 2 * max(1, head * heads // figures["hidden_size"])
        if "query_pre_attn_scalar" in figures or model_type == "gemma3_text":
            small["query_pre_attn_scalar"] = small["head_dim"]
    kept = {key: value for key, value in figures.items() if key not in {"model_type", "_name_or_path", "auto_map"}}
    known = CONFIG_MAPPING[model_type] if model_type in CONFIG_MAPPING else None  # noqa: SIM401  # its get finds nothing
    for name in ("cls_token_id", "sep_token_id", "mask_token_id"):
        if getattr(known, name, None) is not None:
            small[name] = getattr(tokenizer, name)
    return AutoConfig.for_model(model_type, **(kept | small))


def _smaller(config: PretrainedConfig, width: int, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """A configuration of code of its own: what of it is called as in transformers is shrunk, all of its layers kept."""
    for name, value in (_sizes(width) | _tokens(tokenizer)).items():
        if getattr(config, name, None) is not None:
            setattr(config, name, value)
    return config


def _sizes(width: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        # The usual 0.02 gives nearly equal embeddings to all texts at this width.
        "initializer_range": 0.2,
    }


def _tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _dense(base: ResolvedBase, width: int) -> list[Dense]:
    """The base's Dense modules, as much narrower as its encoder is."""
    modules = []
    hidden = base.dense[0].inputs if base.dense else 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for dense in base.dense:
            inputs, outputs = (max(1, size * width // hidden) for size in (dense.inputs, dense.outputs))
            activation = torch.nn.Identity() if dense.activation.endswith("Identity") else torch.nn.Tanh()
            modules.append(
                Dense(inputs, outputs, bias=dense.bias, activation_function=activation, use_residual=dense.residual)
            )
    return modules


def train_tokenizer(texts: Iterable[str], vocabulary: int = 500) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer of at most `vocabulary` pieces, learnt from the texts (100 characters of each suffice)."""
    tokenizer = Tokenizer(models.BPE(unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(_SPECIAL.values()), show_progress=False)
    tokenizer.train_from_iterator((text[:100] for text in texts), trainer)
    bos, eos = ((token, tokenizer.token_to_id(token)) for token in (_SPECIAL["bos_token"], _SPECIAL["eos_token"]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos[0]} $A {eos[0]}", pair=f"{bos[0]} $A {eos[0]} $B {eos[0]}", special_tokens=[bos, eos]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **_SPECIAL, **_ROLES
    )
