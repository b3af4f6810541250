"""What is trained, and not the frozen base: saved at a rung, loaded to go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sentence_transformers.base.model import BaseModel

from evaluation.files import usual_modes
from trainables.model.heads import head_names
from trainables.training.rungs import ADAPTER, HEAD, WEIGHTS

PREFIX = "base_model.model."  # of each weight's name in PEFT's files: its wrapper around the encoder
SLICE = 2**20  # numbers of a file that are read at once: 4 MiB


def save_weights(model: BaseModel, folder: Path) -> None:
    """Write the adapter in PEFT's format and, of a classifier, its whole head beside it; or every weight when the base
    itself is trained. Safetensors only."""
    folder.mkdir(parents=True, exist_ok=True)
    transformer = model.transformers_model
    if transformer is not None and _has_adapter(model):
        state = get_peft_model_state_dict(transformer, adapter_name="default", save_embedding_layers=False)
        adapter = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        _save(adapter, folder / ADAPTER)
        transformer.peft_config["default"].save_pretrained(str(folder))
        if head := _head(model):
            _save({name: tensor.detach().cpu().contiguous() for name, tensor in head.items()}, folder / HEAD)
    else:
        state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        _save(state, folder / WEIGHTS)


def load_weights(model: BaseModel, folder: Path) -> None:
    """Put saved weights into a model built from the same configuration.

    Raises:
        FileNotFoundError: the folder holds no weights.
        ValueError: the adapter is another model's.
    """
    if _has_adapter(model):
        state = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / ADAPTER).items()}
        outcome: Any = set_peft_model_state_dict(model.transformers_model, state, adapter_name="default")
        # The frozen weights are missing, too: they are not in the file.
        strangers = [*outcome.unexpected_keys, *(name for name in outcome.missing_keys if "lora_" in name)]
        if strangers:
            raise ValueError(f"{folder}: not this model's adapter: {strangers[:3]}")
        if head := _head(model):
            _load_head(folder / HEAD, head)
    else:
        _copy_from(folder / WEIGHTS, model)


def _head(model: BaseModel) -> dict[str, torch.Tensor]:
    """The parameters above a classifier's encoder; none of another model."""
    transformer = model.transformers_model
    parameters = {} if transformer is None else dict(transformer.named_parameters())
    return {name: parameters[name] for name in ([] if transformer is None else head_names(transformer))}


@torch.no_grad()
def _load_head(file: Path, head: dict[str, torch.Tensor]) -> None:
    state = load_file(file)
    if strangers := sorted(state.keys() ^ head.keys()):
        raise ValueError(f"{file}: not this model's head: {strangers[:3]}")
    for name, parameter in head.items():
        parameter.copy_(state[name])


def _check_names(file: Path, model: BaseModel) -> None:
    state = model.state_dict()
    with safe_open(file, framework="pt") as tensors:
        shapes = {name: torch.Size(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    strangers = sorted(
        name for name in shapes.keys() | state.keys() if name not in state or shapes.get(name) != state[name].shape
    )
    if strangers:
        raise ValueError(f"{file}: not this model's weights: {strangers[:3]}")


def _copy_from(file: Path, model: BaseModel) -> None:
    """Read every weight from the file, which is opened anew for each slice: the pages of a file that stays open count
    as this process's memory, beside the base's and the model's own."""
    _check_names(file, model)
    for name, weight in model.state_dict().items():
        if not weight.dim():
            with safe_open(file, framework="pt") as tensors:
                weight.copy_(tensors.get_tensor(name))
            continue
        step = max(1, SLICE // max(1, weight[:1].numel()))
        for start in range(0, len(weight), step):
            with safe_open(file, framework="pt") as tensors:
                weight[start : start + step].copy_(tensors.get_slice(name)[start : start + step])


def map_weights(model: BaseModel, folder: Path) -> None:
    """Point the weights of a model at the pages of a full fine-tuning's file, to be read and not written.

    Raises:
        FileNotFoundError: the folder holds no weights.
        ValueError: the file is another model's.
    """
    file = folder / WEIGHTS
    _check_names(file, model)
    with safe_open(file, framework="pt") as tensors:
        for name, parameter in model.named_parameters():
            parameter.data = tensors.get_tensor(name)
        for name, buffer in model.named_buffers():
            if name in tensors.keys():  # noqa: SIM118
                buffer.copy_(tensors.get_tensor(name))


def trainable_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in counts if trained), sum(n for n, _ in counts)


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    save_file(state, path)
    usual_modes(path)


def _has_adapter(model: BaseModel) -> bool:
    return bool(getattr(model.transformers_model, "_hf_peft_config_loaded", False))
