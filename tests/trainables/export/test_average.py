"""Saved models averaged by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer

from evaluation.errors import InputError
from tests.conftest import TinyBase
from tests.kit.trained import trained
from trainables.export.average import merge_models, of_unknown_base
from trainables.export.export import save_model
from trainables.export.manifest import verify, write_manifest
from trainables.export.mix import Mix, mixed_model

Models = tuple[Path, Path]


@pytest.fixture(scope="module")
def models(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Two fine-tunings of one base, as exports leave them."""
    made = []
    kinds: list[dict[str, Any]] = [{"targets": "all-linear"}, {"method": "full"}]
    for seed, fields in enumerate(kinds, start=1):
        folder = tmp_path_factory.mktemp("model") / "best"
        config = trained(folder.parent / "checkpoint", tiny_base("camembert"), seed, **fields)
        save_model(mixed_model(Mix.of(config, folder.parent / "checkpoint"), "cpu"), folder)
        (folder / "embtune.json").write_text(json.dumps({"base": config.base}))
        (folder / "README.md").write_text("# of one\n")
        (folder / "adapter").mkdir()
        write_manifest(folder)
        made.append(folder)
    return made[0], made[1]


@pytest.mark.parametrize(("weights", "share"), [(None, 0.5), ([3.0, 1.0], 0.75)])
def test_the_mean_of_two_models_is_theirs_weight_by_weight(
    models: Models, tmp_path: Path, weights: list[float] | None, share: float
) -> None:
    found = merge_models(models, weights, tmp_path / "out", "# card\n")
    assert found.cosine > 0.99999
    one, other, mean = (load_file(folder / "model.safetensors") for folder in (*models, tmp_path / "out"))
    assert mean.keys() == one.keys()
    for name, tensor in mean.items():
        expected = share * one[name].astype(np.float64) + (1 - share) * other[name]
        np.testing.assert_allclose(tensor, expected, atol=1e-6, err_msg=name)
    loaded, first = (SentenceTransformer(str(folder), device="cpu") for folder in (tmp_path / "out", models[0]))
    assert loaded.prompts == first.prompts
    assert (tmp_path / "out" / "README.md").read_text() == "# card\n"
    assert not (tmp_path / "out" / "adapter").exists()
    told = json.loads((tmp_path / "out" / "embtune.json").read_text())
    assert [member["weight"] for member in told["merged"]] == [share, 1 - share]
    verify(tmp_path / "out")


def other_base(folder: Path) -> None:
    (folder / "embtune.json").write_text(json.dumps({"base": "another/base"}))


def change_json(name: str, **fields: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_base, "bases differ: .*another/base"),
        (change_json("embtune.json", config={"revision": "v2"}), "revisions of the base differ: not pinned, v2"),
        (change_json("config.json", num_attention_heads=4), "num_attention_heads is 2 and 4"),
        (change_json("1_Pooling/config.json", pooling_mode="cls"), "pooling_mode is 'mean' and 'cls'"),
        (change_json("config_sentence_transformers.json", prompts={"query": "q"}), "prompts is .* and {'query': 'q'}"),
        (change_json("tokenizer.json", model={}), "model is .* and {}"),
        (cut_short, r"model\.safetensors: not a whole safetensors file"),
        (lambda folder: (folder / "modules.json").unlink(), r"no modules\.json there"),
    ],
    ids=["base", "revision", "architecture", "pooling", "prompts", "tokenizer", "corrupted", "no-model"],
)
def test_what_does_not_average_is_named(models: Models, tmp_path: Path, change: Any, told: str) -> None:
    other = shutil.copytree(models[1], tmp_path / "other")
    change(other)
    with pytest.raises(InputError, match=told) as error:
        merge_models([models[0], other], None, tmp_path / "out", "")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_an_update_of_a_model_averages_with_it(models: Models, tmp_path: Path) -> None:
    """Its base is the model that it was trained on from."""
    update = shutil.copytree(models[1], tmp_path / "update")
    (update / "embtune.json").write_text(json.dumps({"base": str(models[0])}))
    assert merge_models([models[0], update], None, tmp_path / "out", "").cosine > 0.99999


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("inf")]])
def test_weights_that_are_none_are_refused(models: Models, tmp_path: Path, weights: list[float]) -> None:
    with pytest.raises(InputError, match="--weights"):
        merge_models(models, weights, tmp_path / "out", "")
    with pytest.raises(InputError, match="expected at least two"):
        merge_models(models[:1], None, tmp_path / "out", "")


def test_weights_in_several_files_keep_their_index_and_those_of_other_formats_are_left_out(
    models: Models, tmp_path: Path
) -> None:
    sharded = []
    for number, folder in enumerate(models):
        copy = Path(shutil.copytree(folder, tmp_path / str(number)))
        weights = load_file(copy / "model.safetensors")
        (copy / "model.safetensors").unlink()
        files = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(weights)}
        for file in set(files.values()):
            save_file({name: weights[name] for name in weights if files[name] == file}, copy / file, {"format": "pt"})
        index = {"metadata": {"total_size": sum(w.nbytes for w in weights.values())}, "weight_map": files}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
        (copy / "pytorch_model.bin").write_bytes(b"of this model, not of the mean")
        sharded.append(copy)
    assert merge_models(sharded, None, tmp_path / "out", "").cosine > 0.99999
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()
    SentenceTransformer(str(tmp_path / "out"), device="cpu")


def test_weights_that_are_no_safetensors_are_refused(models: Models, tmp_path: Path) -> None:
    other = Path(shutil.copytree(models[1], tmp_path / "other"))
    (other / "2_Dense").mkdir()
    (other / "2_Dense" / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match=r"2_Dense/pytorch_model\.bin: weights that are no safetensors"):
        merge_models([models[0], other], None, tmp_path / "out", "")


def test_models_that_do_not_say_their_base_are_known(models: Models, tmp_path: Path) -> None:
    silent = Path(shutil.copytree(models[1], tmp_path / "silent"))
    (silent / "embtune.json").unlink()
    assert of_unknown_base([*models, silent]) == [silent]
    (tmp_path / "update").mkdir()
    (tmp_path / "update" / "embtune.json").write_text(json.dumps({"base": str(silent)}))
    assert of_unknown_base([silent, tmp_path / "update"]) == []
