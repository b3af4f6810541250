"""Models as they are before a merge: a trial with its adapter beside the base, and the base alone."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from trainables.config import TrialConfig
from trainables.model.build import build_model
from trainables.model.precision import resolve_device
from trainables.training.checkpoint import load_weights, map_weights


def trained_model(config: TrialConfig, checkpoint: Path, device: str | None = None) -> SentenceTransformer:
    """The model as the trial left it at a checkpoint, adapter beside base, in float32; to be read and not written."""
    if config.method == "full":  # without the base's weights beside its own
        model = build_model(config.model_copy(update={"method": "none"}), "cpu", dtype=torch.float32)
        map_weights(model, checkpoint)
        return model.to(resolve_device(device)).eval()
    model = build_model(config, device, dtype=torch.float32)
    if config.method == "lora":
        load_weights(model, checkpoint)
    return model.eval()


def base_model(base: str, revision: str | None = None) -> SentenceTransformer:
    """A base, a hub id (at a revision) or a folder, with its family's prompts and pooling, in float32."""
    return build_model(TrialConfig(base=base, revision=revision, method="none"), dtype=torch.float32).eval()
