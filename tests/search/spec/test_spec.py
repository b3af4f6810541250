"""Reading a spec: what is right is resolved, what is wrong is one line that names the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from evaluation.errors import InputError
from search.spec.load import load_spec
from search.spec.smoke import smoke_spec
from search.staging import Staging
from tests.kit.toy import write_pairs

PRESETS = sorted((Path(__file__).parents[3] / "search" / "presets").glob("*.yaml"))
GOOD = """
data: {source: pairs.jsonl}
space:
  base: some/base
  r: [8, 16]
  lr: {low: 1e-5, high: 1e-3, log: true}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_written_out_and_read_back(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, GOOD))
    assert (spec.name, spec.metric, spec.sampler.name, spec.pruner.name) == ("spec", "ndcg@10", "tpe", "halving")
    assert spec.space["lr"]["low"] == 1e-5  # YAML 1.1 would read text here
    again = tmp_path / "runs" / "spec.json"
    again.parent.mkdir()
    again.write_text(json.dumps({**spec.model_dump(mode="json"), "folder": str(spec.folder), "record": {}}))
    assert load_spec(again) == spec
    assert load_spec(again).folder == tmp_path


def test_base_replaces_the_specs_base(tmp_path: Path) -> None:
    assert load_spec(write(tmp_path, GOOD), base="other/base").space["base"] == "other/base"


def test_a_search_continues_from_the_earlier_runs_best_or_from_a_base_not_both(tmp_path: Path) -> None:
    best = tmp_path / "runs" / "first" / "best"
    best.mkdir(parents=True)
    (best / "modules.json").write_text("[]")
    text = GOOD + "continue_from: runs/first\n"
    with pytest.raises(InputError, match=r"space\.base: 'some/base' beside continue_from"):
        load_spec(write(tmp_path, text))
    spec = load_spec(write(tmp_path, text.replace("  base: some/base\n", "")))
    assert spec.space["base"] == str(best)
    assert spec.earlier_data == tmp_path / "runs" / "first" / "data"
    with pytest.raises(InputError, match="is the run that continue_from names"):
        Staging(spec, tmp_path / "runs" / "first", resume=False)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_loads(preset: Path) -> None:
    assert load_spec(preset).parsed_space.dimensions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "budgets: {trials: 3}\n", "budgets: unknown key; did you mean 'budget'?"),
        (GOOD + "budget: {trails: 3}\n", "budget.trails: unknown key; did you mean 'trials'?"),
        (GOOD + "budget: {trials: many}\n", "budget.trials: input should be a valid integer"),
        (GOOD + "metric: accuracy\n", "metric: no such metric; expected recall"),
        (GOOD + "sampler: {name: best}\n", "sampler.name: input should be 'tpe'"),
        (GOOD + "resources: {gpus: 1.5}\n", "resources.gpus: a process takes one GPU or a fraction"),
        (GOOD + "resources: {workers: 2, gpus: 0.5}\n", "resources: gpus: 0.5 with 2 workers; expected 1"),
        (
            GOOD + "  batch_size: [16, 15]\nresources: {workers: 2}\n",
            "expected multiples of 2, the workers of a trial",
        ),
        (
            GOOD.replace("some/base", "[a, b]\n  trust_remote_code: true"),
            "space.trust_remote_code: true for several bases",
        ),
        (GOOD + "start: [{r: 12}]\n", "start[0].r: 12 is outside the space"),
        (GOOD + "sampler: {name: grid}\n", "space.lr: a range; sampler grid expected a list of values"),
        (GOOD + "name: a/b\n", "name: 'a/b' names a folder"),
        (GOOD + "minimize: trainable\n", "pruner.name: halving beside minimize"),
        (GOOD + "minimize: colour\n", "minimize: input should be 'trainable' or 'eval_s'"),
        (GOOD + "constraints: [r > lots]\n", "constraints[0]: 'r > lots': lots is no field"),
        (GOOD + "constraints: [r > 8]\nsampler: {name: gp}\n", "constraints: sampler gp cannot learn them"),
        (GOOD + "constraints: [r > 8]\nstart: [{r: 8}]\n", "r > 8 does not hold for r 8"),
        (GOOD + "  method: [lora, full]\nsampler: {name: gp}\n", "space.r: depends on method; sampler gp expected"),
        (GOOD + "start_from: {run: runs/none}\n", "start_from.run: "),
        (GOOD + "pruner: {name: patient, patience: 2}\n", "pruner.patience: 2 with 4 rungs forgives every rung"),
        (GOOD + "  batch_size: {low: 8, high: 64, step: 2.5}\n", "space.batch_size.step: batch_size is a whole number"),
        (GOOD + "  loss: gist\n  batches: mined\n  hard_negatives: 2\n", "loss gist takes 1 negative"),
        (GOOD.replace("base: some/base", "bose: some/base"), "space.base: missing"),
        (GOOD.replace("[8, 16]", "[]"), "space.r: an empty list"),
        ("data: {source: x.jsonl}\n", "space: missing"),
        (GOOD + "constraints: ['r * batch_size <= 1']\n", "constraints: no configuration of the space meets them"),
        ("data: {source: x.jsonl}\nspace: {base: x, r: 8}\n", "space: nothing to search"),
        (GOOD + "continue_from: runs/none\n", "continue_from: "),
        ("space: {base: x}\n", "data: missing"),
        ("data: {source: x.jsonl, sauce: y}\nspace: {base: x}\n", "data.sauce: unknown key; did you mean 'source'?"),
        ("data: [unclosed\n", "not YAML"),
        (GOOD + "space: {base: x}\n", "key 'space' stands twice"),
        ("- a list\n", "expected keys such as data and space, got list"),
        ("", "expected keys such as data and space"),
    ],
)
def test_a_wrong_spec_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_spec(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        load_spec(tmp_path / "none.yaml")


def test_no_preset_key_is_read_twice() -> None:
    for preset in PRESETS:
        assert set(yaml.safe_load(preset.read_text())) >= {"data", "space"}


def test_starting_points_come_from_an_earlier_runs_best(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "x"
    run.mkdir(parents=True)
    config = {"alpha": 32.0, "base": "some/base", "lr": 1e-4}
    rows = [
        {"rank": 1, "config": {**config, "r": 64}},  # outside the space
        {"rank": 2, "config": {**config, "r": 16}},
        {"rank": 3, "config": {**config, "r": 16, "alpha": 16.0}},  # alpha is not searched: the same point
        {"rank": 4, "config": {**config, "r": 8}},
        {"rank": 5, "config": {**config, "r": 8, "lr": 2e-4}},
        {"rank": 0, "config": {**config, "r": 8, "lr": 3e-4}},  # failed
    ]
    (run / "leaderboard.json").write_text(json.dumps({"metric": "ndcg@10", "rows": rows}))
    text = GOOD + "start: [{r: 8, lr: 5e-5}]\nstart_from: {run: runs/x, top: 2}\n"
    spec = load_spec(write(tmp_path, text))
    assert spec.start == [{"r": 8, "lr": 5e-5}, {"r": 16, "lr": 1e-4}, {"r": 8, "lr": 1e-4}]
    assert spec.start_from is None  # written out, so that spec.json repeats the run without the earlier one
    only = write(tmp_path, GOOD.replace("[8, 16]", "[2, 4]") + "start_from: {run: runs/x}\n")
    with pytest.raises(InputError, match=r"no trial of .* lies in this space"):
        load_spec(only)


def test_one_base_of_several_may_run_its_own_code(tmp_path: Path) -> None:
    trusted = "[a, b]\n  trust_remote_code: [{when: {base: a}, values: [true]}, {values: [false]}]"
    space = load_spec(write(tmp_path, GOOD.replace("some/base", trusted))).parsed_space
    assert {config.base: config.trust_remote_code for config in space.configs()} == {"a": True, "b": False}


def test_a_smoke_run_leaves_out_constraints_that_its_cuts_make_impossible(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs.jsonl")
    known = GOOD.replace("some/base", "intfloat/multilingual-e5-small\n  batch_size: 64")
    for constraint, kept in (("r * batch_size >= 512", []), ("r <= batch_size", ["r <= batch_size"])):
        spec = load_spec(write(tmp_path, known + f"constraints: ['{constraint}']\n"))
        small = smoke_spec(spec, tmp_path / "stand-ins")
        assert small.constraints == kept
        assert next(small.parsed_space.configs(), None) is not None


def test_a_space_is_read_once_and_again_only_where_it_becomes_another(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, GOOD))
    longer = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": 99})})
    assert longer.parsed_space is spec.parsed_space
    narrow = spec.model_copy(update={"space": {"base": "some/base", "r": [4, 8, 16]}})
    assert [dimension.name for dimension in narrow.parsed_space.searched] == ["r"]
    assert spec.model_copy(update={"seed": 7}).parsed_space.seed == 7
    assert spec.model_copy(update={"constraints": ["r <= 8"]}).parsed_space.constraints
    with pytest.raises(InputError, match=r"space\.base: missing"):
        spec.model_copy(update={"space": {"r": [8]}})
