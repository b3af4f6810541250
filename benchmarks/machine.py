"""What a benchmark ran on."""

from __future__ import annotations

import os
from pathlib import Path


def processor() -> str:
    """The processor's name and the number of cores."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"
