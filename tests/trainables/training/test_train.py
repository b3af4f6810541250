"""One trial, without Ray: rungs, checkpoints, exact resume, merge and export, on tiny real models."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer

from evaluation.errors import InputError
from evaluation.metrics import DEFAULT_METRICS
from tests.conftest import TinyBase
from tests.kit.toy import trial_data
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.export.export import export_model
from trainables.export.manifest import verify
from trainables.export.merge import trained_model
from trainables.export.mix import Mix, mixed_model
from trainables.plan.memory import HEADROOM, estimate_memory, fit_to_memory
from trainables.train import train
from trainables.training.rungs import ADAPTER, LAST, MARKER, WEIGHTS, Rung
from trainables.training.sanity import TrialFailed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    return trial_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(tiny_base: TinyBase) -> TrialConfig:
    base = str(tiny_base("xlm-roberta"))
    return TrialConfig(
        base=base,
        max_length=24,
        targets="qv",
        r=4,
        alpha=8,
        dropout=0.1,
        lr=5e-3,
        batch_size=16,
        rungs=3,
        precision="fp32",
    )


class StoppedError(Exception):
    """What ends a trial from within `report`, as Ray's SystemExit does."""


def run(config: TrialConfig, data: TrialData, folder: Path, stop_at: int | None = None) -> list[Rung]:
    seen: list[Rung] = []

    def report(rung: Rung) -> None:
        seen.append(rung)
        if rung.rung == stop_at:
            raise StoppedError

    try:
        train(config, data, report, folder=folder)
    except StoppedError:
        assert stop_at is not None
    return seen


def kept(folder: Path, file: str) -> set[str]:
    """Checkpoints whose weights are there."""
    return {path.parent.name for path in folder.glob(f"*/{file}")}


def test_each_rung_is_measured_saved_and_reported(config: TrialConfig, data: TrialData, tmp_path: Path) -> None:
    rungs = run(config, data, tmp_path)
    assert [r.rung for r in rungs] == [1, 2, 3]
    assert rungs[-1].step == rungs[-1].steps
    assert rungs[-1].pairs == data.train.num_rows
    assert all(set(DEFAULT_METRICS) == set(r.metrics) and math.isfinite(r.loss) for r in rungs)
    for rung in rungs:
        assert rung.scores().means == pytest.approx(rung.metrics)
    best = max(rungs, key=lambda r: r.metrics["ndcg@10"])
    assert kept(tmp_path, ADAPTER) == {Path(rung.folder).name for rung in (best, *rungs[-LAST:])}  # to be averaged
    assert not list(tmp_path.glob("*/optimizer.pt"))


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("stop_at", [1, 2])
@pytest.mark.parametrize("refresh", [False, True])
def test_a_trial_that_goes_on_equals_one_that_was_not_stopped(
    config: TrialConfig, data: TrialData, tmp_path: Path, method: str, stop_at: int, refresh: bool
) -> None:
    changes = {"method": method, "epochs": 2.0, "batches": "clustered", "refresh": refresh}
    trial = config.model_copy(update=changes)
    whole = run(trial, data, tmp_path / "whole")
    run(trial, data, tmp_path / "parts", stop_at=stop_at)
    rest = run(trial, data, tmp_path / "parts")
    assert [r.rung for r in rest] == [1, 2, 3]
    for file in (ADAPTER, WEIGHTS):
        assert kept(tmp_path / "parts", file) == kept(tmp_path / "whole", file)
    best = max(whole, key=lambda r: r.metrics["ndcg@10"])
    assert method == "lora" or kept(tmp_path / "whole", WEIGHTS) == {Path(best.folder).name}
    for expected, got in zip(whole, rest, strict=True):
        assert got.metrics == pytest.approx(expected.metrics, abs=1e-6)
        assert got.loss == pytest.approx(expected.loss, abs=1e-6)


def test_a_finished_trial_tells_its_rungs_again_and_trains_nothing(
    config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    first = run(config, data, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(MARKER)}
    assert run(config, data, tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob(MARKER)} == stamps


def test_a_checkpoint_that_was_cut_short_does_not_count(config: TrialConfig, data: TrialData, tmp_path: Path) -> None:
    whole = run(config, data, tmp_path / "whole")
    first = run(config, data, tmp_path / "parts", stop_at=1)[0]
    cut_short = Path(whole[1].folder.replace("whole", "parts"))
    shutil.copytree(first.folder, cut_short)
    (cut_short / MARKER).unlink()
    (cut_short / ADAPTER).write_bytes(b"half a file")
    rest = run(config, data, tmp_path / "parts")
    assert [r.rung for r in rest] == [1, 2, 3]
    assert rest[-1].metrics == pytest.approx(whole[-1].metrics, abs=1e-6)


def test_the_untouched_base_is_one_evaluation(config: TrialConfig, data: TrialData, tmp_path: Path) -> None:
    rungs = run(config.model_copy(update={"method": "none"}), data, tmp_path)
    assert [(r.rung, r.step, r.pairs, r.trainable) for r in rungs] == [(3, 0, 0, 0)]


def test_a_loss_that_is_not_finite_fails_the_trial_with_its_configuration(
    config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    wild = config.model_copy(update={"method": "full", "lr": 1e30, "max_grad_norm": 1e30, "warmup": 0.0, "epochs": 3.0})
    with pytest.raises(TrialFailed, match="1e\\+30"):
        run(wild, data, tmp_path)


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2"])
def test_merged_equals_trained_and_differs_from_the_base(
    config: TrialConfig, data: TrialData, tmp_path: Path, tiny_base: TinyBase, architecture: str
) -> None:
    trial = config.model_copy(update={"base": str(tiny_base(architecture)), "targets": "all-linear"})
    best = train(trial, data, lambda rung: None, folder=tmp_path)
    texts = list(data.dev.queries.values())[:64]
    folder = Path(best.folder)
    trained = trained_model(trial, folder).encode_query(texts)
    merged = mixed_model(Mix.of(trial, folder))
    np.testing.assert_allclose(merged.encode_query(texts), trained, atol=1e-5)
    base = trained_model(trial.model_copy(update={"method": "none"}), folder)
    assert np.abs(base.encode_query(texts) - trained).max() > 1e-3
    # An independent reading of the saved adapter: PEFT around the base's encoder as transformers loads it.
    plain = SentenceTransformer(trial.base, device="cpu").transformers_model
    ours = merged.transformers_model
    assert plain is not None
    assert ours is not None
    peft = PeftModel.from_pretrained(plain, str(folder)).merge_and_unload()
    for (name, weight), theirs in zip(ours.named_parameters(), peft.parameters(), strict=True):
        torch.testing.assert_close(weight, theirs, atol=1e-6, rtol=1e-5, msg=name)


def test_export_is_checked_in_a_fresh_process_and_complete(
    config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    best = train(config, data, lambda rung: None, folder=tmp_path / "trial")
    texts = list(data.dev.queries.values()), list(data.dev.corpus.values())
    dest = tmp_path / "best"
    cosine = export_model(Mix.of(config, Path(best.folder)), dest, *texts, {"base": config.base}, "# card\n").cosine
    assert cosine >= 0.9999
    model = SentenceTransformer(str(dest))
    assert model.prompts["query"] == "query: "  # the family's, as in training
    assert json.loads((dest / "embtune.json").read_text())["base"] == config.base
    assert (dest / "adapter" / ADAPTER).exists()
    assert not list(dest.rglob("*.bin"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    verify(dest)
    with pytest.raises(InputError, match="exists already"):
        export_model(Mix.of(config, Path(best.folder)), dest, *texts, {}, "")


def test_an_export_that_is_another_model_never_appears(config: TrialConfig, data: TrialData, tmp_path: Path) -> None:
    best = train(config, data, lambda rung: None, folder=tmp_path / "trial")
    # Another scale than the adapter was trained with: its own file says so.
    other = config.model_copy(update={"alpha": 64 * config.alpha})
    with pytest.raises(InputError, match=f"lora_alpha is {config.alpha}, expected {other.alpha}"):
        export_model(Mix.of(other, Path(best.folder)), tmp_path / "best", list(data.dev.queries.values()), [], {}, "")
    assert [path.name for path in tmp_path.iterdir()] == ["trial"]


def test_a_batch_that_would_not_fit_is_cut_into_micro_batches_of_the_same_experiment(
    config: TrialConfig, data: TrialData, tmp_path: Path
) -> None:
    trial = config.model_copy(update={"dropout": 0.0, "rungs": 1})
    whole = train(trial, data, lambda rung: None, folder=tmp_path / "whole")
    estimate = estimate_memory(trial, "cpu", "fp32", "sdpa")
    enough = int((estimate.total - estimate.activations / 2) / HEADROOM)
    assert fit_to_memory(trial, enough, "cpu", "fp32", "sdpa").micro_batch_tokens
    tight = train(trial, data, lambda rung: None, folder=tmp_path / "tight", memory=enough)
    assert tight.metrics == pytest.approx(whole.metrics, abs=1e-3)
    assert tight.loss == pytest.approx(whole.loss, abs=1e-3)
    with pytest.raises(InputError, match="GiB"):
        train(trial, data, lambda rung: None, folder=tmp_path / "none", memory=1000)
