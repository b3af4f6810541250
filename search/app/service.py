"""What the page and the API do with a question: in a thread, a few at a time, kept in the log where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from evaluation.benchmark.endpoint import Endpoint
from search.app.answer import Piece, answer
from search.app.ask import Asked, Desk
from search.app.links import View
from search.app.log import Log, Thumb

Value = TypeVar("Value")
ANSWERS = 100  # that are remembered


@dataclass
class Service:
    """The desk with what stands around it.

    Attributes:
        log: of questions and thumbs; None: nothing is kept.
        llm: that answers; None: there are passages alone.
    """

    desk: Desk
    log: Log | None = None
    llm: Endpoint | None = None
    # Answers cost time and money: the page that comes after a thumb, or in the other language, has the same one.
    _answers: dict[tuple[str, ...], list[Piece]] = field(default_factory=dict)
    # However many wait for a slow model or endpoint, threads are left for all that does not need one.
    _searching: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(8))
    _answering: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))

    async def ask(self, view: View, shown: int) -> tuple[Asked, int | None]:
        """The answer to a question, and its number in the log."""

        def work() -> tuple[Asked, int | None]:
            asked = self.desk.ask(view.question or "", view.off, view.on, shown)
            if self.log is None:
                return asked, None
            again = view.entry is not None and self.log.searched(view.entry) == asked.cleaned.searched
            return asked, view.entry if again else self.log.add(asked)

        return await to_thread.run_sync(work, limiter=self._searching)

    async def answer(self, asked: Asked) -> list[Piece]:
        """An answer from the last model's passages; one of the last few is not asked for again.

        Raises:
            InputError: the endpoint does not answer.
        """
        assert self.llm is not None
        texts = [passage.text for passage in asked.columns[-1].passages]
        key = (asked.cleaned.searched, *texts)
        if key not in self._answers:
            work = partial(answer, self.llm, asked.cleaned.searched, texts)
            self._answers[key] = await to_thread.run_sync(work, limiter=self._answering)
        pieces = self._answers[key]
        while len(self._answers) > ANSWERS:
            del self._answers[next(iter(self._answers))]
        return pieces

    async def judge(self, entry: int, place: int, thumb: Thumb) -> bool:
        """Keep a thumb; False: there is no such question or passage, or no log."""
        log, corpus = self.log, self.desk.corpus
        if log is None or not 0 <= place < len(corpus.texts):
            return False
        return await self.read(lambda: log.judge(entry, place, corpus.texts[place], corpus.concepts[place], thumb))

    async def read(self, work: Callable[[], Value]) -> Value:
        """Do something short that waits for a file."""
        return await to_thread.run_sync(work)
