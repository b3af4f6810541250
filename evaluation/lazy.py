"""Front doors that are opened when they are used: `import search` must not import torch, Ray or pandas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_doors(package: str, doors: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562).

    Args:
        package: its `__name__`.
        doors: name that the package offers -> `module:name` of what it stands for. A door has no module's name: of
            `from a import b`, whichever of door and module was imported last would win.
    """

    def open_door(name: str) -> Any:
        if name not in doors:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; its doors are {', '.join(doors)}")
        module, _, inside = doors[name].partition(":")
        return getattr(import_module(module), inside)

    return open_door
