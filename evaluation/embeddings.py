"""Texts -> unit vectors, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import InputError

if TYPE_CHECKING:
    from evaluation.embedding_cache import EmbeddingCache

Role = Literal["query", "document"]


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
    cache: EmbeddingCache | None = None,
) -> NDArray[np.float32]:
    """Encode texts as queries or as documents: (N, D) float32, each row of length 1.

    The model's numbers are brought to float32 before they are normalised, so that bf16 models lose nothing there.
    SentenceTransformer sorts the texts by length itself, so that batches hold little padding.

    Raises:
        InputError: embeddings that are not (N, D), or that hold NaN or infinity; a cache with another kind of encoder.
    """
    if cache is not None:
        return cache.embed(encoder, texts, role, batch_size, progress)
    encode: Callable[..., Any] = encoder.encode_query if role == "query" else encoder.encode_document
    vectors = np.asarray(encode(list(texts), batch_size=batch_size, show_progress_bar=progress), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise InputError(f"{role} embeddings have shape {vectors.shape}, expected ({len(texts)}, D)")
    return unit_rows(vectors, role)


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
