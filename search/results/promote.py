"""The best trial -> merged, checked, benchmarked on the test part, exported to `best/`."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from evaluation.compare import compare
from evaluation.errors import InputError
from evaluation.retrieval import Scores
from evaluation.task import Protocol, RetrievalTask
from search.results.choice import checkpoint_folder, stage
from search.results.leaderboard import Row, read_leaderboard
from search.spec.load import SearchSpec
from trainables.config import TrialConfig
from trainables.training.rungs import SCORES

if TYPE_CHECKING:
    from trainables.export.card import CardFacts
    from trainables.export.export import Exported

BENCHMARK = "benchmark.json"
BEST = "best"


def promote(run: Path, spec: SearchSpec, row: Row) -> dict[str, Any]:
    """Export the trial and benchmark it, on a node that has what a trial needs; returns the `benchmark.json` to be.

    Raises:
        ray.exceptions.RayTaskError: the export was not the trained model, or a model does not load.
    """
    task = ray.remote(num_cpus=spec.resources.cpus, num_gpus=spec.resources.gpus, max_retries=0)(finish)
    document: dict[str, Any] = ray.get(task.remote(str(run), spec.name, spec.metric, asdict(row)))
    _write_card(run, spec.name, row, document)
    return document


def finish(run: str, name: str, metric: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `promote` that needs torch: export to `best/`, then score base and best on the test part."""
    from sentence_transformers import SentenceTransformer

    from evaluation.embedding_cache import EmbeddingCache
    from evaluation.metrics import DEFAULT_METRICS
    from evaluation.retrieval import evaluate
    from trainables.data.prepared import OLD_TEST, load_report, load_task
    from trainables.export.merge import trained_model

    folder = Path(run)
    best = Row(**row)
    config = TrialConfig.model_validate(best.config)
    start = time.perf_counter()
    new = folder / f".{BEST}.new"
    shutil.rmtree(new, ignore_errors=True)
    cosine = _export(folder, best, new, name, metric).cosine
    old = folder / f".{BEST}.old"  # of an earlier end of this search, which has gone on since
    shutil.rmtree(old, ignore_errors=True)
    if (folder / BEST).exists():
        (folder / BEST).rename(old)
    new.rename(folder / BEST)
    shutil.rmtree(old, ignore_errors=True)
    merged = time.perf_counter()
    data = folder / "data"
    base = trained_model(config.model_copy(update={"method": "none"}), folder)
    exported = SentenceTransformer(str(folder / BEST), model_kwargs={"use_safetensors": True})
    metrics = tuple(dict.fromkeys((*DEFAULT_METRICS, metric)))
    document: dict[str, Any] = {
        "metric": metric,
        "part": "test",
        "base": config.base,
        "best": {"trial": best.trial, "folder": BEST, "reload_cosine": cosine},
        "protocols": {},
    }
    (folder / "benchmark").mkdir(exist_ok=True)

    # The protocols share their corpus: what one has encoded, the next reads.
    caches = [EmbeddingCache.of(model, folder / "cache" / "embeddings") for model in (base, exported)]

    def benchmarked(task: RetrievalTask, name: str) -> dict[str, Any]:
        before, after = (
            evaluate(model, task, metrics, cache=cache) for model, cache in zip((base, exported), caches, strict=True)
        )
        for label, scores in (("base", before), ("best", after)):
            scores.save(folder / "benchmark" / f"{label}-{name}.npz")
        return before_and_after(task, before, after, metrics)

    dev_protocol = load_report(data).config.protocol
    for protocol in _protocols(data / "test.jsonl"):
        task = load_task(data, "test", protocol)
        if protocol == dev_protocol or len(set(task.groups.values())) > 1:  # one concept gives no interval
            document["protocols"][protocol] = benchmarked(task, protocol)
    if (data / f"{OLD_TEST}.jsonl").exists():  # of the run that this one continues: what was forgotten?
        document[OLD_TEST] = benchmarked(load_task(data, OLD_TEST, dev_protocol), OLD_TEST)
    own = document["protocols"].get(dev_protocol)
    if own:  # a test part without definitions has no scores to hold against dev scores on definitions
        base_dev = evaluate(base, load_task(data, "dev"), (metric,)).means[metric]
        document["optimism"] = {
            "best": optimism(best.metrics[metric], own["best"][metric]),
            "base": optimism(base_dev, own["base"][metric]),
        }
    ended = time.perf_counter()
    document["seconds"] = {"merge": round(merged - start, 2), "benchmark": round(ended - merged, 2)}
    return document


def before_and_after(task: RetrievalTask, before: Scores, after: Scores, metrics: Sequence[str]) -> dict[str, Any]:
    """What `benchmark.json` says of one protocol: sizes, means of base and best, and their paired comparisons."""
    return {
        "queries": len(task.queries),
        "left_out": list(task.left_out),
        "passages": len(task.corpus),
        "concepts": len(set(task.groups.values())),
        "base": before.means,
        "best": after.means,
        "comparisons": {m: asdict(compare(before, after, m)) for m in metrics},
    }


def optimism(dev: float, test: float) -> dict[str, float]:
    """Dev minus test. The base was chosen on neither part, so its difference says how much harder the test part is."""
    return {"dev": dev, "test": test, "difference": dev - test}


def _protocols(part: Path) -> list[Protocol]:
    """The concept protocol, and the definition protocol where rows are marked as definitions."""
    kinds = {json.loads(line)["kind"] for line in part.read_text(encoding="utf-8").splitlines()}
    return ["concept", "definition"] if "definition" in kinds else ["concept"]


def export_from_run(run: Path, dest: Path, trial: int | None) -> None:
    """Write the run's best model, or a trial's, to `dest`.

    Raises:
        InputError: no such run or trial, a trial without weights, or `dest` exists.
    """
    if dest.exists():
        raise InputError(f"{dest}: exists already; expected a new folder")
    metric, rows = read_leaderboard(run)
    if trial is None:
        if not (run / BEST).is_dir():
            raise InputError(f"{run}: no {BEST}/ yet; `embtune search SPEC --resume` finishes the search")
        partial = dest.with_name(f".{dest.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(run / BEST, partial)
        partial.rename(dest)
        return
    row = next((row for row in rows if row.trial == trial), None)
    if row is None:
        raise InputError(
            f"--trial {trial}: not in {run}; expected one of {', '.join(map(str, sorted(r.trial for r in rows)))}"
        )
    if not row.checkpoint:
        raise InputError(f"--trial {trial}: {row.state} before its first rung, so it has no weights")
    _export(run, row, dest, run.name, metric)


def _export(run: Path, row: Row, dest: Path, name: str, metric: str) -> Exported:
    from trainables.data.prepared import TrialData
    from trainables.export.card import model_card
    from trainables.export.export import export_model
    from trainables.export.mix import Mix

    config = TrialConfig.model_validate(row.config)
    record = {"base": config.base, "search": name, "trial": row.trial, "config": row.config, "dev": row.metrics}
    dev = TrialData.load(run / "data").dev
    probes = list(dev.queries.values()), list(dev.corpus.values())
    mix = Mix.of(config, checkpoint_folder(run, row))
    return export_model(mix, dest, *probes, record, model_card(mix, card_facts(run, name, row, None)))


def _write_card(run: Path, name: str, row: Row, benchmark: Mapping[str, Any]) -> None:
    from trainables.export.card import model_card
    from trainables.export.manifest import replace_card
    from trainables.export.mix import Mix

    mix = Mix.of(TrialConfig.model_validate(row.config), checkpoint_folder(run, row))
    replace_card(run / BEST, model_card(mix, card_facts(run, name, row, benchmark)))


def card_facts(run: Path, name: str, row: Row, benchmark: Mapping[str, Any] | None) -> CardFacts:
    """What the card of an exported trial tells: its scores on dev and, where it was benchmarked, on the test parts."""
    from trainables.data.prepared import load_report
    from trainables.export.card import CardFacts, Figure

    source = load_report(run / "data").config.source
    dataset = Path(source).name if isinstance(source, str) else name
    parts = {part: run / "data" / f"{part}.jsonl" for part in ("train", "dev", "test")}
    digest, sizes = hashlib.sha256(), {}
    for part, path in parts.items():
        content = path.read_bytes()
        digest.update(content)
        sizes[part] = content.count(b"\n")
    queries = len(Scores.load(checkpoint_folder(run, row) / SCORES).query_ids)
    figures = [Figure("dev", metric, value, queries) for metric, value in row.metrics.items()]
    for protocol, part in (benchmark or {"protocols": {}})["protocols"].items():
        figures += [
            Figure(f"test, {protocol}", metric, c["other"], c["queries"], c["base"], c["low"], c["high"])
            for metric, c in part["comparisons"].items()
        ]
    notes = [f"Trial {row.trial} of the search {name}; the adapter is merged.{stage(row)}"]
    return CardFacts(f"{name}, trial {row.trial}", dataset, figures, sizes, digest.hexdigest(), notes)
