"""Time and memory of the data check, and of writing the parts, on a generated file.

    python benchmarks/data_check.py [--rows 1000000] [--json benchmarks/results/data_check.json]

Rows have an anchor of about 40 characters, a passage of about 300, four rows to a concept and ten domains.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import processor

WORDS = 50_000


def generate(path: Path, rows: int) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("aeéilnorstuœ", k=rng.randrange(3, 10))) for _ in range(WORDS)]
    with path.open("w", encoding="utf-8") as file:
        for at in range(rows):
            row = {
                "anchor": " ".join(rng.choices(words, k=6)),
                "positive": " ".join(rng.choices(words, k=45)),
                "cluster_id": at // 4,
                "domain": f"domaine {at // 4 % 10}",
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def measure(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder / "pairs.jsonl", rows)
        size = (folder / "pairs.jsonl").stat().st_size

        from trainables.check.check import check_file
        from trainables.data.config import DataConfig
        from trainables.prepare import prepare

        imports = _peak()
        start = time.perf_counter()
        report = check_file("pairs.jsonl", folder=folder)
        checked, check_peak = time.perf_counter() - start, _peak()
        assert report.unusable is None
        start = time.perf_counter()
        prepare(DataConfig(source="pairs.jsonl"), folder, 42, folder / "data")
        return {
            "machine": processor(),
            "rows": rows,
            "file_mib": round(size / 2**20),
            "check_seconds": round(checked, 1),
            "check_peak_mib": check_peak,
            "of_which_imports_mib": imports,
            "check_and_write_seconds": round(time.perf_counter() - start, 1),
            "write_peak_mib": _peak(),
        }


def _peak() -> int:
    """Peak resident memory of this process so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = json.dumps(measure(arguments.rows), indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
