"""Warm workers: what a worker keeps changes no score; only a lack of memory is tried again in smaller pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.out_of_memory import is_out_of_memory
from tests.conftest import TinyBase
from tests.kit.alone import alone
from tests.kit.toy import trial_data
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.train import train
from trainables.training.out_of_memory import train_in_memory
from trainables.training.sanity import TrialFailed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    return trial_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(tiny_base: TinyBase) -> TrialConfig:
    return TrialConfig(
        base=str(tiny_base("bert")), max_length=24, r=4, dropout=0.1, lr=5e-3, batch_size=16, rungs=2, precision="fp32"
    )


def metrics(config: TrialConfig, data: TrialData, folder: Path) -> list[dict[str, float]]:
    seen: list[dict[str, float]] = []
    train(config, data, lambda rung: seen.append(rung.metrics), folder=folder)
    return seen


def test_a_trial_scores_the_same_first_and_after_others_in_one_worker(
    config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    fresh = alone(config, data, tmp_path / "fresh")["rungs"]
    first = metrics(config, data, tmp_path / "first")
    metrics(config.model_copy(update={"method": "full", "lr": 1e-2}), data, tmp_path / "full")  # writes every weight
    metrics(config.model_copy(update={"targets": "all-linear", "r": 8}), data, tmp_path / "other")
    torch.manual_seed(1234)  # whatever state of the random numbers others leave
    torch.rand(17)
    again = metrics(config, data, tmp_path / "again")
    assert first == fresh
    assert again == fresh


def test_other_failures_are_not_taken_for_memory(config: TrialConfig) -> None:
    def attempt(config: TrialConfig) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train_in_memory(config, attempt, smaller=pytest.fail)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(TrialFailed("the loss is nan", config))
