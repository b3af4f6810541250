"""A run's folder -> the desk that its questions are put to: corpus, models, clean-up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer

from evaluation.benchmark.models import load_model, resolve_model, runs_code
from evaluation.errors import InputError
from search.app.acronyms import expansions
from search.app.ask import Desk
from search.app.cleanup import CleanUp
from search.app.corpus import names_concepts, read_corpus, run_corpus, training_pairs
from search.app.language import Languages
from search.app.searcher import Searcher
from search.app.spelling import Spelling
from search.app.translation import Translator
from search.paths import STAND_INS, RunFolder
from search.results.benchmark import Benchmark
from search.results.leaderboard import read_leaderboard
from search.spec.record import classifies
from trainables.config import TrialConfig
from trainables.export.merge import base_model, trained_model

MOST = 4  # models side by side


def open_desk(
    folder: Path,
    corpus: Path | None = None,
    models: Sequence[str] = (),
    languages: Sequence[str] = ("fr", "en"),
    translate: str | None = None,
    say: Callable[[str], None] = print,
) -> Desk:
    """Load what `embtune try` shows: the run's base and best model, and those named besides.

    Args:
        folder: of a search that has come to its end.
        corpus: BEIR folder or .jsonl file; None: the run's own passages.
        models: hub ids, model folders or runs, at most two.
        languages: codes, that of the corpus first.
        translate: hub id or folder of a Marian model into the corpus's language.
        say: told what is being loaded.

    Raises:
        InputError: no finished run, too many models, or what is wrong with one of the above.
    """
    run = RunFolder(folder.resolve())
    if not run.benchmark.is_file() or not run.best.is_dir():
        raise InputError(f"{folder}: no benchmark.json and best/, expected the folder of a search that has ended")
    if classifies(run.path):
        raise InputError(f"{folder}: a classification retrieves nothing, expected the run of a retrieval")
    names = ["base", "best", *models]
    if len(names) > MOST or len(set(names)) < len(names):
        raise InputError(
            f"--model {', '.join(models)}: expected at most {MOST - 2} different models beside base and best"
        )
    tongues = Languages(languages)
    translator = Translator(translate) if translate else None
    passages = read_corpus(corpus) if corpus else run_corpus(run)
    if not names_concepts(run):  # its rows are kept together by their texts; one that names a concept would end that
        passages.concepts = [None] * len(passages.texts)
    loaders: list[Callable[[], SentenceTransformer]] = [
        lambda: run_base(run),
        lambda: load_model(str(run.best), code=runs_code(run.best)),
    ]
    entries = [resolve_model(name) for name in models]
    loaders += [lambda entry=entry: base_model(entry.location, entry.revision) for entry in entries]  # type: ignore[misc]
    searchers = []
    for name, load in zip(names, loaders, strict=True):
        say(f"{name}: {len(passages.texts):,} passages")
        searchers.append(Searcher.of(name, load().eval(), passages.texts, run.embeddings))
    smoke = STAND_INS in Path(Benchmark.read(run.benchmark).base).parts
    clean_up = CleanUp(tongues, Spelling(passages.texts, tongues.main), expansions(training_pairs(run)), translator)
    return Desk(passages, tuple(searchers), clean_up, smoke)


def run_base(run: RunFolder) -> SentenceTransformer:
    """The base of a run's best model, in the configuration that the model was trained from."""
    best = Benchmark.read(run.benchmark).best.trial
    row = next((row for row in read_leaderboard(run.path)[1] if row.trial == best), None)
    if row is None:
        raise InputError(f"{run.leaderboard}: no trial {best}, which benchmark.json names")
    config = TrialConfig.model_validate(row.config).model_copy(update={"method": "none"})
    return trained_model(config, run.path)
