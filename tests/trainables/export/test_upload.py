"""Cards and uploads, against a hub on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from evaluation.errors import InputError
from tests.kit.hub import serving
from trainables.config import TrialConfig
from trainables.export.card import CardFacts, Figure, model_card
from trainables.export.manifest import write_manifest
from trainables.export.mix import Member, Mix
from trainables.export.upload import push_to_hub

TOKEN = "hf_" + "secret" * 5
FIGURES = (
    Figure("test", "ndcg@10", 0.4251, 665, 0.3702, 0.04, 0.07),
    Figure("guard", "ndcg@10", 0.81, 300, 0.82, -0.015, -0.004),
    Figure("dev", "ndcg@10", 0.43, 200),
)
FACTS = CardFacts("acronymes, trial 3", "acronymes", FIGURES, {"train": 1200, "dev": 200}, "ab" * 32, ["A note."])
CONFIG = TrialConfig(base="intfloat/multilingual-e5-small", targets="qkv", r=8, dora=True)


def card() -> str:
    members = (Member(CONFIG, Path("a"), 0.75), Member(CONFIG.model_copy(update={"method": "full"}), Path("b"), 0.25))
    return model_card(Mix(members, 0.85), FACTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "1_Pooling").mkdir(parents=True)
    (made / "1_Pooling" / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 50)
    (made / "README.md").write_text(card())
    write_manifest(made)
    return made


def test_a_card_holds_its_results_where_the_hub_looks_for_them() -> None:
    read: Any = ModelCard(card())
    assert read.data.base_model == CONFIG.base
    assert read.data.library_name == "sentence-transformers"
    results = read.data.eval_results
    assert results is not None
    assert [(r.dataset_split, r.metric_type, r.metric_value) for r in results] == [
        (f.part, f.metric, f.value) for f in FIGURES
    ]
    for part in (
        "| test | 665 | ndcg@10 | 0.3702 | 0.4251 | +0.0549 (+0.0400 to +0.0700) |",
        "| dev | 200 | ndcg@10 |  | 0.4300 |  |",
        "'query: ' and 'passage: '",
        "0.75 of method lora",
        "0.85 of its length",
        "1,200 train, 200 dev rows",
        "A note.",
    ):
        assert part in read.text


def test_a_card_of_a_local_base_names_no_hub_model(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 512}')
    (base / "README.md").write_text("---\nlicense: etalab-2.0\n---\n# Base\n")
    config = TrialConfig(base=str(base))
    read: Any = ModelCard(model_card(Mix.of(config, tmp_path), CardFacts("m", "d")))
    assert read.data.base_model is None
    assert read.data.license == "etalab-2.0"
    assert read.data.eval_results is None


def test_an_upload_brings_every_file_to_a_private_repository(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        assert push_to_hub(folder, "owner/model").startswith(hub.address)
        expected = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert {name: content for name, content in hub.files.items() if name in expected} == expected
        assert hub.visibility == ["private"]
        assert hub.tokens == {f"Bearer {TOKEN}"}
    said = capfd.readouterr()
    assert TOKEN not in caplog.text + said.out + said.err


def test_a_refusal_is_one_line_without_the_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving("/commit/") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        with pytest.raises(InputError) as error:
            push_to_hub(folder, "owner/model")
    assert "403" in str(error.value)
    assert "\n" not in str(error.value)
    assert TOKEN not in str(error.value)


def test_nothing_is_sent_without_a_token_or_of_an_incomplete_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        with pytest.raises(InputError, match="environment variable HF_TOKEN"):
            push_to_hub(folder, "owner/model")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        with pytest.raises(InputError, match="no//name: Repo id"):
            push_to_hub(folder, "no//name")
        (folder / "manifest.json").unlink()
        with pytest.raises(InputError, match=r"no manifest\.json"):
            push_to_hub(folder, "owner/model")
        assert not hub.files
