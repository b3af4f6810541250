"""In which of the named languages a question is written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from evaluation.errors import InputError

SURE = 0.9  # of a share of the likelihood: below it a question is taken to be in the corpus's language


class Languages:
    """Tells the named languages apart, the first of which is the corpus's. Made once; may be asked by many threads."""

    def __init__(self, codes: Sequence[str]) -> None:
        self.codes = tuple(dict.fromkeys(codes))
        # An identifier of its own: the module's is shared, and restricting it would change the data report.
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=False)
        try:
            self._identifier.set_languages(self.codes)
        except ValueError as error:
            raise InputError(f"--language: {error}, expected ISO 639 codes such as fr and en") from None

    @property
    def main(self) -> str:
        return self.codes[0]

    def detect(self, text: str) -> tuple[str, float]:
        """The likeliest language and its share of the likelihood, 0 to 1."""
        ranked: list[tuple[str, float]] = self._identifier.rank(text)
        shares = [math.exp(score - ranked[0][1]) for _, score in ranked]
        return ranked[0][0], 1 / sum(shares)
