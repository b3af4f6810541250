"""Whether a base's files hold the weights of its architecture: what is missing would be random numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from evaluation.errors import InputError, first_line

NOT_WEIGHTS = ("position_ids", "inv_freq")  # tables that older files hold and newer code computes


def check_weights(base: str, folder: Path, trust_remote_code: bool = False) -> None:
    """Hold the names in a base's files against those of its architecture. Weights are not read.

    A pooler may be missing, as pooling reads the hidden states, and so may tables that are computed; heads of the
    pre-training may be left over.

    Args:
        base: what messages call it.
        folder: of its files.
        trust_remote_code: its architecture is that of its own code; then its weights are read.

    Raises:
        InputError: names the weights that would be drawn at random, dropped, or have another shape.
    """
    inner = _encoder_folder(folder)
    if inner is None:
        return
    encoder, info = _loaded(base, inner, trust_remote_code)
    prefix = f"{encoder.base_model_prefix}." if encoder.base_model_prefix else ""
    extra = [name.removeprefix(prefix) for name in info["unexpected_keys"]]
    if adapters := [name for name in extra if "lora_" in name]:
        raise InputError(
            f"base: {base} holds adapters ({_listed(adapters)}), expected a model without: merge them first"
        )
    own = {name.split(".")[0] for name, _ in encoder.named_parameters()} - {"pooler"}
    missing = [n for n in info["missing_keys"] if not n.startswith("pooler.") and not n.endswith(NOT_WEIGHTS)]
    extra = [name for name in extra if name.split(".")[0] in own and not name.endswith(NOT_WEIGHTS)]
    other = [key[0] for key in info["mismatched_keys"]]
    for what, names in (("lack", missing), ("hold beyond the encoder", extra), ("hold in another shape", other)):
        if names:
            raise InputError(
                f"base: {base}: its files {what} {_listed(names)} of {type(encoder).__name__}; expected the "
                "weights of its architecture, as missing ones would be random numbers"
            )


def _encoder_folder(folder: Path) -> Path | None:
    """Where the encoder lies: in the folder, or, in older packages, in one of its own; None: it has none."""
    if (folder / "config.json").is_file():
        return folder
    inner = (path.parent for path in sorted(folder.glob("*/config.json")))
    return next((path for path in inner if any(path.glob("*.safetensors")) and any(path.glob("tokenizer*"))), None)


def _loaded(base: str, folder: Path, trust_remote_code: bool) -> tuple[PreTrainedModel, dict[str, Any]]:
    options: dict[str, Any] = {} if trust_remote_code else {"device_map": "meta"}  # foreign code may need real tensors
    with _quiet():
        try:
            encoder, info = AutoModel.from_pretrained(
                str(folder),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named in the message
                **options,
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"base: {base}: cannot be loaded ({first_line(error)[:300]})") from None
    return encoder, info


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and its own report of what the files hold: ours follows."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _listed(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
