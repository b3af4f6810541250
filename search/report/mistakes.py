"""What the best model of a classification gets wrong, and how its trial came there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial

from evaluation.retrieval import Scores
from search.paths import RunFolder
from trainables.classification.prepared import load_labelled_task

MISTAKES = 20  # that are shown


@dataclass(frozen=True)
class Mistake:
    """A test example that the model got wrong.

    Attributes:
        texts: one, or a pair.
        label, said: its class, and what the model takes it for.
        sure, right: probability of what it says, and of the class.
    """

    texts: tuple[str, ...]
    label: str
    said: str
    sure: float
    right: float


def course_of(trial: FrozenTrial) -> list[dict[str, float]]:
    """Of each rung of a trial: its number, the training loss, and every dev metric."""
    records = [trial.user_attrs.get(f"rung_{rung}") for rung in sorted(trial.intermediate_values)]
    return [{"rung": r["rung"], "loss": r["loss"], **r["metrics"]} for r in records if r]


def find_mistakes(run: RunFolder) -> list[Mistake]:
    """The surest mistakes of the best model on the test part."""
    outcome = Scores.load(run.path / "benchmark" / "best-test.npz").outcome
    if outcome is None:
        return []
    test = load_labelled_task(run.data, "test")
    said_Q = outcome.predicted
    sure_Q = outcome.probabilities_QC.max(axis=1)
    wrong = np.flatnonzero(said_Q != outcome.true_Q)
    order = wrong[np.argsort(-sure_Q[wrong], kind="stable")][:MISTAKES]
    found = []
    for at in order.tolist():
        text, true = test.texts[at], int(outcome.true_Q[at])
        texts = (text,) if isinstance(text, str) else text
        probabilities = outcome.probabilities_QC[at]
        said = int(said_Q[at])
        names = outcome.labels[true], outcome.labels[said]
        found.append(Mistake(texts, *names, float(probabilities[said]), float(probabilities[true])))
    return found
