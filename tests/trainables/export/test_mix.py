"""Mixes against what they should be, computed from the files with numpy, and against PEFT's own merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer

from evaluation.errors import InputError
from tests.conftest import ARCHITECTURES, TinyBase
from tests.kit.trained import trained
from trainables.config import TrialConfig
from trainables.export.mix import Member, Mix, mixed_model
from trainables.training.rungs import ADAPTER, WEIGHTS

KINDS: dict[str, dict[str, Any]] = {
    "qv": {"targets": "qv"},
    "rank": {"targets": "all-linear", "r": 2, "alpha": 3.0},
    "rslora": {"targets": "ffn", "rslora": True, "last_n": 1},
    "dora": {"targets": "attention", "dora": True},
    "full": {"method": "full"},
    "none": {"method": "none"},
}
MIXES: dict[str, tuple[dict[str, float], float]] = {
    "single": ({"qv": 1.0}, 1.0),
    "strength": ({"rank": 1.0}, 0.7),
    "beyond": ({"dora": 1.0}, 1.25),
    "equal": ({"qv": 0.5, "qv2": 0.5}, 1.0),
    "mixed": ({"qv": 0.5, "rank": 0.3, "rslora": 0.2}, 1.0),
    "all": ({"qv": 0.2, "rank": 0.1, "rslora": 0.2, "dora": 0.2, "full": 0.2, "none": 0.1}, 0.8),
    "full": ({"full": 1.0}, 1.0),
}
Trials = dict[str, tuple[TrialConfig, Path]]


@pytest.fixture(scope="module")
def trials(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trials]:
    """For each architecture, a checkpoint of every kind."""
    made: dict[str, Trials] = {}
    for architecture in ARCHITECTURES:
        folder = tmp_path_factory.mktemp(architecture)
        kinds = {**KINDS, "qv2": KINDS["qv"]}
        made[architecture] = {
            kind: (trained(folder / kind, tiny_base(architecture), seed, **fields), folder / kind)
            for seed, (kind, fields) in enumerate(kinds.items())
        }
    return made


@pytest.fixture(scope="module")
def unmoved(tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialConfig, Path]:
    """A full fine-tuning that has learnt nothing: its file holds the base's weights."""
    folder = tmp_path_factory.mktemp("unmoved")
    return trained(folder, tiny_base("bert"), scale=0.0, method="full"), folder


def base_weights(base: str) -> dict[str, np.ndarray]:
    return {name: tensor.astype(np.float64) for name, tensor in load_file(Path(base) / "model.safetensors").items()}


def expected_weights(config: TrialConfig, checkpoint: Path) -> dict[str, np.ndarray]:
    """The weights that a trial runs with, by the formulas of the papers, in float64."""
    weights = base_weights(config.base)
    if config.method == "full":
        return {k.removeprefix("0.model."): v.astype(np.float64) for k, v in load_file(checkpoint / WEIGHTS).items()}
    if config.method == "none":
        return weights
    adapter = {k: v.astype(np.float64) for k, v in load_file(checkpoint / ADAPTER).items()}
    for name, down in adapter.items():
        if not name.endswith("lora_A.weight"):
            continue
        stem = name.removesuffix(".lora_A.weight")
        target = stem.removeprefix("base_model.model.") + ".weight"
        scale = config.alpha / (config.r**0.5 if config.rslora else config.r)
        tuned = weights[target] + scale * adapter[f"{stem}.lora_B.weight"] @ down
        if config.dora:
            magnitude = adapter[f"{stem}.lora_magnitude_vector"]
            tuned = magnitude[:, None] * tuned / np.sqrt((tuned**2).sum(axis=1, keepdims=True))
        weights[target] = tuned
    return weights


def encoder_weights(model: SentenceTransformer) -> dict[str, np.ndarray]:
    assert model.transformers_model is not None
    return {name: parameter.detach().numpy() for name, parameter in model.transformers_model.named_parameters()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", MIXES)
def test_a_mix_is_the_average_of_merged_weights(trials: dict[str, Trials], architecture: str, name: str) -> None:
    shares, strength = MIXES[name]
    made = trials[architecture]
    mix = Mix(tuple(Member(*made[kind], share) for kind, share in shares.items()), strength)
    base = base_weights(mix.config.base)
    members = [(share, expected_weights(*made[kind])) for kind, share in shares.items()]
    moved = 0.0
    for weight, tensor in encoder_weights(mixed_model(mix, "cpu")).items():
        change = strength * sum(share * (tuned[weight] - base[weight]) for share, tuned in members)
        np.testing.assert_allclose(tensor, base[weight] + change, atol=1e-6, rtol=1e-6, err_msg=weight)
        moved = max(moved, float(np.abs(change).max()))
    assert moved > 1e-2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["qv", "rank", "rslora", "dora"])
def test_a_single_adapter_is_merged_as_peft_merges_it(trials: dict[str, Trials], architecture: str, kind: str) -> None:
    config, checkpoint = trials[architecture][kind]
    plain = SentenceTransformer(config.base, device="cpu").transformers_model
    assert plain is not None
    peft = PeftModel.from_pretrained(plain, str(checkpoint)).merge_and_unload()
    theirs = {name: parameter.detach().numpy() for name, parameter in peft.named_parameters()}
    for name, tensor in encoder_weights(mixed_model(Mix.of(config, checkpoint), "cpu")).items():
        np.testing.assert_allclose(tensor, theirs[name], atol=1e-6, rtol=1e-6, err_msg=name)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["rank", "dora", "full"]), parts=st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
def test_a_soup_of_one_model_is_that_model(trials: dict[str, Trials], kind: str, parts: list[float]) -> None:
    trial = trials["bert"][kind]
    shares = [part / sum(parts) for part in parts]
    soup = encoder_weights(mixed_model(Mix(tuple(Member(*trial, share) for share in shares)), "cpu"))
    for name, tensor in encoder_weights(mixed_model(Mix.of(*trial), "cpu")).items():
        np.testing.assert_allclose(soup[name], tensor, atol=1e-6, rtol=1e-6, err_msg=name)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.floats(0.01, 1), min_size=1, max_size=4), strength=st.floats(0, 1.5))
def test_weights_that_sum_to_one_keep_a_base_of_identical_models(
    unmoved: tuple[TrialConfig, Path], parts: list[float], strength: float
) -> None:
    """Every weight is read from their files and averaged."""
    members = tuple(Member(*unmoved, part / sum(parts)) for part in parts)
    for name, tensor in encoder_weights(mixed_model(Mix(members, strength), "cpu")).items():
        np.testing.assert_allclose(tensor, base_weights(unmoved[0].base)[name], atol=1e-6, err_msg=name)


def test_strength_zero_is_the_base_and_the_base_is_never_written(trials: dict[str, Trials]) -> None:
    mixed_model(Mix.uniform(list(trials["camembert"].values())), "cpu")
    made = trials["camembert"]
    none = encoder_weights(mixed_model(Mix.uniform([made["qv"], made["dora"]], 0.0), "cpu"))
    for name, tensor in base_weights(made["qv"][0].base).items():
        if name in none:
            np.testing.assert_array_equal(none[name], tensor.astype(np.float32), err_msg=name)


def test_weights_that_nobody_changed_are_the_bases_own_pages(trials: dict[str, Trials]) -> None:
    made = trials["bert"]
    mixed, base = (mixed_model(Mix.of(*made[kind]), "cpu") for kind in ("qv", "none"))
    shared = [
        one.data_ptr() == other.data_ptr() for one, other in zip(mixed.parameters(), base.parameters(), strict=True)
    ]
    assert shared.count(False) == 4  # query and value of two layers


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"base": "camembert"}, "base differs"),
        ({"pooling": "cls"}, "pooling differs: 'mean' and 'cls'"),
        ({"query_prompt": "q: "}, "query_prompt differs"),
        ({"passage_prompt": "p: "}, "passage_prompt differs"),
    ],
)
def test_members_that_are_read_otherwise_are_refused(
    trials: dict[str, Trials], tiny_base: TinyBase, change: dict[str, str], told: str
) -> None:
    config, checkpoint = trials["bert"]["qv"]
    if "base" in change:
        change = {"base": str(tiny_base(change["base"]))}
    other = config.model_copy(update=change)
    with pytest.raises(InputError, match=told):
        mixed_model(Mix.uniform([(config, checkpoint), (other, checkpoint)]), "cpu")


@pytest.mark.parametrize("weights", [(), (0.5, 0.4), (1.5, -0.5), (float("nan"), 1.0)])
def test_weights_that_are_no_shares_are_refused(trials: dict[str, Trials], weights: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected"):
        Mix(tuple(Member(*trials["bert"]["qv"], weight) for weight in weights))


def one_line(error: pytest.ExceptionInfo[InputError], *parts: str) -> None:
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_an_adapter_of_another_base_is_named(trials: dict[str, Trials], tiny_base: TinyBase, tmp_path: Path) -> None:
    config, checkpoint = trials["bert"]["qv"]
    with pytest.raises(InputError) as error:
        mixed_model(Mix.of(config.model_copy(update={"base": str(tiny_base("camembert"))}), checkpoint), "cpu")
    one_line(error, "adapter_config.json", config.base, str(tiny_base("camembert")), "another trial or base")
    wide = tiny_base("bert", True, 48)  # the same names in other shapes, under a configuration that was put right
    other = shutil.copytree(checkpoint, tmp_path / "other")
    stated = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**stated, "base_model_name_or_path": str(wide)}))
    with pytest.raises(InputError) as error:
        mixed_model(Mix.of(config.model_copy(update={"base": str(wide)}), other), "cpu")
    one_line(error, ADAPTER, "(4, 32)", "(4, 48)")
    full, folder = trials["bert"]["full"]
    with pytest.raises(InputError) as error:
        mixed_model(Mix.of(full.model_copy(update={"base": str(wide)}), folder), "cpu")
    one_line(error, WEIGHTS, "another base")


@pytest.mark.parametrize(("kind", "file"), [("qv", ADAPTER), ("full", WEIGHTS)])
def test_a_corrupted_or_missing_file_is_named(trials: dict[str, Trials], tmp_path: Path, kind: str, file: str) -> None:
    config, checkpoint = trials["bert"][kind]
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    for content in (b"half", (checkpoint / file).read_bytes()[:-100]):
        (broken / file).write_bytes(content)
        with pytest.raises(InputError) as error:
            mixed_model(Mix.of(config, broken), "cpu")
        one_line(error, str(broken / file), "not a whole safetensors file")
    (broken / file).unlink()
    with pytest.raises(InputError, match="no such file"):
        mixed_model(Mix.of(config, broken), "cpu")


def test_weights_that_are_not_finite_are_named(tiny_base: TinyBase, tmp_path: Path) -> None:
    config = trained(tmp_path, tiny_base("bert"), scale=float("nan"))
    with pytest.raises(InputError, match=r"attention.*NaN or infinity"):
        mixed_model(Mix.of(config, tmp_path), "cpu")


def test_a_mix_embeds_alike_with_the_base_in_another_order_of_members(trials: dict[str, Trials]) -> None:
    made = [trials["deberta-v2"][kind] for kind in ("qv", "full", "dora")]
    one, other = (mixed_model(Mix.uniform(order), "cpu") for order in (made, made[::-1]))
    texts = ["La loi de finances", "Un marché public"]
    assert torch.allclose(torch.tensor(one.encode(texts)), torch.tensor(other.encode(texts)), atol=1e-5)
