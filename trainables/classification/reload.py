"""Predict with a saved classifier and nothing else loaded: python -m trainables.classification.reload JOB"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trainables.classification.predict import BATCH, logits_of
from trainables.classification.task import Text


def main(job: str) -> None:
    """Do what the JSON file `job` says: write (N, C) logits of its `texts` to the .npz file `logits`, once as
    CrossEncoder(folder) computes them and once as AutoModelForSequenceClassification does."""
    told: dict[str, Any] = json.loads(Path(job).read_text(encoding="utf-8"))
    texts: list[Text] = [text if isinstance(text, str) else tuple(text) for text in told["texts"]]
    encoder = CrossEncoder(told["folder"], device="cpu", model_kwargs={"use_safetensors": True, "dtype": torch.float32})
    np.savez(
        told["logits"],
        allow_pickle=False,
        CrossEncoder=logits_of(encoder, texts),
        AutoModelForSequenceClassification=_by_transformers(told["folder"], texts),
    )


@torch.inference_mode()
def _by_transformers(folder: str, texts: list[Text]) -> NDArray[np.float32]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
    found = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        asked = (batch,) if isinstance(batch[0], str) else tuple(map(list, zip(*batch, strict=True)))
        features = tokenizer(*asked, padding=True, truncation=True, return_tensors="pt")
        found.append(model(**features).logits.numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
