"""The search space: parsing, conditions, starting points, refusals."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from evaluation.errors import InputError
from search.spec.dimensions import IMPLIED
from search.spec.space import READ, Space

BASIC: dict[str, Any] = {
    "base": "a/b",
    "targets": ["qv", "qkv"],
    "r": [8, 16],
    "lr": {"low": 1e-5, "high": 1e-3, "log": True},
}


def sample(space: Space, n: int = 60) -> list[Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.sample(study.ask()) for _ in range(n)]


def test_samples_stay_in_their_domains() -> None:
    configs = sample(Space.parse({**BASIC, "dropout": {"low": 0.0, "high": 0.2, "step": 0.05}}, seed=7))
    assert {c.r for c in configs} == {8, 16}
    assert all(1e-5 <= c.lr <= 1e-3 for c in configs)
    assert {round(c.dropout / 0.05, 6) for c in configs} == {0, 1, 2, 3, 4}
    assert {c.seed for c in configs} == {7}


def test_alpha_follows_the_rank_by_its_ratio() -> None:
    configs = sample(Space.parse({**BASIC, "alpha_ratio": [1, 4]}, seed=0))
    assert {c.alpha / c.r for c in configs} == {1, 4}


def test_adapter_fields_are_not_sampled_for_full_fine_tuning() -> None:
    space = Space.parse({**BASIC, "method": ["lora", "full"]}, seed=0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(30):
        trial = study.ask()
        config = space.sample(trial)
        assert ("r" in trial.params) == (config.method == "lora")


def test_a_fixed_number_of_negatives_is_every_strategys_and_a_searched_one_mineds() -> None:
    space = Space.parse({"base": "b", "batches": ["in_batch", "mined"], "hard_negatives": 4}, seed=0)
    assert {(c.batches, c.hard_negatives) for c in sample(space)} == {("in_batch", 4), ("mined", 4)}
    space = Space.parse({"base": "b", "batches": ["in_batch", "mined"], "hard_negatives": [2, 4]}, seed=0)
    assert {(c.batches, c.hard_negatives) for c in sample(space)} == {("in_batch", 1), ("mined", 2), ("mined", 4)}


def test_what_a_field_needs_is_what_running_studies_were_begun_with() -> None:
    """A study's parameters are named by the conditions beside these: with another table a journal would not go on."""
    adapter, trained = {"method": ("lora",)}, {"method": ("lora", "full")}
    assert {
        **dict.fromkeys(("targets", "r", "alpha", "alpha_ratio", "dropout", "rslora", "dora"), adapter),
        **dict.fromkeys(("last_n", "lr", "epochs", "batch_size", "batches", "loss", "temperature"), trained),
        **dict.fromkeys(("warmup", "schedule", "weight_decay", "max_grad_norm", "matryoshka"), trained),
        "mixed_share": {"batches": ("mixed",)},
        "refresh": {"batches": ("clustered", "mixed")},
        "hard_negatives": {"batches": ("mined",)},
        "margin": {"batches": ("mined",)},
    } == IMPLIED


def test_branches_by_condition_are_parameters_of_their_own() -> None:
    branches = [{"when": {"method": "full"}, "low": 1e-6, "high": 1e-5, "log": True}, {"values": [1e-3]}]
    for config in sample(Space.parse({**BASIC, "method": ["lora", "full"], "lr": branches}, seed=0)):
        assert config.lr == 1e-3 if config.method == "lora" else config.lr <= 1e-5


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("field", "when", "inside", "outside"),
    [
        ("lr", {"method": "full"}, [1e-5], [1e-3]),
        ("epochs", {"method": "full"}, [1.0], [4.0]),
        ("refresh", {"batches": "clustered"}, [True], [False]),
        ("r", {"targets": "qv"}, [4, 8], [16, 32]),
        ("lr", {"method": "full", "batches": "clustered"}, [1e-5], [1e-3]),
    ],
)
def test_a_branch_for_all_other_cases_may_stand_before_or_after_the_others(
    field: str, when: dict[str, Any], inside: list[Any], outside: list[Any], reverse: bool
) -> None:
    branches: list[Any] = [{"values": outside}, {"when": when, "values": inside}]
    section = {**BASIC, "method": ["lora", "full"], "batches": ["in_batch", "clustered", "mixed"]}
    section[field] = branches[::-1] if reverse else branches
    met = set()
    for config in sample(Space.parse(section, seed=0)):
        here = all(getattr(config, other) == value for other, value in when.items())
        if (field == "refresh" and config.batches == "in_batch") or (field == "r" and config.method == "full"):
            continue  # without effect and not asked for
        assert getattr(config, field) in (inside if here else outside)
        met.add(here)
    assert met == {True, False}


def test_two_branches_for_the_same_trials_are_refused() -> None:
    for second in ({"values": [3e-3]}, {"when": {"method": ["lora", "full"]}, "values": [3e-3]}):
        with pytest.raises(InputError, match=r"space\.lr\[1\]: holds in the same trials as space\.lr\[0\]"):
            Space.parse({**BASIC, "lr": [{"values": [1e-3, 2e-3]}, second]}, seed=0)


def test_the_last_layers_alone_are_trained_by_either_method() -> None:
    space = Space.parse({**BASIC, "method": ["none", "lora", "full"], "last_n": [2, 4]}, seed=0)
    assert {(c.method, c.last_n) for c in sample(space)} == {
        *(("none", None), ("lora", 2), ("lora", 4), ("full", 2), ("full", 4))
    }
    assert space.at({"method": "full", "last_n": 4}).last_n == 4
    bounded = Space.parse({**BASIC, "method": "full", "last_n": [2, 4]}, seed=0, constraints=["last_n <= 2"])
    assert {c.last_n for c in bounded.configs()} == {2}


def test_a_base_that_is_only_evaluated_is_one_configuration() -> None:
    section = {"base": "b", "method": "none", "schedule": ["linear", "cosine"], "max_grad_norm": [0.5, 1.0]}
    section |= {"last_n": [2, 4], "lr": [1e-4, 1e-3], "matryoshka": [[], [64]]}
    assert len({config.model_dump_json() for config in sample(Space.parse(section, seed=0))}) == 1


def test_a_constraint_on_negatives_holds_in_every_strategy_that_trains_on_them() -> None:
    section = {"base": "b", "batches": ["in_batch", "mined"], "hard_negatives": 4, "batch_size": [16, 64]}
    space = Space.parse(section, seed=0, constraints=["hard_negatives * batch_size <= 64"])
    assert {(p["batches"], p["batch_size"]) for p in space.grid()} == {("in_batch", 16), ("mined", 16)}


def test_integer_ranges_give_integers() -> None:
    configs = sample(Space.parse({**BASIC, "r": {"low": 4, "high": 64, "step": 4}}, seed=0))
    assert all(isinstance(c.r, int) and c.r % 4 == 0 for c in configs)
    assert len({c.r for c in configs}) > 5


def test_configs_cover_every_size_once() -> None:
    configs = list(Space.parse({**BASIC, "lr": [1e-4, 2e-4], "batch_size": 32}, seed=0).configs())
    assert sorted((c.targets, c.r) for c in configs) == [("qkv", 8), ("qkv", 16), ("qv", 8), ("qv", 16)]


def test_a_space_whose_first_values_exclude_each_other_is_sized_by_what_goes_together() -> None:
    section = {**BASIC, "loss": ["gist", "mnrl"], "batches": ["mined", "in_batch"], "hard_negatives": 3}
    assert {(c.loss, c.batches) for c in Space.parse(section, seed=0).configs()} == {("gist", "in_batch")}


def test_a_starting_point_becomes_the_studys_parameters() -> None:
    space = Space.parse(BASIC, seed=0)
    point = space.point({"targets": "qkv", "r": 8, "lr": 5e-5}, "start[0]")
    study = optuna.create_study()
    study.enqueue_trial(point)
    config = space.sample(study.ask())
    assert (config.targets, config.r, config.lr) == ("qkv", 8, 5e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": None}, "space.base"),
        ({"rank": 8}, "space.rank: unknown field"),
        ({"targtes": "qv"}, "did you mean 'targets'"),
        ({"r": []}, "space.r: an empty list"),
        ({"r": [8, 8]}, "stands twice"),
        ({"r": "many"}, "space.r: input should be a valid integer"),
        ({"r": {"low": 8}}, "space.r.high: missing"),
        ({"r": {"low": 8, "high": 4}}, "low 8 is above high 4"),
        ({"r": {"low": 4, "high": 8, "stp": 2}}, "space.r.stp: unknown key"),
        ({"lr": {"low": 0, "high": 1, "log": True}}, "space.lr.low"),
        ({"lr": {"low": 1e-5, "high": 1e-3, "log": True, "step": 1e-5}}, "a log range has no step"),
        ({"batches": {"low": 1, "high": 2}}, "space.batches"),
        ({"alpha": 8, "alpha_ratio": 2}, "expected one of the two"),
        ({"dropout": 1.5}, "space.dropout"),
        ({"lr": float("inf")}, "space.lr"),
        ({"lr": {"low": 1e-4, "high": float("inf")}}, "space.lr.high"),
        ({"seed": 3}, "space.seed"),
        ({"rungs": [2, 4]}, "space.rungs"),
        ({"mixed_share": [{"when": {"batches": "fancy"}, "values": [0.5]}]}, "no trial has fancy"),
    ],
)
def test_a_wrong_space_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    section = {key: value for key, value in {**BASIC, **change}.items() if value is not None}
    with pytest.raises(InputError) as caught:
        Space.parse(section, seed=0)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"r": 12}, "start[0].r: 12 is outside the space (8 | 16)"),
        ({"lr": 1.0}, "start[0].lr: 1.0 is outside the space"),
        ({"warmup": 0.2}, "start[0].warmup: not searched here"),
    ],
)
def test_a_starting_point_outside_the_space_is_refused(start: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Space.parse(BASIC, seed=0).point(start, "start[0]")
    assert message in str(caught.value)


def test_conditions_in_a_circle_are_refused() -> None:
    section = {
        **BASIC,
        "warmup": [{"when": {"weight_decay": 0.1}, "values": [0.1, 0.2]}],
        "weight_decay": [{"when": {"warmup": 0.1}, "values": [0.0, 0.1]}],
    }
    with pytest.raises(InputError, match="wait for each other"):
        Space.parse(section, seed=0)


def test_constraints_hold_in_every_sample_and_every_corner() -> None:
    section = {**BASIC, "method": ["lora", "full"], "batch_size": [16, 32, 64]}
    space = Space.parse(section, seed=0, constraints=["r * batch_size <= 512", "batch_size >= 2 * r"])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    refused = 0
    for _ in range(80):
        try:
            config = space.sample(study.ask())
        except InputError:
            refused += 1
            continue
        # A rank constrains nothing where there is no adapter.
        assert config.method == "full" or (config.r * config.batch_size <= 512 and config.batch_size >= 2 * config.r)
    assert 0 < refused < 80
    lora = [(c.r, c.batch_size) for c in space.configs() if c.method == "lora" and c.targets == "qv"]
    assert sorted(lora) == [(8, 16), (8, 32), (8, 64), (16, 32)]


def test_a_constraint_on_a_field_without_a_value_says_nothing() -> None:
    space = Space.parse({**BASIC, "lr": 1e-4, "max_length": [128, 512]}, seed=0, constraints=["max_length <= 256"])
    assert {c.max_length for c in space.configs()} <= {128, None}
    assert list(Space.parse(BASIC, seed=0, constraints=["max_length <= 256"]).configs())


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("r * batch_size", "expected products of fields and numbers"),
        ("__import__('os').system('true') < 1", "expected products"),
        ("r ** 2 < 9", "expected products"),
        ("rank < 9", "rank is no field that holds a number"),
        ("base == 3", "base is no field that holds a number"),
    ],
)
def test_a_constraint_that_is_none_is_refused(constraint: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Space.parse(BASIC, seed=0, constraints=[constraint])
    assert message in str(caught.value)
    assert "constraints[0]" in str(caught.value)


def test_a_grid_holds_feasible_points_only() -> None:
    points = Space.parse({**BASIC, "lr": 1e-4}, seed=0, constraints=["r < 16"]).grid()
    assert {(p["r"], p["targets"]) for p in points} == {(8, "qv"), (8, "qkv")}


def test_another_searchs_configuration_becomes_a_starting_point() -> None:
    space = Space.parse({**BASIC, "alpha_ratio": [1, 2]}, seed=0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    config = space.sample(study.ask())
    start = space.start_at(config.model_dump(mode="json"))
    assert start == {"targets": config.targets, "r": config.r, "lr": config.lr, "alpha_ratio": config.alpha / config.r}
    assert space.at(start) == config
    with pytest.raises(InputError, match="r: 8 is outside the space"):
        Space.parse({**BASIC, "r": [2, 4]}, seed=0).start_at({**config.model_dump(), "r": 8})


def test_each_way_to_read_a_base_is_told_apart_and_what_is_trained_is_not() -> None:
    section = {
        "base": ["a/a", "b/b"],
        "r": [4, 8],
        "precision": [{"when": {"base": "a/a"}, "values": ["bf16", "fp32"]}, {"values": ["fp32"]}],
    }
    found = [(config.base, config.precision) for config in Space.parse(section, 0).configs(READ)]
    assert sorted(set(found)) == [("a/a", "bf16"), ("a/a", "fp32"), ("b/b", "fp32")]
    assert len(found) == len(set(found))
