"""Searches and jobs on a Ray cluster that was started for real."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import TinyBase
from tests.kit.command import embtune
from tests.kit.toy import write_spec

RAY = str(Path(sys.executable).parent / "ray")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_head(gcs: int, ray_tmp: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a head node that prints into ray_tmp/head.log; `environment` learns where its dashboard is."""
    dashboard = free_port()
    environment["TEST_DASHBOARD"] = f"http://127.0.0.1:{dashboard}"
    # --block keeps its processes in one group, which is ended as one: `ray stop` would end every Ray of this machine.
    with Path(ray_tmp, "head.log").open("wb") as log:
        return subprocess.Popen(
            [
                *[RAY, "start", "--head", "--block", f"--port={gcs}", "--dashboard-host=127.0.0.1"],
                f"--dashboard-port={dashboard}",
                f"--dashboard-agent-listen-port={free_port()}",  # for jobs; another Ray here has the usual one
                f"--ray-client-server-port={free_port()}",
                "--num-cpus=2",
                "--node-ip-address=127.0.0.1",
                f"--temp-dir={ray_tmp}",
            ],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def answers(process: subprocess.Popen[bytes], environment: dict[str, str]) -> bool:
    """Whether the head takes jobs, within a minute and a half."""
    listed = [RAY, "job", "list", "--address", environment["TEST_DASHBOARD"]]
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        if subprocess.run(listed, env=environment, capture_output=True, check=False).returncode == 0:
            return True
    return False


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A head node on localhost, with token authentication, as cluster.yaml starts it."""
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": "token"}
    environment.pop("RAY_ADDRESS", None)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # jobs run `embtune`
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    with ExitStack() as folders:
        for _ in range(3):  # a port that was free may be another test's by the time Ray binds it
            gcs = free_port()
            # Short, unlike pytest's: Ray puts sockets there, whose paths may have 107 bytes.
            ray_tmp = folders.enter_context(TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True))
            process = start_head(gcs, ray_tmp, environment)
            if answers(process, environment):
                break
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)
        else:
            pytest.fail("the head did not start:\n" + Path(ray_tmp, "head.log").read_text(encoding="utf-8"))
        yield f"127.0.0.1:{gcs}", environment
        os.killpg(process.pid, signal.SIGKILL)  # asked politely, they take half a minute
        process.wait(timeout=60)


def test_a_search_runs_on_a_running_cluster(
    head: tuple[str, dict[str, str]], tiny_base: TinyBase, tmp_path: Path
) -> None:
    address, environment = head
    spec = write_spec(tmp_path, tiny_base("bert"), budget={"trials": 2}, space={"rungs": 2})
    done = embtune("search", spec, "--address", address, cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "runs" / "toy" / "leaderboard.json").read_text())["rows"]
    assert sorted(row["trial"] for row in rows) == [0, 1]
    status = subprocess.run(
        [RAY, "status", f"--address={address}"], env=environment, capture_output=True, text=True, check=False
    )
    assert status.returncode == 0, status.stderr  # the cluster outlives the search
    too_much = write_spec(tmp_path, tiny_base("bert"), name="big", resources={"cpus": 64})
    refused = embtune("search", too_much, "--address", address, cwd=tmp_path, environment=environment)
    assert refused.returncode == 2
    assert "the cluster's nodes have 2 CPUs and 0 GPUs" in refused.stderr


def test_a_search_is_submitted_followed_and_stopped_as_a_job(
    head: tuple[str, dict[str, str]], tiny_base: TinyBase, tmp_path: Path
) -> None:
    _, environment = head

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return embtune(*arguments, "--address", environment["TEST_DASHBOARD"], cwd=tmp_path, environment=environment)

    spec = write_spec(tmp_path, tiny_base("bert"), budget={"trials": 200}, pruner={"name": "none"})
    submitted = call("submit", spec, "--runs", tmp_path / "runs")
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.split()[0]
    deadline = time.monotonic() + 300
    while "trial 0: rung 1" not in (logs := call("logs", job).stdout):
        assert time.monotonic() < deadline, logs
        time.sleep(1)
    assert "RUNNING" in call("status", job).stdout
    assert call("stop", job).stdout == "stopping\n"
    while "STOPPED" not in (status := call("status", job).stdout):
        assert time.monotonic() < deadline, status
        time.sleep(1)
    unknown = call("status", "no-such-job")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert job in unknown.stderr


@pytest.mark.parametrize("token", ["another", "none"])
def test_a_cluster_that_refuses_the_token_says_where_a_token_comes_from(
    head: tuple[str, dict[str, str]], tiny_base: TinyBase, tmp_path: Path, token: str
) -> None:
    address, environment = head
    environment = {**environment, "HOME": str(tmp_path)}
    if token == "another":
        subprocess.run([RAY, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    spec, dashboard = write_spec(tmp_path, tiny_base("bert")), environment["TEST_DASHBOARD"]
    calls: list[list[str | Path]] = [["search", spec, "--address", address]]
    calls += [[*call, "--address", dashboard] for call in (["submit", spec], ["status", "job"], ["stop", "job"])]
    for call in calls:
        refused = embtune(*call, cwd=tmp_path, environment=environment)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert "the token of the cluster's head in ~/.ray/auth_token or RAY_AUTH_TOKEN" in refused.stderr
    assert not (tmp_path / "runs" / "toy").exists()
