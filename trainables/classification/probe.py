"""What a search has to beat, since an untrained head says nothing: a linear probe on the frozen base's embeddings.

Logistic regression over a text's embedding u; of a pair over u, v, |u - v| and u * v (Conneau et al. 2017, arXiv
1705.02364). Its regularisation is the one of STRENGTHS that scores best on dev, as the search chooses its trials.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression

from evaluation.embeddings import embed
from evaluation.retrieval import Scores
from trainables.classification.prepared import LabelledData
from trainables.classification.task import LabelledTask, Text, score_classes
from trainables.config import TrialConfig
from trainables.model.build import build_model

STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # scikit-learn's C: larger is less regularised
STEPS = 2000  # of its solver, at most
SHARED = ("base", "revision", "trust_remote_code", "max_length", "attention", "seed")


def encoder_config(config: TrialConfig) -> TrialConfig:
    """The base of a trial, as it embeds before it is trained."""
    return TrialConfig.model_validate({name: getattr(config, name) for name in SHARED} | {"method": "none"})


def probe(
    config: TrialConfig, data: LabelledData, test: LabelledTask, metric: str, device: str | None = None
) -> tuple[Scores, Scores]:
    """Scores on dev and on test of a probe that was fitted on the training part.

    Args:
        config: names the base.
        metric: that chooses the regularisation on dev.
        device: of the base; None: the first GPU, else the CPU.
    """
    model = build_model(encoder_config(config), device, dtype=torch.float32).eval()
    train_NF, dev_QF, test_QF = (_features(model, texts) for texts in (data.texts, data.dev.texts, test.texts))
    tried: list[tuple[Scores, Scores]] = []
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=STEPS).fit(train_NF, data.true_N)
        dev, judged = (
            score_classes(task, _probabilities(fitted, rows, len(data.labels)))
            for task, rows in ((data.dev, dev_QF), (test, test_QF))
        )
        tried.append((dev, judged))
    return max(tried, key=lambda scores: scores[0].means[metric])


def _features(model: SentenceTransformer, texts: Sequence[Text]) -> NDArray[np.float32]:
    if isinstance(texts[0], str):
        return embed(model, [str(text) for text in texts], "query")
    left, right = (embed(model, [text[side] for text in texts], "query") for side in (0, 1))
    return np.concatenate([left, right, np.abs(left - right), left * right], axis=1)


def _probabilities(fitted: LogisticRegression, rows: NDArray[np.float32], classes: int) -> NDArray[np.float64]:
    found_QC = np.zeros((len(rows), classes))
    found_QC[:, fitted.classes_] = fitted.predict_proba(rows)
    return found_QC
