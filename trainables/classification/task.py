"""Labelled examples of a part, and what a model makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.classification.metrics import METRICS, Floats, Integers, per_example
from evaluation.classification.outcome import Outcome
from evaluation.errors import InputError
from evaluation.retrieval import Scores

Text = str | tuple[str, str]  # of an example: one text, or a pair


@dataclass(frozen=True)
class LabelledTask:
    """Q examples with their classes.

    Attributes:
        name: of the part.
        labels: C names of the classes.
        ids: of the examples.
        texts: one text each, or a pair.
        true_Q: the class of each.
        groups: what they are resampled by: examples of one group share a text.
    """

    name: str
    labels: tuple[str, ...]
    ids: tuple[str, ...]
    texts: tuple[Text, ...]
    true_Q: Integers
    groups: tuple[str, ...]


def score_classes(task: LabelledTask, probabilities_QC: Floats) -> Scores:
    """Every metric of probabilities, example by example.

    Args:
        probabilities_QC: rows that sum to one, in the order of the task's examples and labels.

    Raises:
        InputError: another shape, NaN or infinity.
    """
    expected = (len(task.ids), len(task.labels))
    if probabilities_QC.shape != expected or not np.isfinite(probabilities_QC).all():
        raise InputError(
            f"{task.name}: probabilities of shape {probabilities_QC.shape}, expected {expected} finite numbers"
        )
    values = per_example(task.true_Q, probabilities_QC)
    return Scores(
        query_ids=task.ids,
        groups=task.groups,
        per_query={name: values[name] for name in METRICS},
        outcome=Outcome(task.labels, task.true_Q, probabilities_QC),
    )


def probabilities_of(logits_QC: NDArray[np.floating[Any]]) -> Floats:
    """Softmax of each row, in float64."""
    shifted = logits_QC.astype(np.float64) - logits_QC.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def majority(train_true_N: Sequence[int], task: LabelledTask) -> Scores:
    """The baseline that looks at no text: each class by its share of the training part, so the commonest is said."""
    shares_C = np.bincount(np.asarray(train_true_N), minlength=len(task.labels)) / len(train_true_N)
    return score_classes(task, np.tile(shares_C, (len(task.ids), 1)))
