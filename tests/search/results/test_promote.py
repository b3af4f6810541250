"""The end of a search, without Ray: the best trial is merged and benchmarked where and as it should be."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from rich.console import Console
from sentence_transformers import SentenceTransformer

from evaluation.errors import InputError
from evaluation.retrieval import evaluate
from search.paths import RunFolder
from search.results.benchmark import Benchmark
from search.results.export import export_from_run
from search.results.guard import write_guard
from search.results.leaderboard import Row, write_leaderboard
from search.results.promote import check_bases, finish
from search.spec.load import load_spec
from search.spec.record import write_spec as write_record
from search.spec.sections import SearchSpec
from search.spec.space import READ
from search.staging import Staging
from tests.conftest import TinyBase
from tests.kit.reload import reloading_here
from tests.kit.toy import write_spec
from tests.kit.wrong_base import embed_the_first_token
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.model.loaded import forget_bases
from trainables.prepare import prepare
from trainables.train import train

METRIC = "ndcg@10"


@pytest.fixture(scope="module")
def finished(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Row]:
    """A run whose only trial was trained in bf16, before its promotion."""
    folder = tmp_path_factory.mktemp("finished")
    spec = load_spec(write_spec(folder, tiny_base("bert")))
    run = folder / "runs" / spec.name
    report = prepare(spec.data, spec.folder, spec.seed, run / "data")
    write_record(spec, run, report.content_hash, {})
    config = TrialConfig(
        base=str(tiny_base("bert")), max_length=24, r=4, lr=5e-3, batch_size=16, rungs=1, precision="bf16"
    )
    RunFolder(run).trial(0).mkdir(parents=True)
    best = train(config, TrialData.load(run / "data"), lambda rung: None, folder=RunFolder(run).trial(0), device="cpu")
    row = Row(
        rank=1,
        trial=0,
        state="COMPLETE",
        score=best.metrics[METRIC],
        error=None,
        rung=1,
        best_rung=1,
        rungs=1,
        trainable=best.trainable,
        pairs=best.pairs,
        planned_pairs=best.pairs,
        seconds=1.0,
        checkpoint=best.folder,
        failure="",
        config=config.model_dump(mode="json"),
        metrics=best.metrics,
    )
    write_leaderboard([row], METRIC, run)
    write_guard(spec.guard, spec.folder, RunFolder(run))
    return run, row


@contextmanager
def only_meta() -> Iterator[None]:
    """A machine whose default device holds no numbers."""
    with pytest.MonkeyPatch.context() as patch, reloading_here():
        patch.setattr("trainables.model.build.resolve_device", lambda device: torch.device(device or "meta"))
        patch.setattr("sentence_transformers.base.model.get_device_name", lambda: "meta")
        yield


@pytest.fixture(scope="module")
def promoted(finished: tuple[Path, Row]) -> tuple[Path, Benchmark]:
    """The run after its promotion, whatever the trial itself had measured. Do not write into it."""
    run, row = finished
    with only_meta():
        return run, finish(RunFolder(run), "toy", METRIC, asdict(row) | {"metrics": {METRIC: 0.123}}, 0.01, "cpu")


def test_what_asks_for_no_gpu_ends_on_the_cpu(promoted: tuple[Path, Benchmark], tmp_path: Path) -> None:
    """On a machine whose default device is another, here torch's own without memory: nothing can be read from it."""
    run, benchmark = promoted
    assert benchmark.best.reload_cosine > 0.9999
    with only_meta():
        export_from_run(run, tmp_path / "exported", 0)  # the run's resources say gpus: 0
    assert (tmp_path / "exported" / "model.safetensors").is_file()


def test_dev_and_test_scores_that_are_compared_are_of_one_model_in_one_precision(
    promoted: tuple[Path, Benchmark],
) -> None:
    """The trial's own dev scores are of the unmerged model in bf16; the test scores of the merged one in float32."""
    run, benchmark = promoted
    merged = SentenceTransformer(str(RunFolder(run).best), device="cpu")
    assert {weight.dtype for weight in merged.parameters()} == {torch.float32}
    dev = evaluate(merged, TrialData.load(run / "data").dev, (METRIC,)).means[METRIC]
    assert benchmark.optimism is not None
    assert benchmark.optimism.best.dev == pytest.approx(dev, abs=1e-9)
    assert benchmark.optimism.best.test == benchmark.protocols["concept"].best[METRIC]


def begin(spec: SearchSpec, run: Path) -> None:
    """What a search does before its first trial, without Ray."""
    with Staging(spec, run, resume=False) as staging:
        console = Console(file=io.StringIO())
        staging.prepare(console)
        check_bases([config.model_dump(mode="json") for config in spec.parsed_space.configs(READ)], "cpu")
        staging.settle(console)


def test_a_search_whose_base_is_read_otherwise_ends_before_anything_is_written(
    tiny_base: TinyBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec(write_spec(tmp_path, tiny_base("bert")))
    with monkeypatch.context() as patch:
        embed_the_first_token(patch)
        with pytest.raises(InputError, match="pooling cls here, mean in its files") as error:
            begin(spec, tmp_path / "runs" / "toy")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "runs").iterdir()) == []
    forget_bases()
    begin(spec, tmp_path / "runs" / "toy")
    assert (tmp_path / "runs" / "toy").is_dir()
