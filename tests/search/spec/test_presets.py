"""Every preset that ships loads and plans, with no network."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from rich.console import Console

import search
from search.spec.load import load_spec
from search.spec.plan import plan
from search.spec.smoke import smoke_spec
from trainables.plan.rows import plan_rows

PRESETS = sorted((Path(search.__file__).parent / "presets").glob("*.yaml"))
BERCY = [(1_572_864, 561_463_296), (786_432, 560_676_864), (2_359_296, 562_249_728), (1_179_648, 561_070_080)]


def _planned(name: str, capsys: pytest.CaptureFixture[str]) -> dict:
    path = next(path for path in PRESETS if path.stem == name)
    plan(path, base=None, as_json=True, console=Console())
    document: dict = json.loads(capsys.readouterr().out)
    return document


def test_the_experiments_of_the_source_documents_are_there() -> None:
    expected = {"demo", "bercy_e5", "bercy_solon", "bge_m3_legalkit", "frenchnews_e5_small", "four_bases", "bases_2026"}
    expected |= {"nli_camembert", "intent"}
    assert expected <= {path.stem for path in PRESETS}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_loads_and_plans(path: Path) -> None:
    spec = load_spec(path)
    space = spec.parsed_space
    rows = plan_rows(space.configs(), 1000, "cpu" if spec.resources.gpus == 0 else "cuda", 24 * 2**30)
    assert rows
    assert all(row.total and row.trainable is not None and row.total >= row.trainable >= 0 for row in rows)
    assert all(row.fits for row in rows), "a preset's trials fit a GPU of 24 GB"
    for start in spec.start:
        (row,) = plan_rows([space.at(start)], 1000)
        assert row.trainable or row.method == "none"


def test_the_bercy_preset_starts_with_the_grid_of_eight(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts and settings of the eight hand-run configurations, in the order in which they were run."""
    starts = _planned("bercy_e5", capsys)["start"]
    assert [(start["trainable"], start["total"]) for start in starts] == BERCY * 2
    assert [start["batches"] for start in starts] == ["in_batch"] * 4 + ["sorted"] * 4
    assert {(start["lr"], start["batch_size"], start["dropout"]) for start in starts} == {(5e-5, 32, 0.05)}


def test_the_bercy_prompts_are_those_of_the_notebook() -> None:
    spec = load_spec(next(path for path in PRESETS if path.stem == "bercy_e5"))
    config = spec.parsed_space.at(spec.start[0])
    from trainables.bases.families import resolve_base

    base = resolve_base(config)
    assert base.query_prompt == (
        "Instruct: Retrieve the definition or context of an administrative acronym or term.\nQuery: "
    )
    assert base.passage_prompt == ""
    assert (config.r, config.alpha, config.max_length, config.warmup, config.epochs) == (16, 32, 512, 0.1, 1)


def test_the_news_preset_compares_baseline_full_and_lora(capsys: pytest.CaptureFixture[str]) -> None:
    planned = _planned("frenchnews_e5_small", capsys)
    assert [start["method"] for start in planned["start"]] == ["none", "full", "lora"]
    assert {row["method"] for row in planned["configurations"]} == {"none", "full", "lora"}


FOUR = {
    "intfloat/multilingual-e5-base": "multilingual-e5-base",
    "OrdalieTech/Solon-embeddings-base-0.1": "solon-base",
    "BAAI/bge-m3": "bge-m3",
    "almanach/camemberta-base": "camemberta",
}


def test_four_bases_are_e5_solon_bge_m3_and_camemberta_each_with_its_own_lr_and_epochs() -> None:
    from trainables.bases.known import find_family

    spec = load_spec(next(path for path in PRESETS if path.stem == "four_bases"))
    space = spec.parsed_space
    assert {base: getattr(find_family(base), "name", None) for base in spec.space["base"]} == FOUR
    assert [start["base"] for start in spec.start] == list(FOUR)  # each is tried
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    configs = [space.sample(study.ask()) for _ in range(200)]
    lrs = {base: [c.lr for c in configs if c.base == base] for base in FOUR}
    highest = {base: max(found) for base, found in lrs.items()}
    assert highest["BAAI/bge-m3"] < 1e-3 < highest["intfloat/multilingual-e5-base"] < 2e-3
    assert highest["almanach/camemberta-base"] > 2e-3 > 2e-4 > min(lrs["BAAI/bge-m3"])
    epochs = {base: {c.epochs for c in configs if c.base == base} for base in FOUR}
    assert epochs == {base: {2.0, 4.0} if "camemberta" in base else {1.0, 2.0} for base in FOUR}


def test_a_smoke_search_of_four_bases_tries_a_stand_in_of_each(tmp_path: Path) -> None:
    spec = load_spec(next(path for path in PRESETS if path.stem == "four_bases"))
    small = smoke_spec(spec, tmp_path)
    space = small.parsed_space
    tried = [space.at(start) for start in small.start][: small.budget.trials]
    names = {base: base.rsplit("/", 1)[1] for base in FOUR}
    assert [Path(config.base).name for config in tried[:4]] == list(names.values())
    model_types = [json.loads((Path(c.base) / "config.json").read_text())["model_type"] for c in tried[:4]]
    assert model_types == ["xlm-roberta", "xlm-roberta", "xlm-roberta", "deberta-v2"]
    searched = {dimension.name: dimension for dimension in space.searched if dimension.name == "lr" and dimension.own}
    assert searched, "lr depends on the stand-in as it does on the base"
    assert all(2e-4 <= config.lr <= 5e-3 for config in tried if "camemberta" in config.base)


# Parameters as the hub or the authors publish them; of Solon-base those of the encoder it was made from, of
# moderncamembert 136 million less the head of its pre-training (tests/trainables/bases/test_known_bases.py).
SEVEN = {
    "intfloat/multilingual-e5-base": 278_000_000,
    "OrdalieTech/Solon-embeddings-base-0.1": 278_000_000,
    "BAAI/bge-m3": 568_000_000,
    "ibm-granite/granite-embedding-311m-multilingual-r2": 311_664_384,
    "Qwen/Qwen3-Embedding-0.6B": 595_776_512,
    "google/embeddinggemma-300m": 307_581_696,
    "almanach/moderncamembert-base": 136_000_000 - 623_360,
}


def test_the_bases_of_2026_plan_without_network_with_the_published_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.bases import hub

    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    planned = _planned("bases_2026", capsys)
    frozen = {row["base"]: row["total"] - row["trainable"] for row in planned["configurations"]}
    assert frozen == pytest.approx(SEVEN, rel=1e-3)
    assert all(row["memory"] and row["longest"] and row["max_length"] == 256 for row in planned["configurations"])
    assert [start["base"] for start in planned["start"]] == list(SEVEN)
    assert any("qv is all of attn.Wqkv" in note for note in planned["notes"])
    spec = load_spec(next(path for path in PRESETS if path.stem == "bases_2026"))
    assert spec.resources.gpus == 1
    space = spec.parsed_space
    tasks = {base: space.at({"base": base}).task for base in SEVEN}
    assert [base for base, task in tasks.items() if task] == ["Qwen/Qwen3-Embedding-0.6B"]
