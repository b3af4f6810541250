"""Adapters folded into their base: a merged model needs no PEFT to load and costs nothing extra to run."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer

from trainables.config import TrialConfig
from trainables.model.build import build_model, own_weights
from trainables.training.checkpoint import load_weights


def trained_model(config: TrialConfig, checkpoint: Path, device: str | None = None) -> SentenceTransformer:
    """The model as the trial left it at a checkpoint, adapter beside base, in float32."""
    model = build_model(config, device, dtype=torch.float32)
    if config.method != "none":
        load_weights(model, checkpoint)
    return model.eval()


def base_model(base: str, revision: str | None = None) -> SentenceTransformer:
    """A base, a hub id (at a revision) or a folder, with its family's prompts and pooling, in float32."""
    return build_model(TrialConfig(base=base, revision=revision, method="none"), dtype=torch.float32).eval()


def merged_model(config: TrialConfig, checkpoint: Path, device: str | None = None) -> SentenceTransformer:
    """The same model with its adapter merged into a private copy of the base's weights, in float32.

    Raises:
        ValueError: the merged weights are not finite (PEFT's safe merge).
    """
    if config.method != "lora":
        return trained_model(config, checkpoint, device)
    model = own_weights(build_model(config.model_copy(update={"method": "none"}), device, dtype=torch.float32))
    encoder = model.transformers_model
    assert encoder is not None  # build_model refuses a base without one
    adapted = PeftModel.from_pretrained(encoder, str(checkpoint))
    adapted.merge_and_unload(safe_merge=True)  # in place: the layers of model.transformers_model are plain again
    return model.eval()
