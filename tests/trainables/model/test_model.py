"""Models of a trial: trained, merged and reloaded for each architecture; the cached base is never written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from evaluation.errors import InputError
from tests.conftest import ARCHITECTURES, BASES, TEXTS, TinyBase
from trainables.config import TrialConfig
from trainables.export.merge import trained_model
from trainables.export.mix import Mix, mixed_model
from trainables.model import loaded
from trainables.model.build import build_model, own_weights, training_prompts
from trainables.model.loaded import forget_bases
from trainables.model.precision import resolve_attention, resolve_precision
from trainables.model.stand_ins import make_encoder, make_stand_in
from trainables.training.checkpoint import save_weights
from trainables.training.sanity import SanityGate

PAIRS = Dataset.from_dict({"anchor": [f"Que dit la règle {i} ?" for i in range(8)], "positive": list(TEXTS)})


def _config(base: Path, **fields: Any) -> TrialConfig:
    return TrialConfig.model_validate({"base": str(base), "r": 4, "lr": 1e-2, "precision": "fp32", **fields})


class _Trainer(SentenceTransformerTrainer):
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Left out, as in a trial: it embeds sample texts."""


def _train(config: TrialConfig, model: SentenceTransformer, folder: Path, steps: int = 3) -> None:
    """A few steps with the library's trainer, behind the sanity gate."""
    precision = resolve_precision(config, "cpu")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=config.lr,
        prompts=training_prompts(model, ["anchor", "positive"]),
        bf16=precision.bf16,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
    )
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=PAIRS,
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[SanityGate(config, model, TEXTS[0])],
    )
    trainer.train()


def _embed(model: SentenceTransformer) -> np.ndarray:
    return np.asarray(model.encode_query(list(TEXTS), show_progress_bar=False))


def _digest(model: SentenceTransformer) -> str:
    """Of the bytes of every weight of the cached bases' kind, adapters apart."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" not in name:
            digest.update(name.replace(".base_layer", "").encode())
            digest.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "fields",
    [
        {"targets": "qk"},
        {"targets": "qv", "last_n": 1},
        {"targets": "o", "rslora": True},
        {"targets": "ffn"},
        {"targets": "attention", "dora": True},
        {"targets": "all-linear"},
        {"method": "full", "lr": 1e-3},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_train_merge_reload(tiny_base: TinyBase, tmp_path: Path, architecture: str, fields: dict[str, Any]) -> None:
    """Training moves the embeddings, the merged and reloaded model has the same, and the base stays as it was."""
    config = _config(tiny_base(architecture), **fields)
    reference = _config(tiny_base(architecture), method="none")
    before, base_bytes = _embed(build_model(reference, "cpu")), _digest(build_model(reference, "cpu"))
    model = build_model(config, "cpu")
    if config.method == "lora":
        assert np.array_equal(_embed(model), before)  # B starts at zero
    _train(config, model, tmp_path / "trainer")
    save_weights(model, tmp_path / "checkpoint")
    trained = _embed(model)
    assert np.abs(trained - before).max() > 1e-3
    np.testing.assert_allclose(_embed(trained_model(config, tmp_path / "checkpoint", "cpu")), trained, atol=1e-6)

    merged = mixed_model(Mix.of(config, tmp_path / "checkpoint"), "cpu")
    assert not any("lora" in name for name, _ in merged.named_parameters())
    merged.save_pretrained(str(tmp_path / "merged"), create_model_card=False)
    reloaded = SentenceTransformer(str(tmp_path / "merged"), device="cpu")
    np.testing.assert_allclose(_embed(reloaded), trained, atol=1e-5)

    assert _digest(build_model(reference, "cpu")) == base_bytes
    assert np.array_equal(_embed(build_model(reference, "cpu")), before)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_warm_trial_equals_a_fresh_one(tiny_base: TinyBase, tmp_path: Path, method: str) -> None:
    """The same configuration gives the same scores in a fresh process state and after other trials on the same base."""
    config = _config(tiny_base("xlm-roberta"), method=method, dropout=0.1)

    def run() -> np.ndarray:
        model = build_model(config, "cpu")
        _train(config, model, tmp_path)
        return _embed(model)

    forget_bases()
    fresh = run()
    other = build_model(_config(tiny_base("xlm-roberta"), targets="all-linear", seed=7), "cpu")
    _train(config, other, tmp_path)
    with torch.no_grad():
        for parameter in own_weights(other).parameters():
            parameter.zero_()
    assert np.array_equal(run(), fresh)


def test_frozen_weights_are_shared_and_copies_are_not(tiny_base: TinyBase) -> None:
    path = tiny_base("bert")
    one, two = (build_model(_config(path, seed=seed), "cpu") for seed in (1, 2))
    full = build_model(_config(path, method="full"), "cpu")
    own = own_weights(build_model(_config(path), "cpu"))
    address = {
        name: model.get_submodule("0.model.embeddings.word_embeddings").weight.data_ptr()  # type: ignore[operator]
        for name, model in {"one": one, "two": two, "full": full, "own": own}.items()
    }
    assert address["one"] == address["two"]
    assert len({address["one"], address["full"], address["own"]}) == 3


def test_adapters_are_float32_on_a_16_bit_base_and_seeded(tiny_base: TinyBase) -> None:
    path = tiny_base("bert")

    def adapter(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(999)
        state = torch.random.get_rng_state()
        model = build_model(_config(path, seed=seed, precision="bf16"), "cpu")
        assert torch.equal(torch.random.get_rng_state(), state)  # others' random numbers are left alone
        assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
        return {name: p for name, p in model.named_parameters() if p.requires_grad}

    first, again, other = adapter(1), adapter(1), adapter(2)
    assert {parameter.dtype for parameter in first.values()} == {torch.float32}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_bf16_trial_trains_and_merges_in_float32(tiny_base: TinyBase, tmp_path: Path) -> None:
    config = _config(tiny_base("bert"), precision="bf16")
    model = build_model(config, "cpu")
    _train(config, model, tmp_path / "trainer")
    save_weights(model, tmp_path / "checkpoint")
    merged = mixed_model(Mix.of(config, tmp_path / "checkpoint"), "cpu")
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}
    unmerged = trained_model(config, tmp_path / "checkpoint", "cpu")
    assert (_embed(merged) * _embed(unmerged)).sum(axis=1).min() > 0.9999


def test_converted_copy_is_made_once_and_mapped(tiny_base: TinyBase, tmp_path: Path) -> None:
    """Workers that are given a cache folder map one converted copy of the base, so that they share its pages."""
    path, cache = tiny_base("camembert"), tmp_path / "cache"
    config = _config(path, precision="bf16")
    forget_bases()
    plain = _embed(build_model(config, "cpu"))
    forget_bases()
    model = build_model(config, "cpu", cache_folder=cache)
    (converted,) = cache.iterdir()
    assert converted.name.startswith("camembert-bfloat16-")
    written = (converted / "model.safetensors").stat().st_mtime_ns
    assert np.array_equal(_embed(model), plain)
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        address = model.transformers_model.embeddings.word_embeddings.weight.data_ptr()  # type: ignore[operator,union-attr]
        regions = [line.split() for line in mapped.read_text().splitlines() if str(converted) in line]
        spans = [[int(end, 16) for end in region[0].split("-")] for region in regions]
        assert any(start <= address < end for start, end in spans)
    forget_bases()
    assert np.array_equal(_embed(build_model(config, "cpu", cache_folder=cache)), plain)
    assert (converted / "model.safetensors").stat().st_mtime_ns == written
    assert list(cache.iterdir()) == [converted]


def test_a_process_keeps_few_bases(tiny_base: TinyBase) -> None:
    for architecture in ARCHITECTURES:
        build_model(_config(tiny_base(architecture)), "cpu")
    assert len(loaded._BASES) == loaded.KEPT_BASES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_encoder_gets_pooling_and_normalisation(tiny_base: TinyBase, architecture: str) -> None:
    path = tiny_base(architecture, packaged=False)
    mean = build_model(_config(path, method="none"), "cpu")
    assert [type(module).__name__ for module in mean] == ["Transformer", "Pooling", "Normalize"]
    np.testing.assert_allclose(np.linalg.norm(_embed(mean), axis=1), 1, atol=1e-6)
    cls = build_model(_config(path, method="none", pooling="cls"), "cpu")
    features = cls.preprocess(list(TEXTS))
    hidden = cls.transformers_model(input_ids=features["input_ids"], attention_mask=features["attention_mask"])  # type: ignore[misc]
    first = torch.nn.functional.normalize(hidden.last_hidden_state[:, 0], dim=1)
    np.testing.assert_allclose(_embed(cls), first.detach().numpy(), atol=1e-5)


def test_pooling_of_the_spec_replaces_that_of_the_files(tiny_base: TinyBase) -> None:
    path = tiny_base("bert")
    assert not np.allclose(
        _embed(build_model(_config(path), "cpu")), _embed(build_model(_config(path, pooling="cls"), "cpu"))
    )


def test_deberta_falls_back_to_eager_with_a_note(tiny_base: TinyBase) -> None:
    from trainables.bases.families import resolve_base

    for asked in ("auto", "sdpa", "flash_attention_2"):
        config = _config(tiny_base("deberta-v2"), attention=asked)
        attention, note = resolve_attention(config, resolve_base(config), "cpu")
        assert attention == "eager"
        assert note is not None
        assert "deberta-v2" in note
        assert build_model(config, "cpu").transformers_model.config._attn_implementation == "eager"  # type: ignore[union-attr]
    config = _config(tiny_base("bert"))
    assert resolve_attention(config, resolve_base(config), "cpu") == ("sdpa", None)


def test_an_architecture_that_has_no_sdpa_path_loads(tmp_path: Path) -> None:
    """MPNet, for one: the base of all-mpnet-base-v2, and none of the families that are known."""
    figures = {"model_type": "mpnet", "max_position_embeddings": 130, "num_hidden_layers": 1}
    make_encoder(figures, TEXTS, tmp_path / "mpnet")
    model = build_model(_config(tmp_path / "mpnet", targets="qv"), "cpu")
    assert model.transformers_model.config._attn_implementation == "eager"  # type: ignore[union-attr]


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        resolve_precision(TrialConfig(base="x", precision="fp16"), "cpu")


PROMPTED = {
    "intfloat/multilingual-e5-small": ("query: ", "passage: "),
    "intfloat/multilingual-e5-large-instruct": ("Instruct: Trouver la règle.\nQuery: ", ""),
    "OrdalieTech/Solon-embeddings-base-0.1": ("query : ", ""),
    "BAAI/bge-m3": ("", ""),
    "almanach/camembert-base": ("", ""),
    "almanach/camemberta-base": ("", ""),
    "almanach/camembertav2-base": ("", ""),
}


@pytest.mark.parametrize("base", PROMPTED)
def test_the_same_text_reaches_the_tokenizer_everywhere(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training, in dev evaluation and in the exported model's encode_query and encode_document."""
    task = {"task": "Trouver la règle."} if "instruct" in base else {}
    folder = make_stand_in(TrialConfig(base=base, **task), TEXTS, tmp_path, layers=2)
    config = _config(folder, max_length=64, **task)
    query, passage = PROMPTED[base]
    anchors, passages = list(PAIRS["anchor"]), list(PAIRS["positive"])
    queries, documents = {query + text for text in anchors}, {passage + text for text in passages}
    prompts = {query, passage}  # tokenized alone by the library, which measures them

    seen: list[str] = []
    model = build_model(config, "cpu")
    original = type(model.tokenizer).__call__

    def record(tokenizer: Any, text: list[str], *args: Any, **kwargs: Any) -> Any:
        seen.extend(text)
        return original(tokenizer, text, *args, **kwargs)

    monkeypatch.setattr(type(model.tokenizer), "__call__", record)

    def reached(encode: Any, texts: list[str]) -> set[str]:
        seen.clear()
        encode(texts)
        return set(seen) - prompts

    assert reached(model.encode_query, anchors) == queries
    assert reached(model.encode_document, passages) == documents

    seen.clear()
    _train(config.model_copy(update={"lr": 1e-3}), model, tmp_path / "trainer", steps=2)
    assert set(seen) - prompts - {query + TEXTS[0]} == queries | documents - {query + TEXTS[0]}  # the gate's probe

    save_weights(model, tmp_path / "checkpoint")
    merged = mixed_model(Mix.of(config, tmp_path / "checkpoint"), "cpu")
    merged.save_pretrained(str(tmp_path / "export"), create_model_card=False)
    exported = SentenceTransformer(str(tmp_path / "export"), device="cpu")
    assert exported.prompts == {"query": query, "document": passage}
    assert exported.max_seq_length == 64
    assert reached(exported.encode_query, anchors) == queries
    assert reached(exported.encode_document, passages) == documents


def test_known_bases_have_a_tiny_checkpoint() -> None:
    assert set(BASES) == set(ARCHITECTURES)
