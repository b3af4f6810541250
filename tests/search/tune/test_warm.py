"""Warm workers and memory: what a worker keeps changes no score; what does not fit is tried in smaller pieces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evaluation.out_of_memory import is_out_of_memory
from tests.conftest import TinyBase
from tests.kit.toy import trial_data
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.train import train
from trainables.training.out_of_memory import micro_batch, train_in_memory
from trainables.training.sanity import TrialFailed

REPOSITORY = Path(__file__).parents[3]
# Trains a configuration in a process of its own; `limit`, in MiB above what is in use, stands for a small device.
ALONE = """
import json, resource, sys
import torch
from pathlib import Path
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.training.out_of_memory import train_in_memory
from trainables.training.sanity import TrialFailed
from trainables.train import train

torch.set_num_threads(1)
config, data, folder, limit = json.loads(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
config, data = TrialConfig.model_validate(config), TrialData.load(Path(data))
if limit:
    # Once in the smallest pieces, so that all libraries and pools are there before the limit is set.
    small = config.model_copy(update={"batch_size": 2, "epochs": 0.05, "micro_batch_tokens": 64})
    train(small, data, lambda rung: None, folder=folder / "small")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit * 2**20, resource.RLIM_INFINITY))
rungs, tokens = [], []

def attempt(config):
    train(config, data, lambda r: rungs.append(r.metrics), folder=folder / "trial")

try:
    train_in_memory(config, attempt, smaller=tokens.append)
except TrialFailed as error:
    print(json.dumps({"failed": str(error), "tokens": tokens}))
else:
    print(json.dumps({"rungs": rungs, "tokens": tokens}))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    return trial_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(tiny_base: TinyBase) -> TrialConfig:
    return TrialConfig(
        base=str(tiny_base("bert")), max_length=24, r=4, dropout=0.1, lr=5e-3, batch_size=16, rungs=2, precision="fp32"
    )


def alone(config: TrialConfig, data: TrialData, folder: Path, limit: int = 0) -> dict[str, list[dict[str, float]]]:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ALONE, config.model_dump_json(), str(data.folder), str(folder), str(limit)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, list[dict[str, float]]] = json.loads(done.stdout.splitlines()[-1])
    return outcome


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


@pytest.mark.soak
def test_a_batch_too_large_for_the_memory_is_trained_in_pieces(tiny_base: TinyBase, tmp_path: Path) -> None:
    data = trial_data(tmp_path, concepts=150)
    large = TrialConfig(
        base=str(tiny_base("bert", width=256, layers=4)),
        max_length=64,
        r=4,
        dropout=0.0,
        lr=1e-3,
        batch_size=256,
        rungs=1,
        precision="fp32",
    )
    tokens = micro_batch(large)
    pieces = alone(large.model_copy(update={"micro_batch_tokens": tokens}), data, tmp_path / "pieces")
    assert pieces["tokens"] == []
    tight = alone(large, data, tmp_path / "tight", limit=850)
    assert tight["tokens"] == [tokens]
    assert tight["rungs"] == pieces["rungs"]  # as if it had been asked for; gradients are those of the whole batch
    hopeless = alone(large, data, tmp_path / "hopeless", limit=4)
    assert "out of memory, with micro-batches of" in str(hopeless["failed"])


def test_other_failures_are_not_taken_for_memory(config: TrialConfig) -> None:
    def attempt(config: TrialConfig) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        train_in_memory(config, attempt, smaller=pytest.fail)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(TrialFailed("the loss is nan", config))
