"""The page of `embtune try` for tests: a toy run with real tiny models, served without a network."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from search.app.open import open_desk
from tests.kit.toy_run import make_run

Reply = Callable[[list[dict[str, str]]], str]


def app_run(folder: Path, base: Path) -> Path:
    """A finished toy run whose best model is the base with other weights."""
    run = make_run(folder, "toy", base=str(base))
    model = SentenceTransformer(str(base), device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.save(str(run / "best"))
    return run


def quiet_desk(run: Path, **options: Any) -> Any:
    """open_desk without its words."""
    return open_desk(run, say=lambda _: None, **options)


@contextmanager
def chat_server(
    reply: Reply, models: tuple[str, ...] = ("tiny",), status: int = 200
) -> Iterator[tuple[str, list[Any]]]:
    """A local server that speaks the OpenAI protocol: (its URL, what it was sent: headers and body of each call)."""
    calls: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"object": "list", "data": [{"id": name, "object": "model"} for name in models]}, 200)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls.append((dict(self.headers), body))
            message = {"role": "assistant", "content": reply(body["messages"])}
            self._send({"object": "chat.completion", "choices": [{"index": 0, "message": message}]}, status)

        def _send(self, document: dict[str, Any], status: int) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", calls
        finally:
            server.shutdown()
            thread.join()
