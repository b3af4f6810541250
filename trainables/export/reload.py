"""Embed texts with a saved model and nothing else loaded: python -m trainables.export.reload JOB"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from evaluation.embeddings import Role, embed


def main(job: str) -> None:
    """Do what the JSON file `job` says: write (N, D) float32 unit rows of its `texts` to the .npy file `embeddings`.

    The model is the `folder`, run in the `format`'s runtime, or its adapter put on the base of the configuration
    `config`.
    """
    told: dict[str, Any] = json.loads(Path(job).read_text(encoding="utf-8"))
    np.save(told["embeddings"], embed_both(_load(told), told["texts"]), allow_pickle=False)


def _load(told: dict[str, Any]) -> SentenceTransformer:
    folder = Path(told["folder"])
    if told["adapter_only"]:
        import torch

        from trainables.config import TrialConfig
        from trainables.model.build import build_model

        model = build_model(TrialConfig.model_validate(told["config"]), "cpu", dtype=torch.float32)
        model.load_adapter(str(folder))
        return model.eval()
    if told["format"] != "safetensors":
        from trainables.export.backends import load_backend

        return load_backend(folder, told["format"], told["trust_remote_code"])
    return SentenceTransformer(
        str(folder),
        device="cpu",
        model_kwargs={"use_safetensors": True},
        trust_remote_code=told["trust_remote_code"],
    )


def embed_both(model: SentenceTransformer, texts: dict[str, list[str]]) -> NDArray[np.float32]:
    """(N, D) unit rows of texts["queries"], then of texts["passages"], each with its prompt."""
    roles: tuple[tuple[str, Role], ...] = (("queries", "query"), ("passages", "document"))
    return np.concatenate([embed(model, texts[kind], role) for kind, role in roles if texts[kind]])


if __name__ == "__main__":
    main(*sys.argv[1:])
