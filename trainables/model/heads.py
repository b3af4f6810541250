"""The layers of a classifier above its encoder: which they are, and how they begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from trainables.config import ClassifierConfig

PUBLISHED = ("classifier.", "score.")  # what PEFT trains beside an adapter unless it is told otherwise


def head_names(model: PreTrainedModel) -> list[str]:
    """Parameters above the encoder: all that are not the body's, and the body's pooler. Empty for an encoder alone."""
    body = f"{model.base_model_prefix}."
    if not isinstance(getattr(model, model.base_model_prefix, None), nn.Module):
        return []
    return [n for n, _ in model.named_parameters() if not n.startswith(body) or n.startswith(f"{body}pooler.")]


def trained_head(model: PreTrainedModel, config: ClassifierConfig) -> list[str]:
    """Those of the head's parameters that an adapter's trial trains."""
    names = head_names(model)
    return names if config.head == "fair" else [name for name in names if name.startswith(PUBLISHED)]


def fresh_head(model: PreTrainedModel, folder: Path, seed: int) -> None:
    """Give the head float32 weights of its own, drawn from the seed where the base's files hold none.

    Args:
        model: read from the folder; its other weights may be shared and stay as they are.
        folder: of the base's files.
    """
    given = _shapes(folder)
    body = f"{model.base_model_prefix}."
    names = head_names(model)
    parameters = dict(model.named_parameters())
    drawn: dict[str, None] = {}
    for name in names:
        parameter = parameters[name]
        parameter.data = parameter.data.to(torch.float32, copy=True)
        held = given.get(name, given.get(name.removeprefix(body)))
        if held != parameter.shape:
            drawn[name.rpartition(".")[0]] = None
    with seeded(seed):
        for module in drawn:
            model._init_weights(model.get_submodule(module))


def _shapes(folder: Path) -> dict[str, torch.Size]:
    return dict(_shapes_of(folder.glob("*.safetensors")))


def _shapes_of(files: Iterable[Path]) -> Iterator[tuple[str, torch.Size]]:
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield name, torch.Size(tensors.get_slice(name).get_shape())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a generator seeded for this block only, on every device."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
