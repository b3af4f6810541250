"""The end of a search in its experiment trackers: the benchmark's figures, and the report as an artifact."""

from __future__ import annotations

import os

from search.paths import RunFolder
from search.results.benchmark import Benchmark
from search.results.classifier_benchmark import ClassifierBenchmark
from search.spec.sections import SearchSpec
from search.tune.messages import rung_metric
from search.watch.loggers import MLFLOW_URI, PROJECT


def log_end(spec: SearchSpec, run: RunFolder, benchmark: Benchmark | ClassifierBenchmark) -> None:
    """Log base and best on the test part, and the report, as one more run of the search's group."""
    told = figures_on_test(benchmark, spec)
    name = f"{spec.name} benchmark"
    if "tensorboard" in spec.logging:
        from tensorboardX import SummaryWriter

        with SummaryWriter(str(run.tune / "benchmark")) as writer:
            for key, value in told.items():
                writer.add_scalar(key, value)
            writer.add_text("report", str(run.report))
    if "wandb" in spec.logging:
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        with wandb.init(project=project, group=spec.name, name=name, job_type="benchmark", dir=run.path) as made:
            made.log(told)
            report = wandb.Artifact(f"{spec.name}-report", type="report")
            report.add_file(str(run.report))
            made.log_artifact(report)
    if "mlflow" in spec.logging:
        import mlflow

        mlflow.set_tracking_uri(os.environ[MLFLOW_URI])
        mlflow.set_experiment(spec.name)
        with mlflow.start_run(run_name=name, tags={"search": spec.name}):
            mlflow.log_metrics(told)
            mlflow.log_artifact(str(run.report))


def figures_on_test(benchmark: Benchmark | ClassifierBenchmark, spec: SearchSpec) -> dict[str, float]:
    """`test/base/ndcg_at_10` and the like, of the protocol that the search is about; of a classification, its
    better baseline is the base."""
    if isinstance(benchmark, ClassifierBenchmark):
        sides = {"base": benchmark.baselines[benchmark.against], "best": benchmark.scores}
    else:
        protocol = benchmark.main_protocol(spec.data.protocol)
        if protocol is None:
            return {}
        part = benchmark.protocols[protocol]
        sides = {"base": part.base, "best": part.best}
    return {f"test/{side}/{rung_metric(m)}": value for side, means in sides.items() for m, value in means.items()}
