"""A run's folder: what may change on a resume, what a repetition says, when an earlier run is set aside."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evaluation.errors import InputError
from search.paths import RunFolder
from search.results.leaderboard import leaderboard, write_leaderboard
from search.run import _search
from search.spec.load import load_spec
from search.spec.record import read_record
from search.staging import Staging, check_same_search
from search.storage.where import Where
from search.study.study import Study
from tests.conftest import TinyBase
from tests.kit.toy import write_pairs, write_spec
from tests.kit.toy_run import make_run
from trainables.data.prepared import load_report


@pytest.fixture
def run(tiny_base: TinyBase, tmp_path: Path) -> Path:
    """A prepared run that has not trained anything."""
    staged(write_spec(tmp_path, tiny_base("bert")), tmp_path / "runs" / "toy")
    return tmp_path / "runs" / "toy"


def staged(path: Path, run: Path, resume: bool = False) -> str:
    """Prepare a run's folder; returns what was printed."""
    console = Console(file=io.StringIO(), width=200)
    run.parent.mkdir(exist_ok=True)
    with Staging(load_spec(path, resumed=Where(run.parent) if resume else None), run, resume) as staging:
        staging.prepare(console)
        staging.settle(console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"trials": 9}}, ""),
        ({"resources": {"cpus": 2, "concurrent": 2}}, ""),
        ({"resources": {"workers": 2}}, "resources.workers was 1 and is now 2"),
        (
            {"resources": {"gpus": 0.5}},
            "resources.gpus was 0 and is now 0.5; expected trials on the",
        ),
        ({"seed": 1}, "seed was 42 and is now 1"),
        ({"space": {"r": [2, 8]}}, "space.r was [2, 4] and is now [2, 8]"),
        ({"pruner": {"name": "none"}}, "pruner.name was 'halving' and is now 'none'"),
    ],
)
def test_more_of_the_same_goes_on_and_another_search_is_refused(
    run: Path, tiny_base: TinyBase, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    changed = load_spec(write_spec(tmp_path, tiny_base("bert"), **change))
    if not message:
        check_same_search(changed, read_record(run), run)
        return
    with pytest.raises(InputError) as caught:
        check_same_search(changed, read_record(run), run)
    assert message in str(caught.value)


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_search_goes_on_with_the_gpus_that_it_began_with(tiny_base: TinyBase, tmp_path: Path, gpus: int) -> None:
    """Whatever the machine has by then: other number formats give other scores."""
    spec, run = load_spec(write_spec(tmp_path, tiny_base("bert"))), tmp_path / "runs" / "toy"
    run.parent.mkdir()
    console = Console(file=io.StringIO())
    with Staging(spec, run, resume=False) as staging:
        staging.prepare(console)
        assert staging.resources.gpus is None
        decided = staging.decide(staging.resources.model_copy(update={"gpus": gpus}))
        assert (decided.resources.gpus, decided.folder) == (gpus, spec.folder)
        staging.settle(console)
    assert read_record(run)["resources"]["gpus"] == gpus
    (RunFolder(run).journal).touch()
    with Staging(spec, run, resume=True) as staging:
        staging.prepare(console)
        assert staging.resources.gpus == gpus


def test_a_run_of_a_version_that_searched_each_parts_own_passages_goes_on_as_it_was(
    run: Path, tiny_base: TinyBase, tmp_path: Path
) -> None:
    Study(run, load_spec(tmp_path / "toy.yaml"))
    document = read_record(run)
    document["data"]["distractors"] = False  # the default then, written out
    del document["data"]["min_grade"]
    (RunFolder(run).spec).write_text(json.dumps(document))
    assert "Going on with" in staged(tmp_path / "toy.yaml", run, resume=True)
    assert read_record(run)["data"]["distractors"] is False
    assert "Going on with" in staged(tmp_path / "toy.yaml", run, resume=True)  # and once more
    asked = write_spec(tmp_path, tiny_base("bert"), data={"distractors": True})
    with pytest.raises(InputError, match=r"data\.distractors was False and is now True"):
        staged(asked, run, resume=True)
    write_pairs(tmp_path / "pairs.jsonl", concepts=61)
    with pytest.raises(InputError, match="expected the same rows"):
        staged(write_spec(tmp_path, tiny_base("bert"), concepts=61), run, resume=True)


def test_repeating_a_run_says_what_is_not_as_it_was(run: Path, tmp_path: Path) -> None:
    assert "not as in" not in staged(RunFolder(run).spec, tmp_path / "again" / "toy")
    write_pairs(tmp_path / "pairs.jsonl", concepts=61)
    document = read_record(run)
    document["record"]["versions"]["ray"] = "1.0"
    (RunFolder(run).spec).write_text(json.dumps(document))
    told = staged(RunFolder(run).spec, tmp_path / "other" / "toy")
    assert "not as in the recorded run: the data\n" in told
    assert "not as in the recorded run: ray was 1.0, is " in told


def test_a_search_goes_on_from_the_starts_it_began_with_when_the_run_they_came_from_has_grown_or_is_gone(
    tiny_base: TinyBase, tmp_path: Path
) -> None:
    earlier, run = tmp_path / "runs" / "earlier", tmp_path / "runs" / "toy"
    earlier.mkdir(parents=True)

    def rank(*lrs: float) -> None:
        config = {"base": str(tiny_base("bert")), "targets": "qv", "r": 4, "alpha": 32.0}
        rows = [{"rank": i + 1, "config": {**config, "lr": lr}} for i, lr in enumerate(lrs)]
        (earlier / "leaderboard.json").write_text(json.dumps({"metric": "ndcg@10", "rows": rows}))

    def spec(**changes: Any) -> Path:
        start = [{"targets": "qv", "r": 2, "lr": 1e-3}]
        return write_spec(
            tmp_path, tiny_base("bert"), **({"start": start, "start_from": {"run": "runs/earlier", "top": 1}} | changes)
        )

    rank(2e-3)
    staged(spec(), run)
    began = read_record(run)["start"]
    assert [point["lr"] for point in began] == [1e-3, 2e-3]
    study = Study(run, load_spec(spec()))
    first = study.next_trial()
    assert first is not None
    rank(5e-3, 2e-3)  # it has gone on and found a better one
    assert "Going on with" in staged(spec(), run, resume=True)
    (earlier / "leaderboard.json").unlink()
    assert "Going on with" in staged(spec(), run, resume=True)
    assert read_record(run)["start"] == began
    with pytest.raises(InputError, match=r"start_from: was {.*'top': 1} when the search began and is now {.*'top': 2}"):
        staged(spec(start_from={"run": "runs/earlier", "top": 2}), run, resume=True)
    with pytest.raises(InputError, match=r"start was \["):
        staged(spec(start=[{"targets": "qv", "r": 2, "lr": 3e-3}]), run, resume=True)
    document = read_record(run)
    del document["record"]["start_from"]  # as earlier versions wrote it
    (RunFolder(run).spec).write_text(json.dumps(document))
    assert "Going on with" in staged(spec(), run, resume=True)


def test_a_search_of_failures_alone_is_set_aside_and_another_that_stopped_is_not(run: Path, tmp_path: Path) -> None:
    study = Study(run, load_spec(tmp_path / "toy.yaml"))
    proposal = study.next_trial()
    assert proposal is not None
    with pytest.raises(InputError, match="has not ended; expected --resume"):
        staged(tmp_path / "toy.yaml", run)
    study.fail(proposal.number, "it cannot be built")
    write_leaderboard(leaderboard(study.trials, study.spec.metric, study.space.rungs), study.spec.metric, run)
    assert "The earlier run was kept" in staged(tmp_path / "toy.yaml", run)


def test_going_on_with_a_search_whose_space_was_used_up_keeps_its_benchmark(tmp_path: Path) -> None:
    space = {"targets": "qv", "lr": 1e-3}  # two configurations, r 2 and 4
    run = make_run(tmp_path, space=space, budget={"trials": 20}, sampler={"name": "random"})
    before = {name: (run / name).read_bytes() for name in ("benchmark.json", "leaderboard.json")}
    study = Study(run, load_spec(tmp_path / "toy.yaml"))
    console = Console(file=io.StringIO(), width=200)
    assert _search(study, RunFolder(run), 1, {}, console, smoke=False, again="") == 0  # type: ignore[arg-type]  # no trial runs
    assert "The search ended: 100 proposals in a row were known already" in console.file.getvalue()  # type: ignore[attr-defined]
    assert {name: (run / name).read_bytes() for name in before} == before
    assert len(study.trials) == 2


def as_an_earlier_version_wrote_it(run: Path) -> None:
    """Without the keys that came later, and with parts that this version would cut otherwise."""
    spec = read_record(run)
    spec["data"].pop("shared")
    (RunFolder(run).spec).write_text(json.dumps(spec))
    report = json.loads((run / "data" / "report.json").read_text("utf-8"))
    for key in ("corpus", "shared", "unseen"):
        report.pop(key)
    report["config"].pop("shared")
    (run / "data" / "report.json").write_text(json.dumps(report))
    train, test = (run / "data" / f"{part}.jsonl" for part in ("train", "test"))
    lines = train.read_text("utf-8").splitlines(keepends=True)
    train.write_text("".join(lines[4:]), "utf-8")
    test.write_text(test.read_text("utf-8") + "".join(lines[:4]), "utf-8")


def test_a_run_that_an_earlier_version_began_goes_on_with_its_own_parts(run: Path, tmp_path: Path) -> None:
    Study(run, load_spec(tmp_path / "toy.yaml"))
    as_an_earlier_version_wrote_it(run)
    before = {path.name: path.read_bytes() for path in (run / "data").iterdir()}
    assert load_report(run / "data").unseen == "concepts"
    assert "Going on with" in staged(tmp_path / "toy.yaml", run, resume=True)
    assert {path.name: path.read_bytes() for path in (run / "data").iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "the data has 350 rows and had 351 when the search began"),
        (lambda lines: [*lines, lines[0]], "the data has 352 rows and had 351"),
        (lambda lines: [line.replace("7", "8") for line in lines], "is no row of it any more; expected the same rows"),
    ],
)
def test_a_run_whose_data_has_changed_is_not_resumed(
    run: Path, tmp_path: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    Study(run, load_spec(tmp_path / "toy.yaml"))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(change(pairs.read_text("utf-8").splitlines(keepends=True))), "utf-8")
    with pytest.raises(InputError) as caught:
        staged(tmp_path / "toy.yaml", run, resume=True)
    assert message in str(caught.value)
