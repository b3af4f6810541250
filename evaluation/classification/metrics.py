"""Metrics of a classification, as one value for each example whose mean is the metric.

Accuracy, log loss and calibration error are means by nature. An F1 is a ratio of sums, so that no example has one. Its
values here are F1 plus each example's influence on it (the infinitesimal jackknife; Efron 1982, "The Jackknife, the
Bootstrap and Other Resampling Plans", chapter 6): their mean is exactly F1 and their variance is that of the delta
method. So standard errors, paired tests and pruners, which work on values of single examples, hold for it as for
recall. Intervals do better: they compute F1 anew for each resample (evaluation/classification/resample.py).

Definitions are scikit-learn's; tests/evaluation/classification/test_metrics.py holds that they agree.

    macro_f1      mean over the classes that appear, as a label or as a prediction
    weighted_f1   mean over the classes, each by its share of the examples
    micro_f1      over all decisions; with one label for each example it is accuracy
    log_loss      mean of -log p(label), natural logarithm, p at least EPSILON
    ece           expected calibration error: the gap between confidence and accuracy in 10 bins of equal width, by size
                  (Guo et al. 2017, arXiv 1706.04599)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SEARCHED = ("macro_f1", "micro_f1", "weighted_f1", "accuracy")  # larger is better
METRICS = (*SEARCHED, "log_loss", "ece")
EPSILON = float(np.finfo(np.float64).eps)
BINS = 10


def per_example(true_Q: Integers, probabilities_QC: Floats) -> dict[str, Floats]:
    """Each metric's values, (Q,) float64.

    Args:
        true_Q: the class of each example, 0 to C - 1.
        probabilities_QC: rows that sum to one; of equal probabilities the first class is predicted.
    """
    predicted_Q = probabilities_QC.argmax(axis=1)
    correct_Q = (predicted_Q == true_Q).astype(np.float64)
    counts_QK = f1_counts(true_Q, predicted_Q, probabilities_QC.shape[1])
    return {
        "macro_f1": _influences(counts_QK, _macro_weights),
        "micro_f1": correct_Q,
        "weighted_f1": _influences(counts_QK, _support_weights),
        "accuracy": correct_Q,
        "log_loss": -np.log(np.clip(probabilities_QC[np.arange(len(true_Q)), true_Q], EPSILON, None)),
        "ece": _calibration(correct_Q, probabilities_QC.max(axis=1)),
    }


def f1_counts(true_Q: Integers, predicted_Q: Integers, classes: int) -> Floats:
    """(Q, 3 C): hits of each class, then labels, then predictions. F1 is a function of their sums."""
    labels_QC = np.eye(classes)[true_Q]
    predictions_QC = np.eye(classes)[predicted_Q]
    return np.concatenate([labels_QC * predictions_QC, labels_QC, predictions_QC], axis=1)


def macro_f1(sums: Floats) -> Floats:
    """Of sums of `f1_counts`, (..., 3 C) -> (...)."""
    f1, appears = class_f1(sums)
    return np.asarray(f1.sum(axis=-1) / np.maximum(appears.sum(axis=-1), 1))


def weighted_f1(sums: Floats) -> Floats:
    """Of sums of `f1_counts`, (..., 3 C) -> (...)."""
    f1, _ = class_f1(sums)
    labels = np.split(sums, 3, axis=-1)[1]
    return np.asarray((f1 * labels).sum(axis=-1) / np.maximum(labels.sum(axis=-1), 1))


def class_f1(sums: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """(..., C): F1 of each class, 0 where it does not appear, and whether it appears."""
    hits, labels, predictions = np.split(sums, 3, axis=-1)
    total = labels + predictions
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0), total > 0


F1: dict[str, Callable[[Floats], Floats]] = {"macro_f1": macro_f1, "weighted_f1": weighted_f1}


def _macro_weights(sums: Floats) -> Floats:
    appears = class_f1(sums)[1]
    return appears / max(int(appears.sum()), 1)


def _support_weights(sums: Floats) -> Floats:
    labels = np.split(sums, 3)[1]
    return labels / max(float(labels.sum()), 1.0)


def _influences(counts_QK: Floats, weights: Callable[[Floats], Floats]) -> Floats:
    """F1 plus each example's influence on it, where classes have weights that may depend on the labels' counts."""
    sums = counts_QK.sum(axis=0)
    f1_C, _ = class_f1(sums)
    weights_C = weights(sums)
    hits_QC, labels_QC, predictions_QC = np.split(counts_QK, 3, axis=1)
    total_C = (labels_QC + predictions_QC).sum(axis=0)
    scale_C = np.divide(len(counts_QK), total_C, out=np.zeros_like(total_C), where=total_C > 0)
    moved_Q = ((2 * hits_QC - f1_C * (labels_QC + predictions_QC)) * scale_C) @ weights_C
    if weights is _support_weights:
        moved_Q = moved_Q + (labels_QC - weights_C) @ f1_C
    return np.asarray(f1_C @ weights_C + moved_Q)


def _calibration(correct_Q: Floats, confidence_Q: Floats) -> Floats:
    """Of each example the gap of its own, with the sign of its bin's: their mean is the error."""
    bins_Q = np.clip(np.ceil(confidence_Q * BINS).astype(np.int64) - 1, 0, BINS - 1)  # (0, 0.1], (0.1, 0.2], ...
    gaps_Q = correct_Q - confidence_Q
    signs_B = np.sign(np.bincount(bins_Q, weights=gaps_Q, minlength=BINS))
    return np.asarray(gaps_Q * signs_B[bins_Q])
