"""An estimate of a trial's peak memory.

It adds up, for B texts of s tokens, width h, feed-forward width f, a heads, e bytes a value (2 in 16-bit):

- weights: e bytes each when frozen, 4 when trained (float32 masters), and 2 more for each trained linear weight that
  autocast casts; adapter: 4; gradients: 4 and AdamW's two moments: 8 for each trained parameter;
- activations that the backward pass needs, for each layer from the first trained one, bytes a token:
  frozen base, float32: 4 (7 h + f); 16-bit: 2 (11 h + f), some of them kept in float32;
  fully trained, float32: 4 (10 h + 2 f); 16-bit: 2 (18 h + 2 f);
  other architectures (gated feed-forward, rotary positions, norms in float32): trainables/plan/activations.py;
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

from dataclasses import dataclass
from typing import Literal

import torch

from evaluation.errors import InputError
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.config import ClassifierConfig, TrialConfig
from trainables.model.precision import AttentionName
from trainables.plan.activations import Sizes, activations
from trainables.plan.parameters import count_parameters

GIB = 1024**3
RUNTIME = {"cuda": 0.6 * GIB, "cpu": 0.6 * GIB}  # CUDA's context and kernels; torch and transformers in a process
MALLOC = 0.6  # measured: the share of activations and work space by which resident memory exceeds them on a CPU
HEADROOM = 0.9  # share of the device's memory that a plan may fill: allocators fragment
MIN_MICRO_BATCH = 64  # TrialConfig.micro_batch_tokens

DeviceKind = Literal["cpu", "cuda"]


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


def estimate_memory(
    config: TrialConfig,
    device: DeviceKind,
    precision: Literal["bf16", "fp16", "fp32"],
    attention: AttentionName | None,
    base: ResolvedBase | None = None,
    own_negatives: int | None = None,
    longest: int | None = None,
) -> Memory:
    """Estimated peak memory of a trial whose texts are all as long as the longest; see the module's formula.

    Args:
        own_negatives: of the training row that brings the most; None: unknown.
        longest: tokens of the data's longest text; None: unknown, and taken for the maximum length.

    Raises:
        InputError: an unknown base, targets that match nothing, or a base whose own code does not say its sizes.
    """
    base = base or resolve_base(config)
    sizes = Sizes.of(base)
    counts = count_parameters(config, base)
    frozen = counts.total - counts.trainable
    value = 4 if precision == "fp32" else 2
    weights = 4 * counts.total if config.method == "full" else value * frozen + 4 * counts.trainable
    if config.method == "full" and precision != "fp32":
        weights += 2 * counts.trainable
    texts = _sequences(config, own_negatives)
    length = _length(config, base, longest)
    tokens = config.batch_size * texts * length
    if config.micro_batch_tokens:
        tokens = min(tokens, max(config.micro_batch_tokens, length))
    held, workspace = activations(config, base, sizes, device, precision, attention, tokens, length)
    workspace += 3 * 4 * config.batch_size**2 * (texts - 1)
    if config.method == "none":
        held = 0
    return Memory(
        weights=weights,
        gradients=4 * counts.trainable,
        optimizer=8 * counts.trainable,
        activations=int(held),
        workspace=int(workspace),
        allocator=int(MALLOC * (held + workspace)) if device == "cpu" else 0,
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
    longest: int | None = None,
) -> TrialConfig:
    """The configuration, changed so that its estimate fits in `device_memory` bytes; unchanged where it fits already.

    The cached contrastive loss comes first (the same batch, hence the same experiment, for one more forward pass), or
    of a classifier a step in pieces, with the largest micro-batch that fits, a power of two of tokens; then gradient
    checkpointing besides.
    A base that runs code of its own is left as it is: what its figures mean is not known.

    Args:
        own_negatives, longest: as in `estimate_memory`.

    Raises:
        InputError: not even one text at a time fits.
    """
    budget = int(HEADROOM * device_memory)
    base = resolve_base(config)
    if base.foreign:
        return config

    def needs(candidate: TrialConfig) -> int:
        return estimate_memory(candidate, device, precision, attention, base, own_negatives, longest).total

    if needs(config) <= budget:
        return config
    length = _length(config, base, longest)
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


def _length(config: TrialConfig, base: ResolvedBase, longest: int | None) -> int:
    """Tokens of the longest text that a trial reads."""
    length = min(config.max_length or base.max_length, base.max_length)
    return length if longest is None else min(length, max(1, longest))
