"""A question in another language -> one in the corpus's, by a Marian model (opus-mt) that the user names."""

from __future__ import annotations

import threading
from typing import Any

from evaluation.errors import InputError


class Translator:
    """A Marian model in memory; one question at a time."""

    def __init__(self, location: str) -> None:
        """Load a hub id or a folder.

        Raises:
            InputError: not there, or not a Marian model.
        """
        from transformers import AutoConfig, MarianMTModel, MarianTokenizer

        try:
            kind = AutoConfig.from_pretrained(location, trust_remote_code=False).model_type
            if kind != "marian":
                raise InputError(f"--translate {location}: a {kind} model, expected a Marian one (opus-mt)")
            self._tokenizer: Any = MarianTokenizer.from_pretrained(location)
            # Many of these models are there as .bin alone; transformers reads one as tensors only, never as a pickle.
            self._model: Any = MarianMTModel.from_pretrained(location).eval()
        except InputError:
            raise
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"--translate {location}: cannot be loaded ({reason}), expected a Marian model") from None
        self.location = location
        self._lock = threading.Lock()

    def translate(self, text: str) -> str:
        """The text in the model's target language."""
        import torch

        with self._lock, torch.inference_mode():
            longest = int(self._model.config.max_position_embeddings)
            batch = self._tokenizer([text], return_tensors="pt", truncation=True, max_length=longest)
            tokens = self._model.generate(**batch, max_length=longest)
            return str(self._tokenizer.decode(tokens[0], skip_special_tokens=True)).strip()
