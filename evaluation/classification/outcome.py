"""What a classifier said of each example of a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.classification.metrics import Floats, Integers, class_f1, f1_counts

FIELDS = ("labels", "true_Q", "probabilities_QC")


@dataclass(frozen=True)
class ClassScores:
    """One class of a part.

    Attributes:
        label: its name.
        precision, recall, f1: of the decisions for it.
        support: examples that have it.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Outcome:
    """Labels and probabilities, example by example.

    Attributes:
        labels: C names of the classes.
        true_Q: the class of each example.
        probabilities_QC: rows that sum to one.
    """

    labels: tuple[str, ...]
    true_Q: Integers
    probabilities_QC: Floats

    @property
    def predicted(self) -> Integers:
        """The likeliest class of each example, the first of equals."""
        return np.asarray(self.probabilities_QC.argmax(axis=1), dtype=np.int64)

    @property
    def counts(self) -> Floats:
        """What an F1 is a function of the sums of."""
        return f1_counts(self.true_Q, self.predicted, len(self.labels))

    def confusion(self) -> list[list[int]]:
        """Rows are labels, columns predictions, in the order of `labels`."""
        size = len(self.labels)
        flat = np.bincount(self.true_Q * size + self.predicted, minlength=size * size)
        return [[int(value) for value in row] for row in flat.reshape(size, size)]

    def classes(self) -> list[ClassScores]:
        """Precision, recall, F1 and support of each class; 0 where there is nothing to divide by."""
        sums = self.counts.sum(axis=0)
        hits, labels, predictions = np.split(sums, 3)
        f1, _ = class_f1(sums)
        return [
            ClassScores(
                name,
                float(hits[c] / predictions[c]) if predictions[c] else 0.0,
                float(hits[c] / labels[c]) if labels[c] else 0.0,
                float(f1[c]),
                int(labels[c]),
            )
            for c, name in enumerate(self.labels)
        ]

    def arrays(self) -> dict[str, Any]:
        """For an .npz file."""
        return {"labels": np.array(self.labels, dtype=np.str_)} | {n: getattr(self, n) for n in FIELDS[1:]}

    @classmethod
    def of(cls, arrays: Any) -> Outcome | None:
        """From an .npz file; None where it holds none."""
        if not set(FIELDS) <= set(arrays.files):
            return None
        return cls(tuple(arrays["labels"].tolist()), arrays["true_Q"], arrays["probabilities_QC"])
