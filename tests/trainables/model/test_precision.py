"""Which attention and number format a device gets: a function of what it says of itself, so no GPU is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TinyBase
from trainables.bases.families import resolve_base
from trainables.config import TrialConfig
from trainables.export.merge import base_model, trained_model
from trainables.export.mix import Mix, mixed_model
from trainables.model.precision import (
    Device,
    Precision,
    describe,
    resolve_attention,
    resolve_precision,
    resolve_weights,
)

A100 = Device("cuda", bf16=True, capability=(8, 0), flash_attn=True)
H100 = replace(A100, capability=(9, 0))
T4 = Device("cuda", bf16=False, capability=(7, 5), flash_attn=True)
CPU = Device("cpu")
E5 = "intfloat/multilingual-e5-base"


def attention(device: Device, dtype: torch.dtype | None = None, **fields: Any) -> str | None:
    config = TrialConfig.model_validate({"base": E5, **fields})
    return resolve_attention(config, resolve_base(config), device, dtype)[0]


@pytest.mark.parametrize("device", [A100, H100])
@pytest.mark.parametrize("method", ["lora", "none"])
@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16"])
def test_flash_attention_for_16_bit_weights_under_autocast(device: Device, method: str, precision: str) -> None:
    assert attention(device, method=method, precision=precision) == "flash_attention_2"
    assert attention(replace(device, flash_attn=False), method=method, precision=precision) == "sdpa"


@pytest.mark.parametrize("asked", ["auto", "flash_attention_2"])
def test_float32_weights_never_get_flash_attention(asked: str) -> None:
    """Its kernel refuses float32: a merge, an export, a benchmark, and a full fine-tuning outside of autocast."""
    assert attention(A100, torch.float32, attention=asked) == "sdpa"
    assert attention(A100, torch.float32, attention=asked, method="none") == "sdpa"
    assert attention(A100, attention=asked, method="full") == "sdpa"
    assert attention(A100, attention=asked, precision="fp32") == "sdpa"
    assert attention(A100, torch.bfloat16, attention=asked, precision="fp32") == "sdpa"  # no autocast


def test_merge_and_benchmark_ask_for_what_float32_weights_can_do(
    tiny_base: TinyBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built as on a machine whose device has flash attention; the package is not here, so asking for it would fail."""
    monkeypatch.setattr("trainables.model.precision.describe", lambda device: A100)
    config = TrialConfig(base=str(tiny_base("bert")), method="none")
    for model in (base_model(config.base), trained_model(config, tmp_path), mixed_model(Mix.of(config, tmp_path))):
        assert model.transformers_model.config._attn_implementation == "sdpa"  # type: ignore[union-attr]


@pytest.mark.parametrize("asked", ["auto", "flash_attention_2"])
def test_older_gpus_and_cpus_have_no_flash_attention(asked: str) -> None:
    assert attention(T4, attention=asked) == "sdpa"
    assert attention(CPU, attention=asked, precision="bf16") == "sdpa"


def test_an_architecture_without_a_flash_path_does_not_get_it() -> None:
    base = replace(resolve_base(TrialConfig(base=E5)), model_type="t5")
    asked = TrialConfig(base=E5, attention="flash_attention_2")
    assert resolve_attention(TrialConfig(base=E5), base, A100) == ("sdpa", None)
    name, note = resolve_attention(asked, base, A100)
    assert name == "sdpa"
    assert "t5 has none" in str(note)


def test_what_was_asked_and_cannot_be_is_said() -> None:
    config = TrialConfig(base=E5, attention="flash_attention_2", method="full")
    assert "frozen weights in 16-bit" in str(resolve_attention(config, resolve_base(config), A100)[1])
    assert resolve_attention(TrialConfig(base=E5, attention="eager"), resolve_base(config), A100) == ("eager", None)


def test_auto_is_what_the_device_computes_itself() -> None:
    config = TrialConfig(base=E5)
    assert resolve_precision(config, A100) == Precision("bf16")
    assert resolve_precision(config, T4) == Precision("fp16")
    assert resolve_precision(config, CPU) == Precision("fp32")
    assert resolve_precision(config, replace(CPU, bf16=True)) == Precision("bf16")


def test_trained_weights_are_float32_and_frozen_ones_the_precision_s() -> None:
    assert resolve_weights(TrialConfig(base=E5), A100) == torch.bfloat16
    assert resolve_weights(TrialConfig(base=E5), T4) == torch.float16
    assert resolve_weights(TrialConfig(base=E5), A100, torch.float32) == torch.float32
    assert resolve_weights(TrialConfig(base=E5, method="full"), A100, torch.bfloat16) == torch.float32


def test_this_machine_describes_its_cpu() -> None:
    device = describe("cpu")
    assert (device.kind, device.capability, device.flash_attn) == ("cpu", None, False)
