"""A run's best model, or a trial's or a candidate's, as a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.errors import InputError
from search.paths import RunFolder
from search.results.benchmark import Benchmark, Candidate
from search.results.candidates import mix_of_candidate
from search.results.card import candidate_facts, trial_facts
from search.results.leaderboard import Row
from search.results.so_far import ranking
from search.spec.record import read_record
from search.spec.sections import ResourcesSpec
from trainables.config import TrialConfig
from trainables.data.prepared import load_dev
from trainables.export.manifest import MANIFEST, appearing, check_apart, verify

if TYPE_CHECKING:
    from trainables.classification.export import ExportedClassifier
    from trainables.export.card import CardFacts
    from trainables.export.export import Exported, Form
    from trainables.export.mix import Mix


def export_from_run(
    run: Path,
    dest: Path,
    trial: int | None = None,
    candidate: str | None = None,
    form: Form | None = None,
    force: bool = False,
) -> Exported | ExportedClassifier | None:
    """Write the run's best model, or a trial's or a candidate's, to `dest`.

    Args:
        form: format and precision; None: float32 safetensors, of the best model the files as they are.
        force: a `dest` that exists is replaced.

    Returns:
        What the check found; none where the files were copied.

    Raises:
        InputError: no such run, trial or candidate, a trial without weights, `dest` exists, is no exported model, or
            lies in the run or around it, files of the best model that are not those that were written.
        ExportError: the exported model is not the trained one.
    """
    if dest.exists() and not force:
        raise InputError(f"{dest}: exists already; expected a new folder, or --force")
    check_apart(dest, run)
    folder = RunFolder(run)
    found = ranking(run)
    metric, rows = found.metric, found.rows
    record = read_record(run)
    device = ResourcesSpec.model_validate(record["resources"]).device
    if record.get("task") == "classification" and not (trial is None and candidate is None and form is None):
        from search.results.classifier import export_labels

        row = None if trial is None else _row(rows, trial, run)
        return export_labels(folder, rows, row, candidate, dest, form, force, device)
    if trial is not None:
        return export_trial(folder, _row(rows, trial, run), dest, run.name, form, force, device)
    if candidate is None and form is None:
        _copy_best(folder, dest, force)
        return None
    benchmark = _ended(folder)
    if candidate is None and not benchmark.candidates:  # of an earlier version
        return export_trial(folder, _row(rows, benchmark.best.trial, run), dest, run.name, form, force, device)
    chosen = benchmark.candidate(candidate or benchmark.best.candidate)
    told = benchmark if chosen.name == benchmark.best.candidate else None
    return export_candidate(folder, rows, chosen, dest, run.name, metric, told, form, force, device)


def export_trial(
    run: RunFolder,
    row: Row,
    dest: Path,
    name: str,
    form: Form | None = None,
    force: bool = False,
    device: str | None = None,
) -> Exported:
    """Merge a trial and write it to `dest`, checked on the dev part's texts.

    Args:
        name: of the search, for the model card.
        form: format and precision; None: float32 safetensors.
        device: of the models; None: the first GPU, else the CPU.

    Raises:
        ExportError: the exported model is not the trained one.
        InputError: `dest` exists, or the trial's weights cannot be read.
    """
    from trainables.export.mix import Mix

    mix = Mix.of(TrialConfig.model_validate(row.config), run.checkpoint(row.trial, row.checkpoint))
    record = {"base": mix.config.base, "search": name, "trial": row.trial, "config": row.config, "dev": row.metrics}
    return _export(run, mix, dest, record, trial_facts(run, name, row), form, force, device)


def export_candidate(
    run: RunFolder,
    rows: Sequence[Row],
    candidate: Candidate,
    dest: Path,
    name: str,
    metric: str,
    benchmark: Benchmark | None = None,
    form: Form | None = None,
    force: bool = False,
    device: str | None = None,
) -> Exported:
    """As `export_trial`, of a candidate.

    Args:
        rows: the leaderboard.
        metric: that was searched.
        benchmark: of this candidate; None: it was not benchmarked.
    """
    mix = mix_of_candidate(run, rows, candidate)
    first = candidate.members[0].trial
    config = next(row.config for row in rows if row.trial == first)
    record = {"base": mix.config.base, "search": name, "trial": first, "config": config}
    record |= {"candidate": candidate.name, "dev": {metric: candidate.dev}}
    facts = candidate_facts(run, name, rows, candidate, metric, benchmark)
    return _export(run, mix, dest, record, facts, form, force, device)


def _export(
    run: RunFolder,
    mix: Mix,
    dest: Path,
    record: Mapping[str, Any],
    facts: CardFacts,
    form: Form | None,
    force: bool,
    device: str | None,
) -> Exported:
    from trainables.export.card import model_card
    from trainables.export.export import export_model

    dev = load_dev(run.data)
    probes = list(dev.queries.values()), list(dev.corpus.values())
    metric = str(read_record(run.path)["metric"])
    card = model_card(mix, facts)
    return export_model(mix, dest, *probes, record, card, form, force, device, dev=(dev, metric))


def _row(rows: Sequence[Row], trial: int, run: Path) -> Row:
    row = next((row for row in rows if row.trial == trial), None)
    if row is None:
        raise InputError(
            f"--trial {trial}: not in {run}; expected one of {', '.join(map(str, sorted(r.trial for r in rows)))}"
        )
    if not row.checkpoint:
        raise InputError(f"--trial {trial}: {row.state} before its first rung, so it has no weights")
    return row


def _ended(run: RunFolder) -> Benchmark:
    if not run.benchmark.is_file():
        raise InputError(f"{run.path}: no best/ yet; `embtune search SPEC --resume` finishes the search")
    return Benchmark.read(run.benchmark)


def _copy_best(run: RunFolder, dest: Path, force: bool) -> None:
    if not run.best.is_dir():
        raise InputError(f"{run.path}: no best/ yet; `embtune search SPEC --resume` finishes the search")
    verify(run.best)
    with appearing(dest, force) as aside:
        shutil.copytree(run.best, aside, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
