"""A base whose repository brings code of its own, which the spec trusts: its architecture without its weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from evaluation.errors import InputError, first_line
from trainables.bases import hub
from trainables.bases.families import ResolvedBase


def foreign_config(base: ResolvedBase) -> PretrainedConfig:
    """The configuration, from the class that the base's repository brings. Runs code of that repository.

    Raises:
        InputError: its code is out of reach or fails.
    """
    try:
        return AutoConfig.from_pretrained(**_where(base))
    except Exception as error:  # foreign code may raise anything
        raise InputError(f"base: {base.name}: its own code fails ({first_line(error)[:200]})") from error


def foreign_model(base: ResolvedBase) -> PreTrainedModel:
    """Its encoder on torch's meta device: every module, no weights.

    Raises:
        InputError: its code is out of reach or fails.
    """
    config = foreign_config(base)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=True)
    except Exception as error:  # as above
        raise InputError(f"base: {base.name}: its own code fails ({first_line(error)[:200]})") from error
    return model


def _where(base: ResolvedBase) -> dict[str, Any]:
    folder = hub.local_folder(base.name)
    place: dict[str, Any] = {"pretrained_model_name_or_path": base.name if folder is None else str(folder)}
    if folder is None:
        place |= {"revision": base.revision or "main", "local_files_only": not hub.hub_answers()}
    return place | {"trust_remote_code": True}
