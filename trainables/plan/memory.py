"""Parameter counts on torch's meta device, and an estimate of a trial's peak memory.

The estimate adds up, for B texts of s tokens, width h, feed-forward width f, a heads, e bytes a value (2 in 16-bit):

- weights: e bytes each when frozen, 4 when trained (float32 masters), and 2 more for each trained linear weight that
  autocast casts; adapter: 4; gradients: 4 and AdamW's two moments: 8 for each trained parameter;
- activations that the backward pass needs, for each layer from the first trained one, bytes a token:
  frozen base, float32: 4 (7 h + f); 16-bit: 2 (11 h + f), some of them kept in float32;
  fully trained, float32: 4 (10 h + 2 f); 16-bit: 2 (18 h + 2 f);
  inputs of adapted linears: 3 e each value in 16-bit, 2 e in float32;
  attention scores where the kernel keeps them: 3 e a s (eager), 12 a s (SDPA on a CPU, where dropout rules the fused
  kernel out and the plain one computes in float32);
  DeBERTa besides: e (h + 3 a s + 2 a p) with p relative positions, and 17 e p h a layer;
- with gradient checkpointing: e h a token and layer, and one layer whole;
- work space: the largest intermediate (feed-forward or scores) twice, and the loss's score matrix;
- on a CPU, for what malloc does not give back: 0.6 of activations and work space.

The coefficients were fitted to what autograd saves (torch.autograd.graph.saved_tensors_hooks, torch 2.13, transformers
5.23) over widths, lengths and targets; benchmarks/memory.py compares the estimate with measured peaks (on a CPU; no GPU
was at hand, so the GPU's figures rest on the same saved tensors and torch's allocator being within HEADROOM).
Terms after Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (arXiv 2205.05198).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from evaluation.errors import InputError
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.config import ClassifierConfig, TrialConfig
from trainables.model.adapters import resolve_targets, trained_names
from trainables.model.heads import head_names, trained_head
from trainables.model.precision import AttentionName

GIB = 1024**3
RUNTIME = {"cuda": 0.6 * GIB, "cpu": 0.6 * GIB}  # CUDA's context and kernels; torch and transformers in a process
MALLOC = 0.6  # measured: the share of activations and work space by which resident memory exceeds them on a CPU
HEADROOM = 0.9  # share of the device's memory that a plan may fill: allocators fragment
MIN_MICRO_BATCH = 64  # TrialConfig.micro_batch_tokens

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Counts:
    """Parameters of a trial's model. total includes the pooler and the adapter, as PEFT counts them, and, of a
    classifier's head as published, the copy that PEFT keeps of what it trains beside an adapter."""

    trainable: int
    total: int

    @property
    def share(self) -> float:
        return self.trainable / self.total


@dataclass(frozen=True)
class Memory:
    """Estimated bytes of a trial at its peak."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int
    allocator: int
    runtime: int

    @property
    def total(self) -> int:
        parts = (self.weights, self.gradients, self.optimizer, self.activations, self.workspace, self.allocator)
        return sum(parts) + self.runtime


def meta_model(base: ResolvedBase, classes: int = 0) -> PreTrainedModel:
    """The base's encoder on torch's meta device: every module, no weights. Do not change it: it is shared.

    Args:
        classes: of the classification head on it; 0: none.

    Raises:
        InputError: the figures are not those of an architecture that transformers has, or it has no such head.
    """
    return _meta_model(json.dumps(base.figures, sort_keys=True, default=str), base.name, classes)


def count_parameters(config: TrialConfig, base: ResolvedBase | None = None) -> Counts:
    """Trainable and total parameters of a trial, without weights.

    Raises:
        InputError: an unknown base, or targets that match nothing.
    """
    return _count(config, _trial_model(config, base or resolve_base(config)))


def estimate_memory(
    config: TrialConfig,
    device: DeviceKind,
    precision: Literal["bf16", "fp16", "fp32"],
    attention: AttentionName | None,
    base: ResolvedBase | None = None,
    own_negatives: int | None = None,
) -> Memory:
    """Estimated peak memory of a trial whose texts are all of its maximum length; see the module's formula.

    Args:
        own_negatives: of the training row that brings the most; None: unknown.
    """
    base = base or resolve_base(config)
    counts = _count(config, _trial_model(config, base))
    frozen = counts.total - counts.trainable
    value = 4 if precision == "fp32" else 2
    weights = 4 * counts.total if config.method == "full" else value * frozen + 4 * counts.trainable
    if config.method == "full" and precision != "fp32":
        weights += 2 * counts.trainable
    texts = _sequences(config, own_negatives)
    tokens, length = _tokens(config, base, texts)
    activations, workspace = _activations(config, base, device, precision, attention, tokens, length)
    workspace += 3 * 4 * config.batch_size**2 * (texts - 1)
    if config.method == "none":
        activations = 0
    return Memory(
        weights=weights,
        gradients=4 * counts.trainable,
        optimizer=8 * counts.trainable,
        activations=int(activations),
        workspace=int(workspace),
        allocator=int(MALLOC * (activations + workspace)) if device == "cpu" else 0,
        runtime=int(RUNTIME[device]),
    )


def share_of_memory(memory_gb: float | None, gpus: float) -> int | None:
    """Bytes of its device that a trial may take: GiB that were named, else its fraction of this machine's GPU.

    None where neither is known: all of a GPU, no limit on a CPU. Ray only counts the fractions of a GPU; a trial's
    estimate is kept within its own, but nothing stops one that takes more than was estimated.
    """
    if memory_gb is not None:
        return round(memory_gb * 2**30)
    if 0 < gpus < 1 and torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory * gpus)
    return None


def fit_to_memory(
    config: TrialConfig,
    device_memory: int,
    device: DeviceKind,
    precision: Literal["bf16", "fp16", "fp32"],
    attention: AttentionName | None,
    own_negatives: int | None = None,
) -> TrialConfig:
    """The configuration, changed so that its estimate fits in `device_memory` bytes; unchanged where it fits already.

    The cached contrastive loss comes first (the same batch, hence the same experiment, for one more forward pass), or
    of a classifier a step in pieces, with the largest micro-batch that fits, a power of two of tokens; then gradient
    checkpointing besides.
    A base that runs code of its own is left as it is: what its figures mean is not known.

    Args:
        own_negatives: as in `estimate_memory`.

    Raises:
        InputError: not even one text at a time fits.
    """
    budget = int(HEADROOM * device_memory)
    base = resolve_base(config)
    if base.foreign:
        return config

    def needs(candidate: TrialConfig) -> int:
        return estimate_memory(candidate, device, precision, attention, base, own_negatives).total

    if needs(config) <= budget:
        return config
    length = min(config.max_length or base.max_length, base.max_length)
    texts = _sequences(config, own_negatives)
    largest = config.micro_batch_tokens or config.batch_size * texts * length
    smallest = max(MIN_MICRO_BATCH, length)
    for checkpointing in dict.fromkeys((config.gradient_checkpointing, True)):
        tokens = 1 << (largest - 1).bit_length()
        while (tokens := tokens // 2) >= smallest:
            smaller = config.model_copy(update={"micro_batch_tokens": tokens, "gradient_checkpointing": checkpointing})
            if needs(smaller) <= budget:
                return smaller
    raise InputError(
        f"{config.base}: one text at a time needs about {needs(smaller) / GIB:.1f} GiB, "
        f"the device has {device_memory / GIB:.1f} GiB; expected a smaller base, max_length or an adapter"
        if largest > smallest
        else f"{config.base}: needs about {needs(config) / GIB:.1f} GiB, the device has {device_memory / GIB:.1f} GiB"
    )


def _sequences(config: TrialConfig, own_negatives: int | None) -> int:
    """Sequences that the encoder reads of a training row: a classifier reads a pair as one."""
    return 1 if isinstance(config, ClassifierConfig) else 2 + negatives_of_a_pair(config, own_negatives)


def negatives_of_a_pair(config: TrialConfig, own: int | None) -> int:
    """Negatives that a training pair has in a trial: mined ones, or the data's own.

    Args:
        own: of the training row that brings the most; None: unknown, and taken for as many as the configuration asks
            for beyond the default.
    """
    if config.batches == "mined":
        return config.hard_negatives
    room = 1 if config.loss == "gist" else config.hard_negatives
    return min(room, own) if own is not None else room if room > 1 else 0


def _tokens(config: TrialConfig, base: ResolvedBase, texts: int) -> tuple[int, int]:
    """Tokens whose activations are held at once, and tokens of a text; `texts` of a pair."""
    length = min(config.max_length or base.max_length, base.max_length)
    tokens = config.batch_size * texts * length
    return (min(tokens, max(config.micro_batch_tokens, length)) if config.micro_batch_tokens else tokens), length


def _activations(
    config: TrialConfig,
    base: ResolvedBase,
    device: DeviceKind,
    precision: str,
    attention: str | None,
    tokens: int,
    length: int,
) -> tuple[float, float]:
    figures = meta_model(base).config
    h, heads = figures.hidden_size, figures.num_attention_heads
    f = getattr(figures, "intermediate_size", 4 * h)
    layers = min(config.last_n or figures.num_hidden_layers, figures.num_hidden_layers)
    e = 4 if precision == "fp32" else 2
    if config.method == "full":
        a_token = e * ((10 if precision == "fp32" else 18) * h + 2 * f)
    else:
        a_token = e * ((7 if precision == "fp32" else 11) * h + f)
    kept = {"eager": 3 * e, "sdpa": 12 if device == "cpu" else 0}.get(attention or "", 0)
    scores = kept * heads * length
    a_layer = 0
    if base.model_type == "deberta-v2" and getattr(figures, "relative_attention", False):
        positions = 2 * (figures.position_buckets if figures.position_buckets > 0 else figures.max_position_embeddings)
        a_token += e * (h + 2 * heads * positions)
        scores *= 2
        a_layer = 17 * e * positions * h
    held = layers * (tokens * (a_token + scores) + a_layer)
    if config.method == "lora":
        held += tokens * (2 if precision == "fp32" else 3) * e * _adapted_inputs(config, base)
    if config.gradient_checkpointing:
        held = layers * tokens * e * h + held / layers
    return held, 2 * e * tokens * max(f, heads * length if scores else 0)


def _adapted_inputs(config: TrialConfig, base: ResolvedBase) -> int:
    """Values a token that the adapted linears take in."""
    model = _trial_model(config, base)
    return sum(_linear(model, name).in_features for name in resolve_targets(model, config.targets, config.last_n))


def _trial_model(config: TrialConfig, base: ResolvedBase) -> PreTrainedModel:
    return meta_model(base, max(2, len(config.labels)) if isinstance(config, ClassifierConfig) else 0)


def _count(config: TrialConfig, model: PreTrainedModel) -> Counts:
    total = sum(parameter.numel() for parameter in model.parameters())
    head, copied = (0, 0) if not isinstance(config, ClassifierConfig) else _head(config, model)
    if config.method == "none":
        return Counts(0, total)
    if config.method == "full":
        parameters = dict(model.named_parameters())
        names = set(trained_names(model, config.last_n))
        if isinstance(config, ClassifierConfig):
            names |= {*head_names(model), *(parameters if config.last_n is None else ())}
        return Counts(sum(parameters[name].numel() for name in names), total)
    adapter = 0
    for name in resolve_targets(model, config.targets, config.last_n):
        linear = _linear(model, name)
        # A is r x in, B is out x r; DoRA adds a magnitude for each output.
        adapter += config.r * (linear.in_features + linear.out_features) + config.dora * linear.out_features
    return Counts(adapter + head, total + adapter + copied)


def _head(config: ClassifierConfig, model: PreTrainedModel) -> tuple[int, int]:
    """Parameters of the head that are trained beside an adapter, and of the copy that PEFT keeps of them."""
    parameters = dict(model.named_parameters())
    trained = sum(parameters[name].numel() for name in trained_head(model, config))
    return trained, trained if config.head == "as_published" else 0


def _linear(model: PreTrainedModel, name: str) -> torch.nn.Linear:
    module = model.get_submodule(name)
    if not isinstance(module, torch.nn.Linear):
        raise TypeError(f"{name} is a {type(module).__name__}, expected a linear module")
    return module


@functools.lru_cache(maxsize=32)
def _meta_model(figures_json: str, name: str, classes: int) -> PreTrainedModel:
    figures: dict[str, Any] = json.loads(figures_json)
    model_type = figures.pop("model_type", None)
    try:
        config = AutoConfig.for_model(model_type, **figures)
        if classes:
            config.num_labels = classes
        with torch.device("meta"):
            return (AutoModelForSequenceClassification if classes else AutoModel).from_config(config)
    except (KeyError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"base: {name}: architecture {model_type!r} is not one of transformers' ({first})") from error
