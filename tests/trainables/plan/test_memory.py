"""Parameter counts against PEFT's and against the source documents; the memory estimate against what autograd saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModel

from evaluation.errors import InputError
from tests.conftest import ARCHITECTURES, TEXTS, TinyBase
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.config import TrialConfig
from trainables.model.adapters import lora_config
from trainables.model.build import build_model
from trainables.model.stand_ins import make_stand_in
from trainables.plan.memory import GIB, HEADROOM, estimate_memory, fit_to_memory
from trainables.plan.parameters import count_parameters
from trainables.plan.rows import optimizer_steps, plan_notes, plan_rows, plan_table

E5 = "intfloat/multilingual-e5-large-instruct"


@pytest.mark.parametrize(
    ("targets", "r", "trainable", "total"),
    [
        ("qk", 16, 1_572_864, 561_463_296),
        ("qk", 8, 786_432, 560_676_864),
        ("qkv", 16, 2_359_296, 562_249_728),
        ("qkv", 8, 1_179_648, 561_070_080),
    ],
)
def test_counts_of_the_bercy_grid(targets: str, r: int, trainable: int, total: int) -> None:
    """The runs of the source document, with no weights and no network."""
    counts = count_parameters(TrialConfig(base=E5, targets=targets, r=r))
    assert (counts.trainable, counts.total) == (trainable, total)


@pytest.mark.parametrize(
    ("base", "head", "trainable", "total", "share"),
    [
        # RobertaClassificationHead: dense and out_proj; DeBERTa: one classifier over a pooler that is not trained.
        ("almanach/camembert-base", 768 * 768 + 768 + 3 * 768 + 3, 887_811, 111_512_070, "0.7962%"),
        ("almanach/camemberta-base", 3 * 768 + 3, 297_219, 112_694_790, "0.2637%"),
    ],
)
def test_counts_implied_by_the_nli_runs(base: str, head: int, trainable: int, total: int, share: str) -> None:
    """Their counts are those of the encoder's adapter, and a head that PEFT holds twice (the original and its copy)."""
    config = TrialConfig(base=base, targets="qv", r=8)
    counts = count_parameters(config)
    assert counts.trainable == 2 * 12 * 8 * (768 + 768) == trainable - head
    dense = 768 * 768 + 768
    encoder = counts.total - counts.trainable
    if base.endswith("camembert-base"):
        encoder -= dense  # the sentence encoder's pooler, which the classifier does not have
    else:
        encoder += dense  # the classifier's own pooler
    assert encoder + counts.trainable + 2 * head == total
    assert f"{trainable / total:.4%}" == share


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("targets", "last_n", "dora"), [("qv", None, False), ("all-linear", 1, True), ("o", 2, False)])
def test_counts_are_pefts(tiny_base: TinyBase, architecture: str, targets: str, last_n: int | None, dora: bool) -> None:
    config = TrialConfig(base=str(tiny_base(architecture)), targets=targets, last_n=last_n, dora=dora, r=3)
    model = AutoModel.from_pretrained(config.base)
    adapted = get_peft_model(model, lora_config(config, model))
    counts = count_parameters(config)
    assert (counts.trainable, counts.total) == adapted.get_nb_trainable_parameters()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", ["lora", "full", "none"])
def test_counts_are_those_of_the_built_model(tiny_base: TinyBase, architecture: str, method: str) -> None:
    config = TrialConfig.model_validate({"base": str(tiny_base(architecture)), "method": method, "last_n": 1, "r": 2})
    built = build_model(config, "cpu")
    counts = count_parameters(config)
    assert counts.trainable == sum(p.numel() for p in built.parameters() if p.requires_grad)
    assert counts.total == sum(p.numel() for p in built.parameters())


def _saved_bytes(config: TrialConfig, base: ResolvedBase, texts: int, length: int) -> int:
    """Bytes of the distinct tensors that autograd keeps for the backward pass, weights apart: the oracle."""
    model = AutoModel.from_config(AutoConfig.for_model(**base.figures), attn_implementation="eager")
    model.train()
    if config.method == "lora":
        get_peft_model(model, lora_config(config, model))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, tuple[int, torch.Tensor]] = {}  # the tensors too, so that no storage's address is used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    tokens = torch.randint(5, 100, (texts, length))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    return sum(size for size, _ in saved.values())


@pytest.mark.parametrize(
    "base",
    [
        "ibm-granite/granite-embedding-311m-multilingual-r2",
        "Qwen/Qwen3-Embedding-0.6B",
        "microsoft/harrier-oss-v1-270m",
        "alibaba-nlp-community/gte-multilingual-base",
        "EuroBERT/EuroBERT-210m",
    ],
)
def test_activations_of_gated_and_rotary_architectures_are_what_autograd_saves(base: str, tmp_path: Path) -> None:
    path = make_stand_in(TrialConfig(base=base), TEXTS, tmp_path, width=96, layers=4)
    for method, targets in (("lora", "q"), ("lora", "all-linear"), ("full", "q")):
        config = TrialConfig.model_validate(
            {"base": str(path), "method": method, "targets": targets, "batch_size": 4, "max_length": 48}
        )
        resolved = resolve_base(config)
        estimate = estimate_memory(config, "cpu", "fp32", "eager", resolved).activations
        assert estimate == pytest.approx(_saved_bytes(config, resolved, texts=8, length=48), rel=0.25)


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2"])
@pytest.mark.parametrize(("method", "targets"), [("lora", "q"), ("lora", "all-linear"), ("full", "q")])
def test_activations_are_what_autograd_saves(tiny_base: TinyBase, architecture: str, method: str, targets: str) -> None:
    """Within a quarter, for a shape that is not among those the formula was fitted to."""
    path = tiny_base(architecture, width=96, layers=4)
    config = TrialConfig.model_validate(
        {"base": str(path), "method": method, "targets": targets, "batch_size": 4, "max_length": 48}
    )
    base = resolve_base(config)
    estimate = estimate_memory(config, "cpu", "fp32", "eager", base).activations
    assert estimate == pytest.approx(_saved_bytes(config, base, texts=8, length=48), rel=0.25)


def test_estimate_grows_with_what_it_should() -> None:
    config = TrialConfig(base=E5, batch_size=8, max_length=128)

    def total(**changes: object) -> int:
        return estimate_memory(config.model_copy(update=changes), "cuda", "bf16", "sdpa").total

    lora = total()
    assert total(batch_size=16) > lora
    assert total(max_length=256) > lora
    assert total(targets="all-linear") > lora
    assert total(batches="mined") > lora
    assert total(last_n=4) < lora
    assert total(gradient_checkpointing=True) < lora
    assert total(micro_batch_tokens=256) < lora
    # Full fine-tuning: float32 masters, gradients and two moments of 560 million parameters are 8.3 GiB alone.
    assert total(method="full") - total(method="none") > 8 * GIB


def test_the_data_s_own_negatives_are_texts_of_a_pair_too() -> None:
    """As many as the training rows bring and the configuration takes: a third text beside anchor and positive."""

    def held(own: int | None, **fields: Any) -> int:
        config = TrialConfig.model_validate({"base": E5, "batch_size": 8, "max_length": 128, **fields})
        return estimate_memory(config, "cuda", "bf16", "sdpa", own_negatives=own).activations

    pair = held(0)
    assert held(1) == pytest.approx(1.5 * pair)
    assert held(5) == held(1)
    assert held(5, hard_negatives=3) == pytest.approx(2.5 * pair)
    assert held(2, hard_negatives=3) == pytest.approx(2 * pair)
    assert held(0, hard_negatives=3) == pair
    assert held(5, hard_negatives=3, loss="gist") == held(1)  # it has room for one
    assert held(0, hard_negatives=3, batches="mined") == pytest.approx(2.5 * pair)  # mined where the data has none


def test_a_batch_that_fits_without_negatives_is_cut_where_the_data_has_them() -> None:
    config = TrialConfig(base=E5, batch_size=16, max_length=512)
    room = int(estimate_memory(config, "cuda", "bf16", "sdpa", own_negatives=0).total / HEADROOM) + 1
    assert fit_to_memory(config, room, "cuda", "bf16", "sdpa", own_negatives=0) == config
    fitted = fit_to_memory(config, room, "cuda", "bf16", "sdpa", own_negatives=1)
    assert fitted.micro_batch_tokens
    (row,) = plan_rows([config], device="cuda", device_memory=room, own_negatives=1)
    assert row.fits is False
    assert row.advice == {"micro_batch_tokens": fitted.micro_batch_tokens}


def test_fit_to_memory_keeps_the_experiment() -> None:
    config = TrialConfig(base=E5, batch_size=64)
    assert fit_to_memory(config, 140 * GIB, "cuda", "bf16", "sdpa") == config
    fitted = fit_to_memory(config, 16 * GIB, "cuda", "bf16", "sdpa")
    assert fitted.micro_batch_tokens is not None
    assert fitted == config.model_copy(update={"micro_batch_tokens": fitted.micro_batch_tokens})
    assert estimate_memory(fitted, "cuda", "bf16", "sdpa").total <= 0.9 * 16 * GIB
    twice = fitted.model_copy(update={"micro_batch_tokens": 2 * fitted.micro_batch_tokens})
    assert estimate_memory(twice, "cuda", "bf16", "sdpa").total > 0.9 * 16 * GIB
    with pytest.raises(InputError, match=r"needs about .* GiB, the device has 1\.0 GiB"):
        fit_to_memory(config, GIB, "cuda", "bf16", "sdpa")


def test_fit_to_memory_checkpoints_when_one_text_is_too_long() -> None:
    config = TrialConfig(base="BAAI/bge-m3", batch_size=2, max_length=8192, targets="all-linear")
    fitted = fit_to_memory(config, 16 * GIB, "cuda", "bf16", "sdpa")
    assert fitted.gradient_checkpointing
    assert fitted.micro_batch_tokens in (8192, 16384)


def test_plan_of_the_grid_is_quick_and_complete() -> None:
    configs = [
        TrialConfig(base=E5, targets=targets, r=r, alpha=2 * r, batches=batches, max_length=512)
        for batches in ("in_batch", "clustered")
        for targets in ("qk", "qkv")
        for r in (16, 8)
    ]
    rows = plan_rows(configs, train_pairs=4032, device="cuda", device_memory=24 * GIB)
    assert [row.trainable for row in rows] == [1_572_864, 786_432, 2_359_296, 1_179_648] * 2
    assert {row.steps for row in rows} == {126}
    assert all(row.fits is False and row.advice["micro_batch_tokens"] for row in rows)
    assert plan_table(rows).row_count == 8
    assert any("no task in the spec" in note for note in plan_notes(rows))
    assert rows[0].as_dict()["share"] == pytest.approx(0.0028, abs=1e-4)


def test_steps_round_up_and_reach_each_rung() -> None:
    config = TrialConfig(base="x", batch_size=32, epochs=1.5, rungs=4)
    assert optimizer_steps(config, 100) == 6
    assert optimizer_steps(config, 10) == 4
    assert optimizer_steps(config.model_copy(update={"method": "none"}), 100) == 0
