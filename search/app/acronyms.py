"""What acronyms stand for, read off training pairs: "DGFiP" -> "direction générale des Finances publiques".

The anchor is an acronym, and its passage writes it out somewhere: words whose first letters spell it, small words aside
(the idea of Schwartz and Hearst, 2003, made stricter: each large word has to give a letter).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from search.app.spelling import plain

ACRONYM = re.compile(r"\b[A-ZÀ-Ý][A-Za-zÀ-ÿ]{0,8}[A-ZÀ-Ý][A-Za-zÀ-ÿ]?\b")
WORD = re.compile(r"[^\W\d_]+")
_SMALL = "a au aux d de des du en et l la le les par pour sur un une of the and for"
SMALL = frozenset(_SMALL.split())
LONGEST = 12  # words of an expansion


def expansions(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Acronym -> the first expansion that a passage of it gives."""
    found: dict[str, str] = {}
    for anchor, positive in pairs:
        for acronym in ACRONYM.findall(anchor):
            if acronym not in found and (expansion := written_out(acronym, positive)):
                found[acronym] = expansion
    return found


def written_out(acronym: str, text: str) -> str | None:
    """The first words of the text that spell an acronym, None where there are none.

    >>> written_out("DGFiP", "La DGFiP, direction générale des Finances publiques, recouvre l'impôt.")
    'direction générale des Finances publiques'
    """
    letters = plain(acronym)
    for sentence in re.split(r"[,;:().!?\n]", text):  # an expansion does not run over a comma
        spans = list(WORD.finditer(sentence))
        words = [plain(span[0]) for span in spans]
        for start, word in enumerate(words):
            if word == letters or word in SMALL or word[0] != letters[0]:
                continue
            end = _spelt(letters, words[start : start + LONGEST])
            if end > 1:
                return sentence[spans[start].start() : spans[start + end - 1].end()]
    return None


def _spelt(letters: str, words: Sequence[str]) -> int:
    """How many of the words spell the letters, 0 where they do not."""
    if not letters or not words:
        return 0
    word = words[0]
    if word in SMALL and (rest := _spelt(letters, words[1:])):
        return rest + 1
    for given in range(1, len(letters) + 1):
        if not _in_order(letters[:given], word):
            break
        if given == len(letters):
            return 1
        if rest := _spelt(letters[given:], words[1:]):
            return rest + 1
    return 0


def _in_order(letters: str, word: str) -> bool:
    """Whether the word begins with the first letter and holds the others after it, in their order."""
    if word[0] != letters[0]:
        return False
    rest = iter(word[1:])
    return all(letter in rest for letter in letters[1:])
