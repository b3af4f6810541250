"""A cluster of another Ray or Python is refused by a client, before anything is sent."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import ray

from tests.kit.command import embtune_here
from tests.kit.toy import write_spec

HERE = ".".join(platform.python_version_tuple()[:2])


@contextmanager
def dashboard(ray_version: str, python: str) -> Iterator[tuple[str, list[str]]]:
    """A toy of a dashboard: it says what it runs, as Ray's does, and notes what is sent to it."""
    raylet = f"/env/lib/python{python}/site-packages/ray/core/src/ray/raylet/raylet --node_ip_address=10.0.0.1"
    said = {
        "/api/version": {"version": "4", "ray_version": ray_version, "ray_commit": "", "session_name": ""},
        "/nodes?view=summary": {"data": {"summary": [{"raylet": {"cmdline": raylet.split()}}]}},
        "/api/jobs/": [],
    }
    sent: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(said.get(self.path, {})).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            sent.append(self.path)

        do_POST = do_PUT

        def log_message(self, *args: object) -> None:
            """Not into the tests' output."""

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


@pytest.mark.parametrize(
    ("ray_version", "python", "told"),
    [
        ("2.9.3", HERE, f"the cluster runs Ray 2.9.3, here is {ray.__version__}; expected the same"),
        (ray.__version__, "3.9", f"the cluster runs Python 3.9, here is {HERE}; expected the same"),
    ],
)
def test_a_cluster_of_other_versions_is_refused_with_both(
    tmp_path: Path, ray_version: str, python: str, told: str
) -> None:
    spec = write_spec(tmp_path, Path("some/base"), concepts=10)
    with dashboard(ray_version, python) as (address, sent):
        refused = embtune_here("submit", spec, "--address", address, cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert told in refused.stderr
    assert not sent


def test_a_relative_folder_of_runs_is_refused_with_what_to_write(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, Path("some/base"), concepts=10)
    with dashboard(ray.__version__, HERE) as (address, sent):
        refused = embtune_here("submit", spec, "--address", address, "--runs", "runs", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--runs runs: relative" in refused.stderr
    assert "such as /mnt/runs" in refused.stderr
    assert not sent


def test_a_cluster_without_a_search_says_so(tmp_path: Path) -> None:
    with dashboard(ray.__version__, HERE) as (address, _):
        none = embtune_here("status", "--address", address, cwd=tmp_path)
        assert (none.returncode, none.stderr) == (2, f"embtune: --address {address}: no search was submitted there\n")
        unknown = embtune_here("logs", "job", "--address", address, cwd=tmp_path)
    assert "job job: not on" in unknown.stderr
    assert "jobs there: none" in unknown.stderr
