"""Which number format and which attention a trial runs in, decided by its configuration, device and base."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import CONFIG_MAPPING, MODEL_MAPPING
from transformers.utils import is_flash_attn_2_available

from evaluation.errors import InputError
from trainables.bases.architectures import LAYOUTS
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.config import TrialConfig

AttentionName = Literal["eager", "sdpa", "flash_attention_2"]
AMPERE = (8, 0)  # compute capability; flash-attn 2 has no kernels for older GPUs


@dataclass(frozen=True)
class Device:
    """What of a device decides how a trial computes on it.

    Attributes:
        kind: cpu, cuda, or another of torch's names.
        bf16: it multiplies bf16 matrices itself (Ampere or newer; AMX or AVX512-BF16 on a CPU).
        capability: compute capability of a CUDA device; None on others.
        flash_attn: the flash-attn package is installed.
    """

    kind: str
    bf16: bool = False
    capability: tuple[int, int] | None = None
    flash_attn: bool = False


@dataclass(frozen=True)
class Precision:
    """How a trial computes.

    Attributes:
        name: bf16, fp16 or fp32.
        weights: dtype of the base's frozen weights; adapters and fully trained weights are always float32.
        bf16, fp16: the flags of the trainer's arguments (autocast).
    """

    name: Literal["bf16", "fp16", "fp32"]

    @property
    def bf16(self) -> bool:
        return self.name == "bf16"

    @property
    def fp16(self) -> bool:
        return self.name == "fp16"

    @property
    def weights(self) -> torch.dtype:
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.name]


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, else the first CUDA device, else the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def describe(device: str | torch.device | None = None) -> Device:
    """What this machine says of one of its devices; None: as resolve_device."""
    place = resolve_device(device)
    if place.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Device("cuda", bf16, torch.cuda.get_device_capability(place), is_flash_attn_2_available())
    if place.type != "cpu":
        return Device(place.type)
    says = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return Device("cpu", bool(says.get("amx_bf16") or says.get("avx512_bf16")))


def resolve_precision(config: TrialConfig, device: Device | str | torch.device | None = None) -> Precision:
    """The trial's precision on `device`.

    auto is bf16 where the device multiplies bf16 matrices itself, else fp16 on a GPU whose base stays within its
    numbers, else fp32.

    Raises:
        InputError: fp16 on a CPU, where gradients underflow unscaled, or for a base that overflows in it.
    """
    place = device if isinstance(device, Device) else describe(device)
    if config.precision == "auto":
        if place.bf16:
            return Precision("bf16")
        return Precision("fp16" if place.kind == "cuda" and _fits_fp16(config) else "fp32")
    if config.precision == "fp16" and place.kind == "cpu":
        raise InputError("precision: fp16 needs a GPU, expected auto, bf16 or fp32 on a CPU")
    if config.precision == "fp16" and not _fits_fp16(config):
        raise InputError(
            f"precision: {config.base} overflows in fp16 (its hidden states pass 65,504), expected auto, bf16 or fp32"
        )
    return Precision(config.precision)


def precision_note(config: TrialConfig, device: Device | str | torch.device | None = None) -> str | None:
    """What to say where auto takes another precision than the device's fastest; None: nothing."""
    place = device if isinstance(device, Device) else describe(device)
    if config.precision != "auto" or place.bf16 or place.kind != "cuda" or _fits_fp16(config):
        return None
    return f"{config.base}: overflows in fp16, and this GPU has no bf16: fp32"


def _fits_fp16(config: TrialConfig) -> bool:
    layout = LAYOUTS.get(resolve_base(config).model_type)
    return layout is None or layout.fp16


def resolve_weights(
    config: TrialConfig, device: Device | str | torch.device | None = None, dtype: torch.dtype | None = None
) -> torch.dtype:
    """The dtype of the base's weights: float32 where they are trained, else `dtype`, else the precision's."""
    return torch.float32 if config.method == "full" else dtype or resolve_precision(config, device).weights


def resolve_attention(
    config: TrialConfig,
    base: ResolvedBase,
    device: Device | str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[AttentionName | None, str | None]:
    """The attention implementation (None: what the base's own code takes), and a note when it is not what was asked.

    Flash attention takes 16-bit numbers alone. Where the weights are float32 it gets them from autocast, under which
    only the training and the dev evaluation run: whatever else embeds with the model would fail. So it is for 16-bit
    weights under a 16-bit precision, on GPUs that it has kernels for. It also drops the padding (sentence-transformers
    packs the texts of a batch into one sequence).

    Args:
        dtype: of the frozen weights, instead of the precision's (float32 to merge).
    """
    if base.foreign and config.attention == "auto":
        return None, None
    sdpa, flash = (True, True) if base.foreign else _kernels(base.model_type)
    if not sdpa:
        note = f"{base.name}: {base.model_type} attention has no SDPA or flash path: eager"
        return "eager", None if config.attention == "eager" else note
    if config.attention in ("eager", "sdpa"):
        return config.attention, None
    place = device if isinstance(device, Device) else describe(device)
    half = (torch.bfloat16, torch.float16)
    sixteen_bit = resolve_weights(config, place, dtype) in half and resolve_precision(config, place).weights in half
    if flash and sixteen_bit and place.flash_attn and place.capability is not None and place.capability >= AMPERE:
        return "flash_attention_2", None
    if config.attention == "auto":
        return "sdpa", None
    needs = "the flash-attn package, an Ampere or newer GPU and frozen weights in 16-bit precision"
    if not flash:
        needs = f"an architecture with a flash path, {base.model_type} has none"
    return "sdpa", f"{base.name}: flash attention needs {needs}: sdpa"


def _kernels(model_type: str) -> tuple[bool, bool]:
    """Whether the architecture has an SDPA and a flash path, as its class in transformers says."""
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_MAPPING:
        return False, False
    found = MODEL_MAPPING[CONFIG_MAPPING[model_type]]
    architecture: Any = found[0] if isinstance(found, tuple) else found
    return bool(architecture._supports_sdpa), bool(architecture._supports_flash_attn)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for what is not training, as the trainer has it for training."""
    if precision.name == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=precision.weights)
