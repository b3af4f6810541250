"""The known bases against transformers' real modules, without network and without weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMaskedLM

from evaluation.errors import InputError
from tests.conftest import TEXTS, TinyBase
from trainables.bases import figures, hub
from trainables.bases.architectures import LAYOUTS
from trainables.bases.families import resolve_base, with_task
from trainables.bases.known import DEFAULT_TASK, FAMILIES, Family
from trainables.bases.own_files import OwnFiles
from trainables.config import TrialConfig
from trainables.model.adapters import modules_by_role, resolve_targets
from trainables.model.build import build_model
from trainables.model.precision import Device, precision_note, resolve_precision
from trainables.model.stand_ins import make_stand_in
from trainables.model.weights import check_weights
from trainables.plan.longest import LongestTexts
from trainables.plan.memory import RUNTIME, estimate_memory
from trainables.plan.parameters import count_parameters, meta_model
from trainables.plan.rows import plan_notes, plan_rows

TASK = "Trouver la règle."
QWEN = "Qwen/Qwen3-Embedding-0.6B"
GEMMA = "google/embeddinggemma-300m"
GRANITE = "ibm-granite/granite-embedding-311m-multilingual-r2"
T4 = Device("cuda", bf16=False, capability=(7, 5))


def offline(base: str, **fields: Any) -> Any:
    """What is known of a base when none of its files is looked at."""
    return resolve_base(TrialConfig.model_validate({"base": base, **fields}), OwnFiles.unread())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_projection_of_a_layer_has_a_role_and_the_count_is_the_published_one(family: Family) -> None:
    base = offline(family.base)
    model = meta_model(base)
    roles = modules_by_role(model)
    assert None not in roles
    assert set(roles) == set(LAYOUTS[base.model_type].roles)
    everything = resolve_targets(model, "all-linear")
    assert resolve_targets(model, "attention+ffn") == everything
    assert len(everything) == sum(map(len, roles.values())) * model.config.num_hidden_layers
    if family.published is not None:
        total = count_parameters(TrialConfig(base=family.base, method="none"), base).total
        assert total == pytest.approx(family.published, rel=1e-3)


def test_the_published_count_of_moderncamembert_is_that_with_the_head_of_its_pre_training() -> None:
    config = AutoConfig.for_model(**figures.MODERNCAMEMBERT_BASE)
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(136_000_000, rel=1e-3)


LLAMA = {letter: f"layers.0.self_attn.{letter}_proj" for letter in "qkvo"}


@pytest.mark.parametrize(
    ("base", "o", "ffn"),
    [
        (GRANITE, "layers.0.attn.Wo", ["layers.0.mlp.Wi", "layers.0.mlp.Wo"]),
        (QWEN, LLAMA["o"], [f"layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")]),
        (GEMMA, LLAMA["o"], [f"layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")]),
    ],
)
def test_targets_by_meaning(base: str, o: str, ffn: list[str]) -> None:
    model = meta_model(offline(base))
    first = [name for name in resolve_targets(model, "o") if ".0." in name]
    assert first == [o]
    assert [name for name in resolve_targets(model, "ffn") if ".0." in name] == ffn


def test_any_of_q_k_and_v_is_the_fused_projection_and_the_plan_says_so() -> None:
    model = meta_model(offline(GRANITE))
    fused = [f"layers.{layer}.attn.Wqkv" for layer in range(22)]
    assert all(resolve_targets(model, targets) == fused for targets in ("q", "k", "v", "qv", "qkv"))
    assert resolve_targets(model, "qv", last_n=1) == fused[-1:]
    rows = plan_rows([TrialConfig(base=GRANITE, targets=targets) for targets in ("qv", "o", "all-linear")])
    (note,) = [note for note in plan_notes(rows) if "one projection" in note]
    assert note == "modernbert computes query, key and value in one projection: qv is all of attn.Wqkv"


def test_the_task_goes_into_the_model_s_own_instruct_prompt(tmp_path: Path) -> None:
    for base, prompt in ((QWEN, f"Instruct: {TASK}\nQuery:"), (GEMMA, f"task: {TASK} | query: ")):
        path = make_stand_in(TrialConfig(base=base), TEXTS, tmp_path, layers=1)
        assert DEFAULT_TASK in resolve_base(TrialConfig(base=str(path))).query_prompt or base == GEMMA
        resolved = resolve_base(TrialConfig(base=str(path), task=TASK))
        assert resolved.query_prompt == prompt == offline(base, task=TASK).query_prompt
        assert resolved.sources["query_prompt"] == "the model's own files, with the spec's task"
        assert resolved.notes == resolved.conflicts == ()
    assert with_task("query: ", TASK) is None


def test_a_task_that_a_prompt_has_no_place_for_is_said(tiny_base: TinyBase) -> None:
    (note,) = resolve_base(TrialConfig(base=str(tiny_base("bert")), task=TASK)).notes
    assert "task is not used, the query prompt 'query: ' has no place for it" in note
    assert not resolve_base(TrialConfig(base=str(tiny_base("bert")), task=TASK, query_prompt="cherche : ")).notes


def test_a_prompt_of_the_model_is_taken_by_its_name(tiny_base: TinyBase, tmp_path: Path) -> None:
    path = tmp_path / "named"
    path.mkdir()
    for file in tiny_base("bert").iterdir():
        (path / file.name).symlink_to(file)
    (path / "config_sentence_transformers.json").unlink()
    prompts = {"web_search_query": "Instruct: web\nQuery: ", "sts_query": "Instruct: sts\nQuery: "}
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    (note,) = resolve_base(TrialConfig(base=str(path))).notes
    assert "no prompt is called query; query_prompt can name one of web_search_query, sts_query" in note
    named = TrialConfig(base=str(path), query_prompt="sts_query")
    assert resolve_base(named).query_prompt == prompts["sts_query"]
    assert not resolve_base(named).conflicts
    assert resolve_base(named.model_copy(update={"task": TASK})).query_prompt == f"Instruct: {TASK}\nQuery: "
    harrier = "microsoft/harrier-oss-v1-270m"  # its files call the prompt of a query otherwise than the library does
    known = offline(harrier).query_prompt
    assert (
        known == f"Instruct: {DEFAULT_TASK}\nQuery: " == offline(harrier, query_prompt="web_search_query").query_prompt
    )


@pytest.mark.parametrize("base", [GEMMA, "microsoft/harrier-oss-v1-270m"])
def test_gemma_is_never_computed_in_fp16(base: str) -> None:
    config = TrialConfig(base=base)
    assert resolve_precision(config, T4).name == "fp32"
    assert "overflows in fp16" in (precision_note(config, T4) or "")
    assert resolve_precision(TrialConfig(base=QWEN), T4).name == "fp16"
    assert precision_note(TrialConfig(base=QWEN), T4) is None
    with pytest.raises(InputError, match=r"overflows in fp16.*expected auto, bf16 or fp32"):
        resolve_precision(config.model_copy(update={"precision": "fp16"}), T4)


@pytest.mark.parametrize(("base", "dense"), [(QWEN, 0), (GEMMA, 2), ("microsoft/harrier-oss-v1-270m", 0)])
def test_stand_ins_keep_the_shape_of_heads_padding_and_dense_modules(base: str, dense: int, tmp_path: Path) -> None:
    known = offline(base)
    path = make_stand_in(TrialConfig(base=base), TEXTS, tmp_path, layers=2)
    mine = resolve_base(TrialConfig(base=str(path)))
    small, real = mine.figures, known.figures
    wide = [f["head_dim"] * f["num_attention_heads"] // f["hidden_size"] for f in (small, real)]
    assert wide[0] == wide[1]
    grouped = [f["num_key_value_heads"] < f["num_attention_heads"] for f in (small, real)]
    assert grouped[0] == grouped[1]
    assert (mine.padding, len(mine.dense)) == (known.padding, dense)
    model = build_model(TrialConfig(base=str(path), precision="fp32"), "cpu")
    assert model.tokenizer.padding_side == known.padding
    assert model.transformers_model.config.num_hidden_layers == 2  # type: ignore[union-attr]


def test_dense_modules_are_trained_with_every_weight_and_counted(tmp_path: Path) -> None:
    path = make_stand_in(TrialConfig(base=GEMMA), TEXTS, tmp_path, layers=2)
    for method, last_n in (("full", None), ("full", 1), ("lora", None), ("none", None)):
        config = TrialConfig.model_validate({"base": str(path), "method": method, "last_n": last_n, "r": 2})
        model = build_model(config, "cpu")
        dense = [name for name, p in model.named_parameters() if re.match(r"[23]\.linear", name) and p.requires_grad]
        assert len(dense) == (2 if method == "full" else 0)
        counts = count_parameters(config)
        assert counts.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert counts.total == sum(p.numel() for p in model.parameters())
    (row,) = plan_rows([TrialConfig(base=str(path))])
    assert any("2 Dense modules after the pooling, frozen with method lora" in note for note in row.notes)


def test_memory_is_that_of_the_longest_text_and_not_of_what_the_base_can_read(tmp_path: Path) -> None:
    path = make_stand_in(TrialConfig(base=GRANITE), TEXTS, tmp_path, layers=2)
    config = TrialConfig(base=str(path))
    texts = LongestTexts.of((anchor, (passage, anchor)) for anchor, passage in zip(TEXTS, reversed(TEXTS), strict=True))
    longest = texts.tokens(config)
    tokenizer = build_model(config, "cpu").tokenizer
    assert longest == max(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    assert LongestTexts.of([]).tokens(config) is None

    def held(**changes: Any) -> int:
        return estimate_memory(config.model_copy(update=changes), "cuda", "bf16", "sdpa", longest=longest).activations

    assert (
        held() == estimate_memory(config.model_copy(update={"max_length": longest}), "cuda", "bf16", "sdpa").activations
    )
    assert held(max_length=8) < held()
    (known,) = plan_rows([config], device="cuda", texts=texts)
    (unknown,) = plan_rows([config], device="cuda")
    assert known.memory is not None
    assert unknown.memory is not None
    runtime = int(RUNTIME["cuda"])
    assert known.memory - runtime < (unknown.memory - runtime) / 100
    assert (known.longest, unknown.longest, known.max_length) == (longest, None, 32768)


def test_without_a_tokenizer_no_text_has_more_tokens_than_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = make_stand_in(TrialConfig(base=QWEN), TEXTS, tmp_path, layers=1)
    config = TrialConfig(base=str(path), query_prompt="é ")
    texts = LongestTexts.of([("Où ?", ("Là.",))])
    counted = texts.tokens(config)
    monkeypatch.setattr(hub, "find_file", lambda *_: None)
    assert counted is not None
    assert counted <= (texts.tokens(config) or 0) == len("é Où ?".encode()) + 8


def write(folder: Path, config: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "brand-new"}, "architecture 'brand-new' is not one of transformers .* such as bert"),
        (
            {"model_type": "new", "auto_map": {"AutoModel": "x.Y"}},
            r"runs code of its own \(new\); expected trust_remote_code: true",
        ),
        ({"model_type": "nomic_bert", "num_experts": 8}, "mixture of 8 experts, and transformers' nomic_bert has none"),
        ({"model_type": "xlm-roberta", "lora_adaptations": ["a"]}, "brings adapters of its own"),
    ],
)
def test_what_cannot_be_adapted_is_one_line_that_says_what_to_do(
    tmp_path: Path, config: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told) as error:
        resolve_base(TrialConfig(base=write(tmp_path / "base", config)))
    assert "\n" not in str(error.value)
    assert "expected" in str(error.value)


def test_a_remote_gte_names_its_native_twin(tmp_path: Path) -> None:
    path = write(tmp_path / "gte-multilingual-base", {"model_type": "new", "auto_map": {"AutoModel": "x.Y"}})
    with pytest.raises(InputError, match="or alibaba-nlp-community/gte-multilingual-base, the same model without"):
        resolve_base(TrialConfig(base=path))
    (note,) = offline("Alibaba-NLP/gte-multilingual-base").notes
    assert "alibaba-nlp-community/gte-multilingual-base is the same model without" in note
    assert offline("alibaba-nlp-community/gte-multilingual-base").notes == ()


@pytest.mark.parametrize(
    ("name", "told"),
    [("jina-embeddings-v5-text-small", "adapters of its own"), ("nomic-embed-text-v2-moe", "mixture of experts")],
)
def test_bases_that_are_left_out_say_why(name: str, told: str) -> None:
    with pytest.raises(InputError, match=f"{told}.*expected another base"):
        resolve_base(TrialConfig(base=f"someone/{name}"))


def test_a_folder_that_holds_an_adapter_is_no_base(tiny_base: TinyBase, tmp_path: Path) -> None:
    path = Path(write(tmp_path / "tuned", {"model_type": "bert"}))
    (path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "intfloat/multilingual-e5-small"}))
    with pytest.raises(
        InputError, match="holds an adapter of intfloat/multilingual-e5-small, expected a model: merge it"
    ):
        resolve_base(TrialConfig(base=str(path)))


def test_half_of_the_weights_is_not_a_base(tiny_base: TinyBase, tmp_path: Path) -> None:
    path = tmp_path / "half"
    path.mkdir()
    for file in tiny_base("bert").iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            (path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tiny_base("bert") / "model.safetensors")
    names = list(weights)
    (path / "model-00001-of-00002.safetensors").touch()
    save_file({name: weights[name] for name in names[::2]}, path / "model-00001-of-00002.safetensors", {"format": "pt"})
    index = {
        "weight_map": {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    }
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"lacks 1 of its 2 weight files \(model-00002-of-00002\.safetensors\)"):
        hub.fetch(str(path))
    (path / "model.safetensors.index.json").unlink()
    (path / "model-00001-of-00002.safetensors").rename(path / "model.safetensors")
    with pytest.raises(InputError, match=r"its files lack .* of BertModel; expected the weights of its architecture"):
        build_model(TrialConfig(base=str(path)), "cpu")


def test_experts_in_a_checkpoint_with_a_prefix_are_seen(tmp_path: Path) -> None:
    """A decoder's file names its weights `model.layers...`, and holds a head that is not needed."""
    path = make_stand_in(TrialConfig(base=QWEN), TEXTS, tmp_path, layers=1)
    weights = {f"model.{name}": weight for name, weight in load_file(path / "model.safetensors").items()}
    weights["lm_head.weight"] = torch.ones(4, 16)
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    check_weights("it", path)
    for name, told in (
        ("layers.0.mlp.experts.0.w", "hold beyond the encoder"),
        ("layers.0.lora_A.w", "holds adapters"),
    ):
        save_file({**weights, f"model.{name}": torch.ones(2)}, path / "model.safetensors", {"format": "pt"})
        with pytest.raises(InputError, match=told):
            check_weights("it", path)
