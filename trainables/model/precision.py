"""Which number format and which attention a trial runs in, decided by its configuration, device and base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from transformers.utils import is_flash_attn_2_available

from evaluation.errors import InputError
from trainables.bases.families import ResolvedBase
from trainables.config import TrialConfig

AttentionName = Literal["eager", "sdpa", "flash_attention_2"]


@dataclass(frozen=True)
class Precision:
    """How a trial computes.

    name: bf16, fp16 or fp32. weights: dtype of the base's frozen weights; adapters and fully trained weights are
    always float32. bf16, fp16: the flags of the trainer's arguments (autocast).
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


def resolve_precision(config: TrialConfig, device: str | torch.device | None = None) -> Precision:
    """The trial's precision on `device`.

    auto is bf16 where the processor multiplies bf16 matrices itself (Ampere or newer; AMX or AVX512-BF16 on a CPU),
    else fp16 on a GPU and fp32 on a CPU. Raises InputError for fp16 on a CPU, where gradients underflow unscaled.
    """
    kind = resolve_device(device).type
    if config.precision == "auto":
        if _native_bf16(kind):
            return Precision("bf16")
        return Precision("fp16" if kind == "cuda" else "fp32")
    if config.precision == "fp16" and kind == "cpu":
        raise InputError("precision: fp16 needs a GPU, expected auto, bf16 or fp32 on a CPU")
    return Precision(config.precision)


def resolve_attention(
    config: TrialConfig, base: ResolvedBase, device: str | torch.device | None = None
) -> tuple[AttentionName, str | None]:
    """The attention implementation, and a note when it is not what was asked or wished for.

    flash_attention_2 also drops the padding (sentence-transformers packs the texts of a batch into one sequence).
    """
    half = resolve_precision(config, device).name != "fp32"
    flash_fits = resolve_device(device).type == "cuda" and half and is_flash_attn_2_available()
    if not base.fast_attention:
        note = f"{base.name}: {base.model_type} attention has no SDPA or flash path: eager"
        return "eager", None if config.attention == "eager" else note
    if config.attention == "flash_attention_2" and not flash_fits:
        return "sdpa", f"{base.name}: flash attention needs the flash-attn package, a GPU and 16-bit precision: sdpa"
    if config.attention == "auto":
        return ("flash_attention_2" if flash_fits else "sdpa"), None
    return config.attention, None


def _native_bf16(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
