"""Embed texts with a saved model and nothing else loaded: python -m trainables.export.reload MODEL IN OUT"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer


def main(model: str, texts: str, embeddings: str) -> None:
    """Embed what the JSON file `texts` holds; write (N, D) float32 unit rows to `embeddings` (.npy)."""
    encoder = SentenceTransformer(model, device="cpu", model_kwargs={"use_safetensors": True})
    np.save(embeddings, embed_both(encoder, json.loads(Path(texts).read_text())), allow_pickle=False)


def embed_both(model: SentenceTransformer, texts: dict[str, list[str]]) -> NDArray[np.float32]:
    """(N, D) unit rows of texts["queries"], then of texts["passages"], each with its prompt."""
    rows = [
        encode(texts[kind], normalize_embeddings=True, show_progress_bar=False)
        for kind, encode in (("queries", model.encode_query), ("passages", model.encode_document))
        if texts[kind]
    ]
    return np.concatenate(rows).astype(np.float32)


if __name__ == "__main__":
    main(*sys.argv[1:])
