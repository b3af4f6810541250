"""One toy run with its models in memory, for all tests of the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from evaluation.benchmark.endpoint import Endpoint
from search.app.ask import Desk
from search.app.log import Log
from search.app.server import make_app
from search.app.service import Service
from tests.conftest import TinyBase
from tests.kit.app import app_run, quiet_desk

Client = Callable[..., TestClient]


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_base: TinyBase) -> Path:
    return app_run(tmp_path_factory.mktemp("app"), tiny_base("bert"))


@pytest.fixture(scope="package")
def desk(run: Path) -> Desk:
    found: Desk = quiet_desk(run)
    return found


@pytest.fixture
def client(desk: Desk, tmp_path: Path) -> Client:
    """`client(log=False, llm=None, token=None) -> TestClient` of a browser on this machine."""

    def make(log: bool = False, llm: Endpoint | None = None, token: str | None = None) -> TestClient:
        service = Service(desk, Log(tmp_path / "log.sqlite") if log else None, llm)
        headers = {"accept": "text/html", "accept-language": "en"}
        return TestClient(make_app(service, token), base_url="http://localhost:8501", headers=headers)

    return make
