"""A search from Python: run it, open its folder, and have its tables as data frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from evaluation.compare import Comparison, holm
from evaluation.errors import InputError
from evaluation.retrieval import Scores
from search.paths import MODELS, RunFolder
from search.report.gather import RunData, gather
from search.results.benchmark import Benchmark
from search.results.classifier_benchmark import ClassifierBenchmark, read_end
from search.results.leaderboard import Row
from search.spec.record import classifies
from search.storage.bucket import opened
from search.storage.where import Where
from trainables.data.prepared import load_report, load_task

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

STATES = ("COMPLETE", "PRUNED", "RUNNING", "FAIL")
NESTED = ("config", "metrics", "checkpoint")  # fields of a row that are no columns


class SearchFailedError(RuntimeError):
    """A search that was stopped, or of which no model came; what it printed says why."""


class OpenRun:
    """A search that has ended, was stopped or is at work. Each call reads the folder as it is now."""

    def __init__(self, folder: Path) -> None:
        self.folder = RunFolder(folder.resolve())

    def __repr__(self) -> str:
        return f"open_run({str(self.folder.path)!r})"

    def leaderboard(self) -> pd.DataFrame:
        """One row a trial, best first, indexed by its number.

        Columns: rank (0: not ranked), state (category), score and error (dev metric of the best rung and its standard
        error, NaN before the first), tied, rung, best_rung, rungs, trainable, pairs, planned_pairs, seconds, failure,
        and the others that search/results/leaderboard.py tells of; then the fields of its configuration, and the dev
        metrics of its best rung. Before the first trial there are no rows, and no columns of a configuration.
        """
        rows = self._gathered().rows
        columns = [field.name for field in fields(Row) if field.name not in NESTED]
        frame = pd.DataFrame([_flat(row) for row in rows], columns=None if rows else columns).set_index("trial")
        frame["state"] = pd.Categorical(frame["state"], STATES)
        return frame.astype({"score": float, "error": float, "second": float, "trainable": "Int64"})

    def curves(self) -> pd.DataFrame:
        """One row for each dev evaluation: trial, rung, score, error (of the searched metric)."""
        points = [
            {"trial": trial, **asdict(point)} for trial, curve in self._gathered().curves.items() for point in curve
        ]
        types = {"trial": int, "rung": int, "score": float, "error": float}
        return pd.DataFrame(points, columns=list(types)).astype(types)

    def benchmark(self) -> pd.DataFrame:
        """Base against best on the test part, one row for each protocol and metric; of a classification, which has no
        protocols, the better baseline against best.

        Columns: protocol, metric, base, best, difference, low, high (95 % interval), p_value, queries, groups (of
        concepts, the unit of resampling), p_holm (p_value corrected over the table).

        Raises:
            InputError: the search has not come to its benchmark.
        """
        end = self._ended()
        parts: Mapping[str, Mapping[str, Comparison]]
        if isinstance(end, ClassifierBenchmark):
            parts = {"": end.comparisons}
        else:
            parts = {protocol: part.comparisons for protocol, part in end.protocols.items()}
        rows = [
            {"protocol": protocol, **asdict(comparison)}
            for protocol, comparisons in parts.items()
            for comparison in comparisons.values()
        ]
        columns = ["protocol", *(field.name for field in fields(Comparison))]
        frame = pd.DataFrame(rows, columns=columns).rename(columns={"other": "best"})
        frame["p_holm"] = holm(list(frame["p_value"]))
        return frame

    def movers(self) -> pd.DataFrame:
        """Every test query with the searched metric before and after, the most improved first.

        Columns: query, before, after, change, relevant (how many passages answer it), first_before and first_after
        (the passage that each model ranks first).

        Raises:
            InputError: the search has not come to its benchmark, its test part has no queries, or it is a
                classification, which ranks nothing.
        """
        benchmark = self._benchmarked()
        protocol = benchmark.main_protocol(load_report(self.folder.data).config.protocol)
        if protocol is None:
            raise InputError(f"{self.folder.path}: its benchmark has no test queries, expected some to compare")
        task = load_task(self.folder.data, benchmark.part, protocol)
        base, best = (Scores.load(self.folder.scores(model, protocol)) for model in MODELS)
        frame = pd.DataFrame(
            {
                "query": [task.queries[query] for query in base.query_ids],
                "before": base.values(benchmark.metric),
                "after": best.values(benchmark.metric),
                "relevant": [sum(grade > 0 for grade in task.qrels[query].values()) for query in base.query_ids],
                "first_before": [task.corpus[str(ids[0])] for ids in base.top_ids_QK],
                "first_after": [task.corpus[str(ids[0])] for ids in best.top_ids_QK],
            }
        )
        frame.insert(3, "change", frame["after"] - frame["before"])
        return frame.sort_values("change", ascending=False, kind="stable", ignore_index=True)

    def model(self) -> SentenceTransformer | CrossEncoder:
        """The exported model; of a classification a CrossEncoder.

        Raises:
            InputError: the search has not come to its end.
        """
        if not self.folder.best.is_dir():
            raise InputError(f"{self.folder.path}: no best/ yet; `embtune search SPEC --resume` finishes the search")
        from sentence_transformers import CrossEncoder, SentenceTransformer

        from evaluation.benchmark.models import runs_code

        best, safe = self.folder.best, {"use_safetensors": True}
        if classifies(self.folder.path):
            return CrossEncoder(str(best), model_kwargs=safe)
        return SentenceTransformer(str(best), model_kwargs=safe, trust_remote_code=runs_code(best))

    def report(self) -> Path:
        """Write the HTML report and return its path."""
        from search.report.write import write_report

        return write_report(self.folder.path)

    def _gathered(self) -> RunData:
        return gather(self.folder.path)

    def _ended(self) -> Benchmark | ClassifierBenchmark:
        if not self.folder.benchmark.exists():
            raise InputError(f"{self.folder.path}: no benchmark.json yet; expected a search that has ended")
        return read_end(self.folder.benchmark)

    def _benchmarked(self) -> Benchmark:
        end = self._ended()
        if isinstance(end, ClassifierBenchmark):
            raise InputError(f"{self.folder.path}: a classification ranks nothing, expected a retrieval search")
        return end


def open_run(folder: str | Path) -> OpenRun:
    """Open a search's folder, such as runs/demo, or a copy of one in a bucket, such as s3://bucket/runs/demo.

    Raises:
        InputError: the folder is no run.
    """
    run = OpenRun(opened(str(folder), RunFolder(Path()).best.name))
    if not run.folder.spec.is_file():
        raise InputError(f"{folder}: no spec.json; expected the folder of a search, such as runs/demo")
    return run


def run_search(
    spec: str | Path | Mapping[str, Any],
    runs: str | Path = "runs",
    *,
    resume: bool = False,
    smoke: bool = False,
    address: str | None = None,
) -> OpenRun:
    """Run a search to its end, as `embtune search` does, and open its folder.

    Args:
        spec: the YAML file, or what it would hold, with a `name`; relative paths of a dictionary start where Python
            was started.
        runs: folder of all runs, or its address in a bucket.
        resume: go on with a search that was stopped.
        smoke: the whole search on tiny stand-in models; its folder is NAME-smoke.
        address: a running Ray cluster: "auto", or HOST:PORT of its head.

    Raises:
        InputError: the spec, its data or the request for resources is wrong.
        SearchFailedError: the search was stopped, or no trial gave a model.
    """
    from search.run import search_to_the_end
    from search.spec.load import load_spec, spec_from
    from search.spec.smoke import smoke_name

    where = Where.of(runs)
    resumed = where if resume and not smoke else None
    checked = spec_from(spec, resumed=resumed) if isinstance(spec, Mapping) else load_spec(Path(spec), resumed=resumed)
    again = "run_search(..., resume=True) with the same arguments"
    if search_to_the_end(checked, runs, again=again, resume=resume, smoke=smoke, address=address):
        raise SearchFailedError(f"{checked.name}: the search gave no model; what it printed says why")
    name = smoke_name(checked) if smoke else checked.name
    return open_run(f"{where.url}/{name}" if where.url else where.folder / name)


def _flat(row: Row) -> dict[str, Any]:
    told = {k: v for k, v in asdict(row).items() if k not in NESTED}
    return {**told, **row.config, **row.metrics}
