"""Embed texts with a saved model in a process that has nothing else loaded: python -m trainables.export.reload MODEL IN OUT

--trust-remote-code runs the code that the folder brings, as it did in the training.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from evaluation.embeddings import Role, embed


def main(model: str, texts: str, embeddings: str, code: str = "") -> None:
    """Embed what the JSON file `texts` holds; write (N, D) float32 unit rows to `embeddings` (.npy)."""
    encoder = SentenceTransformer(
        model, device="cpu", model_kwargs={"use_safetensors": True}, trust_remote_code=code == "--trust-remote-code"
    )
    np.save(embeddings, embed_both(encoder, json.loads(Path(texts).read_text())), allow_pickle=False)


def embed_both(model: SentenceTransformer, texts: dict[str, list[str]]) -> NDArray[np.float32]:
    """(N, D) unit rows of texts["queries"], then of texts["passages"], each with its prompt."""
    roles: tuple[tuple[str, Role], ...] = (("queries", "query"), ("passages", "document"))
    return np.concatenate([embed(model, texts[kind], role) for kind, role in roles if texts[kind]])


if __name__ == "__main__":
    main(*sys.argv[1:])
