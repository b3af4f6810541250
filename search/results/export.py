"""A run's best model, or a trial's, as a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.errors import InputError
from evaluation.files import put_in_place
from search.paths import RunFolder
from search.results.leaderboard import Row, read_leaderboard
from search.spec.record import read_record
from search.spec.sections import ResourcesSpec
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from trainables.export.export import Exported, Form
    from trainables.export.mix import Mix


def export_from_run(run: Path, dest: Path, trial: int | None) -> None:
    """Write the run's best model, or a trial's, to `dest`.

    Raises:
        InputError: no such run or trial, a trial without weights, or `dest` exists.
    """
    if dest.exists():
        raise InputError(f"{dest}: exists already; expected a new folder")
    folder = RunFolder(run)
    metric, rows = read_leaderboard(run)
    if trial is None:
        _copy_best(folder, dest)
        return
    row = next((row for row in rows if row.trial == trial), None)
    if row is None:
        raise InputError(
            f"--trial {trial}: not in {run}; expected one of {', '.join(map(str, sorted(r.trial for r in rows)))}"
        )
    if not row.checkpoint:
        raise InputError(f"--trial {trial}: {row.state} before its first rung, so it has no weights")
    device = ResourcesSpec.model_validate(read_record(run)["resources"]).device
    export_trial(folder, row, dest, run.name, metric, device=device)


def export_trial(
    run: RunFolder, row: Row, dest: Path, name: str, metric: str, form: Form | None = None, device: str | None = None
) -> Exported:
    """Merge a trial and write it to `dest`, checked on the dev part's texts.

    Args:
        name: of the search, for the model card.
        form: format and precision; null: float32 safetensors.
        device: of the models; null: the first GPU, else the CPU.

    Raises:
        ExportError: the exported model is not the trained one.
        InputError: `dest` exists, or the trial's weights cannot be read.
    """
    from search.results.card import card_facts
    from trainables.data.prepared import TrialData
    from trainables.export.card import model_card
    from trainables.export.export import export_model

    mix = mix_of(run, row)
    record = {"base": mix.config.base, "search": name, "trial": row.trial, "config": row.config, "dev": row.metrics}
    dev = TrialData.load(run.data).dev
    probes = list(dev.queries.values()), list(dev.corpus.values())
    card = model_card(mix, card_facts(run, name, row, None))
    return export_model(mix, dest, *probes, record, card, form, device=device)


def mix_of(run: RunFolder, row: Row) -> Mix:
    """A trial alone, whole, as what is merged."""
    from trainables.export.mix import Mix

    return Mix.of(TrialConfig.model_validate(row.config), run.checkpoint(row.trial, row.checkpoint))


def _copy_best(run: RunFolder, dest: Path) -> None:
    if not run.best.is_dir():
        raise InputError(f"{run.path}: no best/ yet; `embtune search SPEC --resume` finishes the search")
    partial = dest.with_name(f".{dest.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(run.best, partial)
    put_in_place(partial, dest)
