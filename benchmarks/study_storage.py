"""Where should a search's study lie that has to outlive its machine? Seconds of a trial in the study, by storage.

    python benchmarks/study_storage.py [--trials N] [--s3] [--postgresql URL] [--out FILE]

The same toy trials, told in the same calls: a proposal by TPE with its configuration, four rungs with their records and
the pruner's verdicts, the end. `journal` is `study.journal` on this disk, synced at each entry. `journal and bucket` is
the same, with each entry sent to an S3 server on this machine (moto's) before it counts. `postgresql` is Optuna's RDB
storage: with `--postgresql postgresql://USER:PASSWORD@HOST/DATABASE`, an empty database. Reported too is how often a
trial's facts become durable one by one: at each of these moments a killed driver leaves a part of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from machine import processor
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from search.spec.sections import SamplerSpec
from search.storage.mirror import Mirror
from search.storage.parts import JournalParts
from search.study.journal import Journal
from search.study.samplers import make_sampler

sys.path.insert(0, str(Path(__file__).parents[1]))  # an installation has no tests, whose S3 server is asked

from tests.kit.bucket import BUCKET, s3_server

RUNGS = 4
RECORD = {"metrics": {f"metric{i}@10": 0.5 for i in range(6)}, "train_s": 90.0, "eval_s": 10.0, "folder": "x" * 80}


def search(storage: BaseStorage, together: Callable[[], AbstractContextManager[None]], trials: int) -> float:
    """Run toy trials; seconds."""
    start = time.perf_counter()
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4)
    study = optuna.create_study(storage=storage, direction="maximize", pruner=pruner)
    for number in range(trials):
        with together():
            study.sampler = make_sampler(SamplerSpec(name="tpe"), number, 1)
            trial = study.ask()
            lr = trial.suggest_float("lr", 1e-5, 1e-2, log=True)
            r = trial.suggest_categorical("r", [4, 8, 16, 32])
            trial.suggest_float("dropout", 0.0, 0.3)
            trial.set_user_attr("config", {"lr": lr, "r": r, **{f"field{i}": i for i in range(25)}})
        for rung in range(1, RUNGS + 1):
            with together():
                trial.set_user_attr(f"rung_{rung}", RECORD)
                study.set_user_attr("elapsed_s", number)
                trial.report((0.9 - 0.1 * abs(math.log10(lr) + 3) - 0.01 * abs(r - 16)) * (0.6 + 0.1 * rung), rung)
                stopped = rung < RUNGS and trial.should_prune()
                if stopped:
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            if stopped:
                break
        else:
            with together():
                study.tell(trial, 0.5)
    return time.perf_counter() - start


def commits(trials: int) -> float:
    """Entries of a trial where nothing is written together, as an RDB storage commits them."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "study.journal")
        search(JournalStorage(journal), nullcontext, trials)
        return journal.entries / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--postgresql", metavar="URL")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "study_storage.json")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials, load, seconds = arguments.trials, os.getloadavg(), dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "study.journal")
        seconds["journal"] = search(JournalStorage(journal), journal.together, trials)
        if arguments.s3:
            with s3_server() as environment:
                os.environ.update(environment)
                parts = JournalParts(Mirror(f"s3://{BUCKET}/study", Path(folder)))
                parts.take_over()
                journal = Journal(Path(folder) / "sent.journal", parts.add)
                seconds["journal and bucket"] = search(JournalStorage(journal), journal.together, trials)
    if arguments.postgresql:
        seconds["postgresql"] = search(RDBStorage(arguments.postgresql), nullcontext, trials)
    result: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]).replace(str(arguments.postgresql), "URL"),
        "machine": processor(),
        "load_before": load,
        "trials": trials,
        "ms_per_trial": {name: round(1000 * value / trials, 1) for name, value in seconds.items()},
        "commits_per_trial_without_groups": round(commits(min(trials, 50)), 1),
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
