"""The longest text of the data in tokens of a base: what a batch holds at most, however much the base could read."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trainables.bases.families import resolve_base
from trainables.bases.token_counts import token_counts
from trainables.config import TrialConfig

LOOKED_AT = 256  # texts of each column, those with the most characters
SPECIAL = 8  # tokens around a text, at most


@dataclass(frozen=True)
class LongestTexts:
    """Texts of each column (anchor, positive) that have the most characters."""

    columns: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Iterable[str]]]) -> LongestTexts:
        """Look at every pair: its query, and its passages with the negatives among them."""
        columns: dict[str, list[str]] = {"anchor": [], "positive": []}
        for anchor, passages in pairs:
            columns["anchor"].append(anchor)
            columns["positive"].extend(passages)
            for name, texts in columns.items():
                if len(texts) > 16 * LOOKED_AT:
                    columns[name] = heapq.nlargest(LOOKED_AT, texts, key=len)
        return cls({name: heapq.nlargest(LOOKED_AT, texts, key=len) for name, texts in columns.items()})

    def tokens(self, config: TrialConfig) -> int | None:
        """Tokens of the longest as the trial's base counts them, prompt included, before anything is cut; None: no
        texts.

        Where the base's tokenizer is out of reach: as many as a text has bytes, which no tokenizer passes.

        Raises:
            InputError: nothing is known of the base.
        """
        if not any(self.columns.values()):
            return None
        counter = token_counts(config)
        if counter is not None:
            return max(max(counter.count(name, texts), default=0) for name, texts in self.columns.items())
        base = resolve_base(config)
        prompts = {"anchor": base.query_prompt, "positive": base.passage_prompt}
        return SPECIAL + max(
            len((prompts[name] + text).encode()) for name, texts in self.columns.items() for text in texts
        )
