"""The check of an export without a process of its own, whose imports take seconds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import trainables.export.export as export_module
from trainables.export import reload


@contextmanager
def reloading_here() -> Iterator[None]:
    """Exports are read back in this process; tests/trainables/training/test_train.py has it in one of its own."""

    whole = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[1:3] != ["-m", reload.__name__]:
            return whole(command, **options)
        reload.main(*command[3:])
        return subprocess.CompletedProcess(command, 0, "", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module.subprocess, "run", run)
        yield
