"""The console that commands print to."""

from __future__ import annotations

import io
import os
import sys

from rich.console import Console, RenderableType

WITHOUT_TERMINAL = 170  # columns of a log file: rich would take 80 and cut the tables


def make_console() -> Console:
    """As wide as the terminal; where there is none, wide enough for every table."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WITHOUT_TERMINAL if piped else None)


def plain_text(shown: RenderableType, width: int) -> str:
    """What a terminal of so many columns would show, without colours."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(shown)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
