"""The front doors of the packages: light to import, and each one leads to what it promises."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import evaluation
import trainables
from evaluation import RetrievalTask, compare_scores, evaluate
from tests.conftest import TinyBase
from tests.kit.toy import write_pairs
from trainables import DataConfig, TrialConfig, TrialData, prepare_data, train_trial
from trainables.training.rungs import Rung

ROOT = Path(__file__).parent.parent
PACKAGES = ("search", "trainables", "evaluation")


def test_importing_the_packages_imports_nothing_heavy() -> None:
    code = (
        "import sys, search, trainables, evaluation\n"
        "heavy = {'ray', 'torch', 'optuna', 'transformers', 'datasets', 'numpy', 'pandas', 'pydantic', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_every_door_opens_and_none_is_called_as_a_module_beside_it(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__
    for name in module.__all__:
        assert callable(getattr(module, name)), name
        assert not (ROOT / package / name).exists(), name
        assert not (ROOT / package / f"{name}.py").exists(), name


def test_a_door_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'trian'; its doors are DataConfig, .*train_trial"):
        trainables.trian  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(ImportError, match="compare_score"):
        from evaluation import compare_score  # type: ignore[attr-defined] # noqa: F401


def test_a_trial_is_trained_by_the_doors_alone(tiny_base: TinyBase, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl")
    prepare_data(DataConfig(source=source.name), tmp_path, 42, tmp_path / "data")
    base = str(tiny_base("bert"))
    config = TrialConfig(base=base, max_length=24, r=4, lr=5e-3, batch_size=16, rungs=2, precision="fp32")
    (tmp_path / "trial").mkdir()
    rungs: list[Rung] = []
    best = train_trial(config, TrialData.load(tmp_path / "data"), rungs.append, folder=tmp_path / "trial")
    assert [rung.rung for rung in rungs] == [1, 2]
    assert best.metrics["ndcg@10"] == max(rung.metrics["ndcg@10"] for rung in rungs)
    assert Path(best.folder).is_dir()


def test_two_models_are_evaluated_and_compared(tiny_base: TinyBase) -> None:
    from sentence_transformers import SentenceTransformer

    task = RetrievalTask(
        "cities",
        corpus={"a": "Paris est une ville", "b": "Lyon est une ville", "c": "le Rhône est un fleuve"},
        queries={"q1": "Paris", "q2": "Lyon", "q3": "Rhône"},
        qrels={"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 1}},
    )
    before, after = (evaluate(SentenceTransformer(str(tiny_base(name))), task) for name in ("bert", "xlm-roberta"))
    assert isinstance(before, evaluation.Scores)
    told = compare_scores(before, after, "ndcg@10")
    assert (told.base, told.other) == (before.means["ndcg@10"], after.means["ndcg@10"])
    assert told.difference == pytest.approx(told.other - told.base)
    assert (told.queries, told.groups) == (3, 3)
