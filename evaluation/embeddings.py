"""Texts -> unit vectors, checked."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import InputError
from evaluation.out_of_memory import free_memory, is_out_of_memory

Role = Literal["query", "document"]
USUAL_TOKENS = 512  # of a text; a batch of longer ones holds fewer
CHARACTERS = 2  # of a token: European words have 3 to 5, Chinese and code fewer


class Encoder(Protocol):
    """What is evaluated: SentenceTransformer, or anything with its two encoding methods.

    Each takes N texts and gives (N, D) numbers; the model's own prompts are put before the texts.
    """

    def encode_query(self, inputs: Any, *, batch_size: int, show_progress_bar: bool) -> Any: ...

    def encode_document(self, inputs: Any, *, batch_size: int, show_progress_bar: bool) -> Any: ...


def embed(
    encoder: Encoder,
    texts: Sequence[str],
    role: Role,
    batch_size: int = 64,
    progress: bool = False,
) -> NDArray[np.float32]:
    """Encode texts as queries or as documents: (N, D) float32, each row of length 1.

    The model's numbers are brought to float32 before they are normalised, so that bf16 models lose nothing there.
    SentenceTransformer sorts the texts by length itself, so that batches hold little padding. Texts longer than
    USUAL_TOKENS are encoded fewer at once, and a batch for which memory runs out is halved until it fits.

    Args:
        batch_size: texts encoded at once, at most.

    Raises:
        InputError: embeddings that are not (N, D), or that hold NaN or infinity.
    """
    encode: Callable[..., Any] = encoder.encode_query if role == "query" else encoder.encode_document
    longest_input: int | None = getattr(encoder, "max_seq_length", None)
    if fitting_batch(batch_size, max(map(len, texts), default=0), longest_input) == batch_size:
        vectors = _encoded(encode, texts, role, batch_size, progress)
    else:
        order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        pieces, start = [], 0
        while start < len(order):
            longest = len(texts[order[start]])
            size = fitting_batch(batch_size, longest, longest_input)
            # Texts of half the length take half the room: they go in larger batches.
            end = bisect_left(order, -longest // 2, lo=start + 1, key=lambda at: -len(texts[at]))
            end = len(order) if size == batch_size else end
            pieces.append(_encoded(encode, [texts[at] for at in order[start:end]], role, size, progress))
            start = end
        vectors = np.concatenate(pieces)[np.argsort(order)]
    return unit_rows(vectors, role)


def fitting_batch(most: int, characters: int, longest_input: int | None) -> int:
    """Texts to encode at once, so that they hold no more than `most` texts of USUAL_TOKENS do.

    Args:
        most: texts of a batch.
        characters: of the longest text.
        longest_input: tokens that the model reads of it; None: all.
    """
    tokens = characters // CHARACTERS + 1
    if longest_input is not None:
        tokens = min(tokens, longest_input)
    return max(1, min(most, most * USUAL_TOKENS // tokens))


def _encoded(
    encode: Callable[..., Any], texts: Sequence[str], role: Role, batch_size: int, progress: bool
) -> NDArray[np.float32]:
    """(N, D) as the encoder gives them, in batches of half the size, and half of that, where memory runs out."""
    while True:
        try:
            encoded = encode(list(texts), batch_size=batch_size, show_progress_bar=progress)
        except Exception as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
        else:
            vectors = np.asarray(encoded, dtype=np.float32)
            if vectors.ndim != 2 or len(vectors) != len(texts):
                raise InputError(f"{role} embeddings have shape {vectors.shape}, expected ({len(texts)}, D)")
            return vectors
        free_memory()
        batch_size //= 2


def unit_rows(vectors_ND: NDArray[np.float32], what: str = "text") -> NDArray[np.float32]:
    """Rows divided by their length; a row of zeros stays.

    Raises:
        InputError: NaN or infinity, with the number of rows and the first of them.
    """
    wrong = np.flatnonzero(~np.isfinite(vectors_ND).all(axis=1))
    if len(wrong):
        raise InputError(
            f"embeddings of {len(wrong)} of {len(vectors_ND)} {what} texts hold NaN or infinity, the first is number "
            f"{wrong[0] + 1}; expected finite numbers (a model that diverged in training gives these)"
        )
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.divide(vectors_ND, np.where(lengths_N1 > 0, lengths_N1, 1), dtype=np.float32)
