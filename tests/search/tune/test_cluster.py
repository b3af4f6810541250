"""cluster.yaml, what fits on a cluster's nodes, and a cluster that does not let one in."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import grpc
import pytest
import yaml

from evaluation.errors import InputError
from search.spec.sections import ResourcesSpec
from search.tune.capacity import room, startable_nodes, usable_nodes, with_gpus
from search.tune.tuner import connect
from tests.conftest import TinyBase
from tests.kit.command import embtune_here
from tests.kit.ray_internals import prepare_config
from tests.kit.toy import write_spec

CLUSTER = Path(__file__).parents[3] / "cluster.yaml"


@pytest.fixture(scope="module")
def config() -> dict[str, object]:
    return prepare_config(yaml.safe_load(CLUSTER.read_text(encoding="utf-8")))


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
