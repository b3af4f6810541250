"""A trial's model: the base, prompted and pooled as it should be, with its adapter.

Every model that build_model returns has modules of its own around weights that it shares with the cached base. Frozen
weights are only read. Whatever writes weights works on a copy: build_model clones them for method full.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

import torch
from peft.tuners.tuners_utils import cast_adapter_dtype
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules import Transformer
from torch import nn

from trainables.bases.families import resolve_base
from trainables.config import TrialConfig
from trainables.model.adapters import lora_config, trained_names
from trainables.model.heads import seeded
from trainables.model.loaded import loaded_base, transformer_of
from trainables.model.precision import resolve_attention, resolve_device, resolve_weights

ADAPTER = "default"
Model = TypeVar("Model", bound=BaseModel)


def build_model(
    config: TrialConfig,
    device: str | torch.device | None = None,
    *,
    dtype: torch.dtype | None = None,
    cache_folder: Path | None = None,
    for_training: bool = False,
) -> SentenceTransformer:
    """The trial's model, ready to train: the configuration's method decides what trains.

    lora: the base frozen in the trial's precision, a fresh adapter in float32, seeded by config.seed. full: every
    weight a float32 copy, Dense modules after the pooling among them; the pooler, which gets no gradient, stays frozen.
    none: the base, frozen.
    The first call in a process loads the base; later calls take milliseconds.

    Args:
        config: of the trial.
        device: None: the first GPU, else the CPU.
        dtype: of the frozen weights, instead of the precision's (float32 to merge).
        cache_folder: where a copy of the base converted to that dtype is kept, so that the workers of a machine map
            the same pages of it.
        for_training: texts are tokenized once a process and base, and go through the encoder in groups of like length;
            not for what is saved.

    Raises:
        InputError: the base or the targets cannot be resolved.
    """
    place = resolve_device(device)
    base = resolve_base(config)
    weights = resolve_weights(config, place, dtype)
    attention, _ = resolve_attention(config, base, place, dtype)
    untouched, tokens = loaded_base(config, base, weights, attention, place, cache_folder)
    model = copy_sharing_weights(untouched)
    if for_training:
        tokens.keep_for(model[0])
    model.prompts = {"query": base.query_prompt, "document": base.passage_prompt}
    model.default_prompt_name = None
    model.max_seq_length = base.max_length
    if hasattr(model.tokenizer, "padding_side"):
        model.tokenizer.padding_side = base.padding
    if config.method == "lora":
        add_adapter(model, config)
    elif config.method == "full":
        _train_all(model, config.last_n)
    return model


def training_prompts(model: SentenceTransformer, columns: list[str]) -> dict[str, str]:
    """The trainer's `prompts` argument: the first column is the anchor, the others are passages."""
    query, passage = model.prompts["query"] or "", model.prompts["document"] or ""
    return {column: passage if position else query for position, column in enumerate(columns)}


def own_weights(model: Model) -> Model:
    """Give the model a private copy of every weight, so that writing them leaves the cached base as it is."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def add_adapter(model: BaseModel, config: TrialConfig) -> None:
    """Put a fresh adapter in float32, seeded by config.seed, beside the frozen weights."""
    inner = transformer_of(model)
    inner.name_or_path = config.base  # what the adapter's own file names as its base, rather than a folder of ours
    with seeded(config.seed):
        model.add_adapter(lora_config(config, inner))
    # Injected adapters take the base's dtype; 16-bit adapters lose small updates.
    cast_adapter_dtype(inner, ADAPTER)


def _train_all(model: SentenceTransformer, last_n: int | None) -> None:
    """Copy every weight and unfreeze it, or only the last n layers; never the pooler. What follows the encoder is
    trained with either: it lies after the last layer."""
    own_weights(model)
    inner = transformer_of(model)
    trained = set(trained_names(inner, last_n))
    for name, parameter in inner.named_parameters():
        parameter.requires_grad_(name in trained)
    for module in list(model)[1:]:
        module.requires_grad_(True)


def copy_sharing_weights(base: Model) -> Model:
    """New modules around the same weight storage: each parameter is new and frozen, its data is the base's."""
    memo: dict[int, object] = {}
    for parameter in base.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for module in base.modules():
        # A tokenizer of 250,000 pieces takes a second to copy; only its Python attributes (maximum length) change.
        if isinstance(module, Transformer):
            memo[id(module.processor)] = copy.copy(module.processor)
    return copy.deepcopy(base, memo)
