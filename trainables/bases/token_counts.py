"""How many tokens a text is for a base: its own tokenizer, without its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from trainables.bases import hub
from trainables.bases.families import resolve_base
from trainables.config import TrialConfig


@dataclass(frozen=True)
class TokenCounter:
    """How a base counts tokens.

    Attributes:
        count: column (anchor or positive) and texts -> number of tokens of each, special tokens and prompt included.
        count_inputs: of a classifier: texts, each with its second one or none -> number of tokens of each.
        max_length: tokens beyond it are cut.
    """

    count: Callable[[str, Sequence[str]], Sequence[int]]
    count_inputs: Callable[[Sequence[tuple[str, str | None]]], Sequence[int]]
    max_length: int


def token_counts(config: TrialConfig) -> TokenCounter | None:
    """Counts tokens as the trial's base will; None where its tokenizer.json is out of reach.

    Raises:
        InputError: nothing is known of the base.
    """
    base = resolve_base(config)
    path = hub.find_file(config.base, "tokenizer.json", config.revision)
    if path is None:
        return None
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    prompts = {"anchor": base.query_prompt, "positive": base.passage_prompt}

    def count(column: str, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch([prompts[column] + text for text in texts])]

    def count_inputs(inputs: Sequence[tuple[str, str | None]]) -> list[int]:
        asked = [text if pair is None else (text, pair) for text, pair in inputs]
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(asked)]

    return TokenCounter(count, count_inputs, base.max_length)
