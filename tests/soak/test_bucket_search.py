"""Searches on an S3 server (moto's): killed with their machine, they go on to the same result."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from sentence_transformers import SentenceTransformer

from search.storage.mirror import Mirror
from tests.conftest import TinyBase
from tests.kit.bucket import BUCKET, only_these, s3_server
from tests.kit.command import EMBTUNE, embtune, embtune_here
from tests.kit.toy import write_spec

URL = f"s3://{BUCKET}/team"


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


def kill_machine(cache: Path) -> None:
    """End every process of a machine at once, Ray's too, which are of sessions of their own."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("EMBTUNE_CACHE") == str(cache):
                process.kill()


def results(leaderboard: str) -> list[Any]:
    keys = ("trial", "rank", "state", "score", "rung", "config")
    return [[row[key] for key in keys] for row in json.loads(leaderboard)["rows"]]


def test_a_search_killed_with_its_machine_goes_on_from_an_empty_one_to_the_same_leaderboard(
    server: dict[str, str], tiny_base: TinyBase, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, tiny_base("bert"), budget={"trials": 2}, space={"rungs": 2})
    undisturbed = embtune_here("search", spec, cwd=tmp_path)
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    environment = only_these(server | {"EMBTUNE_CACHE": str(tmp_path / "machine")})
    mirror = Mirror(f"{URL}/toy", tmp_path / "none")
    process = subprocess.Popen(
        [*EMBTUNE, "search", str(spec), "--runs", URL],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 280
    while not any(name.endswith("rung.json") for name in mirror.there("tune")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    kill_machine(tmp_path / "machine")
    process.wait()
    shutil.rmtree(tmp_path / "machine", ignore_errors=True)
    environment["EMBTUNE_CACHE"] = str(tmp_path / "another machine")
    resumed = embtune("search", spec, "--runs", URL, "--resume", cwd=tmp_path, environment=environment)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert f"Going on with {URL}/toy" in resumed.stdout
    there = mirror.there("")
    leaderboard = mirror.read("leaderboard.json")
    assert leaderboard is not None
    assert results(leaderboard.decode()) == results((tmp_path / "runs" / "toy" / "leaderboard.json").read_text())
    assert {"best/modules.json", "benchmark.json", "report.html", "spec.json"} <= there.keys()
    assert not [name for name in there if name.endswith(("optimizer.pt", "scheduler.pt")) or "cache" in name]
    shutil.rmtree(tmp_path / "another machine")
    exported = embtune("export", f"{URL}/toy", tmp_path / "model", cwd=tmp_path, environment=environment)
    assert exported.returncode == 0, exported.stderr
    assert SentenceTransformer(str(tmp_path / "model"), device="cpu").encode("Que signifie LOLF ?").shape == (32,)
