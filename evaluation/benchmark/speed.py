"""How fast a model encodes, by the length of the texts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sentence_transformers import SentenceTransformer

from evaluation.errors import InputError


@dataclass(frozen=True)
class Speed:
    """Encoding texts of one length.

    Attributes:
        tokens: of each text, about (a text is cut from real ones at this number of tokens).
        texts_per_second: throughput of full batches.
        latency_ms: median time of one text alone, in milliseconds.
    """

    tokens: int
    texts_per_second: float
    latency_ms: float


def measure_speed(
    model: SentenceTransformer,
    texts: Sequence[str],
    tokens: Sequence[int] = (16, 64, 256),
    batch_size: int = 32,
    seconds: float = 2.0,
) -> list[Speed]:
    """Time the encoding of passages cut from real texts; lengths beyond the model's longest input are left out.

    Args:
        model: on the device that is measured.
        texts: what the passages are cut from.
        tokens: lengths of the passages.
        batch_size: texts encoded at once in the throughput.
        seconds: spent on each length, half of it on the throughput; at least one batch and three single texts.

    Raises:
        InputError: texts without a word.
    """
    words = " ".join(texts)[:200_000]
    ids = model.tokenizer(words, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    if not words.strip():
        raise InputError("texts to measure the speed on hold no words, expected some")
    longest = model.max_seq_length or max(tokens)
    results = []
    for length in (t for t in tokens if t <= longest):
        repeated = np.resize(np.asarray(ids), batch_size * length).reshape(batch_size, length)
        batch = model.tokenizer.batch_decode(repeated.tolist())
        model.encode_document(batch, batch_size=batch_size, show_progress_bar=False)  # warm-up: allocations, kernels
        batches, elapsed = _repeat(model, batch, seconds / 2, at_least=1)
        _, single = _repeat(model, batch[:1], seconds / 2, at_least=3)
        results.append(Speed(length, len(batch) * batches / sum(elapsed), 1000 * float(np.median(single))))
    return results


def _repeat(model: SentenceTransformer, texts: list[str], seconds: float, at_least: int) -> tuple[int, list[float]]:
    """Encode until the time is spent: the number of runs and the seconds of each."""
    elapsed: list[float] = []
    while len(elapsed) < at_least or sum(elapsed) < seconds:
        start = time.perf_counter()
        model.encode_document(texts, batch_size=len(texts), show_progress_bar=False)  # to numpy, so the device is done
        elapsed.append(time.perf_counter() - start)
    return len(elapsed), elapsed
