"""Who is stopped: each pruner on trials with known curves, and the Wilcoxon pruner against scipy and against chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from evaluation.retrieval import Scores
from search.study.study import Study, Verdict
from tests.kit.toy_study import make_spec

CONCEPTS = tuple(f"c{i // 2}" for i in range(80))  # two queries each


def report(study: Study, run: Path, number: int, rung: int, values: NDArray[np.float64]) -> bool:
    """Report a rung as a trial does, scores on disk first, then the record; whether the trial is stopped."""
    folder = run / "tune" / f"trial_{number:04d}" / f"checkpoint-{rung}"
    folder.mkdir(parents=True)
    ids = tuple(f"q{i}" for i in range(len(values)))
    Scores(ids, CONCEPTS[: len(values)], {"ndcg@10": values}).save(folder / "scores.npz")
    record = {"metrics": {"ndcg@10": float(values.mean())}, "folder": f"/elsewhere/{folder.relative_to(run)}"}
    return study.report(number, rung, record) is Verdict.STOP


def proposed(study: Study) -> int:
    proposal = study.next_trial()
    assert proposal is not None
    return proposal.number


def wilcoxon_study(run: Path, **pruner: Any) -> Study:
    run.mkdir(exist_ok=True)
    return Study(run, make_spec(pruner={"name": "wilcoxon", **pruner}, budget={"trials": 500}))


def test_wilcoxon_stops_the_worse_and_not_the_merely_lower(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    study = wilcoxon_study(tmp_path)
    good = rng.uniform(0.5, 0.9, 80)
    assert not report(study, tmp_path, proposed(study), 1, good)
    lower = good + rng.normal(-0.001, 0.1, 80)  # lower by a hair, with noise
    assert lower.mean() < good.mean()
    assert not report(study, tmp_path, proposed(study), 1, lower)
    assert report(study, tmp_path, proposed(study), 1, good - 0.05 + rng.normal(0, 0.05, 80))  # worse, consistently
    assert not report(study, tmp_path, proposed(study), 1, good)  # equal
    assert not report(study, tmp_path, proposed(study), 1, good + 0.05)  # better


def test_wilcoxon_compares_with_the_best_at_the_same_rung(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    study = wilcoxon_study(tmp_path)
    first = proposed(study)
    for rung, level in enumerate([0.2, 0.5, 0.8], start=1):  # it learns
        assert not report(study, tmp_path, first, rung, level + rng.normal(0, 0.02, 80))
    second = proposed(study)
    assert not report(study, tmp_path, second, 1, 0.3 + rng.normal(0, 0.02, 80))  # far below 0.8, above 0.2
    assert report(study, tmp_path, second, 2, 0.4 + rng.normal(0, 0.02, 80))  # below 0.5


@pytest.mark.parametrize("shift", [0.0, -0.02, -0.05])
def test_wilcoxon_decides_as_scipy_does_over_concepts(tmp_path: Path, shift: float) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        run = tmp_path / str(seed)
        study = wilcoxon_study(run)
        best, other = rng.integers(0, 11, 80) / 10, rng.integers(0, 11, 80) / 10 + shift
        if other.mean() > best.mean():
            best, other = other, best
        report(study, run, proposed(study), 1, best)
        stopped = report(study, run, proposed(study), 1, other)
        differences = (other - best).reshape(40, 2).mean(axis=1)  # two queries a concept
        expected = stats.wilcoxon(differences, alternative="less", zero_method="zsplit", method="approx")
        assert stopped == (expected.pvalue < 0.05)


def test_wilcoxon_rarely_stops_an_equal_trial_however_alike_its_queries(tmp_path: Path) -> None:
    """Queries of one concept move together. Counting each as evidence would stop equal trials far too often."""
    rng = np.random.default_rng(3)
    stopped = 0
    for i in range(200):
        run = tmp_path / str(i)
        study = wilcoxon_study(run)
        level = np.repeat(rng.uniform(0.3, 0.9, 40), 2)
        a, b = (level + np.repeat(rng.normal(0, 0.1, 40), 2) for _ in range(2))
        assert not report(study, run, proposed(study), 1, a)
        stopped += report(study, run, proposed(study), 1, b)
    assert stopped <= 22  # 5 % of 200, and three standard errors and a half


def run_curves(study: Study, curves: list[list[float]]) -> list[int]:
    """Trials one after the other; the rungs that each reached."""
    reached = []
    for curve in curves:
        number = proposed(study)
        for rung, value in enumerate(curve, start=1):
            if study.report(number, rung, {"metrics": {"ndcg@10": value}, "folder": "none"}) is Verdict.STOP:
                break
        study.complete(number)
        reached.append(rung)
    return reached


@pytest.mark.parametrize(
    ("pruner", "rungs", "deciding"),
    [
        ({"name": "halving"}, 4, {1, 2}),
        ({"name": "halving"}, 6, {1, 2, 4}),
        ({"name": "halving", "reduction": 3}, 6, {1, 3}),
        ({"name": "hyperband"}, 6, {1, 2, 4}),
    ],
)
def test_halving_decides_at_the_powers_of_its_reduction(
    tmp_path: Path, pruner: dict[str, Any], rungs: int, deciding: set[int]
) -> None:
    space = {"base": "b", "lr": {"low": 1e-5, "high": 1e-2, "log": True}, "rungs": rungs}
    spec = make_spec(space=space, pruner=pruner, sampler={"name": "random"}, budget={"trials": 40})
    rng = np.random.default_rng(0)
    # Each trial's best grows by chance, so that any rung may show it to be among the worse.
    reached = run_curves(Study(tmp_path, spec), np.cumsum(rng.exponential(1, (40, rungs)), axis=1).tolist())
    assert {rung for rung in reached if rung < rungs} == deciding
    assert rungs in reached


GOOD, BAD, LATE = [0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.2, 0.3], [0.3, 0.5, 0.8, 0.9]


def test_other_pruners_decide_at_each_rung_but_the_last(tmp_path: Path) -> None:
    study = Study(tmp_path, make_spec(pruner={"name": "median", "startup": 3}, sampler={"name": "random"}))
    below_from = [[0.4, 0.9, 0.9, 0.9], [0.5, 0.5, 0.9, 0.9], [0.5, 0.6, 0.6, 0.9], [0.5, 0.6, 0.7, 0.7]]
    assert run_curves(study, [GOOD, GOOD, GOOD, *below_from]) == [4, 4, 4, 1, 2, 3, 4]


def test_each_pruner_stops_the_bad_and_keeps_the_good(tmp_path: Path) -> None:
    curves = [GOOD, GOOD, GOOD, BAD, LATE, GOOD]
    expected: dict[str, tuple[dict[str, Any], list[int]]] = {
        "none": ({}, [4, 4, 4, 4, 4, 4]),
        "median": ({"startup": 3}, [4, 4, 4, 1, 1, 4]),
        "percentile": ({"startup": 3, "percentile": 25.0}, [4, 4, 4, 1, 1, 4]),
        "patient": ({"startup": 3, "patience": 1}, [4, 4, 4, 4, 4, 4]),  # both bad and late still improve
    }
    for name, (options, reached) in expected.items():
        (tmp_path / name).mkdir()
        study = Study(tmp_path / name, make_spec(pruner={"name": name, **options}, sampler={"name": "random"}))
        assert run_curves(study, curves) == reached, name


@pytest.mark.parametrize("name", ["halving", "hyperband"])
def test_halving_spends_less_on_the_bad(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(5)
    spec = make_spec(pruner={"name": name}, sampler={"name": "random"}, budget={"trials": 40})
    study = Study(tmp_path, spec)
    ends = rng.uniform(0.2, 0.9, 40)
    reached = run_curves(study, [[end * share for share in (0.4, 0.7, 0.9, 1.0)] for end in ends])
    assert sum(reached) <= 0.8 * 4 * 40
    assert reached[int(np.argmax(ends))] == 4  # the best is never stopped
    top, bottom = np.argsort(-ends)[:10], np.argsort(ends)[:10]
    assert np.mean([reached[i] for i in top]) > np.mean([reached[i] for i in bottom]) + 0.5
