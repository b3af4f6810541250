"""Check the data: what is wrong with it, row by row, and what the search does about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from evaluation.errors import InputError
from evaluation.task import RetrievalTask
from trainables.bases.token_counts import TokenCounter
from trainables.check.empty_parts import empty_part
from trainables.check.findings import Draft, findings
from trainables.check.near_duplicates import near_duplicates
from trainables.check.second_look import SecondLook, second_look
from trainables.data.beir import beir_folders
from trainables.data.config import DataConfig
from trainables.data.report import CorpusUse, DataReport, Finding, Lengths, Place
from trainables.data.rows import PARTS
from trainables.data.sources import read_once
from trainables.data.splits import DEV, TEST, TRAIN
from trainables.data.survey import Survey, matched, survey_source

NO_SEED = 42


def check_file(
    path: Path | str,
    config: DataConfig | None = None,
    *,
    folder: Path = Path(),
    seed: int = NO_SEED,
    earlier: Path | None = None,
    tokens: TokenCounter | None = None,
    progress: Callable[[int], None] | None = None,
) -> DataReport:
    """The report on a file, with a spec's columns, rules and split where one is given.

    Args:
        path: a file or folder that DataConfig.source takes.
        config: a spec's `data:` section; its source is put aside for `path`.
        folder: where a relative path starts.
        seed: of the split.
        earlier: an earlier run's data folder, whose rows are read before the file's.
        tokens: counts lengths in tokens of a base; None: lengths are in characters.
        progress: called with the number of rows read so far.

    Raises:
        InputError: never for what is wrong with the data: that is the report's `unusable`.
    """
    config = DataConfig(source=str(path)) if config is None else config.model_copy(update={"source": str(path)})
    return check_source(config, folder, seed, earlier=earlier, tokens=tokens, progress=progress)[1]


@read_once()
def check_source(
    config: DataConfig,
    folder: Path,
    seed: int,
    *,
    earlier: Path | None = None,
    tokens: TokenCounter | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Survey | None, DataReport]:
    """The survey of the source and the report on it. No survey where the source cannot be read to its end.

    Args: as in `check_file`.
    """
    report = DataReport(config=config, seed=seed, rows=0)
    try:
        found = survey_source(config, folder, seed, earlier, progress)
    except InputError as error:
        report.unusable = str(error)
        return None, report
    report.rows = found.rows
    report.dropped = {rule: tally.count for rule, tally in found.dropped.items()}
    report.unusable = _unusable(config, found)
    drafts = [] if found.missing_column else findings(config, found)
    texts: dict[int, str] = {}
    if len(found.line_N):
        _count(report, found)
        report.corpus = _corpus(config, folder, found)
        report.shared = "keep" if found.kept else "leave_out"
        report.unseen = found.unseen
        look = second_look(
            config, folder, earlier, found, {p for draft in drafts for shown in draft.pairs for p in shown}
        )
        drafts += near_duplicates(look, found)
        report.languages = look.languages()
        report.lengths = _lengths(found, look, tokens)
        texts = look.shown
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
    if config.split.by == "given" and not found.named:
        return "split.by: given, but the source does not say which rows are train, dev and test"
    if config.protocol == "definition" and not (found.kinds_N == 1).any():
        return "protocol: definition needs rows whose kind is definition, there are none"
    if empty := empty_part(config, found):
        return empty
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


def _corpus(config: DataConfig, folder: Path, found: Survey) -> CorpusUse | None:
    folders = [] if config.max_rows else beir_folders(config, folder)
    passages = {matched(text) for beir, _ in folders for text in RetrievalTask.load_beir(beir).corpus.values()}
    if not passages:
        return None
    answers = np.unique(np.stack([found.anchors_N, found.positives_N], axis=1), axis=0)
    _, counts = np.unique(answers[:, 0], return_counts=True)
    return CorpusUse(
        passages=len(passages),
        idle=len(passages.difference(answers[:, 1].tolist())),
        questions=len(counts),
        several=int((counts > 1).sum()),
    )


def _lengths(found: Survey, look: SecondLook, tokens: TokenCounter | None) -> dict[str, Lengths]:
    if tokens is None:
        values = {"anchor": found.anchor_chars_N, "positive": found.positive_chars_N}
        return {name: Lengths.summary(lengths, "characters", None) for name, lengths in values.items()}
    samples = {"anchor": look.anchors, "positive": look.positives}
    return {
        name: Lengths.summary(np.asarray(tokens.count(name, texts)), "tokens", tokens.max_length)
        for name, texts in samples.items()
    }


def _finding(draft: Draft, found: Survey, texts: dict[int, str]) -> Finding:
    examples = [Place(where=where, text=text) for where, text in draft.places]
    for shown in draft.pairs:
        examples.append(
            Place(
                where=" and ".join(found.place(pair) for pair in shown),
                text=" | ".join(texts[p] for p in shown),
            )
        )
    return Finding(name=draft.name, count=draft.count, what=draft.what, action=draft.action, examples=tuple(examples))
