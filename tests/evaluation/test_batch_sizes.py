"""How many texts are encoded at once: fewer where texts are long, and fewer again where memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.embeddings import embed, fitting_batch
from evaluation.retrieval import evaluate
from evaluation.task import RetrievalTask


class Encoder:
    """A device that holds so many padded characters: it counts letters, and fails as a GPU does on a larger batch."""

    def __init__(self, holds: int, max_seq_length: int | None = 8192, error: type[Exception] = torch.OutOfMemoryError):
        self.holds, self.max_seq_length, self.error = holds, max_seq_length, error
        self.batches: list[tuple[int, int]] = []  # texts, and characters of the longest

    def encode_query(self, inputs: Sequence[str], *, batch_size: int, show_progress_bar: bool) -> Any:
        order = sorted(range(len(inputs)), key=lambda at: -len(inputs[at]))
        rows = np.empty((len(inputs), 26))
        for start in range(0, len(inputs), batch_size):
            batch = order[start : start + batch_size]
            longest = len(inputs[batch[0]])
            self.batches.append((len(batch), longest))
            if len(batch) * longest > self.holds:
                raise self.error("CUDA out of memory. Tried to allocate 8.59 GiB.")
            for at in batch:
                rows[at] = [inputs[at].count(chr(ord("a") + letter)) for letter in range(26)]
        return rows

    encode_document = encode_query


@pytest.fixture
def texts() -> list[str]:
    """Short and long ones, in no order."""
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(20, 200, 150), *rng.integers(2_000, 40_000, 50)]
    rng.shuffle(lengths)
    return ["".join(map(chr, rng.integers(ord("a"), ord("z") + 1, length))) for length in lengths]


def test_texts_of_512_tokens_are_encoded_as_many_at_once_as_was_asked() -> None:
    assert fitting_batch(64, characters=1_000, longest_input=8192) == 64
    assert fitting_batch(64, characters=1_000_000, longest_input=512) == 64
    assert fitting_batch(256, characters=1_000_000, longest_input=512) == 256


def test_long_texts_are_encoded_few_at_once() -> None:
    assert fitting_batch(64, characters=1_000_000, longest_input=8192) == 4
    assert fitting_batch(64, characters=4_000, longest_input=8192) == 16
    assert fitting_batch(64, characters=1_000_000, longest_input=None) == 1


def test_a_long_text_does_not_slow_down_the_short_ones(texts: list[str]) -> None:
    encoder = Encoder(holds=10**9)
    rows = embed(encoder, texts, "document", 64)
    np.testing.assert_array_equal(rows, embed(Encoder(10**9, max_seq_length=256), texts, "document", 64))
    assert all(batch * min(longest // 2, 8192) <= 1.1 * 64 * 512 for batch, longest in encoder.batches)
    assert sum(longest < 1_000 for _, longest in encoder.batches) <= 4  # 150 short texts: three full batches or so


def test_a_batch_that_does_not_fit_is_halved_until_it_does(texts: list[str]) -> None:
    encoder = Encoder(holds=100_000, max_seq_length=256)  # by its longest input alone, 64 texts should fit
    rows = embed(encoder, texts, "document", 64)
    np.testing.assert_array_equal(rows, embed(Encoder(10**9), texts, "document", 64))
    tried = [batch for batch, _ in encoder.batches]
    assert tried[:6] == [64, 32, 16, 8, 4, 2]


def test_an_evaluation_that_does_not_fit_scores_the_same(texts: list[str]) -> None:
    corpus = {f"p{at}": text for at, text in enumerate(texts)}
    queries = {f"q{at}": texts[at][: len(texts[at]) // 2] for at in range(0, 200, 5)}
    qrels = {query: {query.replace("q", "p"): 1} for query in queries}
    task = RetrievalTask("toy", corpus, queries, qrels, {query: query for query in queries})
    tight, roomy = evaluate(Encoder(holds=60_000), task), evaluate(Encoder(holds=10**9), task)
    assert tight.means == roomy.means
    assert 0 < roomy.means["ndcg@10"] < 1


def test_one_text_that_does_not_fit_is_an_error(texts: list[str]) -> None:
    encoder = Encoder(holds=30_000, max_seq_length=256)
    with pytest.raises(torch.OutOfMemoryError):
        embed(encoder, texts, "query", 64)
    assert encoder.batches[-1][0] == 1


def test_another_error_is_not_tried_again(texts: list[str]) -> None:
    class OtherError(RuntimeError):
        def __init__(self, _: str) -> None:
            super().__init__("device-side assert triggered")

    encoder = Encoder(holds=1, error=OtherError)
    with pytest.raises(OtherError):
        embed(encoder, texts, "query", 64)
    assert len(encoder.batches) == 1
