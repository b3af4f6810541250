"""Check the data: what is wrong with it, row by row, and what the search does about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from evaluation.errors import InputError
from trainables.check.findings import Draft, findings
from trainables.check.near_duplicates import near_duplicates
from trainables.check.second_look import SecondLook, second_look, texts_of
from trainables.data.config import DataConfig
from trainables.data.rows import PARTS, Pair, shortened
from trainables.data.splits import DEV, TEST, TRAIN, require_parts
from trainables.data.survey import Survey, survey

NO_SEED = 42


class Example(BaseModel):
    """A row that shows a finding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    text: str


class Finding(BaseModel):
    """One thing that the check found, and what the search does about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    count: int
    what: str
    action: str
    examples: tuple[Example, ...] = ()


class Lengths(BaseModel):
    """Lengths of one column: of a sample in tokens where the base is known, else of all rows in characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str
    of: int
    mean: float
    median: float
    p95: float
    longest: int
    max_length: int | None = None
    cut: float | None = None


class DataReport(BaseModel):
    """What `embtune data check` shows and a run's data/report.json holds.

    Attributes:
        config, seed: what the rows were read and split with.
        rows: rows of the source. `dropped` and the rows that could not be read are among them.
        dropped: rule -> rows that it took.
        kept: part -> rows. `concepts` and `passages`: part -> how many distinct ones.
        negatives: of the training row that brings the most; none: not counted.
        concept_sizes: rows of a concept: smallest, median, largest.
        domains: domain -> part -> concepts.
        languages: of a sample of passages, language -> share.
        lengths: anchor and positive.
        findings: most severe first.
        unusable: why the data cannot be used; none: it can.
        content_hash: of the prepared parts; empty when nothing was written.
    """

    model_config = ConfigDict(extra="forbid")

    config: DataConfig
    seed: int
    rows: int
    dropped: dict[str, int] = {}
    kept: dict[str, int] = {}
    concepts: dict[str, int] = {}
    passages: dict[str, int] = {}
    negatives: int | None = None
    concept_sizes: dict[str, float] = {}
    domains: dict[str, dict[str, int]] = {}
    languages: dict[str, float] = {}
    lengths: dict[str, Lengths] = {}
    findings: list[Finding] = []
    unusable: str | None = None
    content_hash: str = ""


@dataclass(frozen=True)
class Tokens:
    """How a base counts tokens.

    Attributes:
        count: column (anchor or positive) and texts -> number of tokens of each, special tokens and prompt included.
        max_length: tokens beyond it are cut.
    """

    count: Callable[[str, Sequence[str]], Sequence[int]]
    max_length: int


def check_file(
    path: Path | str,
    config: DataConfig | None = None,
    *,
    folder: Path = Path(),
    seed: int = NO_SEED,
    earlier: Path | None = None,
    tokens: Tokens | None = None,
    progress: Callable[[int], None] | None = None,
) -> DataReport:
    """The report on a file, with a spec's columns, rules and split where one is given.

    Args:
        path: a file or folder that DataConfig.source takes.
        config: a spec's `data:` section; its source is put aside for `path`.
        folder: where a relative path starts.
        seed: of the split.
        earlier: an earlier run's data folder, whose rows are read before the file's.
        tokens: counts lengths in tokens of a base; none: lengths are in characters.
        progress: called with the number of rows read so far.

    Raises:
        InputError: never for what is wrong with the data: that is the report's `unusable`.
    """
    config = DataConfig(source=str(path)) if config is None else config.model_copy(update={"source": str(path)})
    return check(config, folder, seed, earlier=earlier, tokens=tokens, progress=progress)[1]


def check(
    config: DataConfig,
    folder: Path,
    seed: int,
    *,
    earlier: Path | None = None,
    tokens: Tokens | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Survey | None, DataReport]:
    """The survey of the source and the report on it. No survey where the source cannot be read to its end.

    Args: as in `check_file`.
    """
    report = DataReport(config=config, seed=seed, rows=0)
    try:
        found = survey(config, folder, seed, earlier, progress)
    except InputError as error:
        report.unusable = str(error)
        return None, report
    report.rows = found.rows
    report.dropped = {rule: tally.count for rule, tally in found.dropped.items()}
    report.unusable = _unusable(config, found)
    drafts = [] if found.missing_column else findings(config, found)
    if len(found.line_N):
        _count(report, found)
        look = second_look(config, folder, earlier, found)
        drafts += near_duplicates(look, found)
        report.languages = look.languages()
        report.lengths = _lengths(found, look, tokens)
    texts = texts_of(config, folder, earlier, {pair for draft in drafts for shown in draft.pairs for pair in shown})
    report.findings = [_finding(draft, found, texts) for draft in drafts]
    return found, report


def _unusable(config: DataConfig, found: Survey) -> str | None:
    if found.bad.count:
        more = f" (and {found.bad.count - 1} more rows that cannot be read)" if found.bad.count > 1 else ""
        return ": ".join(found.bad.places[0]) + more
    if found.missing_column:
        return found.missing_column
    if not len(found.line_N):
        dropped = ", ".join(f"{rule}: {tally.count}" for rule, tally in found.dropped.items())
        return f"no row with an anchor and a positive in {found.rows} rows ({dropped or 'the source is empty'})"
    if config.split.by == "given" and not found.given:
        return "split.by: given, but the source does not say which rows are train, dev and test"
    if config.protocol == "definition" and not (found.kinds_N == 1).any():
        return "protocol: definition needs rows whose kind is definition, there are none"
    try:
        require_parts(found.parts_N, found.groups_N, config.split.dev, config.split.test)
    except InputError as error:
        return str(error)
    if config.protocol == "definition":
        for part, least in ((TEST, 2), (DEV, 1)):
            defined = len(np.unique(found.groups_N[(found.parts_N == part) & (found.kinds_N == 1)]))
            if defined < least:
                return f"protocol: definition: {defined} concepts of the {PARTS[part]} part have one, expected {least}"
    return None


def _count(report: DataReport, found: Survey) -> None:
    for part, name in enumerate(PARTS):
        own = found.parts_N == part
        report.kept[name] = int(own.sum())
        report.concepts[name] = len(np.unique(found.groups_N[own]))
        report.passages[name] = len(np.unique(found.positives_N[own]))
    with_negatives = found.negative_rows_M[~found.false_negatives_M]
    counts = np.bincount(with_negatives[found.parts_N[with_negatives] == TRAIN])
    report.negatives = int(counts.max(initial=0))
    sizes = np.bincount(found.groups_N[found.parts_N >= 0])
    sizes = sizes[sizes > 0]
    if len(sizes):
        report.concept_sizes = {
            "smallest": int(sizes.min()),
            "median": float(np.median(sizes)),
            "largest": int(sizes.max()),
        }
    for domain, name in enumerate(found.domains):
        own = found.domains_N == domain
        report.domains[name] = {
            part: len(np.unique(found.groups_N[own & (found.parts_N == at)])) for at, part in enumerate(PARTS)
        }


def _lengths(found: Survey, look: SecondLook, tokens: Tokens | None) -> dict[str, Lengths]:
    if tokens is None:
        values = {"anchor": found.anchor_chars_N, "positive": found.positive_chars_N}
        return {name: _summary(lengths, "characters", None) for name, lengths in values.items()}
    samples = {"anchor": look.anchors, "positive": look.positives}
    return {
        name: _summary(np.asarray(tokens.count(name, texts)), "tokens", tokens.max_length)
        for name, texts in samples.items()
    }


def _summary(lengths: np.ndarray, unit: str, limit: int | None) -> Lengths:
    return Lengths(
        unit=unit,
        of=len(lengths),
        mean=round(float(lengths.mean()), 1),
        median=float(np.median(lengths)),
        p95=float(np.percentile(lengths, 95)),
        longest=int(lengths.max()),
        max_length=limit,
        cut=None if limit is None else float((lengths > limit).mean()),
    )


def _finding(draft: Draft, found: Survey, texts: dict[int, Pair]) -> Finding:
    examples = [Example(where=where, text=text) for where, text in draft.places]
    for shown in draft.pairs:
        examples.append(
            Example(
                where=" and ".join(found.place(pair) for pair in shown),
                text=" | ".join(f"{shortened(texts[p].anchor, 40)} -> {shortened(texts[p].positive)}" for p in shown),
            )
        )
    return Finding(name=draft.name, count=draft.count, what=draft.what, action=draft.action, examples=tuple(examples))
