"""Embed texts with a saved model in a process that has nothing else loaded: python -m trainables.reload MODEL IN OUT"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer


def main(model: str, texts: str, embeddings: str) -> None:
    """Embed the JSON list of queries in the file `texts`; write (Q, D) float32 unit rows to `embeddings` (.npy)."""
    encoder = SentenceTransformer(model, device="cpu", model_kwargs={"use_safetensors": True})
    queries = json.loads(Path(texts).read_text())
    rows_QD = encoder.encode_query(queries, normalize_embeddings=True, show_progress_bar=False)
    np.save(embeddings, np.asarray(rows_QD, dtype=np.float32), allow_pickle=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
