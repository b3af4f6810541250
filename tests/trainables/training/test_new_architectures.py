"""Each architecture end to end: last tokens, kept tokens, clustered and mined batches, merge, export, reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from tests.conftest import TEXTS
from tests.kit.toy import trial_data
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.export.export import save_model
from trainables.export.merge import trained_model
from trainables.export.mix import Mix, mixed_model
from trainables.model.build import build_model
from trainables.model.kept_tokens import KeepingTransformer
from trainables.model.stand_ins import make_stand_in
from trainables.train import train

QWEN = "Qwen/Qwen3-Embedding-0.6B"
# Of each architecture one: causal with the last token, bidirectional with Dense modules, encoders.
BASES = {
    "qwen3": QWEN,
    "gemma3_text": "microsoft/harrier-oss-v1-270m",
    "embeddinggemma": "google/embeddinggemma-300m",
    "modernbert": "ibm-granite/granite-embedding-311m-multilingual-r2",
    "gte": "alibaba-nlp-community/gte-multilingual-base",
    "eurobert": "EuroBERT/EuroBERT-210m",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    return trial_data(tmp_path_factory.mktemp("data"), concepts=30)


def stand_in(base: str, folder: Path) -> str:
    return str(make_stand_in(TrialConfig(base=base), TEXTS, folder, layers=2))


def embed(model: SentenceTransformer) -> np.ndarray:
    texts = list(TEXTS)
    return np.concatenate([model.encode_query(texts), model.encode_document(texts, batch_size=3)])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("qwen3", {"targets": "attention+ffn", "batches": "clustered", "task": "Trouver la règle."}),
        ("gemma3_text", {"targets": "all-linear", "batches": "mined", "dora": True}),
        ("embeddinggemma", {"method": "full", "lr": 1e-3}),
        ("modernbert", {"targets": "qv+ffn", "gradient_checkpointing": True}),
        ("gte", {"targets": "qv", "micro_batch_tokens": 64}),
        ("eurobert", {"targets": "ffn", "last_n": 1}),
    ],
)
def test_a_trial_is_trained_merged_exported_and_reloaded(
    name: str, fields: dict[str, Any], data: TrialData, tmp_path: Path
) -> None:
    given = {
        "base": stand_in(BASES[name], tmp_path),
        "max_length": 24,
        "r": 4,
        "lr": 1e-2,
        "batch_size": 16,
        "epochs": 0.4,
    }
    config = TrialConfig.model_validate({**given, "rungs": 1, "precision": "fp32", **fields})
    best = train(config, data, lambda rung: None, folder=tmp_path / "trial", cache=tmp_path / "cache", device="cpu")
    unmerged = trained_model(config, Path(best.folder), "cpu")
    assert not np.allclose(embed(unmerged), embed(build_model(config.model_copy(update={"method": "none"}), "cpu")))
    save_model(mixed_model(Mix.of(config, Path(best.folder)), "cpu"), tmp_path / "best")
    exported = SentenceTransformer(str(tmp_path / "best"), device="cpu")
    assert exported.prompts["query"] == unmerged.prompts["query"]
    if "task" in fields:
        assert exported.prompts["query"] == f"Instruct: {fields['task']}\nQuery:"
    np.testing.assert_allclose(embed(exported), embed(unmerged), atol=1e-5)
    if name == "embeddinggemma":
        models: tuple[Any, ...] = build_model(config, "cpu"), exported
        before, after = (m[2].linear.weight.detach() for m in models)
        assert not np.allclose(before, after), "its Dense modules were trained, and exported"


@pytest.mark.parametrize("base", [QWEN, "microsoft/harrier-oss-v1-270m"])
def test_the_last_token_gives_one_embedding_whatever_the_side_of_the_padding(base: str, tmp_path: Path) -> None:
    model = build_model(TrialConfig(base=stand_in(base, tmp_path), precision="fp32"), "cpu")
    assert model.tokenizer.padding_side == "left"
    left = embed(model)
    model.tokenizer.padding_side = "right"
    np.testing.assert_allclose(embed(model), left, atol=1e-5)
    alone = np.concatenate([encode([text]) for encode in (model.encode_query, model.encode_document) for text in TEXTS])
    np.testing.assert_allclose(alone, left, atol=1e-5)


def test_tokens_that_are_padded_on_the_left_are_kept_too(tmp_path: Path) -> None:
    module: Any = build_model(TrialConfig(base=stand_in(QWEN, tmp_path), max_length=16), "cpu", for_training=True)[0]
    assert isinstance(module, KeepingTransformer)
    for batch in (TEXTS[:3], TEXTS[2:7], ["", "Le SG"], [TEXTS[0], TEXTS[0]]):
        for prompt in (None, "query: "):
            got = module.preprocess(list(batch), prompt=prompt)
            expected = Transformer.preprocess(module, list(batch), prompt=prompt)
            assert got.keys() == expected.keys()
            assert all((got[name] == expected[name]).all() for name in ("input_ids", "attention_mask"))
    assert sum(len(kept.rows) for kept in module.tokens.kept.values()) >= 2 * 8
