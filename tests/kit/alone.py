"""Training in a process of its own: `limit`, in MiB above what is in use, stands for a small device."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import torch

from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.train import train
from trainables.training.out_of_memory import train_in_memory
from trainables.training.sanity import TrialFailed

REPOSITORY = Path(__file__).parents[2]


def alone(config: TrialConfig, data: TrialData, folder: Path, limit: int = 0) -> dict[str, list[dict[str, float]]]:
    """Metrics of the rungs of a trial that a new process trains, and the pieces that it came to."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.kit.alone", config.model_dump_json(), str(data.folder), str(folder), str(limit)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, list[dict[str, float]]] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def main(told: str, data_folder: str, folder: Path, limit: int) -> None:
    """Train, and print what came of it as the last line."""
    torch.set_num_threads(1)
    config, data = TrialConfig.model_validate_json(told), TrialData.load(Path(data_folder))
    if limit:
        # Once in the smallest pieces, so that all libraries and pools are there before the limit is set.
        small = config.model_copy(update={"batch_size": 2, "epochs": 0.05, "micro_batch_tokens": 64})
        train(small, data, lambda rung: None, folder=folder / "small")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limit * 2**20, resource.RLIM_INFINITY))
    rungs: list[dict[str, float]] = []
    tokens: list[int] = []

    def attempt(config: TrialConfig) -> None:
        train(config, data, lambda r: rungs.append(r.metrics), folder=folder / "trial")

    try:
        train_in_memory(config, attempt, smaller=tokens.append)
    except TrialFailed as error:
        print(json.dumps({"failed": str(error), "tokens": tokens}))
    else:
        print(json.dumps({"rungs": rungs, "tokens": tokens}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
