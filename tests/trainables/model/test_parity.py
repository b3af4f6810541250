"""A base that is read otherwise than its authors meant it stops a search, and what differs is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import BertModel

from evaluation.errors import InputError
from tests.conftest import ARCHITECTURES, BASES, TEXTS, TinyBase
from tests.kit.wrong_base import embed_the_first_token
from trainables.config import TrialConfig
from trainables.model import parity
from trainables.model.loaded import forget_bases
from trainables.model.parity import check_base, parity_key
from trainables.model.stand_ins import make_stand_in
from trainables.model.weights import check_weights

ALL = ("xlm-roberta", "bf16", None)


@pytest.mark.parametrize(("architecture", "precision", "layers"), [*((a, "bf16", 2) for a in ARCHITECTURES), ALL])
def test_stand_ins_pass(tmp_path: Path, architecture: str, precision: str, layers: int | None) -> None:
    """As a smoke search makes them, once with as many layers as their base."""
    base = make_stand_in(TrialConfig(base=BASES[architecture]), TEXTS, tmp_path, layers=layers)
    config = TrialConfig.model_validate({"base": str(base), "precision": precision, "max_length": 32})
    assert check_base(config, tmp_path / "cache", "cpu") >= 0.999


@pytest.mark.parametrize("fields", [{"pooling": "cls"}, {"query_prompt": "cherche : "}, {"max_length": 8}])
@pytest.mark.parametrize("packaged", [True, False])
def test_what_the_spec_sets_itself_is_no_difference(
    tiny_base: TinyBase, packaged: bool, fields: dict[str, Any]
) -> None:
    config = TrialConfig.model_validate({"base": str(tiny_base("bert", packaged)), "precision": "fp32", **fields})
    assert check_base(config, None, "cpu") > 0.99999


def test_a_wrong_pooling_is_named(tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch) -> None:
    embed_the_first_token(monkeypatch)
    with pytest.raises(InputError, match=r"expected at least 0\.999\): pooling cls here, mean in its files") as error:
        check_base(TrialConfig(base=str(tiny_base("bert")), precision="fp32"), None, "cpu")
    assert "\n" not in str(error.value)
    forget_bases()


def test_padding_that_changes_embeddings_is_named(tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model attends to padding."""
    whole = BertModel.forward

    def wrong(self: BertModel, *args: Any, **given: Any) -> Any:
        return whole(self, *args, **{**given, "attention_mask": torch.ones_like(given["attention_mask"])})

    monkeypatch.setattr(BertModel, "forward", wrong)
    with pytest.raises(InputError, match="padding: one text at a time agrees"):
        check_base(TrialConfig(base=str(tiny_base("bert")), precision="fp32"), None, "cpu")


def test_a_kernel_that_computes_something_else_is_named(tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast attention looks at itself alone."""
    from transformers.models.bert.modeling_bert import ALL_ATTENTION_FUNCTIONS

    def wrong(module: Any, query: Any, key: Any, value: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return value.transpose(1, 2).contiguous(), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", wrong)
    with pytest.raises(InputError, match="kernel: sdpa attention; eager agrees"):
        check_base(TrialConfig(base=str(tiny_base("bert")), precision="fp32"), None, "cpu")


def test_prompts_that_are_lost_are_named(tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parity.build_model

    def wrong(*args: Any, **kwargs: Any) -> SentenceTransformer:
        model = whole(*args, **kwargs)
        model.prompts = {"query": "", "document": ""}
        return model

    monkeypatch.setattr(parity, "build_model", wrong)
    with pytest.raises(InputError, match=r"prompts .* expected"):
        check_base(TrialConfig(base=str(tiny_base("bert")), precision="fp32"), None, "cpu")


def changed(tiny_base: TinyBase, folder: Path, change: Any) -> TrialConfig:
    base = shutil.copytree(tiny_base("bert"), folder / "base")
    weights = load_file(base / "model.safetensors")
    change(weights)
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    return TrialConfig(base=str(base), precision="fp32")


KEY = "encoder.layer.1.attention.self.key.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.pop(KEY), f"lack {KEY}"),
        (lambda weights: weights.update({"encoder.layer.1.experts.w": torch.ones(2)}), "hold beyond the encoder"),
        (lambda weights: weights.update({KEY: torch.ones(3, 3)}), f"hold in another shape {KEY}"),
    ],
    ids=["missing", "unexpected", "mismatched"],
)
def test_weights_that_do_not_fit_are_named(tiny_base: TinyBase, tmp_path: Path, change: Any, told: str) -> None:
    config = changed(tiny_base, tmp_path, change)
    with pytest.raises(InputError, match=told) as error:
        check_base(config, None, "cpu")
    assert "\n" not in str(error.value)


def test_a_pooler_may_be_absent_and_a_head_left_over(tiny_base: TinyBase, tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if name.startswith("pooler.")]:
            del weights[name]
        weights["cls.predictions.bias"] = torch.ones(4)
        weights["embeddings.position_ids"] = torch.arange(512)[None]

    config = changed(tiny_base, tmp_path, change)
    check_weights(config.base, Path(config.base))
    assert check_base(config, None, "cpu") > 0.99999


def test_one_check_serves_every_trial_that_reads_a_base_alike(tiny_base: TinyBase) -> None:
    config = TrialConfig(base=str(tiny_base("bert")), precision="fp32")
    same = config.model_copy(update={"lr": 1e-3, "r": 2, "seed": 7, "batch_size": 8})
    assert parity_key(config, "cpu") == parity_key(same, "cpu")
    others = [{"precision": "bf16"}, {"attention": "eager"}, {"pooling": "cls"}, {"query_prompt": "q "}]
    keys = {parity_key(config.model_copy(update=other), "cpu") for other in [{}, *others]}
    assert len(keys) == 5
