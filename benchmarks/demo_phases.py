"""Where the demo's time goes, and how much memory it holds: python -m benchmarks.demo_phases

Runs `embtune search search/presets/demo.yaml` in a fresh folder and writes benchmarks/results/demo_phases.json.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "demo_phases.json"
SAMPLE_S = 5.0


def resident_bytes(process: psutil.Process) -> int:
    """Proportional memory of a process and its children: pages that several share count once."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended between the listing and the look
    return total


def main() -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        command = [sys.executable, "-m", "search", "search", "search/presets/demo.yaml", "--runs", scratch]
        process = subprocess.Popen(command, cwd=ROOT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident_bytes(psutil.Process(process.pid)))
            time.sleep(SAMPLE_S)
        wall = time.perf_counter() - start
        if process.returncode:
            sys.exit(process.returncode)
        run = Path(scratch) / "demo"
        benchmark = json.loads((run / "benchmark.json").read_text())
        rows = json.loads((run / "leaderboard.json").read_text())["rows"]
        rungs = [json.loads(path.read_text()) for path in run.glob("tune/trial_*/checkpoint-*/rung.json")]
    seconds = {
        "wall": round(wall, 1),
        **benchmark["seconds"],
        "training, summed over trials": round(sum(rung["train_s"] for rung in rungs), 1),
        "dev evaluation, summed over trials": round(sum(rung["eval_s"] for rung in rungs), 1),
    }
    concept = benchmark["protocols"]["concept"]["comparisons"][benchmark["metric"]]
    result = {
        "command": "python -m benchmarks.demo_phases",
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, no GPU",
        "load_before": round(load, 2),
        "seconds": seconds,
        "peak_memory_gib": round(peak / 2**30, 2),
        "trials": len(rows),
        "pruned": sum(row["state"] == "PRUNED" for row in rows),
        "training_pairs": sum(row["pairs"] for row in rows),
        "planned_pairs": sum(row["planned_pairs"] for row in rows),
        "test": concept,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
