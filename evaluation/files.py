"""Files that appear whole: written aside, then moved into place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place if the block ends well and is removed if not.

    The name is the writer's own, so that concurrent processes never write to one file; the last to end wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 text that readers see whole or not at all."""
    with aside(path) as draft:
        draft.write_text(text, encoding="utf-8")
