"""Whether a folder can be written to, asked before a search and when something went wrong in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from evaluation.errors import InputError

PROBE = 1 << 16  # bytes: as much as a small checkpoint


def unwritable(folder: Path) -> str:
    """Why nothing can be written in the folder; empty when it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
            probe.write(b"\0" * PROBE)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return f"{folder}: cannot be written ({error.strerror or error})"
    return ""


def require_writable(folder: Path) -> None:
    """Make the folder.

    Raises:
        InputError: it cannot be made or written.
    """
    if reason := unwritable(folder):
        raise InputError(f"{reason}; expected a folder on a disk with space left")
