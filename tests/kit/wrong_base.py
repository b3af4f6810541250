"""A base that is read otherwise than its files say."""

from __future__ import annotations

from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

from trainables.model import loaded
from trainables.model.loaded import forget_bases


def embed_the_first_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader takes the first token where the base's files say mean."""
    whole = loaded._read

    def wrong(*args: Any, **kwargs: Any) -> SentenceTransformer:
        model = whole(*args, **kwargs)
        model[1].__init__(model[1].embedding_dimension, ["cls"])  # type: ignore[misc]
        return model

    monkeypatch.setattr(loaded, "_read", wrong)
    forget_bases()
