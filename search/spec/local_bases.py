"""Bases that a spec names by relative paths: folders beside it, wherever the search is called from and trials run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def with_bases(document: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A spec's document with `change` applied to each base that its space, conditions and starting points name."""
    return {
        key: _changed(value, change, False) if key in ("space", "start") else value for key, value in document.items()
    }


def _changed(node: Any, change: Callable[[str], str], of_base: bool) -> Any:
    if isinstance(node, Mapping):
        return {
            key: _changed(value, change, key == "base" or (of_base and key != "when")) for key, value in node.items()
        }
    if isinstance(node, list):
        return [_changed(value, change, of_base) for value in node]
    return change(node) if of_base and isinstance(node, str) else node


def found_at(text: str, folder: Path) -> Path | None:
    """The folder that a base names by a relative path, which starts at `folder`; None: it is a hub id,
    absolute or empty.

    A base that is not there may be a folder of the current one, as one that is given on the command line is.
    """
    path = Path(text).expanduser()
    if not text or path.is_absolute():
        return None
    return next((start / path for start in (folder, Path.cwd()) if (start / path).is_dir()), None)
