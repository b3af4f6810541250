"""Who may ask, and what a browser may do with the answers: hosts, the token, headers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "embtune_token"
OPEN_PATHS = ("/token", "/style.css")  # what whoever has no token yet needs to give it
LOCAL = ("localhost", "127.0.0.1", "::1")
FORM = 10_000  # bytes; nobody without a token makes the server read more
HEADERS = {
    # No script at all: the pages have none, and none that hides in a text runs.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """ASGI middleware.

    Without a token the page is this machine's alone: a request under another name than localhost is refused, so that no
    site that a browser visits can reach it by a name of its own (DNS rebinding). With one, each request has to bring
    it, as a cookie or as `Authorization: Bearer`. What changes anything has to come from the page itself.
    """

    app: ASGIApp
    token: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        asked = HTTPConnection(scope)
        if refusal := self._refusal(asked, scope["method"]):
            return await refusal(scope, receive, sending)
        return await self.app(scope, receive, sending)

    def _refusal(self, asked: HTTPConnection, method: str) -> PlainTextResponse | RedirectResponse | None:
        host = _name(f"//{asked.headers.get('host', '')}")
        if self.token is None and host not in LOCAL:
            return PlainTextResponse(f"expected a request to localhost, not to {host!r}\n", 421)
        if method not in ("GET", "HEAD") and not _from_here(asked.headers):
            return PlainTextResponse("expected a form of this page, not of another site\n", 403)
        if method not in ("GET", "HEAD") and not _short(asked.headers):
            return PlainTextResponse(f"expected a form of at most {FORM:,} bytes\n", 413)
        if self.token is None or asked.url.path in OPEN_PATHS or self._given(asked):
            return None
        if "text/html" in asked.headers.get("accept", ""):
            return RedirectResponse("/token", 303)
        return PlainTextResponse("expected the token, as Authorization: Bearer TOKEN\n", 401)

    def _given(self, asked: HTTPConnection) -> bool:
        scheme, _, bearer = asked.headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else asked.cookies.get(COOKIE, "")
        return same(given.strip(), self.token)


def same(given: str, token: str | None) -> bool:
    """Whether a token is the right one, in a time that does not tell how much of it is."""
    return token is not None and secrets.compare_digest(given.encode(errors="replace"), token.encode())


def _from_here(headers: Headers) -> bool:
    """Whether a browser says that a form is of this page. What is no browser sends no Origin, and no cookie unasked."""
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "same-origin")
    return site in ("same-origin", "none") and (origin is None or origin.partition("//")[2] == headers.get("host"))


def _short(headers: Headers) -> bool:
    """Whether a body says that it is short; one that does not say is not read."""
    length = headers.get("content-length", "")
    return length.isascii() and length.isdigit() and len(length) < 9 and int(length) <= FORM


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # an address that is none, such as [::
        return ""
