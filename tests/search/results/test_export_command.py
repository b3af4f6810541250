"""`embtune export`, `merge` and `clean` on a run that came to its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer

from evaluation.compare import compare
from evaluation.retrieval import evaluate
from search.paths import RunFolder
from search.results.candidates import mix_of_candidate
from search.results.leaderboard import read_leaderboard
from tests.kit.command import embtune_here
from tests.kit.ended_run import LAST, METRIC, benchmark_of
from tests.kit.hub import serving
from trainables.config import TrialConfig
from trainables.data.prepared import load_dev
from trainables.export import backends
from trainables.export.backends import load_backend
from trainables.export.manifest import verify
from trainables.export.merge import trained_model
from trainables.export.mix import mixed_model
from trainables.training.rungs import ADAPTER, SCORES

pytestmark = pytest.mark.usefixtures("reload_here")


def export(run: Path, dest: Path, *options: str) -> tuple[int, str]:
    done = embtune_here("export", run, dest, *options, cwd=run.parent)
    return done.returncode, done.stdout + done.stderr


def test_a_candidate_is_exported_by_name_and_dest_is_replaced_on_demand(ended: Path, tmp_path: Path) -> None:
    name = next(c.name for c in benchmark_of(ended).candidates if c.strength == 0.5)
    code, said = export(ended, tmp_path / "out", "--candidate", name, "--precision", "bf16")
    assert code == 0, said
    verify(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "embtune.json").read_text())
    assert (record["candidate"], record["mix"]["strength"]) == (name, 0.5)
    told = f"the lowest cosine is {record['export']['cosine']:.6f}, expected at least 0.995."
    assert told in said
    assert told in (tmp_path / "out" / "README.md").read_text()
    code, said = export(ended, tmp_path / "out", "--candidate", name)
    assert (code, said.count("\n")) == (2, 1)
    assert "exists already" in said
    assert export(ended, tmp_path / "out", "--force")[0] == 0
    assert (tmp_path / "out" / "embtune.json").read_bytes() == (RunFolder(ended).best / "embtune.json").read_bytes()
    verify(tmp_path / "out")


def best_model(run: Path) -> SentenceTransformer:
    """The picked candidate in float32."""
    folder, benchmark = RunFolder(run), benchmark_of(run)
    picked = benchmark.candidate(benchmark.best.candidate)
    return mixed_model(mix_of_candidate(folder, read_leaderboard(run)[1], picked), "cpu")


def test_another_format_is_written_beside_the_safetensors_and_embeds_alike(ended: Path, tmp_path: Path) -> None:
    code, said = export(ended, tmp_path / "out", "--format", "onnx")
    assert code == 0, said
    assert f"{tmp_path / 'out' / 'onnx' / 'model.onnx'}: for load_backend" in said
    texts = ["La DGFiP recouvre l'impôt.", "DGFiP"]
    expected = best_model(ended).encode(texts)
    for model in (load_backend(tmp_path / "out", "onnx"), SentenceTransformer(str(tmp_path / "out"), device="cpu")):
        assert np.allclose(model.encode(texts), expected, atol=1e-4)
    verify(tmp_path / "out")


def test_what_int8_loses_on_dev_is_on_the_screen_in_the_record_and_in_the_card(ended: Path, tmp_path: Path) -> None:
    code, said = export(ended, tmp_path / "out", "--format", "openvino", "--precision", "int8")
    assert code == 0, said
    dev = load_dev(RunFolder(ended).data)
    whole, rounded = (
        evaluate(model, dev, (METRIC,)) for model in (best_model(ended), load_backend(tmp_path / "out", "openvino"))
    )
    expected = compare(whole, rounded, METRIC)
    told = json.loads((tmp_path / "out" / "embtune.json").read_text())["export"]["dev"]
    assert told["difference"] == pytest.approx(expected.difference, abs=1e-9)
    (line,) = [line for line in said.splitlines() if line.startswith("In int8")]
    assert f"{METRIC} on dev is {expected.other:.4f}, in float32 {expected.base:.4f}" in line
    assert f"a loss of {-expected.difference:+.4f} (95 % {-expected.high:+.4f} to {-expected.low:+.4f}" in line
    assert line in (tmp_path / "out" / "README.md").read_text()
    ModelCard.load(tmp_path / "out" / "README.md")
    verify(tmp_path / "out")


def test_an_adapter_alone_is_exported_for_load_adapter(ended: Path, tmp_path: Path) -> None:
    code, said = export(ended, tmp_path / "out", "--trial", "0", "--adapter-only")
    assert code == 0, said
    assert "SentenceTransformer(base).load_adapter(" in said
    row = next(row for row in read_leaderboard(ended)[1] if row.trial == 0)
    config = TrialConfig.model_validate(row.config)
    model = SentenceTransformer(config.base, device="cpu")
    model.max_seq_length = config.max_length
    model.load_adapter(str(tmp_path / "out"))
    expected = trained_model(config, RunFolder(ended).trial(0) / LAST, "cpu")
    assert np.allclose(model.encode(["DGFiP"]), expected.encode(["DGFiP"]), atol=1e-5)
    plain = SentenceTransformer(config.base, device="cpu")
    assert not np.allclose(plain.encode(["DGFiP"]), expected.encode(["DGFiP"]), atol=1e-3)
    verify(tmp_path / "out")


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_an_extra_that_is_not_installed_is_one_line_and_nothing_is_written(
    ended: Path, tmp_path: Path, target: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backends.NEEDED, target, ("a_package_that_is_not_there",))
    code, said = export(ended, tmp_path / "out", "--format", target)
    assert (code, said.count("\n")) == (2, 1)
    assert f"--format {target}: a_package_that_is_not_there is not installed" in said
    assert f"pip install embtune[{target}]" in said
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_pushed_to_a_hub_whole(ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "secret" * 5)
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        code, said = export(ended, tmp_path / "out", "--push-to-hub", "owner/model")
    assert code == 0, said
    assert f"{hub.address}/owner/model/commit/" in said
    files = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert {"model.safetensors", "README.md", "manifest.json", "embtune.json"} <= files.keys()
    assert {name: hub.files[name] for name in files} == {name: path.read_bytes() for name, path in files.items()}


def test_a_token_that_is_missing_is_told_before_the_export(
    ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    code, said = export(ended, tmp_path / "out", "--push-to-hub", "owner/model")
    assert (code, said.count("\n")) == (2, 1)
    assert "environment variable HF_TOKEN" in said
    assert list(tmp_path.iterdir()) == []


def test_a_hub_that_refuses_is_one_line_and_the_export_stays(
    ended: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "secret" * 5)
    with serving("/commit/") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        code, said = export(ended, tmp_path / "out", "--push-to-hub", "owner/model")
    assert code == 2
    assert said.splitlines()[-1].startswith("embtune: --push-to-hub owner/model: 403")
    assert "secret" not in said
    verify(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--candidate", "grand-soup"), "--candidate grand-soup: no such candidate, expected one of trial-"),
        (("--trial", "9"), "--trial 9: not in"),
        (("--precision", "int8"), "--precision int8: not with --format safetensors"),
        (("--candidate", "uniform-soup", "--adapter-only"), "--adapter-only"),
        (("--trial", "0", "--candidate", "greedy-soup"), "expected one of the two"),
    ],
)
def test_what_cannot_be_exported_is_told_and_nothing_is_written(
    ended: Path, tmp_path: Path, options: Sequence[str], message: str
) -> None:
    code, said = export(ended, tmp_path / "out", *options)
    assert code == 2
    assert message in said
    assert list(tmp_path.iterdir()) == []


def test_a_corrupted_adapter_and_one_of_another_base_are_told(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(run)
    out = tmp_path / "out"
    adapter = folder.trial(0) / LAST / ADAPTER
    adapter.write_bytes(adapter.read_bytes()[:-40])
    code, said = export(run, out, "--trial", "0")
    assert (code, said.count("\n")) == (2, 1), said
    assert "not a whole safetensors file" in said
    shutil.copy(folder.trial(3) / LAST / ADAPTER, adapter)
    code, said = export(run, out, "--trial", "0")
    assert (code, said.count("\n")) == (2, 1), said
    assert not out.exists()


def test_force_replaces_neither_the_run_nor_what_is_no_model(run: Path, tmp_path: Path) -> None:
    names = {path.name for path in run.iterdir()}
    (tmp_path / "runs" / "other").mkdir(parents=True)
    for dest, told in (
        (run, "lies in it or holds it"),
        (run / "best", "lies in it or holds it"),
        (tmp_path, "lies in it or holds it"),
        (tmp_path / "runs", "not an exported model"),
    ):
        code, said = export(run, dest, "--force")
        assert (code, said.count("\n")) == (2, 1), said
        assert told in said
    forgotten = embtune_here("merge", run, run, run, "--force", cwd=tmp_path)
    assert (forgotten.returncode, forgotten.stderr.count("\n")) == (2, 1)
    assert names == {path.name for path in run.iterdir()}
    verify(RunFolder(run).best)


def test_a_best_model_that_has_changed_is_not_copied(run: Path, tmp_path: Path) -> None:
    weights = RunFolder(run).best / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    code, said = export(run, tmp_path / "out")
    assert (code, said.count("\n")) == (2, 1), said
    assert "model.safetensors has changed" in said
    assert not (tmp_path / "out").exists()


def test_models_and_runs_are_averaged_by_hand(ended: Path, tmp_path: Path) -> None:
    shutil.copytree(RunFolder(ended).best, tmp_path / "one")
    path = tmp_path / "one" / "model.safetensors"
    best = load_file(path)
    save_file({name: 5 * tensor for name, tensor in best.items()}, path)
    done = embtune_here("merge", ended, tmp_path / "one", tmp_path / "mean", "--weights", "3,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verify(tmp_path / "mean")
    for name, tensor in load_file(tmp_path / "mean" / "model.safetensors").items():
        np.testing.assert_allclose(tensor, 2 * best[name], rtol=1e-5, atol=1e-6, err_msg=name)  # 3/4 of 1, 1/4 of 5
    assert "- 0.25 of `one`" in (tmp_path / "mean" / "README.md").read_text()
    for arguments, message in (
        ((ended, tmp_path / "one", tmp_path / "mean"), "exists already"),
        ((ended, tmp_path / "one", tmp_path / "new", "--weights", "a,b"), "--weights a,b: expected numbers"),
        ((ended, tmp_path / "new"), "1 models, expected at least two"),
    ):
        refused = embtune_here("merge", *arguments, cwd=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (tmp_path / "new").exists()


def test_clean_frees_what_no_candidate_needs_and_asks_before(run: Path, tmp_path: Path) -> None:
    folder, candidates = RunFolder(run), benchmark_of(run).candidates
    left = [run / name for name in (".best.new", ".best-abcd1234", "..best.new-abcd1234")]  # of killed promotions
    for path in left:
        shutil.copytree(folder.best, path)
    before = sum(folder.sizes().values())
    asked = embtune_here("clean", run, cwd=tmp_path)  # with nobody to answer
    assert asked.returncode == 1
    assert sum(folder.sizes().values()) == before
    done = embtune_here("clean", run, "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sum(folder.sizes().values()) < before
    assert not any(path.exists() for path in left)
    verify(folder.best)
    assert not list(folder.trial(4).glob(f"*/{ADAPTER}"))
    assert (folder.trial(4) / LAST / SCORES).exists()
    single = candidates[0].members[0].trial
    rungs = {trial: len(list(folder.trial(trial).glob(f"*/{ADAPTER}"))) for trial in (0, 1)}
    assert rungs == {single: 2, 1 - single: 1}  # the best trial's last rungs are a candidate
    assert not [path for path in folder.cache.rglob("*") if path.is_file()]
    rows = read_leaderboard(run)[1]
    assert all(mixed_model(mix_of_candidate(folder, rows, candidate), "cpu") for candidate in candidates)
    assert "nothing to free" in embtune_here("clean", run, cwd=tmp_path).stdout


def test_a_run_that_has_not_ended_is_not_cleaned(run: Path, tmp_path: Path) -> None:
    RunFolder(run).benchmark.unlink()
    refused = embtune_here("clean", run, "--yes", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "expected the folder of a search that has ended" in refused.stderr
