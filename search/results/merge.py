"""Models averaged by hand: incremental updates, one model of each department."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.errors import InputError
from search.paths import RunFolder
from trainables.export.manifest import check_apart

if TYPE_CHECKING:
    from trainables.export.export import Exported


def merge_by_hand(models: Sequence[Path], weights: str | None, dest: Path, force: bool) -> Exported:
    """Average models of one base into `dest`.

    Args:
        models: runs, which stand for their best models, or folders of models.
        weights: numbers with commas between them; None: equal ones.

    Raises:
        InputError: weights that are no numbers, models that do not go together, or `dest` exists, is no
            exported model, or lies in one of them or around it.
        ExportError: the saved model is not the mean.
    """
    from trainables.export.average import merge_models

    try:
        numbers = None if weights is None else [float(number) for number in weights.split(",")]
    except ValueError:
        raise InputError(f"--weights {weights}: expected numbers with commas between them, as in 2,1") from None
    if dest.exists() and not force:
        raise InputError(f"{dest}: exists already; expected a new folder, or --force")
    for model in models:
        check_apart(dest, model)
    folders = [RunFolder(model).best if RunFolder(model).best.is_dir() else model for model in models]
    return merge_models(folders, numbers, dest, _card(models, numbers, dest.name), force)


def _card(models: Sequence[Path], weights: Sequence[float] | None, name: str) -> str:
    """It names folders, and not scores: the mean was measured nowhere."""
    shares = weights or [1.0] * len(models)
    whole = sum(shares) or 1.0
    lines = [f"- {share / whole:.3g} of `{model.name}`" for model, share in zip(models, shares, strict=False)]
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
        "tags:\n- sentence-transformers\n- embtune\n---\n"
        f"# {name}\n\nThe weights of these models, averaged by `embtune merge`:\n\n"
        + "\n".join(lines)
        + "\n\nThe mean has not been benchmarked: `embtune benchmark` holds it against the models it was made of.\n"
    )
