"""Searches and jobs on a Ray cluster that was started for real."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any
from urllib.parse import urlencode

import pytest
import yaml

from tests.conftest import TinyBase
from tests.kit.command import EMBTUNE, embtune
from tests.kit.toy import write_spec

ROOT = Path(__file__).parents[2]
PROMETHEUS = Path("/usr/bin/prometheus")
DASHBOARD = ROOT / "search" / "watch" / "grafana.json"
RAY = str(Path(sys.executable).parent / "ray")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_head(gcs: int, ray_tmp: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a head node that prints into ray_tmp/head.log; `environment` learns where its pages are."""
    dashboard, metrics = free_port(), free_port()
    environment["TEST_DASHBOARD"] = f"http://127.0.0.1:{dashboard}"
    environment["TEST_METRICS"] = f"http://127.0.0.1:{metrics}/metrics"
    # --block keeps its processes in one group, which is ended as one: `ray stop` would end every Ray of this machine.
    options = [
        *["--block", "--num-cpus=2", "--node-ip-address=127.0.0.1", f"--temp-dir={ray_tmp}"],
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={free_port()}",  # for jobs; another Ray here has the usual one
        f"--ray-client-server-port={free_port()}",
        f"--metrics-export-port={metrics}",
    ]
    line = start_line("head", gcs).replace("--autoscaling-config=~/ray_bootstrap_config.yaml", "")
    with Path(ray_tmp, "head.log").open("wb") as log:
        return started(f"{line} {shlex.join(options)}", environment, log)


def start_line(node: str, gcs: int) -> str:
    """The line of cluster.yaml that starts Ray on a node, with a port of this test."""
    line: str = yaml.safe_load((ROOT / "cluster.yaml").read_text())[f"{node}_start_ray_commands"][-1]
    assert "6379" in line
    return line.replace("6379", str(gcs))


def started(line: str, environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A command line in a shell, in a process group of its own."""
    shell = ["bash", "-c", line]
    return subprocess.Popen(shell, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def answers(process: subprocess.Popen[bytes], environment: dict[str, str]) -> bool:
    """Whether the head takes jobs, within four minutes: a machine may have much else to do."""
    listed = [RAY, "job", "list", "--address", environment["TEST_DASHBOARD"]]
    deadline = time.monotonic() + 240
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
    (home / "embtune").mkdir()
    (home / "embtune" / "bin").symlink_to(Path(sys.executable).parent)  # where cluster.yaml installs
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    with ExitStack() as folders:
        for _ in range(3):  # a port that was free may be another test's by the time Ray binds it
            gcs = free_port()
            # Short, unlike pytest's: Ray puts sockets there, whose paths may have 107 bytes.
            ray_tmp = folders.enter_context(TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True))
            process = start_head(gcs, ray_tmp, environment)
            environment["TEST_FOLDER"] = ray_tmp
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
    # The command sees for itself that a token is there.
    environment = {name: value for name, value in environment.items() if name != "RAY_AUTH_MODE"}

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return embtune(*arguments, "--address", environment["TEST_DASHBOARD"], cwd=tmp_path, environment=environment)

    def until(text: str, *arguments: str) -> str:
        deadline = time.monotonic() + 600
        while text not in (told := call(*arguments).stdout):
            assert time.monotonic() < deadline, (text, told, call("logs", job).stdout)
            time.sleep(0.5)
        return told

    # A base and data beside the spec, which no node has.
    base = shutil.copytree(tiny_base("bert"), tmp_path / "mine")
    spec = write_spec(tmp_path, Path("mine"), budget={"trials": 200}, pruner={"name": "none"})
    submitted = call("submit", spec, "--runs", tmp_path / "runs")
    assert (submitted.returncode, submitted.stderr) == (0, ""), submitted.stderr
    shutil.rmtree(base)
    job, run, dashboard, token, *commands = [line.strip() for line in submitted.stdout.splitlines()]
    assert run == f"run folder {tmp_path / 'runs' / 'toy'}"
    assert job in dashboard
    assert "ray get-auth-token" in token
    assert [line.split()[1] for line in commands] == ["status", "logs", "watch", "stop"]

    until("best: ndcg@10", "status")
    followed = subprocess.Popen(
        [*EMBTUNE, "logs", "-f", job, "--address", environment["TEST_DASHBOARD"]],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = call("status", job).stdout
    for label in (
        "RUNNING",
        "search: toy",
        "trials:",
        "trials at rungs: 1:",
        "device-hours:",
        "nodes: 1 alive",
        "time:",
    ):
        assert label in told
    assert_the_dashboard_tells(environment, job)
    assert_the_metrics_tell(environment)
    assert job in call("jobs").stdout
    twice = call("submit", spec, "--runs", tmp_path / "runs", "--base", "some/base")
    assert (twice.returncode, twice.stderr.count("\n")) == (2, 1)
    assert f"job {job} is at work there" in twice.stderr
    so_far = embtune(
        "leaderboard", tmp_path / "runs" / "toy", cwd=tmp_path, environment=os.environ | {"COLUMNS": "250"}
    )
    assert "toy (so far)" in " ".join(so_far.stdout.split())

    assert call("stop", job).stdout == "stopping\n"
    assert "ndcg@10" in call("watch", job).stdout, "it ends with the search"
    printed, _ = followed.communicate(timeout=120)
    assert "trial 0: rung 1/3" in printed
    assert "To go on, submit the same spec again." in printed
    assert "SIGTERM" not in printed
    assert call("status", job).stdout.startswith(f"{job}: STOPPED\n")
    assert call("stop", job).stdout == "it had ended already\n"
    unknown = call("status", "no-such-job")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert job in unknown.stderr


def assert_the_dashboard_tells(environment: dict[str, str], job: str) -> None:
    """A trial that runs has a row whose name says which it is, and the job says what it is."""
    listed = subprocess.run(
        [RAY, "list", "actors", "--address", environment["TEST_DASHBOARD"], "--format=json", "--detail"],
        env={**environment, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [row for row in json.loads(listed.stdout) if row["class_name"] == "Trial"]
    assert rows
    for row in rows:
        assert re.fullmatch(r"toy trial \d{4} [\w-]+ (qv|all-linear) r[24] lr \de-\d", row["name"])
    token = Path(environment["HOME"], ".ray", "auth_token").read_text().strip()
    asked = urllib.request.Request(
        f"{environment['TEST_DASHBOARD']}/api/jobs/{job}", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        metadata = json.load(answer)["metadata"]
    assert (metadata["job_name"], metadata["search"], len(metadata["spec"])) == ("toy", "toy", 12)


def assert_the_metrics_tell(environment: dict[str, str]) -> None:
    """Ray's own endpoint has the search's figures, each in time."""
    wanted = {"trials", "best_score", "score", "pairs_per_second", "tokens_per_second", "device_hours"}
    found: set[str] = set()
    deadline = time.monotonic() + 120
    while not wanted <= found:
        assert time.monotonic() < deadline, wanted - found
        with urllib.request.urlopen(environment["TEST_METRICS"], timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        ours = [line for line in lines if line.startswith("ray_embtune_")]
        assert all('search="toy"' in line for line in ours)
        found |= {line.partition("{")[0].removeprefix("ray_embtune_") for line in ours}
        time.sleep(1)


def test_a_worker_joins_by_the_line_of_the_cluster_file(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, environment = head
    host, _, port = address.partition(":")
    with (tmp_path / "log").open("wb") as log, TemporaryDirectory(prefix="w", dir="/tmp") as folder:
        line = f"{start_line('worker', int(port))} --block --num-cpus=1 --node-ip-address=127.0.0.1"
        worker = started(f"{line} --temp-dir={folder}", {**environment, "RAY_HEAD_IP": host}, log)
        try:
            deadline = time.monotonic() + 120
            while ray_status(address, environment).count("1 node_") < 2:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(timeout=60)


def ray_status(address: str, environment: dict[str, str]) -> str:
    asked = [RAY, "status", f"--address={address}"]
    return subprocess.run(asked, env=environment, capture_output=True, text=True, check=True).stdout


# .ci/run installs it where it may; on another machine that is its owner's affair.
@pytest.mark.skipif(not PROMETHEUS.exists(), reason=f"no {PROMETHEUS}: apt-get install prometheus")
def test_every_panel_of_the_grafana_dashboard_is_answered_by_a_prometheus_that_reads_ray(
    head: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, environment = head
    (session,) = Path(environment["TEST_FOLDER"]).glob("session_2*")
    port = free_port()
    prometheus = [
        *[str(PROMETHEUS), f"--config.file={session / 'metrics' / 'prometheus' / 'prometheus.yml'}"],
        *[f"--storage.tsdb.path={tmp_path / 'series'}", f"--web.listen-address=127.0.0.1:{port}"],
    ]
    shown = [sys.executable, "-m", "tests.kit.shown_search", address]
    with (tmp_path / "log").open("wb") as log, ExitStack() as running:
        for command in (prometheus, shown):
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
            running.callback(process.wait)
            running.callback(process.kill)
        deadline = time.monotonic() + 180
        waiting = [target["expr"] for panel in panels() for target in panel["targets"]]
        assert len(waiting) == 11
        while waiting:
            assert time.monotonic() < deadline, (waiting, (tmp_path / "log").read_text()[-2000:])
            waiting = [expression for expression in waiting if not answered(port, expression)]
            time.sleep(1)
        placed = session / "metrics" / "grafana" / "dashboards" / "embtune_grafana_dashboard.json"
        assert json.loads(placed.read_text())["title"] == "embtune", "a Grafana that was set up for Ray shows it"


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return found


def answered(port: int, expression: str) -> bool:
    """Whether Prometheus has a series for an expression of the dashboard, with what Grafana puts into it."""
    query = expression.replace("$search", "demo").replace("$__range", "1h")
    with suppress(OSError):  # it has just started
        asked = f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}"
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return bool(json.load(answer)["data"]["result"])
    return False


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
