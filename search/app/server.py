"""`embtune try`: the app put together and served by uvicorn."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from evaluation.benchmark.endpoint import Endpoint
from evaluation.errors import InputError
from search import __version__
from search.app.access import Access
from search.app.api import api_routes
from search.app.log import Log
from search.app.pages import handle_missing, page_routes
from search.app.service import Service

LOCALHOST = "127.0.0.1"


def make_app(service: Service, token: str | None = None) -> FastAPI:
    """The app of a service.

    Args:
        token: that every request has to bring; None: only this machine may ask.
    """
    # FastAPI's own pages of an API load their scripts from a CDN.
    app = FastAPI(title="embtune try", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Access, token=token)
    app.include_router(api_routes(service))
    app.include_router(page_routes(service, token, app.openapi))
    handle_missing(app, service)
    return app


def serve(
    run: Path,
    *,
    corpus: Path | None = None,
    models: Sequence[str] = (),
    host: str | None = None,
    port: int = 8501,
    languages: Sequence[str] = ("fr", "en"),
    translate: str | None = None,
    log: Path | None = None,
    llm: str | None = None,
    llm_model: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Load everything, then serve until it is interrupted.

    Args:
        run, corpus, models, languages, translate: see search/app/open.py.
        host: address to listen on, with a token; None: localhost, without one.
        port: 0 takes a free one.
        log: SQLite file of questions and thumbs; None: nothing is kept.
        llm, llm_model: endpoint that answers from the passages, and its model.
        say: told how far it is, and last the address.

    Raises:
        InputError: what is wrong with one of them.
    """
    # What is cheap to check comes before the models are loaded.
    with listening(host or LOCALHOST, port) as listener:
        kept = Log(log) if log else None
        endpoint = Endpoint.open(llm, llm_model) if llm else None

        from search.app.open import open_desk

        service = Service(open_desk(run, corpus, models, languages, translate, say), kept, endpoint)
        token = secrets.token_urlsafe(24) if host else None
        address = f"http://{_bracketed(host or 'localhost')}:{listener.getsockname()[1]}"
        say(f"{address}" + (f"  token: {token}" if token else "  (this machine alone; Ctrl-C stops it)"))
        # No access log: it would hold the addresses of those who ask, and their questions.
        config = uvicorn.Config(make_app(service, token), access_log=False, log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: the port is in use, or the address is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on {host}:{port} ({error}), expected a free --port and an own --host"
        ) from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
