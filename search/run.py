"""The main path of a search, top to bottom."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.markup import escape

from evaluation.files import write_whole
from search.results.choice import choose, mark_tied
from search.results.leaderboard import LEADERBOARD, Row, as_table, leaderboard, write_leaderboard
from search.results.promote import BENCHMARK, BEST, promote
from search.screen.console import make_console
from search.screen.live import LiveTable
from search.screen.summary import gain, main_protocol, print_benchmark, print_how_to_load, savings, shown_path
from search.smoke import smoke_spec
from search.spec.load import SearchSpec
from search.staging import STAND_INS, Staging, locked
from search.study.study import Study
from search.tune.capacity import require_shared_storage
from search.tune.disk import require_writable
from search.tune.tuner import concurrency, connect, make_tuner
from trainables.bases.families import resolve_base


def run_search(
    spec: SearchSpec,
    runs: Path,
    *,
    resume: bool = False,
    smoke: bool = False,
    address: str | None = None,
) -> int:
    """Run the whole search of a spec. Returns the exit code: 0 done, 1 the work failed or was stopped.

    Raises:
        InputError: the data or the request for resources is wrong, or the run's folder is in use.
    """
    console = make_console()
    require_writable(runs)
    if smoke:
        console.print(
            "[bold black on yellow] SMOKE [/] Tiny stand-in models with random weights: the scores below mean nothing."
        )
        spec = smoke_spec(spec, runs.resolve() / STAND_INS / spec.name)
    for config in {(config.base, config.max_length): config for config in spec.parsed_space().configs()}.values():
        resolve_base(config)  # an unknown base, or a length that it does not have, is told now and not by each trial
    run = (runs / spec.name).resolve()
    with locked(run), Staging(spec, run, resume) as staging:
        seconds: dict[str, float] = {}
        settled = False
        with _timed(seconds, "data"):
            staging.prepare(console)
        with _timed(seconds, "ray"), console.status("Starting Ray" if address is None else f"Joining {address}"):
            connect(address)
        try:
            concurrent = concurrency(spec, autoscaled=address is not None)
            require_shared_storage(runs)
            staging.settle(console)
            settled = True
            return _search(Study(run, spec, concurrent), run, concurrent, seconds, console, smoke)
        except KeyboardInterrupt:  # outside of the trials: Tune takes it while they run
            hint = _how_to_go_on() if settled else "The search had not begun; nothing was changed."
            console.print(f"[yellow]Stopped.[/] {hint}", highlight=False, soft_wrap=True)
            return 1
        finally:
            ray.shutdown()


def _search(study: Study, run: Path, concurrent: int, seconds: dict[str, float], console: Console, smoke: bool) -> int:
    spec = study.spec
    if not study.exhausted() or study.unfinished():
        for stale in (BENCHMARK, LEADERBOARD):  # of an earlier end of this search, which goes on now
            (run / stale).unlink(missing_ok=True)
        _announce(spec, run, concurrent, console)
        with _timed(seconds, "trials"), LiveTable(study, console) as table:
            make_tuner(spec, run, study, [table], concurrent).fit()
    with console.status("Comparing the trials query by query"):
        rows = mark_tied(leaderboard(study.trials, spec.metric, study.space.rungs), run, spec.metric)
    write_leaderboard(rows, spec.metric, run)
    console.print(as_table(rows, spec.metric, title="Leaderboard", width=console.width))
    reason = study.exhausted()
    if study.unfinished() or not reason:
        ended = sum(row.state != "RUNNING" for row in rows)
        console.print(
            f"[yellow]Stopped[/] after {ended} of {spec.budget.trials} trials. {_how_to_go_on()}",
            highlight=False,
            soft_wrap=True,
        )
        return 1
    console.print(f"The search ended: {reason}. {savings(rows)}", highlight=False)
    choice = choose(rows)
    if choice is None:
        why = next((f"trial {row.trial}: {row.failure}" for row in rows if row.failure), "")
        console.print(f"[red]No trial finished.[/] {escape(why)}", highlight=False)
        return 1
    console.print(choice.reason, highlight=False)
    benchmark = _promoted(run, spec, choice.row, seconds, console)
    if benchmark is None:
        return 1
    protocol = main_protocol(benchmark, spec.data.protocol)
    verdict = None
    if protocol is not None and not smoke:
        verdict = gain(benchmark, protocol, base_kept=choice.row.config["method"] == "none")
    print_benchmark(benchmark, console, verdict)
    print_how_to_load(run / BEST, console)
    _report(run, console)
    return 0


def _promoted(
    run: Path, spec: SearchSpec, winner: Row, seconds: dict[str, float], console: Console
) -> dict[str, Any] | None:
    """What `benchmark.json` holds, made now unless it stands; None when the model could not be exported."""
    if (run / BENCHMARK).exists():
        document: dict[str, Any] = json.loads((run / BENCHMARK).read_text(encoding="utf-8"))
        return document
    try:
        with console.status(f"Merging trial {winner.trial}, checking and benchmarking it on the test part"):
            document = promote(run, spec, winner)
    except RayError as error:
        reason = str(getattr(error, "cause", error)).strip().splitlines()[0]
        console.print(f"[red]Trial {winner.trial} could not be exported:[/] {escape(reason)}")
        return None
    document["seconds"] = {**seconds, **document["seconds"]}
    write_whole(run / BENCHMARK, json.dumps(document, indent=1, ensure_ascii=False))
    return document


def _report(run: Path, console: Console) -> None:
    """Write the report. The search is done and its model exported: whatever goes wrong here must not undo that."""
    try:
        from search.report.write import write_report

        with console.status("Writing the report"):
            page = write_report(run)
    except Exception as error:
        why = escape(f"{type(error).__name__}: {error}".splitlines()[0])
        console.print(f"[yellow]The report was not written[/] ({why}); `embtune report {run}` tries again.")
        return
    console.print(f"The report is in [bold]{escape(shown_path(page))}[/].", highlight=False)


def _how_to_go_on() -> str:
    """What to type after a stop."""
    own = [argument for argument in sys.argv[1:] if argument != "--resume"]
    program = [sys.argv[0]] if Path(sys.argv[0]).name == "embtune" else [sys.executable, "-m", "search"]
    return f"To go on: [bold]{escape(shlex.join([*program, *own, '--resume']))}[/]"


def _announce(spec: SearchSpec, run: Path, concurrent: int, console: Console) -> None:
    searched = ", ".join(dict.fromkeys(d.name for d in spec.parsed_space().searched)) or "nothing"
    console.print(
        f"[bold]{spec.name}[/]: {spec.budget.trials} trials, {concurrent} at once, sampler {spec.sampler.name}, "
        f"pruner {spec.pruner.name}; searched: {searched}",
        highlight=False,
    )
    gpus = ray.cluster_resources().get("GPU", 0)
    if gpus and not spec.resources.gpus:
        console.print(f"[yellow]The cluster has {gpus:g} GPUs, and trials ask for none[/] (resources: {{gpus: 1}})")
    dashboard = ray.get_runtime_context().gcs_address and ray._private.worker.get_dashboard_url()
    console.print(f"run folder {run}" + (f", dashboard http://{dashboard}" if dashboard else ""), style="dim")


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] = round(time.perf_counter() - start, 2)
