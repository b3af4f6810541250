"""What a classifier says of examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from sentence_transformers.util import batch_to_device

from evaluation.retrieval import Scores
from trainables.classification.task import LabelledTask, Text, probabilities_of, score_classes

BATCH = 64


@torch.inference_mode()
def logits_of(model: CrossEncoder, texts: Sequence[Text]) -> NDArray[np.float32]:
    """(N, C) logits of single texts or of pairs, in their order; the longest first, so that batches are padded little.

    The library's own predict takes a list of single texts for one pair.
    """
    model.eval()
    order = sorted(range(len(texts)), key=lambda at: -_length(texts[at]))
    logits_NC = np.zeros((len(texts), model.num_labels), dtype=np.float32)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch: list[Any] = [texts[at] for at in rows]
        features = batch_to_device(model.preprocess(batch), model.device)
        logits_NC[rows] = model(features)["scores"].float().cpu().numpy()
    return logits_NC


def evaluate_classifier(model: CrossEncoder, task: LabelledTask) -> Scores:
    """Every metric of a model on a part, example by example.

    Raises:
        InputError: logits that are not finite.
    """
    return score_classes(task, probabilities_of(logits_of(model, task.texts)))


def _length(text: Text) -> int:
    return len(text) if isinstance(text, str) else sum(map(len, text))
