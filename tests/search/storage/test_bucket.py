"""A run in a bucket: what goes up, what comes back, and what is refused, against a real S3 server (moto's)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.errors import InputError
from search.paths import RunFolder
from search.storage.bucket import Bucket, on_this_node, opened
from search.storage.mirror import BucketError, Mirror
from search.storage.where import Where, copy_of, require_bucket
from search.study.study import Study
from tests.kit.bucket import BUCKET, s3_server
from tests.kit.command import embtune_here
from tests.kit.toy_study import make_spec, record, run_all, view


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def machine(server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this machine's copies are."""
    monkeypatch.setenv("EMBTUNE_CACHE", str(tmp_path / "machine"))
    return tmp_path / "machine"


def begin(url: str) -> Bucket:
    """Open a run as a driver does, on a machine that has nothing of it."""
    run = RunFolder(copy_of(url), url)
    shutil.rmtree(run.path, ignore_errors=True)
    bucket = Bucket(run)
    if not run.spec.exists():
        for folder in (run.data, run.guard):
            folder.mkdir(parents=True)
            (folder / "rows.jsonl").write_text("{}\n")
        run.spec.write_text("{}")
    bucket.settle("")
    return bucket


def test_a_search_whose_machine_is_lost_at_any_rung_goes_on_elsewhere_to_the_same_result(
    machine: Path, tmp_path: Path
) -> None:
    spec = make_spec(budget={"trials": 4}, sampler={"startup": 2})
    whole = Study(tmp_path, spec)
    run_all(whole)
    url = f"s3://{BUCKET}/lost/toy"
    for rungs in (0, 1, 4):
        run_all(Study(copy_of(url), spec, bucket=begin(url)), stop_after=rungs)
        shutil.rmtree(machine)
    again = Study(copy_of(url), spec, bucket=begin(url))
    run_all(again)
    assert view(again) == view(whole)
    shutil.rmtree(machine)
    assert view(Study(copy_of(url), spec, bucket=begin(url))) == view(whole)


def test_a_search_that_another_one_has_taken_over_keeps_no_further_entry(machine: Path) -> None:
    url, spec = f"s3://{BUCKET}/two/toy", make_spec(budget={"trials": 4}, sampler={"startup": 2})
    first = Study(copy_of(url), spec, bucket=begin(url))
    run_all(first, stop_after=3)
    second = Study(copy_of(url), spec, bucket=begin(url))
    with pytest.raises(OSError, match="another search has gone on with this run"):
        run_all(first)
    run_all(second)
    assert second.exhausted()


def test_an_entry_that_did_not_go_up_does_not_count_here(machine: Path) -> None:
    url, spec = f"s3://{BUCKET}/broken/toy", make_spec(budget={"trials": 4}, sampler={"startup": 2})
    bucket = begin(url)
    study = Study(copy_of(url), spec, bucket=bucket)
    proposal = study.next_trial()
    assert proposal is not None
    journal = RunFolder(copy_of(url)).journal
    before = journal.read_bytes()

    def broken(offset: int, entries: bytes) -> None:
        raise BucketError(f"{url}: cannot be read or written")

    study._journal._keep = broken
    with pytest.raises(BucketError):
        study.report(proposal.number, 1, record(proposal.config, 1))
    assert journal.read_bytes() == before


def test_a_trial_that_changes_its_node_finds_there_what_it_had(machine: Path, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/moves/toy"
    run = begin(url).settle("")
    here = on_this_node(run)
    assert here.data.is_dir()
    trial = here.trial(3)
    (trial / "checkpoint-5").mkdir(parents=True)
    (trial / "checkpoint-5" / "adapter_model.safetensors").write_bytes(b"weights")
    mirror = Mirror(here.url, here.path)
    mirror.push("tune/trial_0003")
    (trial / "checkpoint-9").mkdir()
    (trial / "checkpoint-9" / "adapter_model.safetensors").write_bytes(b"better weights")
    shutil.rmtree(trial / "checkpoint-5")
    mirror.push("tune/trial_0003")
    shutil.rmtree(machine)
    there = on_this_node(run, "tune/trial_0003")
    (found,) = there.trial(3).rglob("*.safetensors")
    assert found.read_bytes() == b"better weights"


def test_a_node_keeps_nothing_of_an_earlier_run_of_the_same_name(machine: Path) -> None:
    url = f"s3://{BUCKET}/again/toy"
    first = on_this_node(begin(url).settle(""))
    stale = first.trial(0) / "checkpoint-1" / "rung.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    Mirror(url, first.path).move("toy-earlier")
    second = on_this_node(begin(url).settle(""))
    assert second.id != first.id
    assert not stale.exists()
    assert Mirror(f"s3://{BUCKET}/again/toy-earlier", machine).read("spec.json") == b"{}"


def test_a_run_in_a_bucket_is_read_by_its_address(machine: Path) -> None:
    url, spec = f"s3://{BUCKET}/read/toy", make_spec(budget={"trials": 4}, sampler={"startup": 2})
    study = Study(copy_of(url), spec, bucket=begin(url))
    run_all(study)
    shutil.rmtree(machine)
    assert view(Study(opened(url), spec)) == view(study)
    with pytest.raises(InputError, match=r"no spec\.json there"):
        opened(f"s3://{BUCKET}/nothing/toy")


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ("ftp://host/runs", "expected a folder that every node sees, or s3://BUCKET/FOLDER, gs://"),
        ("s3:///runs", "expected a folder that every node sees"),
        ("az://container/runs", "AZURE_STORAGE_ACCOUNT does not name the account"),
        ("s3://no-such-bucket/runs", "cannot be written"),
    ],
)
def test_what_is_no_bucket_is_refused_before_anything_runs(
    machine: Path, monkeypatch: pytest.MonkeyPatch, runs: str, told: str
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(InputError, match=told):
        require_bucket(Where.of(runs).url)


def test_several_processes_of_one_trial_need_a_folder_that_they_share() -> None:
    with pytest.raises(InputError, match="or workers 1"):
        require_bucket(f"s3://{BUCKET}/runs", workers=2)


def test_an_address_that_is_no_bucket_is_one_line_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text("data: {source: pairs.jsonl}\nspace: {base: some/base, r: [4, 8]}\n")
    refused = embtune_here("search", "toy.yaml", "--runs", "ftp://host/runs", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "--runs ftp://host/runs: expected a folder" in refused.stderr
    assert not list(tmp_path.glob("ftp*"))
