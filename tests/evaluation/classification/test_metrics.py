"""The metrics of a classification against scikit-learn's, on random and on degenerate labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as oracle

from evaluation.classification.metrics import METRICS, per_example
from evaluation.classification.outcome import Outcome
from evaluation.compare import compare
from evaluation.retrieval import Scores

CLASSES = 4
LABELS = tuple("abcd")


def drawn(count: int, seed: int, skill: float = 0.5) -> tuple[Any, Any]:
    """True classes, uneven, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    true_Q = rng.choice(CLASSES, size=count, p=[0.6, 0.2, 0.15, 0.05])
    logits = rng.standard_normal((count, CLASSES)) + 4 * skill * np.eye(CLASSES)[true_Q]
    powers = np.exp(logits)
    return true_Q, powers / powers.sum(axis=1, keepdims=True)


def scores(true_Q: Any, probabilities_QC: Any, groups: tuple[str, ...] | None = None) -> Scores:
    ids = tuple(map(str, range(len(true_Q))))
    outcome = Outcome(LABELS, true_Q, probabilities_QC)
    return Scores(ids, groups or ids, per_example(true_Q, probabilities_QC), outcome=outcome)


ORACLES: dict[str, Callable[..., float]] = {
    "macro_f1": lambda y, p: oracle.f1_score(y, p.argmax(1), average="macro", zero_division=0),
    "micro_f1": lambda y, p: oracle.f1_score(y, p.argmax(1), average="micro"),
    "weighted_f1": lambda y, p: oracle.f1_score(y, p.argmax(1), average="weighted", zero_division=0),
    "accuracy": lambda y, p: oracle.accuracy_score(y, p.argmax(1)),
    "log_loss": lambda y, p: oracle.log_loss(y, p, labels=range(CLASSES)),
}


def one_class(count: int) -> tuple[Any, Any]:
    """Every label and every prediction is the third class."""
    return np.full(count, 2), np.tile([0.1, 0.1, 0.7, 0.1], (count, 1))


def never_right(count: int) -> tuple[Any, Any]:
    return np.zeros(count, dtype=np.int64), np.tile([0.1, 0.7, 0.1, 0.1], (count, 1))


@pytest.mark.parametrize("metric", ORACLES)
@pytest.mark.parametrize("made", [*(drawn(300, seed) for seed in range(4)), drawn(3, 9), one_class(5), never_right(5)])
def test_the_mean_over_the_examples_is_what_scikit_learn_says(metric: str, made: tuple[Any, Any]) -> None:
    assert scores(*made).means[metric] == pytest.approx(ORACLES[metric](*made), abs=1e-12)


def test_precision_recall_f1_and_support_of_each_class_are_scikit_learns() -> None:
    for true_Q, probabilities_QC in (drawn(200, 5), one_class(4), never_right(4)):
        outcome = Outcome(LABELS, true_Q, probabilities_QC)
        expected = oracle.precision_recall_fscore_support(
            true_Q, outcome.predicted, labels=range(CLASSES), zero_division=0
        )
        found = np.array([[c.precision, c.recall, c.f1, c.support] for c in outcome.classes()]).T
        assert found == pytest.approx(np.array(expected, dtype=np.float64))
        assert outcome.confusion() == oracle.confusion_matrix(true_Q, outcome.predicted, labels=range(CLASSES)).tolist()


def test_the_calibration_error_is_the_gap_of_each_bin_by_its_size() -> None:
    true_Q, probabilities_QC = drawn(500, 3)
    confidence = probabilities_QC.max(axis=1)
    right = probabilities_QC.argmax(axis=1) == true_Q
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert scores(true_Q, probabilities_QC).means["ece"] == pytest.approx(expected, abs=1e-9)


def test_a_sure_and_wrong_prediction_costs_a_finite_log_loss() -> None:
    made = np.array([0]), np.array([[0.0, 1.0, 0.0, 0.0]])
    assert scores(*made).means["log_loss"] == pytest.approx(ORACLES["log_loss"](*made))


@pytest.mark.parametrize("metric", ["macro_f1", "weighted_f1"])
def test_the_standard_error_of_an_f1_is_its_spread_over_samples(metric: str) -> None:
    """The values of single examples carry the metric's variance, though it is no mean."""
    means = [scores(*drawn(400, seed)).means[metric] for seed in range(300)]
    told = np.mean([scores(*drawn(400, seed)).standard_error(metric) for seed in range(0, 300, 30)])
    assert told == pytest.approx(np.std(means), rel=0.15)


@pytest.mark.parametrize("metric", ["macro_f1", "weighted_f1"])
def test_the_interval_of_an_f1_difference_computes_it_anew_for_each_draw_of_groups(metric: str) -> None:
    true_Q, base = drawn(120, 1, skill=0.3)
    other = drawn(120, 1, skill=0.6)[1]
    groups = tuple(f"g{at // 3}" for at in range(120))
    found = compare(scores(true_Q, base, groups), scores(true_Q, other, groups), metric, resamples=4000)
    rng = np.random.default_rng(7)
    draws = []
    for _ in range(1500):
        rows = np.concatenate([np.arange(3 * g, 3 * g + 3) for g in rng.integers(0, 40, size=40)])
        draws.append(ORACLES[metric](true_Q[rows], other[rows]) - ORACLES[metric](true_Q[rows], base[rows]))
    # the level that compare widens 40 groups to
    tail = float(norm.sf(2.0227 * np.sqrt(40 / 39)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    assert found.difference == pytest.approx(ORACLES[metric](true_Q, other) - ORACLES[metric](true_Q, base))
    assert found.groups == 40
    assert found.low > 0
    assert found.p_value < 0.01


def test_two_models_that_differ_by_chance_are_not_told_apart() -> None:
    p_values = []
    for seed in range(60):
        true_Q, base = drawn(100, seed)
        other = drawn(100, seed + 1000)[1]
        rng = np.random.default_rng(seed)
        logits = rng.standard_normal(base.shape) + 2 * np.eye(CLASSES)[true_Q]
        other = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        p_values.append(compare(scores(true_Q, base), scores(true_Q, other), "macro_f1", resamples=300).p_value)
    assert 0.0 < np.mean(np.array(p_values) < 0.2) < 0.4


def test_a_model_against_itself_has_no_difference() -> None:
    own = scores(*drawn(50, 2))
    found = compare(own, own, "macro_f1", resamples=200)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_scores_of_a_classification_come_back_from_their_file(tmp_path: Path) -> None:
    own = scores(*drawn(20, 4))
    own.save(tmp_path / "scores.npz")
    again = Scores.load(tmp_path / "scores.npz")
    assert again.means == own.means
    assert set(again.per_query) == set(METRICS)
    assert again.outcome is not None
    assert again.outcome.labels == LABELS
    assert np.array_equal(again.outcome.probabilities_QC, own.outcome.probabilities_QC)  # type: ignore[union-attr]
    replace(own, outcome=None).save(tmp_path / "ranked.npz")
    assert Scores.load(tmp_path / "ranked.npz").outcome is None
