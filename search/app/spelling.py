"""Misspelt words of a question -> words of the corpus first, then of a dictionary of its language (pyspellchecker's).

A word that stands in the corpus or in the dictionary is never touched, nor one in capitals, one with capitals inside
(DGFiP), one with digits or one of fewer than four letters. A correction is at most one letter away, accents aside.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from spellchecker import SpellChecker

WORD = re.compile(r"\w+")
SHORTEST = 4
LONGEST = 30  # letters; anything longer is no word
LETTERS = 64  # that a correction may put in, where the corpus alone says which there are
MOST = 50  # words of a question that are looked up


def plain(word: str) -> str:
    """Lower case without accents or ligatures.

    >>> plain("Œuvré")
    'oeuvre'
    """
    word = word.casefold().replace("œ", "oe").replace("æ", "ae")
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


class Spelling:
    """The words of a corpus and of its language. Made once, then only read."""

    def __init__(self, texts: Iterable[str], language: str = "fr") -> None:
        """Read the words of the texts, and the dictionary of an ISO 639 code, where there is one."""
        counts = Counter(word.casefold() for text in texts for word in WORD.findall(text))
        self._corpus = _Words(counts)
        try:
            self._checker = SpellChecker(language=language, distance=1)
            self._dictionary = _Words(self._checker.word_frequency.dictionary)
        except ValueError:  # no dictionary of that language: the corpus's words and letters alone
            self._checker = SpellChecker(language=None, distance=1)
            self._dictionary = _Words({})
            keys = {plain(word) for word in counts if word.isalpha()}
            letters = {letter for letter, _ in Counter("".join(sorted(keys))).most_common(LETTERS)}
            self._checker.word_frequency.load_words(key for key in keys if letters.issuperset(key))

    def corrections(self, text: str) -> dict[str, str]:
        """Misspelt word -> its correction, in the text's order. Words without a near one are not in it."""
        found: dict[str, str] = {}
        for word in list(dict.fromkeys(WORD.findall(text)))[:MOST]:
            if self._may_be_wrong(word) and (better := self._nearest(word)):
                found[word] = better.capitalize() if word[0].isupper() else better
        return found

    def _may_be_wrong(self, word: str) -> bool:
        return (
            SHORTEST <= len(word) <= LONGEST
            and word.isalpha()
            and not any(letter.isupper() for letter in word[1:])
            and word.casefold() not in self._corpus.counts
            and word.casefold() not in self._dictionary.counts
        )

    def _nearest(self, word: str) -> str | None:
        """The most frequent word: first among those that differ in accents alone, then among those one letter away."""
        bare = plain(word)
        near = self._checker.edit_distance_1(bare)
        for keys in ({bare}, near):
            for words in (self._corpus, self._dictionary):
                if best := words.best(keys):
                    return best
        return None


class _Words:
    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = counts
        self._spelt: dict[str, str] = {}  # without accents -> the most frequent word that it may stand for
        for word, count in counts.items():
            key = plain(word)
            if len(word) >= SHORTEST and word.isalpha() and count > counts.get(self._spelt.get(key, ""), 0):
                self._spelt[key] = word

    def best(self, keys: Iterable[str]) -> str | None:
        # Of equally frequent ones the first in the alphabet: the same at each call.
        words = sorted({self._spelt[key] for key in keys if key in self._spelt})
        return max(words, key=lambda word: self.counts[word], default=None)


def replaced(text: str, corrections: dict[str, str]) -> str:
    """The text with whole words replaced.

    >>> replaced("la demende, demendeur", {"demende": "demande"})
    'la demande, demendeur'
    """
    return WORD.sub(lambda match: corrections.get(match[0], match[0]), text)
