"""The writer of one tensor at a time, read back by safetensors itself."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trainables.export.stream import write_tensors


def test_what_is_written_a_tensor_at_a_time_is_what_safetensors_reads(tmp_path: Path) -> None:
    tensors = {
        "b.weight": torch.randn(3, 5).T,
        "a": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "positions": torch.arange(7),
        "half": torch.randn(2, 2).half(),
        "mask": torch.tensor([True, False, True]),
        "é": torch.randn(1, 2, 3, dtype=torch.float64),
    }
    kinds = ("F32", "F32", "F32", "I64", "F16", "BOOL", "F64")
    layout = {name: (kind, tensor.shape) for kind, (name, tensor) in zip(kinds, tensors.items(), strict=True)}
    asked: list[str] = []

    def make(name: str) -> torch.Tensor:
        asked.append(name)
        return tensors[name]

    write_tensors(tmp_path / "model.safetensors", layout, make)
    read = load_file(tmp_path / "model.safetensors")
    assert asked == list(tensors)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
