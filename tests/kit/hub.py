"""A server that speaks as much of the hub's protocol as an upload needs, on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


class Hub(ThreadingHTTPServer):
    """Keeps what it is given.

    Attributes:
        files: path -> content of each file committed.
        tokens: that requests brought.
        visibility: that repositories were made with.
    """

    def __init__(self, refuse: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.visibility: list[str] = []
        self.refuse = refuse

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers.get("authorization", ""))
        if self.server.refuse and self.server.refuse in self.path:
            return self._answer({"error": f"no, {self.headers['authorization']}"}, 403)
        if self.path == "/api/repos/create":
            self.server.visibility.append(json.loads(body)["visibility"])
            return self._answer({"url": f"{self.server.address}/owner/model", "name": "owner/model"})
        if self.path == "/api/validate-yaml":
            metadata = json.loads(body)["content"].split("---\n")[1]
            whole = isinstance(yaml.safe_load(metadata), dict)
            return self._answer({"errors": [], "warnings": []} if whole else {"errors": ["no"]}, 200 if whole else 400)
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return self._answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        if "/commit/" in self.path:
            for operation in map(json.loads, body.splitlines()):
                if operation["key"] == "file":
                    self.server.files[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
            oid = "0" * 40
            return self._answer({"commitUrl": f"{self.server.address}/owner/model/commit/{oid}", "commitOid": oid})
        return self._answer({"error": self.path}, 404)

    def do_GET(self) -> None:
        self._answer({"id": "owner/model", "sha": "0" * 40, "siblings": [], "private": True, "tags": []})

    def _answer(self, document: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


@contextmanager
def serving(refuse: str = "") -> Iterator[Hub]:
    """A hub that answers requests; those whose path holds `refuse` with 403."""
    hub = Hub(refuse)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
