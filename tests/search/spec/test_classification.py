"""A spec with task classification: its keys, its presets and its plan, with no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import search
from evaluation.errors import InputError
from search.spec.load import load_spec, spec_from
from search.spec.sections import ClassificationSpec
from search.spec.smoke import smoke_spec
from tests.conftest import TinyBase
from tests.kit.command import embtune_here
from tests.kit.labelled import labelled_rows, write_rows, write_spec
from trainables.config import ClassifierConfig, config_of

PRESETS = Path(search.__file__).parent / "presets"
SPACE: dict[str, Any] = {"base": "almanach/camembert-base", "lr": [1e-4, 2e-4]}
BASE: dict[str, Any] = {"task": "classification", "data": {"source": "rows.jsonl"}, "space": SPACE}


def test_a_classification_has_configurations_without_what_embeds_and_ranks() -> None:
    spec = spec_from({**BASE, "data": {"source": "rows.jsonl", "labels": ["a", "b"]}})
    assert isinstance(spec, ClassificationSpec)
    assert spec.metric == "macro_f1"
    config = next(spec.parsed_space.configs())
    assert isinstance(config, ClassifierConfig)
    assert config.labels == ("a", "b")
    told = config.model_dump(mode="json")
    assert not {"batches", "pooling", "temperature"} & told.keys()
    assert config_of(json.loads(json.dumps(told))) == config


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"task": "ranking"}, "spec: task: expected retrieval or classification, got 'ranking'"),
        ({"metric": "ndcg@10"}, "spec: metric: no such metric of a classification; expected macro_f1, micro_f1, "),
        ({"guard": {"tolerance": 0.1}}, "spec: guard: guard is for task retrieval alone; expected none"),
        ({"continue_from": "runs/a"}, "spec: continue_from: continue_from is for task retrieval alone; expected none"),
        (
            {"space": {**SPACE, "temperature": 0.1}},
            "space.temperature: a field of task retrieval alone; expected one of ",
        ),
        ({"space": {**SPACE, "method": "none"}}, "space.method: input should be 'lora' or 'full', got 'none'"),
        ({"space": {**SPACE, "labels": ["a", "b"]}}, "space.labels: they are the data's; expected them in data.labels"),
        ({"space": {**SPACE, "heads": "fair"}}, "space.heads: unknown field; did you mean 'head'?"),
        ({"data": {"source": "rows.jsonl", "columns": {"anchor": "a"}}}, "data.columns.anchor: unknown key"),
        ({"data": {"source": "rows.jsonl", "labels": ["a"]}}, "data.labels: 2 to 1,000 labels, each once"),
        ({"data": {"source": "rows.jsonl", "labels": ["a", "a"]}}, "data.labels: 2 to 1,000 labels, each once"),
    ],
)
def test_what_a_classification_does_not_have_is_refused_in_one_line(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as refused:
        spec_from({**BASE, **change})
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_retrieval_has_no_head() -> None:
    with pytest.raises(InputError, match=r"space\.head: a field of task classification alone"):
        spec_from({"data": {"source": "rows.jsonl"}, "space": {**SPACE, "head": "fair"}})


def test_the_camembert_preset_plans_the_published_counts(tmp_path: Path) -> None:
    done = embtune_here("plan", PRESETS / "nli_camembert.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    starts = json.loads(done.stdout)["start"]
    assert [(start["trainable"], start["total"]) for start in starts] == [
        (887_811, 111_512_070),
        (297_219, 112_694_790),
        (887_811, 112_692_483),
    ]
    spec = load_spec(PRESETS / "nli_camembert.yaml")
    for config in map(spec.parsed_space.at, spec.start[:2]):
        assert (config.r, config.alpha, config.dropout, config.targets, config.lr) == (8, 32, 0.1, "qv", 2e-4)
        assert (config.batch_size, config.weight_decay, config.max_length, config.epochs) == (32, 0.01, 128, 10)


def test_a_smoke_search_of_the_camembert_preset_has_stand_ins_of_both_architectures(tmp_path: Path) -> None:
    document = yaml.safe_load((PRESETS / "nli_camembert.yaml").read_text(encoding="utf-8"))
    rows = [
        {"premise": row["text"], "hypo": row["text_pair"], "label": label}
        for row in labelled_rows(12, pairs=True)
        for label in ("entailment", "neutral", "contradiction")
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    document["data"]["source"] = "rows.jsonl"
    (tmp_path / "nli.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    small = smoke_spec(load_spec(tmp_path / "nli.yaml"), tmp_path / "stand-ins")
    bases = {config.base for config in small.parsed_space.configs()}
    types = {json.loads((Path(base) / "config.json").read_text())["model_type"] for base in bases}
    assert types == {"camembert", "deberta-v2"}
    tried = [small.parsed_space.at(start) for start in small.start]
    assert {getattr(config, "head", "") for config in tried} == {"fair", "as_published"}


def test_the_intent_demo_has_fifteen_desks_of_a_hundred_requests(tmp_path: Path) -> None:
    done = embtune_here("data", "check", PRESETS / "intent.jsonl", PRESETS / "intent.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert len(report["labels"]) == 15
    assert all(sum(parts.values()) == 100 for parts in report["counts"].values())
    assert report["dropped"] == {}
    assert report["lengths"]["input"]["unit"] == "tokens"


def test_a_plan_reads_the_labels_off_the_data(tmp_path: Path, tiny_base: TinyBase) -> None:
    spec = write_spec(tmp_path, tiny_base("bert"))
    done = embtune_here("plan", spec, "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["data"]["labels"] == ["impots", "mairie", "sante"]
    assert all(row["trainable"] for row in document["configurations"])
    shown = embtune_here("plan", spec, cwd=tmp_path)
    assert "label (rows)" in shown.stdout


def test_wrong_labels_end_a_plan_with_one_line_and_exit_code_2(tmp_path: Path, tiny_base: TinyBase) -> None:
    spec = write_spec(tmp_path, tiny_base("bert"))
    write_rows(tmp_path / "rows.jsonl", [*labelled_rows(10), {"text": "seul", "label": "autre"}])
    done = embtune_here("plan", spec, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "embtune: data: labels that appear once: 'autre' (rows.jsonl:31); expected rows for training, dev and test of "
        "each\n"
    )
    checked = embtune_here("data", "check", tmp_path / "rows.jsonl", spec, cwd=tmp_path)
    assert checked.returncode == 1
