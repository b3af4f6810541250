"""Embeddings of the training texts by the base model: computed once for each base and data, shared by all trials."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from evaluation.embeddings import embed
from evaluation.files import aside
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData


def base_key(config: TrialConfig, data: TrialData, model: SentenceTransformer) -> str:
    """Names what an embedding of the data by the base depends on.

    That is the base and its revision (for a local folder: when its weights were written), prompts, pooling, maximum
    length, data type and the training texts.
    """
    folder = Path(config.base)
    weights = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    facts = {
        "base": config.base,
        "revision": config.revision,
        "weights": [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights],
        "prompts": model.prompts,
        "pooling": config.pooling,
        "max_length": model.max_seq_length,
        "dtype": str(next(model.parameters()).dtype),
        "data": data.content_hash,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def passage_embeddings(
    config: TrialConfig, data: TrialData, model: SentenceTransformer, cache: Path | None
) -> NDArray[np.float32]:
    """(P, D) unit vectors of the distinct training passages, in order of first appearance.

    Args:
        model: embeds as the base does: the base itself, or a trial's model before its first step.
        cache: folder of the shared copy, which is mapped into memory and not read whole; None: computed and not kept.
    """
    if cache is None:
        return passage_embeddings_now(data, model)
    path = cache / "passages" / f"{base_key(config, data, model)}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        # Two trials may start at once: the second waits for the first's copy.
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                vectors_PD = passage_embeddings_now(data, model)
                with aside(path) as draft, draft.open("wb") as file:
                    np.save(file, vectors_PD)
    shared_PD: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return shared_PD


def passage_embeddings_now(data: TrialData, model: SentenceTransformer) -> NDArray[np.float32]:
    """As passage_embeddings, by the model as it is now. Whether it was training is restored."""
    training = model.training
    vectors_PD = embed(model, list(dict.fromkeys(data.train["positive"])), "document")
    model.train(training)
    return vectors_PD
