"""Paired comparison: against scipy, by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from evaluation.compare import compare, holm
from evaluation.errors import InputError
from evaluation.retrieval import Scores


def scores(values_Q: NDArray[np.float64], groups: list[str] | None = None) -> Scores:
    ids = tuple(f"q{i}" for i in range(len(values_Q)))
    return Scores(ids, ids if groups is None else tuple(groups), {"ndcg@10": np.asarray(values_Q, dtype=np.float64)})


def reciprocal_ranks(latent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as MRR@10 has them: 1, 1/2, ... 1/10, 0."""
    ranks = np.maximum(np.floor(np.exp(latent)), 1)
    return np.where(ranks <= 10, 1 / ranks, 0)


def draw(rng: np.random.Generator, concepts: int) -> tuple[Scores, Scores]:
    """Two models on queries in concepts of 1 to 7; the queries of one concept are hard or easy together."""
    group_Q = np.repeat(np.arange(concepts), rng.integers(1, 8, concepts))
    hardness_Q = rng.normal(0, 1, concepts)[group_Q]
    base = reciprocal_ranks(rng.normal(1.5, 0.7, len(group_Q)) + hardness_Q)
    other = reciprocal_ranks(rng.normal(1.2, 0.7, len(group_Q)) + hardness_Q)
    groups = [str(g) for g in group_Q]
    return scores(base, groups), scores(other, groups)


@pytest.mark.parametrize("concepts", [30])
def test_interval_covers_the_truth_in_93_to_97_percent(concepts: int) -> None:
    rng = np.random.default_rng(7)
    base, other = draw(rng, 200_000)
    truth = other.means["ndcg@10"] - base.means["ndcg@10"]
    covered = 0
    for seed in range(1_000):
        found = compare(*draw(rng, concepts), "ndcg@10", resamples=500, seed=seed)
        covered += found.low <= truth <= found.high
    assert 930 <= covered <= 970


def test_p_values_are_uniform_without_a_difference() -> None:
    """Both models drawn alike: p below 0.05 in about 5 % of 400 draws (0.03 to 0.08 is 2.5 standard errors)."""
    rng = np.random.default_rng(3)
    small = 0
    for seed in range(400):
        concepts = [str(g) for g in np.repeat(np.arange(25), 3)]
        base, other = (scores(reciprocal_ranks(rng.normal(1.3, 0.8, 75)), concepts) for _ in range(2))
        small += compare(base, other, "ndcg@10", resamples=400, seed=seed).p_value <= 0.05
    assert 0.03 <= small / 400 <= 0.08


def test_rows_of_one_concept_do_not_count_as_evidence() -> None:
    """Each query three times over: the interval by concepts stays what it was for the queries once."""
    rng = np.random.default_rng(0)
    base, other = rng.random(40), rng.random(40)
    once = compare(scores(base), scores(other), "ndcg@10")
    ids = [str(i) for i in np.repeat(np.arange(40), 3)]
    thrice = compare(scores(np.repeat(base, 3), ids), scores(np.repeat(other, 3), ids), "ndcg@10")
    as_rows = compare(scores(np.repeat(base, 3)), scores(np.repeat(other, 3)), "ndcg@10")
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.05)
    assert as_rows.high - as_rows.low < 0.7 * (once.high - once.low)
    assert (thrice.queries, thrice.groups) == (120, 40)


def test_p_value_of_few_groups_is_exact() -> None:
    """Five groups that all improve: only the observed signs and their mirror are as extreme, 2 of 2^5."""
    found = compare(scores(np.zeros(5)), scores(np.array([0.1, 0.2, 0.3, 0.4, 0.5])), "ndcg@10")
    assert found.p_value == pytest.approx(2 / 2**5)


def test_equal_to_scipy_when_each_query_is_its_own_group() -> None:
    rng = np.random.default_rng(1)
    base, other = rng.random(80), rng.random(80) + 0.08
    found = compare(scores(base), scores(other), "ndcg@10")
    assert found.difference == pytest.approx(float((other - base).mean()))
    student = stats.ttest_rel(other, base)
    interval = student.confidence_interval(0.95)
    assert found.low == pytest.approx(float(interval.low), abs=0.01)
    assert found.high == pytest.approx(float(interval.high), abs=0.01)
    assert found.p_value == pytest.approx(float(student.pvalue), abs=0.02)


def test_same_seed_same_answer_and_no_difference() -> None:
    rng = np.random.default_rng(2)
    base, other = draw(rng, 30)
    assert compare(base, other, "ndcg@10") == compare(base, other, "ndcg@10")
    same = compare(base, base, "ndcg@10")
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_standard_error_is_that_of_the_mean() -> None:
    """Groups of one: the textbook formula. Groups of three equal rows: that of the rows once."""
    values = np.random.default_rng(0).random(50)
    assert scores(values).standard_error("ndcg@10") == pytest.approx(float(stats.sem(values)))
    ids = [str(i) for i in np.repeat(np.arange(50), 3)]
    assert scores(np.repeat(values, 3), ids).standard_error("ndcg@10") == pytest.approx(float(stats.sem(values)))
    assert np.isnan(scores(values, ["one"] * 50).standard_error("ndcg@10"))


def test_holm_by_hand() -> None:
    """p sorted 0.005, 0.01, 0.03, 0.04 x 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04, made monotone: the last is 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_bad_input() -> None:
    one = scores(np.zeros(4))
    with pytest.raises(InputError, match="different queries or groups"):
        compare(one, scores(np.zeros(5)), "ndcg@10")
    with pytest.raises(InputError, match="different queries or groups"):
        compare(one, scores(np.zeros(4), ["a", "a", "b", "b"]), "ndcg@10")
    with pytest.raises(InputError, match="metric 'mrr@10' was not computed"):
        compare(one, one, "mrr@10")
    alone = scores(np.zeros(4), ["a"] * 4)
    with pytest.raises(InputError, match="expected at least two concepts"):
        compare(alone, alone, "ndcg@10")


def test_a_difference_in_one_group_alone_says_nothing() -> None:
    ids, groups = ("a", "b", "c"), ("1", "2", "3")
    base = Scores(ids, groups, {"mrr@10": np.array([0.5, 0.5, 0.5])})
    other = Scores(ids, groups, {"mrr@10": np.array([1.0, 0.5, 0.5])})
    assert compare(base, other, "mrr@10").p_value == 1.0
