"""The command line, called as a user calls it or in this process."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from search.cli import main

EMBTUNE = [sys.executable, "-m", "search"]


def embtune(
    *arguments: str | Path, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with this one's environment unless another is given."""
    return subprocess.run(
        [*EMBTUNE, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def embtune_here(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, without the seconds that a new one's imports take."""
    call = [str(argument) for argument in arguments]
    output, errors, code = io.StringIO(), io.StringIO(), 0
    with chdir(cwd), redirect_stdout(output), redirect_stderr(errors):
        try:
            main(call)
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(call, code, output.getvalue(), errors.getvalue())
