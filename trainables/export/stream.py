"""A safetensors file written tensor after tensor: the library's own writer wants all of them in memory.

The format: eight bytes with the header's length, the header (JSON: dtype, shape and place of each tensor), the tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

# What safetensors calls them, and their bytes.
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = ("F64", "F32", "F16", "BF16")


def write_tensors(
    path: Path, layout: Mapping[str, tuple[str, Sequence[int]]], make: Callable[[str], torch.Tensor]
) -> None:
    """Write a file of tensors, of which one at a time is in memory.

    Args:
        layout: name -> dtype as safetensors calls it, a key of SIZES but BF16, and shape.
        make: a tensor by its name.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in layout.items():
        start, end = end, end + SIZES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in layout:
            file.write(make(name).contiguous().numpy().tobytes())
