"""What is done to a question before it is searched: each step is shown, and can be switched off or on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from search.app.acronyms import ACRONYM
from search.app.language import SURE, Languages
from search.app.spelling import Spelling, replaced
from search.app.translation import Translator

Kind = Literal["language", "translation", "spelling", "acronym"]
ALL = "all"  # the switch of the whole clean-up


@dataclass(frozen=True)
class Step:
    """One thing that was done to a question, or could be.

    Attributes:
        kind: of the step.
        before, after: the words that it changes; for a language its code and how likely it is, "?" where that is not
            known and the corpus's is taken.
        done: whether the searched question has it; a suggestion has not.
        switch: what `off` names to undo it, or `on` to take a suggestion; empty where there is nothing to switch.
    """

    kind: Kind
    before: str
    after: str
    done: bool
    switch: str


@dataclass(frozen=True)
class Cleaned:
    """A question as it was asked, and as it is searched."""

    asked: str
    searched: str
    steps: tuple[Step, ...] = ()


@dataclass
class CleanUp:
    """The steps in their order: language, translation, spelling, acronyms."""

    languages: Languages
    spelling: Spelling
    acronyms: Mapping[str, str] = field(default_factory=dict)
    translator: Translator | None = None

    def clean(self, question: str, off: frozenset[str] = frozenset(), on: frozenset[str] = frozenset()) -> Cleaned:
        """Clean a question.

        Args:
            question: not blank.
            off: switches of what is not done: "all", a kind, or one step of a kind such as "spelling:demende".
            on: switches of suggestions that are taken, such as "acronym:DGFiP".
        """
        if ALL in off:
            return Cleaned(question, question)
        text, steps = question, []
        language, share = self.languages.detect(text)
        told = f"{share:.0%}"
        if share < SURE:
            language, told = self.languages.main, "?"
        if len(self.languages.codes) > 1:
            steps.append(Step("language", language, told, "language" not in off, "language"))
        foreign = language != self.languages.main and "language" not in off
        if foreign and self.translator is not None:
            translated = (self.translator.translate(text) if "translation" not in off else "") or text
            steps.append(Step("translation", text, translated, "translation" not in off, "translation"))
            foreign = "translation" in off
            text = translated
        if not foreign:  # words of the corpus and of its language
            text = self._spell(text, off, steps)
        text = self._expand(text, on, steps)
        return Cleaned(question, text, tuple(steps))

    def _spell(self, text: str, off: frozenset[str], steps: list[Step]) -> str:
        taken = {}
        for word, better in self.spelling.corrections(text).items():
            switch = f"spelling:{word}"
            done = switch not in off and "spelling" not in off
            steps.append(Step("spelling", word, better, done, switch))
            if done:
                taken[word] = better
        return replaced(text, taken)

    def _expand(self, text: str, on: frozenset[str], steps: list[Step]) -> str:
        for acronym in dict.fromkeys(ACRONYM.findall(text)):
            if (expansion := self.acronyms.get(acronym)) and expansion.casefold() not in text.casefold():
                switch = f"acronym:{acronym}"
                steps.append(Step("acronym", acronym, expansion, switch in on, switch))
                if switch in on:
                    written = f"{acronym} ({expansion})"
                    text = replaced(text, {acronym: written})
        return text
