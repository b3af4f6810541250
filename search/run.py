"""The main path of a search, top to bottom."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.markup import escape

from evaluation.errors import InputError, first_line
from search.cluster.shared_bases import share_bases
from search.paths import STAND_INS, RunFolder
from search.results.benchmark import Benchmark
from search.results.choice import choose, mark_tied
from search.results.classifier_benchmark import ClassifierBenchmark, read_end
from search.results.leaderboard import Row, leaderboard, write_leaderboard
from search.results.promote import check_bases, make_pool, promote
from search.results.table import as_table
from search.screen.console import make_console
from search.screen.labels import label_verdict, print_how_to_load_labels, print_labels
from search.screen.live import LiveTable
from search.screen.summary import gain, print_benchmark, print_how_to_load, savings, shown_path
from search.spec.sections import ClassificationSpec, SearchSpec
from search.spec.smoke import smoke_spec
from search.spec.space import READ
from search.staging import Staging, locked
from search.storage.bucket import Bucket
from search.storage.where import Where, require_bucket
from search.study.study import Study
from search.tune.capacity import cluster_nodes, require_shared_storage, with_gpus
from search.tune.disk import require_writable
from search.tune.nodes import PATIENCE_S, Nodes
from search.tune.place import on_a_node
from search.tune.ray_internals import dashboard_address, dashboard_asks_for_token, submitted_as
from search.tune.tuner import connect, make_tuner
from search.watch.closing import log_end
from search.watch.loggers import require_loggers
from search.watch.watchers import watchers
from trainables.bases.families import resolve_base
from trainables.classification.config import TextColumns
from trainables.data.prepared import DEV_POOL, load_report, read_pool


def search_to_the_end(
    spec: SearchSpec,
    runs: str | Path,
    *,
    again: str,
    resume: bool = False,
    smoke: bool = False,
    address: str | None = None,
) -> int:
    """Run the whole search of a spec. Returns the exit code: 0 done, 1 the work failed or was stopped.

    Args:
        spec: of the search.
        runs: folder of all runs, or its address in a bucket.
        again: what to type to go on after a stop.
        resume: go on with a search that was stopped.
        smoke: the whole search on tiny stand-in models; its folder is NAME-smoke.
        address: a running Ray cluster: "auto", or HOST:PORT of its head.

    Raises:
        InputError: the data or the request for resources is wrong, or the run's folder is in use.
    """
    console = make_console()
    where = Where.of(runs)
    require_loggers(spec)
    require_writable(where.folder)
    if where.url:
        require_bucket(where.url, spec.resources.workers)
    if smoke:
        console.print(
            "[bold black on yellow] SMOKE [/] Tiny stand-in models with random weights: the scores below mean nothing."
        )
        spec = smoke_spec(spec, where.folder.resolve() / STAND_INS / spec.name)
    if address is not None and where.url:
        _refuse_what_other_nodes_lack(spec, where.url, smoke)
    elif address is not None:
        spec = share_bases(spec, where.folder)
    for config in {(config.base, config.max_length): config for config in spec.parsed_space.configs()}.values():
        resolve_base(config)  # an unknown base, or a length that it does not have, is told now and not by each trial
    folder = RunFolder(*where.run(spec.name))
    run = folder.path
    with ExitStack() as held:
        held.enter_context(locked(run))
        bucket = Bucket(folder) if folder.url else None
        staging = held.enter_context(Staging(spec, run, resume, folder.url))
        seconds: dict[str, float] = {}
        settled = False
        with _timed(seconds, "data"):
            staging.prepare(console)
        with _timed(seconds, "ray"), console.status("Starting Ray" if address is None else f"Joining {address}"):
            connect(address)
        try:
            on_cluster = address is not None
            spec = staging.decide(with_gpus(staging.resources, cluster_nodes(on_cluster)))
            nodes = Nodes(spec, partial(_say, console), on_cluster, PATIENCE_S if on_cluster else 0)
            if bucket is None:
                require_shared_storage(where.folder)
            if not staging.going_on:
                with _timed(seconds, "bases"):
                    _check_bases(spec, nodes, console)
            kept_as = staging.settle(console)
            settled = True
            if bucket is not None:
                folder = bucket.settle(kept_as)
                held.callback(bucket.push_results)
            study = Study(run, spec, nodes.at_once(), bucket)
            return _search(study, folder, nodes, seconds, console, smoke, again)
        except KeyboardInterrupt:  # outside of the trials: Tune takes it while they run
            hint = _how_to_go_on(again) if settled else "The search had not begun; nothing was changed."
            console.print(f"[yellow]Stopped.[/] {hint}", highlight=False, soft_wrap=True)
            return 1
        finally:
            ray.shutdown()


def _refuse_what_other_nodes_lack(spec: SearchSpec, url: str, smoke: bool) -> None:
    """Bases are in no bucket.

    Raises:
        InputError: the spec's lie beside it, or are stand-ins that are made on this machine.
    """
    if smoke or spec.local_bases or spec.continue_from is not None:
        what = "stand-ins of --smoke" if smoke else "bases beside the spec"
        raise InputError(
            f"--runs {url}: {what} lie on this machine alone; expected a folder that every node sees, or hub ids"
        )


def _search(
    study: Study,
    run: RunFolder,
    nodes: Nodes,
    seconds: dict[str, float],
    console: Console,
    smoke: bool,
    again: str,
) -> int:
    """Trials, leaderboard, choice, merge and benchmark, report. Returns the exit code."""
    if not _run_trials(study, run, nodes, seconds, console):
        return 1
    rows = _rank(study, run, console)
    if study.unfinished() or not study.exhausted():
        _say_stopped(study, rows, console, again)
        return 1
    console.print(f"The search ended: {study.exhausted()}. {savings(rows)}", highlight=False)
    choice = choose(rows)
    if choice is None:
        why = next((f"trial {row.trial}: {row.failure}" for row in rows if row.failure), "")
        console.print(f"[red]No trial finished.[/] {escape(why)}", highlight=False)
        return 1
    console.print(choice.reason, highlight=False)
    benchmark = _promoted(run, study.spec, choice.row, nodes, seconds, console)
    if benchmark is None:
        return 1
    if isinstance(benchmark, ClassifierBenchmark):
        print_labels(benchmark, console, None if smoke else label_verdict(benchmark))
        columns = study.spec.data.columns
        pairs = isinstance(columns, TextColumns) and columns.text_pair is not None
        print_how_to_load_labels(run.best, pairs, console)
    else:
        say_verdict(benchmark, study.spec, rows, console, smoke)
        print_how_to_load(run, console)
    _report(run, console)
    _log_end(study.spec, run, benchmark, console)
    return 0


def _run_trials(study: Study, run: RunFolder, nodes: Nodes, seconds: dict[str, float], console: Console) -> bool:
    """Run what the budget still holds; False: it could not begin."""
    if study.exhausted() and not study.unfinished():
        return True
    for stale in (run.benchmark, run.leaderboard):  # of an earlier end of this search, which goes on now
        stale.unlink(missing_ok=True)
    _announce(study.spec, run.url or run.path, nodes.at_once(), console)
    if not _pooled(run, study.spec, nodes, console):
        return False
    with _timed(seconds, "trials"), LiveTable(study, console) as table:
        make_tuner(study.spec, run, study, [table, *watchers(study, run)], nodes).fit()
    return True


def _rank(study: Study, run: RunFolder, console: Console) -> list[Row]:
    """Write and show the leaderboard."""
    with console.status("Comparing the trials query by query"):
        rows = mark_tied(leaderboard(study.trials, study.spec.metric, study.space.rungs), run.path, study.spec.metric)
    write_leaderboard(rows, study.spec.metric, run.path)
    console.print(as_table(rows, study.spec.metric, title="Leaderboard", width=console.width))
    return rows


def _say_stopped(study: Study, rows: Sequence[Row], console: Console, again: str) -> None:
    ended = sum(row.state != "RUNNING" for row in rows)
    console.print(
        f"[yellow]Stopped[/] after {ended} of {study.spec.budget.trials} trials. {_how_to_go_on(again)}",
        highlight=False,
        soft_wrap=True,
    )


def say_verdict(benchmark: Benchmark, spec: SearchSpec, rows: Sequence[Row], console: Console, smoke: bool) -> None:
    """Show the benchmark and, of a search that means something, whether the model that was exported beats its base."""
    exported = next(row for row in rows if row.trial == benchmark.best.trial)  # which need not be the best single trial
    protocol = benchmark.main_protocol(spec.data.protocol)
    verdict = None
    if protocol is not None and not smoke:
        verdict = gain(benchmark, protocol, base_kept=exported.config["method"] == "none")
    print_benchmark(benchmark, console, verdict)


def _check_bases(spec: SearchSpec, nodes: Nodes, console: Console) -> None:
    """Have each base read as the search reads it and as its authors meant it, before anything is trained or written.

    Raises:
        InputError: what differs.
    """
    configs = [config.model_dump(mode="json") for config in spec.parsed_space.configs(READ)]
    try:
        with console.status("Holding the bases as the search loads them against plain float32"):
            lowest = on_a_node(nodes, check_bases, configs, spec.resources.device)
    except RayError as error:
        if isinstance(wrong := getattr(error, "cause", None), InputError):
            raise InputError(str(wrong)) from None
        raise
    console.print(f"bases: embedded as plain float32 embeds them (lowest cosine {lowest:.4f})", highlight=False)


def _pooled(run: RunFolder, spec: SearchSpec, nodes: Nodes, console: Console) -> bool:
    """Make the pool that dev evaluations search, where the corpus is large and it is not there; False: it failed."""
    if isinstance(spec, ClassificationSpec):
        return True
    if load_report(run.data).pool_depth is not None and read_pool(run.data) is None:
        configs = [config.model_dump(mode="json") for config in spec.parsed_space.configs()]
        try:
            with console.status("Asking the bases for the passages that dev evaluations search"):
                on_a_node(nodes, make_pool, run, configs, spec.resources.device, gives=[f"{run.data.name}/{DEV_POOL}"])
        except RayError as error:
            console.print(f"[red]The dev pool could not be made:[/] {escape(cause(error))}", highlight=False)
            return False
    if (pool := read_pool(run.data)) is not None:
        console.print(
            f"dev: trials are compared on {len(pool['passages']):,} of {pool['of']:,} passages, the relevant ones and "
            "what the bases find first; the benchmark searches all",
            highlight=False,
        )
    return True


def _promoted(
    run: RunFolder, spec: SearchSpec, winner: Row, nodes: Nodes, seconds: dict[str, float], console: Console
) -> Benchmark | ClassifierBenchmark | None:
    """The benchmark, made now unless it stands; None when the model could not be exported."""
    if run.benchmark.exists():
        return read_end(run.benchmark)
    try:
        with console.status("Comparing what can be merged, then checking and benchmarking it on the test part"):
            benchmark = promote(nodes, run, spec, winner)
    except RayError as error:
        console.print(f"[red]No model could be exported:[/] {escape(cause(error))}")
        return None
    benchmark = replace(benchmark, seconds={**seconds, **benchmark.seconds})
    benchmark.write(run.benchmark)
    return benchmark


def cause(error: RayError) -> str:
    """What a task that failed said, in one line."""
    return first_line(getattr(error, "cause", error))


def _report(run: RunFolder, console: Console) -> None:
    """Write the report. The search is done and its model exported: whatever goes wrong here must not undo that."""
    try:
        from search.report.write import write_report

        with console.status("Writing the report"):
            page = write_report(run.path)
    except Exception as error:
        why = escape(f"{type(error).__name__}: {error}".splitlines()[0])
        console.print(
            f"[yellow]The report was not written[/] ({why}); `embtune report {run.url or run.path}` tries again."
        )
        return
    shown = f"{run.url}/{page.name}" if run.url else shown_path(page)
    console.print(f"The report is in [bold]{escape(shown)}[/].", highlight=False)


def _log_end(spec: SearchSpec, run: RunFolder, benchmark: Benchmark | ClassifierBenchmark, console: Console) -> None:
    """Tell the trackers. As with the report, what goes wrong here must not undo the search."""
    try:
        log_end(spec, run, benchmark)
    except Exception as error:
        why = escape(f"{type(error).__name__}: {first_line(error)}")
        console.print(f"[yellow]The benchmark was not logged to {', '.join(spec.logging)}[/] ({why})")


def _how_to_go_on(again: str) -> str:
    return "To go on, submit the same spec again." if submitted_as() else f"To go on: [bold]{escape(again)}[/]"


def _announce(spec: SearchSpec, run: str | Path, concurrent: int, console: Console) -> None:
    searched = ", ".join(dict.fromkeys(d.name for d in spec.parsed_space.searched)) or "nothing"
    console.print(
        f"[bold]{spec.name}[/]: {spec.budget.trials} trials, {concurrent} at once, sampler {spec.sampler.name}, "
        f"pruner {spec.pruner.name}; searched: {searched}",
        highlight=False,
    )
    gpus = ray.cluster_resources().get("GPU", 0)
    if gpus and not spec.resources.gpus:
        console.print(f"[yellow]The cluster has {gpus:g} GPUs, and trials ask for none[/] (resources: {{gpus: 1}})")
    dashboard = dashboard_address()
    token = " (it asks for a token: `ray get-auth-token` prints it)" if dashboard_asks_for_token() else ""
    link = f", dashboard http://{dashboard}{token}" if dashboard else ""
    console.print(f"run folder {run}{link}", style="dim", soft_wrap=True)


def _say(console: Console, line: str) -> None:
    console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] = round(time.perf_counter() - start, 2)
