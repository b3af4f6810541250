"""A language model behind an OpenAI-compatible endpoint: one call, and what can go wrong with it in one line each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from evaluation.errors import InputError

KEY = "OPENAI_API_KEY"  # environment variable; an endpoint on one's own machine needs none
REFUSED = (401, 403)  # HTTP: the key is wrong, or is missing
TIMEOUT = httpx2.Timeout(120, connect=5)  # seconds; a model on CPU takes long to answer, no server to accept a call


@dataclass(frozen=True)
class Endpoint:
    """What answers `POST {url}/chat/completions`.

    Attributes:
        url: up to and with the version, such as http://localhost:11434/v1.
        model: that is asked.
        key: of the environment when the endpoint was opened; never shown.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def open(cls, url: str, model: str | None = None) -> Endpoint:
        """Ask the endpoint for its models, so that one that does not answer is found before anything is computed.

        Args:
            url: of the endpoint.
            model: to ask, which it need not list; None: the one that the endpoint has.

        Raises:
            InputError: not a URL, no answer, a key that it refuses, several models and none named.
        """
        if not url.startswith(("http://", "https://")):
            raise InputError(f"endpoint {url}: not a URL, expected one such as http://localhost:11434/v1")
        endpoint = cls(url.rstrip("/"), model or "", os.environ.get(KEY))
        if model:
            reply = endpoint._send("GET", "/models")
            if reply.status_code in REFUSED:
                raise endpoint._refusal(reply, "/models")
            return endpoint
        entries = endpoint._call("GET", "/models").get("data")
        names = [str(entry.get("id")) for entry in entries or () if isinstance(entry, dict)]
        if len(names) != 1:
            raise InputError(
                f"endpoint {url}: has {len(names)} models ({', '.join(names[:8])}), expected the name of one"
            )
        return cls(endpoint.url, names[0], endpoint.key)

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The model's reply to a conversation, at temperature 0.

        Args:
            messages: {"role": ..., "content": ...}, oldest first.

        Raises:
            InputError: no answer, an error, or a reply that the protocol does not know.
        """
        body = {"model": self.model, "messages": list(messages), "temperature": 0}
        reply = self._call("POST", "/chat/completions", body)
        try:
            text = reply["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            raise InputError(f"endpoint {self.url}: no choices[0].message.content in its reply")
        return text

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        reply = self._send(method, path, body)
        if reply.status_code != 200:
            raise self._refusal(reply, path)
        try:
            value = reply.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(f"endpoint {self.url}: its answer to {path} is no JSON object")
        return value

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            # Redirects are not followed: the key goes nowhere but to the URL that was named.
            return httpx2.request(method, self.url + path, json=body, headers=headers, timeout=TIMEOUT)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise InputError(f"endpoint {self.url}: does not answer ({type(error).__name__})") from None

    def _refusal(self, reply: httpx2.Response, path: str) -> InputError:
        return InputError(f"endpoint {self.url}: answers {reply.status_code} {reply.reason_phrase} to {path}")
