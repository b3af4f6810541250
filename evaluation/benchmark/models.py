"""Which model a name stands for, and loading it: hub ids, local folders, runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from evaluation.errors import InputError
from evaluation.files import read_json


@dataclass(frozen=True)
class ModelEntry:
    """A model of the benchmark.

    Attributes:
        name: as the user wrote it, what tables call it.
        location: a hub id, or the folder that is loaded.
        base: hub id or folder of the model that it was fine-tuned from; None: not known to be fine-tuned.
        revision: of a hub id; None: its default branch.
        base_revision: of the base.
        optional: left out with a note where it cannot be had.
    """

    name: str
    location: str
    base: str | None = None
    revision: str | None = None
    base_revision: str | None = None
    optional: bool = False


def resolve_model(name: str) -> ModelEntry:
    """The model that a name stands for: a run's folder stands for its best model, other folders for themselves.

    Anything that is no folder here is a hub id. The base is read from the key "base" of the folder's embtune.json, as
    the export writes it; a base that is a relative path is meant from the working folder or from the model's.

    Raises:
        InputError: a folder that holds no model, a path that does not exist, an embtune.json that cannot be read.
    """
    path = Path(name)
    if not path.exists():
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise InputError(f"model {name}: no such folder, expected a model's folder, a run's folder or a hub id")
        return ModelEntry(name, name)
    best = path / "best"
    folder = best if not _is_model(path) and _is_model(best) else path
    if not _is_model(folder):
        raise InputError(
            f"model {name}: no modules.json or config.json there, expected a model's or a finished run's folder"
        )
    record = folder / "embtune.json"
    saved = read_json(record) if record.is_file() else {}
    base = saved.get("base")
    if base is not None and not isinstance(base, str):
        raise InputError(f"{record}: key 'base' is {base!r}, expected a hub id or a folder")
    if base is not None and not Path(base).exists() and (folder / base).exists():
        base = str((folder / base).resolve())
    return ModelEntry(name, str(folder), base, base_revision=(saved.get("config") or {}).get("revision"))


def load_model(location: str, revision: str | None = None, code: bool = False) -> SentenceTransformer:
    """Load a hub id (at a revision) or a folder from safetensors only, with no code of its own unless `code` says so.

    Raises:
        InputError: not there, no safetensors, or a model that needs code of its own.
    """
    try:
        return SentenceTransformer(
            location, revision=revision, trust_remote_code=code, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"model {location}: cannot be loaded ({reason[:300]})") from None


def runs_code(folder: Path) -> bool:
    """Whether an exported model runs code that its base brought, which the search's spec trusted."""
    record = folder / "embtune.json"
    saved = read_json(record) if record.is_file() else {}
    return bool((saved.get("config") or {}).get("trust_remote_code"))


def same_model(one: str, other: str) -> bool:
    """Whether two hub ids or folders are one."""
    return one == other or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other))


def saved_prompts(location: str) -> dict[str, str]:
    """The prompts that are saved with a local model, blank ones left out; {} for a hub id."""
    file = Path(location) / "config_sentence_transformers.json"
    saved: Any = read_json(file).get("prompts") if file.is_file() else None
    return {role: text for role, text in (saved or {}).items() if text}


def _is_model(folder: Path) -> bool:
    return (folder / "modules.json").is_file() or (folder / "config.json").is_file()
