"""The best candidate -> merged, checked and exported to `best/`, then benchmarked on the test part against its base."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.files import read_jsonl
from evaluation.task import Protocol, RetrievalTask
from search.paths import BENCHMARK, RunFolder
from search.results.benchmark import Benchmark, DevAndTest, DevPool, Optimism, Part, Winner, phases
from search.results.best import renew_best
from search.results.candidates import compare_candidates, mix_of_candidate
from search.results.card import candidate_facts
from search.results.classifier import finish_classifier
from search.results.classifier_benchmark import ClassifierBenchmark
from search.results.export import export_candidate
from search.results.leaderboard import Row, read_leaderboard
from search.spec.sections import ClassificationSpec, SearchSpec
from search.tune.capacity import cluster_nodes, room
from search.tune.nodes import Nodes
from search.tune.place import on_a_node
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from evaluation.embedding_cache import EmbeddingCache


def promote(nodes: Nodes, run: RunFolder, spec: SearchSpec, row: Row) -> Benchmark | ClassifierBenchmark:
    """Compare what could be exported, export one and benchmark it, on a node that has what a trial needs.

    Args:
        row: the best single trial.

    Raises:
        ray.exceptions.RayTaskError: the export was not the trained model, or a model does not load.
    """
    told = (run, spec.name, spec.metric, asdict(row))
    device, brings, gives = spec.resources.device, _needed(run), [run.best.name, BENCHMARK]
    if isinstance(spec, ClassificationSpec):
        return on_a_node(nodes, _finish_classifier_with, _threads(spec), *told, device, brings=brings, gives=gives)
    tolerance = spec.guard.tolerance
    return on_a_node(nodes, _finish_with, _threads(spec), *told, tolerance, device, brings=brings, gives=gives)


def _needed(run: RunFolder) -> list[str]:
    """Names of the leaderboard and of the trials that a candidate may be made of."""
    _, rows = read_leaderboard(run.path)
    trials = [run.trial(row.trial) for row in rows if row.tied or row.state == "COMPLETE"]
    return [run.leaderboard.name, *(folder.relative_to(run.path).as_posix() for folder in trials)]


def _threads(spec: SearchSpec) -> int:
    """The cores of all trials that ran at once on a node, which have ended. What Ray is asked for is one trial's: more
    might be another search's by now, and would be waited for."""
    rooms = [found for node in cluster_nodes() if (found := room(node, spec.resources))]
    return spec.resources.cpus * max(1, min(min(rooms, default=1), spec.resources.concurrent or spec.budget.trials))


def _finish_with(threads: int, *arguments: Any) -> Benchmark:
    import torch

    torch.set_num_threads(threads)
    return finish(*arguments)


def _finish_classifier_with(threads: int, *arguments: Any) -> ClassifierBenchmark:
    import torch

    torch.set_num_threads(threads)
    return finish_classifier(*arguments)


def make_pool(run: RunFolder, configs: Sequence[Mapping[str, Any]], device: str | None) -> None:
    """Have the searched bases find the passages of the dev pool, on a node that has what a trial needs."""
    from trainables.data.dev_pool import make_dev_pool

    make_dev_pool(run.data, [TrialConfig.model_validate(config) for config in configs], run.embeddings, device)


def check_bases(configs: Sequence[Mapping[str, Any]], device: str | None) -> float:
    """The lowest cosine between the searched bases, each read once in every way that trials read it, and plain float32.

    Raises:
        InputError: a base is not embedded as it should be.
    """
    from trainables.model.parity import check_base, parity_key

    # A classifier's base is the same encoder, whatever head it gets.
    encoders = ({k: v for k, v in config.items() if k in TrialConfig.model_fields} for config in configs)
    found = {parity_key(config, device): config for config in map(TrialConfig.model_validate, encoders)}
    return min(check_base(config, device=device) for config in found.values())


def finish(
    run: RunFolder, name: str, metric: str, row: Mapping[str, Any], tolerance: float, device: str | None
) -> Benchmark:
    """Compare the candidates of a search that has ended, export one to `best/`, score it and its base on
    the test part, write the card.

    All of it is in float32, the dev scores that test scores are held against too: those of the trials are of the models
    before the merge, in the trial's precision.

    Args:
        row: the best single trial's.
        tolerance: loss on the guard that is accepted.
        device: of the models; None: the first GPU, else the CPU.

    Raises:
        ExportError: the export was not the trained model.
        InputError: weights that cannot be read.
    """
    from trainables.export.card import model_card
    from trainables.export.manifest import replace_card

    _, rows = read_leaderboard(run.path)
    times = [time.perf_counter()]
    compared = compare_candidates(run, rows, Row(**row), metric, tolerance, device)
    picked = compared.picked
    times.append(time.perf_counter())
    exported = renew_best(run, lambda new: export_candidate(run, rows, picked, new, name, metric, device=device))
    times.append(time.perf_counter())
    lead = next(row for row in rows if row.trial == picked.members[0].trial)
    winner = Winner(lead.trial, run.best.name, exported.cosine, picked.name)
    benchmark = benchmark_pair(run, lead, winner, metric, picked.dev, device)
    times.append(time.perf_counter())
    benchmark = replace(benchmark, seconds=phases(times), candidates=compared.candidates, guard=compared.guard)
    facts = candidate_facts(run, name, rows, picked, metric, benchmark)
    replace_card(run.best, f"{model_card(mix_of_candidate(run, rows, picked), facts)}\n{exported.told}\n")
    return benchmark


def benchmark_pair(
    run: RunFolder, row: Row, winner: Winner, metric: str, pooled: float, device: str | None
) -> Benchmark:
    """Base and exported model on the test part under each protocol, and on what else can judge them.

    Args:
        row: of the trial whose base it is.
        pooled: the model's dev score among the passages that the search compared trials on.
    """
    from evaluation.metrics import DEFAULT_METRICS
    from evaluation.retrieval import evaluate
    from trainables.data.prepared import OLD_TEST, load_report, load_task

    pair = _Pair(run, row, device)
    metrics = tuple(dict.fromkeys((*DEFAULT_METRICS, metric)))

    def part(task: RetrievalTask, name: str) -> Part:
        before, after = (evaluate(model, task, metrics, cache=cache) for model, cache in pair.models())
        before.save(run.scores("base", name))
        after.save(run.scores("best", name))
        return Part.of(task, before, after, metrics)

    report = load_report(run.data)
    own: Protocol = report.config.protocol
    tasks = {protocol: load_task(run.data, "test", protocol) for protocol in _protocols(run.data / "test.jsonl")}
    # One concept gives no interval.
    judged = {p: task for p, task in tasks.items() if p == own or len(set(task.groups.values())) > 1}
    old_test = run.data / f"{OLD_TEST}.jsonl"  # of the run that this one continues: what was forgotten?
    benchmark = Benchmark(
        metric=metric,
        base=pair.config.base,
        best=winner,
        protocols={protocol: part(task, protocol) for protocol, task in judged.items()},
        old_test=part(load_task(run.data, OLD_TEST, own), OLD_TEST) if old_test.exists() else None,
        unseen=report.unseen,
    )
    if own not in benchmark.protocols:  # a test part without definitions has no scores to hold against dev scores
        return benchmark
    return dev_minus_test(benchmark, pair, benchmark.protocols[own], pooled)


def dev_minus_test(benchmark: Benchmark, pair: _Pair, test: Part, pooled: float) -> Benchmark:
    """The benchmark with what dev says of both models.

    Args:
        pooled: the winner's dev score among the passages that the search compared trials on; where these are all, it is
            the one on the whole corpus.
    """
    from evaluation.retrieval import evaluate
    from trainables.data.prepared import load_task, read_pool

    task, metric = load_task(pair.run.data, "dev"), benchmark.metric
    pool = read_pool(pair.run.data)  # the search's scores are of a part of the corpus
    asked = pair.models() if pool is not None else pair.models()[:1]
    base, *searched = (evaluate(model, task, (metric,), cache=cache).means[metric] for model, cache in asked)
    (best,) = searched or [pooled]
    return replace(
        benchmark,
        dev_pool=DevPool(len(pool["passages"]), len(task.corpus), pooled, best) if pool is not None else None,
        optimism=Optimism(best=DevAndTest(best, test.best[metric]), base=DevAndTest(base, test.base[metric])),
    )


class _Pair:
    """The base and the exported model, with their embeddings: what one task has encoded, the next reads."""

    def __init__(self, run: RunFolder, row: Row, device: str | None) -> None:
        from sentence_transformers import SentenceTransformer

        from evaluation.embedding_cache import EmbeddingCache
        from trainables.export.merge import trained_model

        self.run, self.config = run, TrialConfig.model_validate(row.config)
        base = trained_model(self.config.model_copy(update={"method": "none"}), run.path, device)
        exported = SentenceTransformer(
            str(run.best),
            device=device,
            model_kwargs={"use_safetensors": True},
            trust_remote_code=self.config.trust_remote_code,
        )
        self._models = [(model, EmbeddingCache.of(model, run.embeddings)) for model in (base, exported)]

    def models(self) -> Sequence[tuple[SentenceTransformer, EmbeddingCache]]:
        """Base, then best."""
        return self._models


def _protocols(part: Path) -> list[Protocol]:
    """The concept protocol, and the definition protocol where rows are marked as definitions."""
    kinds = {row["kind"] for _, row in read_jsonl(part)}
    return ["concept", "definition"] if "definition" in kinds else ["concept"]
