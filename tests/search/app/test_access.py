"""Who may ask: this machine alone, or whoever has the token; and no other site through their browser."""

from __future__ import annotations

import pytest

from tests.search.app.conftest import Client

TOKEN = "a-token-of-this-test"
PATHS = ("/", "/?q=a", "/api/search?q=a", "/docs", "/openapi.json", "/admin", "/admin/pairs.jsonl")


@pytest.mark.parametrize("path", PATHS)
def test_with_a_token_nothing_is_shown_without_it(client: Client, path: str) -> None:
    browser = client(log=True, token=TOKEN)
    program = browser.get(path, headers={"accept": "application/json"}, follow_redirects=False)
    assert program.status_code == 401
    person = browser.get(path, follow_redirects=False)
    assert (person.status_code, person.headers["location"]) == (303, "/token")
    assert browser.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert browser.get(path, headers={"authorization": f"Bearer {TOKEN}x", "accept": "*/*"}).status_code == 401
    assert browser.get(path, headers={b"cookie": "embtune_token=é".encode(), b"accept": b"*/*"}).status_code == 401


def test_the_token_is_typed_once(client: Client) -> None:
    browser = client(token=TOKEN)
    assert browser.post("/token", data={"token": "wrong"}).status_code == 401
    entered = browser.post("/token", data={"token": TOKEN}, follow_redirects=False)
    assert "httponly" in entered.headers["set-cookie"].lower()
    assert "samesite=strict" in entered.headers["set-cookie"].lower()
    assert browser.get("/?q=a").status_code == 200


def test_without_a_token_a_name_that_leads_here_is_refused(client: Client) -> None:
    for host in ("evil.example", "localhost.evil.example", "[::", ""):
        assert client().get("/", headers={"host": host}).status_code == 421
    for host in ("localhost:8501", "127.0.0.1:8501", "[::1]:8501"):
        assert client().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}]
)
def test_another_site_cannot_send_a_form(client: Client, headers: dict[str, str]) -> None:
    browser = client(log=True)
    browser.get("/?q=a")
    assert browser.post("/thumb?entry=1", data={"place": "0", "thumb": "up"}, headers=headers).status_code == 403
    own = {"origin": "http://localhost:8501", "sec-fetch-site": "same-origin"}
    assert browser.post("/thumb?entry=1&q=a", data={"place": "0", "thumb": "up"}, headers=own).status_code == 200


def test_a_long_form_is_not_read(client: Client) -> None:
    browser = client(token=TOKEN)
    assert browser.post("/token", data={"token": "x" * 20_000}).status_code == 413
    assert browser.post("/token", content=iter([b"token=", b"x" * 9])).status_code == 413


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/../../etc/passwd", "/%2e%2e/server.py", "/server.py", "/ask.html.j2"]
)
def test_no_file_is_served(client: Client, path: str) -> None:
    assert client().get(path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/docs", "/none", "/style.css", "/api/search?q=a"])
def test_every_answer_has_the_strict_headers(client: Client, path: str) -> None:
    headers = client().get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"
