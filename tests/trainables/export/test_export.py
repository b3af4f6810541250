"""Exports: what they hold, how they are checked, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import trainables.export.export as export_module
from evaluation.errors import InputError
from tests.conftest import TEXTS, TinyBase
from tests.kit.trained import trained
from trainables.config import TrialConfig
from trainables.export import backends
from trainables.export.backends import load_backend
from trainables.export.export import Exported, ExportError, Form, export_model
from trainables.export.manifest import MANIFEST, replace_card, verify
from trainables.export.merge import trained_model
from trainables.export.mix import Mix
from trainables.export.reload import embed_both

PROBE = {"queries": list(TEXTS[:4]), "passages": list(TEXTS[4:])}
Trial = tuple[TrialConfig, Path]


@pytest.fixture(scope="module")
def trial(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    folder = tmp_path_factory.mktemp("trial")
    return trained(folder, tiny_base("xlm-roberta"), targets="attention"), folder


def export(mix: Mix, dest: Path, **options: Any) -> Exported:
    record = {"base": mix.config.base}
    return export_model(mix, dest, PROBE["queries"], PROBE["passages"], record, "# card\n", **options)


def lowest(one_ND: np.ndarray, other_ND: np.ndarray) -> float:
    return float((one_ND * other_ND).sum(axis=1).min())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_16_bit_export_loads_in_16_bits_and_stays_within_its_tolerance(
    trial: Trial, tmp_path: Path, precision: Any
) -> None:
    found = export(Mix.of(*trial), tmp_path / "out", form=Form(precision=precision))
    assert found.tolerance <= found.cosine < 1
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {
        {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    }
    verify(tmp_path / "out")


def test_a_soup_is_exported_and_its_record_says_of_what(trial: Trial, tiny_base: TinyBase, tmp_path: Path) -> None:
    full = trained(tmp_path / "full", tiny_base("xlm-roberta"), method="full", scale=0.02)
    mix = Mix.uniform([trial, (full, tmp_path / "full")], 0.9)
    assert export(mix, tmp_path / "out").cosine > 0.99999
    told = json.loads((tmp_path / "out" / "embtune.json").read_text())
    assert told["mix"]["strength"] == 0.9
    assert [member["weight"] for member in told["mix"]["members"]] == [0.5, 0.5]
    assert told["mix"]["prompts"] == {"query": "query: ", "document": "passage: "}
    assert told["export"]["cosine"] > 0.99999
    assert not (tmp_path / "out" / "adapter").exists()  # an average has none
    verify(tmp_path / "out")


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_other_runtimes_embed_as_the_trained_model(trial: Trial, tmp_path: Path, target: Any, precision: Any) -> None:
    found = export(Mix.of(*trial), tmp_path / "out", form=Form(target, precision))
    assert found.cosine >= (0.99999 if precision == "fp32" else 0.95)
    model = load_backend(tmp_path / "out", target)
    expected_ND = embed_both(trained_model(*trial, "cpu"), PROBE)
    cosine = lowest(embed_both(model, PROBE), expected_ND)
    assert cosine == pytest.approx(found.cosine, abs=1e-4)
    assert (cosine < 0.999999) == (precision == "int8")  # it is the quantised file that runs
    plain = SentenceTransformer(str(tmp_path / "out"), device="cpu")  # safetensors always
    assert lowest(embed_both(plain, PROBE), expected_ND) > 0.99999
    verify(tmp_path / "out")


@pytest.mark.parametrize("architecture", ["bert", "camembert", "deberta-v2"])
def test_onnx_holds_for_every_architecture_and_length(tiny_base: TinyBase, tmp_path: Path, architecture: Any) -> None:
    model = SentenceTransformer(str(tiny_base(architecture)), device="cpu")
    model.save_pretrained(str(tmp_path / "m"), create_model_card=False)
    backends.write_backend(model, tmp_path / "m", "onnx", int8=False)
    runtime = load_backend(tmp_path / "m", "onnx")
    for texts in (["a"], list(TEXTS), [" ".join(TEXTS) * 3]):
        np.testing.assert_allclose(runtime.encode(texts), model.encode(texts), atol=1e-5)


def test_an_adapter_alone_loads_onto_its_base(trial: Trial, tmp_path: Path) -> None:
    config, folder = trial
    assert export(Mix.of(config, folder, 0.5), tmp_path / "half", form=Form(adapter_only=True)).cosine > 0.99999
    export(Mix.of(config, folder), tmp_path / "out", form=Form(adapter_only=True))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "embtune.json",
        "README.md",
        MANIFEST,
    }
    told = json.loads((tmp_path / "out" / "embtune.json").read_text())["mix"]
    model = SentenceTransformer(config.base, device="cpu")
    model.load_adapter(str(tmp_path / "out"))
    model.prompts = told["prompts"]
    assert told["pooling"] == "mean"
    assert lowest(embed_both(model, PROBE), embed_both(trained_model(config, folder, "cpu"), PROBE)) > 0.99999


def test_what_has_no_adapter_is_refused(trial: Trial, tiny_base: TinyBase, tmp_path: Path) -> None:
    full = trained(tmp_path / "full", tiny_base("xlm-roberta"), method="full")
    for mix in (Mix.uniform([trial, trial]), Mix.of(full, tmp_path / "full")):
        with pytest.raises(InputError, match="--adapter-only: an average or a full fine-tuning has no adapter"):
            export(mix, tmp_path / "out", form=Form(adapter_only=True))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_failed_check_keeps_the_folder_from_appearing_and_an_old_one_in_place(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights that are written are not those that were trained."""
    export(Mix.of(*trial), tmp_path / "out")
    before = (tmp_path / "out" / MANIFEST).read_bytes()
    whole = export_module.save_model

    def wrong(model: SentenceTransformer, folder: Path) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.data = parameter.data + 0.05 * torch.randn(parameter.shape)
        whole(model, folder)

    monkeypatch.setattr(export_module, "save_model", wrong)
    for dest in (tmp_path / "new", tmp_path / "out"):
        with pytest.raises(ExportError, match="differs from the trained one"):
            export(Mix.of(*trial), dest, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / MANIFEST).read_bytes() == before


def test_a_destination_that_exists_is_replaced_only_by_force(trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    (tmp_path / "out" / "modules.json").touch()
    with pytest.raises(InputError, match="exists already"):
        export(Mix.of(*trial), tmp_path / "out")
    assert (tmp_path / "out" / "old").exists()
    export(Mix.of(*trial), tmp_path / "out", force=True)
    assert not (tmp_path / "out" / "old").exists()
    verify(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"precision": "int8"}, "--precision int8: not with --format safetensors, expected fp32, bf16, fp16"),
        ({"format": "onnx", "precision": "bf16"}, "not with --format onnx, expected fp32, int8"),
        ({"precision": "bf16", "adapter_only": True}, "--adapter-only: adapters are float32"),
    ],
)
def test_forms_that_do_not_exist_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Form(**options)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_an_extra_that_is_not_installed_is_named(target: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.NEEDED, target, ("a_package_that_is_not_there",))
    with pytest.raises(InputError) as error:
        Form(target)
    assert str(error.value).endswith(f"expected after: pip install embtune[{target}]")
    assert "\n" not in str(error.value)


def test_a_manifest_tells_of_every_change(trial: Trial, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(Mix.of(*trial), out, form=Form(adapter_only=True))
    replace_card(out, "# another card\n")
    verify(out)
    card = (out / "README.md").read_text()
    (out / "README.md").write_text(card + "more")
    with pytest.raises(InputError, match=r"README\.md has changed"):
        verify(out)
    (out / "README.md").write_text(card)
    (out / "stranger").touch()
    with pytest.raises(InputError, match="stranger is not listed"):
        verify(out)
    (out / "stranger").unlink()
    (out / "embtune.json").rename(tmp_path / "embtune.json")
    with pytest.raises(InputError, match=r"embtune\.json is missing"):
        verify(out)
    (out / MANIFEST).unlink()
    with pytest.raises(InputError, match=r"no manifest\.json"):
        verify(out)
