"""What an address of the page says, read and written: the question, its switches, the language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from starlette.requests import Request

from search.app.cleanup import ALL, Step
from search.app.wording import TONGUES, preferred


@dataclass(frozen=True)
class View:
    """What is asked for.

    Attributes:
        question: as typed; None: none was sent.
        off, on: switches of the clean-up, see search/app/cleanup.py.
        tongue: of the page.
        answer: whether an answer is wanted.
        entry: number in the log of this same question, which is not kept a second time.
    """

    question: str | None
    off: frozenset[str]
    on: frozenset[str]
    tongue: str
    answer: bool = False
    entry: int | None = None

    @classmethod
    def of(cls, request: Request) -> View:
        """What a request's address says; what it does not know is passed over."""
        given = request.query_params
        tongue = given.get("lang", "")
        entry = given.get("entry", "")
        return cls(
            question=given.get("q"),
            off=frozenset(given.getlist("off")),
            on=frozenset(given.getlist("on")),
            tongue=tongue if tongue in TONGUES else preferred(request.headers.get("accept-language", "")),
            answer="answer" in given,
            entry=int(entry) if entry.isascii() and entry.isdigit() and len(entry) < 16 else None,
        )

    def query(self) -> str:
        """The part of the address after the question mark."""
        pairs = [("q", self.question)] if self.question is not None else []
        pairs += [("off", name) for name in sorted(self.off)] + [("on", name) for name in sorted(self.on)]
        pairs += [("lang", self.tongue)]
        pairs += [("answer", "1")] if self.answer else []
        pairs += [("entry", str(self.entry))] if self.entry is not None else []
        return urlencode(pairs, errors="replace")

    def switched(self, step: Step) -> str:
        """The address with a step undone, or done."""
        off, on = set(self.off) - {step.kind}, set(self.on)
        if step.done:
            on.discard(step.switch)
            off |= set() if step.kind == "acronym" else {step.switch}
        else:
            off.discard(step.switch)
            on |= {step.switch} if step.kind == "acronym" else set()
        return self._to(off=frozenset(off), on=frozenset(on))

    def without_clean_up(self) -> str:
        return self._to(off=self.off | {ALL})

    def with_clean_up(self) -> str:
        return self._to(off=self.off - {ALL})

    def in_tongue(self, tongue: str) -> str:
        return "?" + replace(self, tongue=tongue).query()

    def answered(self) -> str:
        return "?" + replace(self, answer=True).query()

    def _to(self, **changes: Iterable[str]) -> str:
        # Another search: an entry of its own, and an answer only when it is asked for again.
        return "/?" + replace(self, answer=False, entry=None, **changes).query()  # type: ignore[arg-type]
