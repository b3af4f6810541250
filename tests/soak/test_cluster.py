"""cluster.yaml, and a search on a Ray cluster that was started for real."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import grpc
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from evaluation.errors import InputError
from search.spec.sections import ResourcesSpec
from search.tune.capacity import room, startable_nodes, usable_nodes, with_gpus
from search.tune.tuner import connect
from tests.conftest import TinyBase
from tests.kit.command import embtune, embtune_here
from tests.kit.toy import write_spec

CLUSTER = Path(__file__).parents[2] / "cluster.yaml"
RAY = str(Path(sys.executable).parent / "ray")


@pytest.fixture(scope="module")
def config() -> dict[str, object]:
    return prepare_config(yaml.safe_load(CLUSTER.read_text(encoding="utf-8")))


def test_ray_accepts_the_cluster_file(config: dict[str, object]) -> None:
    validate_config(config)


def test_the_head_runs_no_trials_and_workers_start_from_none() -> None:
    types = yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert types["gpu"]["min_workers"] == 0
    assert types["gpu"]["resources"]["GPU"] >= 1


def test_workers_that_may_start_count_as_capacity() -> None:
    nodes = startable_nodes(yaml.safe_load(CLUSTER.read_text(encoding="utf-8")))
    assert nodes == [{"CPU": 4, "GPU": 1}] * 4  # max_workers; the head, which runs no trials, is not among them


@pytest.mark.parametrize(
    ("resources", "trials"),
    [
        ({"cpus": 2}, 8),
        ({"cpus": 1, "gpus": 1}, 4),
        ({"cpus": 1, "gpus": 0.5}, 8),
        ({"cpus": 1, "gpus": 0.4}, 8),  # two on each GPU: a fraction is of one
        ({"cpus": 16, "gpus": 1}, 1),
    ],
)
def test_a_node_holds_as_many_trials_as_ray_will_place(resources: dict[str, float], trials: int) -> None:
    assert room({"CPU": 16.0, "GPU": 4.0}, ResourcesSpec.model_validate(resources)) == trials


@pytest.mark.parametrize(
    ("nodes", "resources", "gpus"),
    [
        ([{"CPU": 2.0}], {}, 0),
        ([{"CPU": 8.0, "GPU": 1.0}], {}, 1),
        ([{"CPU": 8.0}, {"CPU": 8.0, "GPU": 4.0}], {"workers": 4}, 1),
        ([{"CPU": 8.0, "GPU": 1.0}], {"workers": 4}, 0),  # one GPU does not hold four processes
        ([{"CPU": 2.0, "GPU": 1.0}, {"CPU": 16.0}], {"cpus": 4}, 0),  # nor does a node that lacks the cores
        ([{"CPU": 8.0, "GPU": 1.0}], {"gpus": 0}, 0),
        ([{"CPU": 8.0, "GPU": 1.0}], {"gpus": 0.5}, 0.5),
        ([{"CPU": 2.0}], {"gpus": 1}, 1),  # what was asked for is not taken back: the search refuses to start
    ],
)
def test_a_trial_takes_a_gpu_where_there_is_one_and_the_spec_says_nothing(
    nodes: list[dict[str, float]], resources: dict[str, float], gpus: float
) -> None:
    assert with_gpus(ResourcesSpec.model_validate(resources), nodes).gpus == gpus


def test_a_gpu_that_torch_cannot_use_does_not_count_and_where_there_is_none_torch_is_not_asked() -> None:
    with_one = [{"CPU": 2.0, "GPU": 1.0}]
    assert usable_nodes(with_one, lambda: True) == with_one
    assert usable_nodes(with_one, lambda: False) == [{"CPU": 2.0, "GPU": 0.0}]

    def asked() -> bool:
        raise AssertionError("torch is imported for nothing")

    assert usable_nodes([{"CPU": 2.0}], asked) == [{"CPU": 2.0}]


def test_tokens_are_on_and_the_dashboard_is_local() -> None:
    raw = yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))
    for command in raw["head_start_ray_commands"] + raw["worker_start_ray_commands"]:
        if "ray start" in command:
            assert "RAY_AUTH_MODE=token" in command
    (head,) = [command for command in raw["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head


def test_every_key_that_a_user_must_change_says_so() -> None:
    marked = [line for line in CLUSTER.read_text(encoding="utf-8").splitlines() if "CHANGE:" in line]
    for key in ("cluster_name", "max_workers", "region", "ImageId", "InstanceType", "ssh_user"):
        assert any(re.search(rf"\b{key}:", line) for line in marked), key


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


@pytest.mark.soak
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


@pytest.mark.soak
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


@pytest.mark.soak
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


class Refusing(BaseHTTPRequestHandler):
    """A dashboard that takes nobody's token."""

    def do_GET(self) -> None:
        self.send_error(401, "Unauthorized: Missing authentication token")

    def log_message(self, *arguments: object) -> None:
        """Nothing: the test reads what the command prints."""


def test_a_refused_token_is_one_line_for_every_command_that_meets_a_cluster(
    tiny_base: TinyBase, tmp_path: Path
) -> None:
    spec = write_spec(tmp_path, tiny_base("bert"))
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        dashboard = f"http://127.0.0.1:{server.server_port}"
        for call in (["submit", spec], ["status", "job"], ["logs", "job"], ["stop", "job"]):
            refused = embtune_here(*call, "--address", dashboard, cwd=tmp_path)
            assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
            assert f"--address {dashboard}: the cluster asks for a token" in refused.stderr
        server.shutdown()


def test_a_head_that_refuses_the_token_is_one_line() -> None:
    def refuse(request: bytes, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: Authentication token is missing or incorrect")

    class Everything(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Everything()])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with pytest.raises(InputError, match=f"--address {address}: the cluster asks for a token"):
            connect(address)
    finally:
        server.stop(None).wait()


def test_a_wrong_address_is_one_line(tiny_base: TinyBase, tmp_path: Path) -> None:
    for address, message in (
        ("localhost", "expected the dashboard's address"),
        ("http://127.0.0.1:9", "no Ray dashboard"),
    ):
        refused = embtune_here("status", "job", "--address", address, cwd=tmp_path)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert message in refused.stderr
