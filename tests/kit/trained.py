"""Trials as they are after training, without the training: real models whose trained weights are moved at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainables.config import TrialConfig
from trainables.model.build import build_model
from trainables.training.checkpoint import save_weights


def trained(folder: Path, base: Path | str, seed: int = 1, scale: float = 0.05, **fields: Any) -> TrialConfig:
    """Write the checkpoint of a trial on `base` into `folder`; its configuration."""
    config = TrialConfig.model_validate({"base": str(base), "r": 4, "alpha": 8.0, "precision": "fp32", **fields})
    model = build_model(config, "cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    save_weights(model, folder)
    return config
