"""A classification trial's model: the base with its architecture's own classification head, as a CrossEncoder."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import CrossEncoder

from evaluation.errors import InputError
from trainables.bases import hub
from trainables.bases.families import resolve_base
from trainables.config import ClassifierConfig
from trainables.model.adapters import trained_names
from trainables.model.build import add_adapter, copy_sharing_weights, own_weights
from trainables.model.heads import fresh_head, head_names, trained_head
from trainables.model.loaded import loaded_classifier, transformer_of
from trainables.model.precision import resolve_attention, resolve_device, resolve_weights


def build_classifier(
    config: ClassifierConfig,
    device: str | torch.device | None = None,
    *,
    dtype: torch.dtype | None = None,
    cache_folder: Path | None = None,
) -> CrossEncoder:
    """The trial's model, ready to train: the configuration's method decides what trains.

    lora: the body frozen in the trial's precision, a fresh adapter and the head in float32. full: every weight a
    float32 copy. Adapter and head are seeded by config.seed; a head that the base's files hold, with as many classes,
    is taken from there.

    Args:
        config: of the trial, with its labels.
        device: None: the first GPU, else the CPU.
        dtype: of the frozen weights, instead of the precision's (float32 to merge).
        cache_folder: as in build_model.

    Raises:
        InputError: the base or the targets cannot be resolved, or the architecture has no classification head.
    """
    if len(config.labels) < 2:
        raise InputError(f"labels: {len(config.labels)}, expected two classes or more")
    place = resolve_device(device)
    base = resolve_base(config)
    if base.foreign:
        raise InputError(f"base: {config.base} runs code of its own, expected an architecture of transformers' own")
    weights = resolve_weights(config, place, dtype)
    attention, _ = resolve_attention(config, base, place, dtype)
    folder, _ = hub.fetch(config.base, config.revision)
    untouched = loaded_classifier(config, base, weights, attention, place, cache_folder)
    model = copy_sharing_weights(untouched)
    model.max_seq_length = base.max_length
    inner = transformer_of(model)
    fresh_head(inner, folder, config.seed)
    inner.config.id2label = dict(enumerate(config.labels))
    inner.config.label2id = {label: number for number, label in enumerate(config.labels)}
    inner.config.problem_type = "single_label_classification"
    if config.method == "lora":
        add_adapter(model, config)
        train_also(inner, trained_head(inner, config))
    elif config.method == "full":
        own_weights(model)
        body = [name for name, _ in inner.named_parameters()]
        train_also(inner, body if config.last_n is None else [*trained_names(inner, config.last_n), *head_names(inner)])
    return model


def train_also(inner: torch.nn.Module, names: list[str]) -> None:
    """Unfreeze parameters; what an adapter trains stays so."""
    parameters = dict(inner.named_parameters())
    for name in names:
        parameters[name].requires_grad_(True)
