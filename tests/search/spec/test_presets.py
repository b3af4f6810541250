"""Every preset that ships loads and plans, with no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

import search
from search.plan import plan
from search.spec.load import load_spec
from trainables.plan.rows import plan_rows

PRESETS = sorted((Path(search.__file__).parent / "presets").glob("*.yaml"))
BERCY = [(1_572_864, 561_463_296), (786_432, 560_676_864), (2_359_296, 562_249_728), (1_179_648, 561_070_080)]


def _planned(name: str, capsys: pytest.CaptureFixture[str]) -> dict:
    path = next(path for path in PRESETS if path.stem == name)
    plan(path, base=None, as_json=True, console=Console())
    document: dict = json.loads(capsys.readouterr().out)
    return document


def test_the_experiments_of_the_source_documents_are_there() -> None:
    expected = {"demo", "bercy_e5", "bercy_solon", "bge_m3_legalkit", "frenchnews_e5_small", "four_bases"}
    assert expected <= {path.stem for path in PRESETS}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_loads_and_plans(path: Path) -> None:
    spec = load_spec(path)
    space = spec.parsed_space()
    rows = plan_rows(space.configs(), 1000, "cuda" if spec.resources.gpus else "cpu", 24 * 2**30)
    assert rows
    assert all(row.total and row.trainable is not None and row.total > row.trainable >= 0 for row in rows)
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
    config = spec.parsed_space().at(spec.start[0])
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


def test_four_bases_are_four_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    from trainables.bases.families import find_family

    families = {start["base"]: find_family(start["base"]) for start in _planned("four_bases", capsys)["start"]}
    assert len({family.figures["model_type"] for family in families.values() if family}) == 4
