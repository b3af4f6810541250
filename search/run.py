"""The main path of a search, top to bottom."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluation.errors import InputError
from search.console import make_console
from search.leaderboard import Row, as_table, leaderboard, write_leaderboard
from search.promote import BENCHMARK, BEST, promote
from search.record import SPEC, read_record, write_spec
from search.spec import SearchSpec, load_spec
from search.study import JOURNAL, Study


def run_search(
    path: Path,
    runs: Path,
    *,
    base: str | None = None,
    resume: bool = False,
    smoke: bool = False,
    address: str | None = None,
    console: Console | None = None,
) -> int:
    """Run the whole search of a spec. Returns the exit code: 0 done, 1 the work failed or was stopped.

    Raises:
        InputError: the spec, the data or the request for resources is wrong, or the run's folder is in use.
    """
    console = console or make_console()
    spec = load_spec(path, base)
    run = (runs / spec.name).resolve()
    runs.mkdir(parents=True, exist_ok=True)
    with _locked(run):
        _make_room(run, spec, resume, console)
        return _search(spec, run, address, console)


def _search(spec: SearchSpec, run: Path, address: str | None, console: Console) -> int:
    from trainables.data import prepare

    with console.status("Reading and splitting the data"):
        report = prepare(spec.data, spec.folder, spec.seed, run / "data")
    parts = ", ".join(
        f"{part} {report.kept[part]:,} rows of {report.concepts[part]:,} concepts" for part in report.kept
    )
    console.print(f"data: {parts}", highlight=False)
    for finding in report.findings:
        console.print(f"  [yellow]{finding.count:,}[/] {escape(finding.what)} [dim]({escape(finding.action)})[/]")
    write_spec(spec, run, report.content_hash)

    import ray

    from search.display import LiveTable
    from search.tuner import concurrency, connect, make_tuner

    with console.status("Starting Ray" if address is None else f"Joining the Ray cluster at {address}"):
        connect(address)
    try:
        concurrent = concurrency(spec)
        study = Study(run, spec, concurrent)
        dashboard = ray.worker.get_dashboard_url() if hasattr(ray.worker, "get_dashboard_url") else None
        _announce(spec, run, concurrent, dashboard, console)
        with LiveTable(study, console) as table:
            make_tuner(spec, run, study, [table], concurrent).fit()
        rows = leaderboard(study.trials, spec.metric, study.rungs)
        write_leaderboard(rows, spec.metric, run)
        console.print(as_table(rows, spec.metric, title="Leaderboard", width=console.width))
        reason = study.exhausted()
        if any(row.state == "RUNNING" for row in rows) or not reason:
            console.print(
                f"[yellow]Stopped with {len(rows)} of {spec.budget.trials} trials proposed.[/] Go on with: embtune search ... --resume"
            )
            return 1
        console.print(f"The search ended: {reason}. {savings(rows)}", highlight=False)
        finished = [row for row in rows if row.state == "COMPLETE"]
        if not finished:
            failed = next((row for row in rows if row.failure), None)
            console.print("[red]No trial finished.[/] " + (f"Trial {failed.trial}: {failed.failure}" if failed else ""))
            return 1
        with console.status(f"Merging trial {finished[0].trial}, checking and benchmarking it on the test part"):
            try:
                benchmark = promote(run, spec, finished[0])
            except ray.exceptions.RayTaskError as error:
                console.print(f"[red]Trial {finished[0].trial} could not be exported:[/] {escape(str(error.cause))}")
                return 1
        print_benchmark(benchmark, console)
        print_how_to_load(run, console)
        return 0
    finally:
        ray.shutdown()


def _locked(run: Path) -> filelock.BaseFileLock:
    """The run's lock, held while a search works on its folder; a killed process lets go of it.

    Raises:
        InputError: another search holds it.
    """
    lock = filelock.FileLock(run.with_name(f".{run.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(
            f"{run}: another `embtune search` is at work in this folder; expected it to end first"
        ) from None
    return lock


def _make_room(run: Path, spec: SearchSpec, resume: bool, console: Console) -> None:
    """Decide what happens to an earlier run of the same name: it is gone on with, set aside, or in the way."""
    if resume:
        if (run / JOURNAL).exists():
            check_same_search(spec, read_record(run), run)
            console.print(f"Going on with {run}", highlight=False)
        else:
            console.print(f"{run} holds no search yet: starting one", highlight=False)
    elif (run / JOURNAL).exists() and not (run / BENCHMARK).exists():
        raise InputError(
            f"{run}: holds a search that has not ended; expected --resume to go on with it, or another name"
        )
    elif run.exists():
        stamp = time.strftime(
            "%Y%m%d-%H%M%S", time.localtime((run / SPEC).stat().st_mtime if (run / SPEC).exists() else None)
        )
        aside = run.with_name(f"{run.name}-{stamp}")
        run.rename(aside)
        console.print(f"The earlier run was kept: {aside}", highlight=False)
    run.mkdir(exist_ok=True)


FREE_TO_CHANGE = ("budget", "resources", "name")


def check_same_search(spec: SearchSpec, stored: dict[str, Any], run: Path) -> None:
    """More trials or other resources may be asked for; anything else would mix two experiments in one study.

    Raises:
        InputError: names the first key that differs, with both values.
    """
    now = spec.model_dump(mode="json")
    for key in now:
        if key not in FREE_TO_CHANGE and now[key] != stored.get(key):
            where, before, after = _first_difference(stored.get(key), now[key], key)
            raise InputError(
                f"{run}: {where} was {before!r} and is now {after!r}; expected the same spec, or another name"
            )


def _first_difference(before: Any, after: Any, where: str) -> tuple[str, Any, Any]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(k for k in after if k not in before)]:
            if before.get(key) != after.get(key):
                return _first_difference(before.get(key), after.get(key), f"{where}.{key}")
    return where, before, after


def _announce(spec: SearchSpec, run: Path, concurrent: int, dashboard: str | None, console: Console) -> None:
    searched = ", ".join(dict.fromkeys(d.name for d in spec.parsed_space().searched)) or "nothing"
    console.print(
        f"[bold]{spec.name}[/]: {spec.budget.trials} trials, {concurrent} at once, sampler {spec.sampler.name}, "
        f"pruner {spec.pruner.name}; searched: {searched}",
        highlight=False,
    )
    console.print(
        f"run folder {run}" + (f", dashboard http://{dashboard}" if dashboard else ""), highlight=False, style="dim"
    )


def savings(rows: Sequence[Row]) -> str:
    """What the pruner saved, in training pairs that were planned and not trained on."""
    pruned = [row for row in rows if row.state == "PRUNED"]
    planned = sum(row.planned_pairs for row in rows)
    saved = sum(row.planned_pairs - row.pairs for row in pruned)
    share = saved / planned if planned else 0.0
    return f"The pruner stopped {len(pruned)} of {len(rows)} trials and saved {saved:,} of {planned:,} planned training pairs ({share:.0%})."


def print_benchmark(benchmark: dict[str, Any], console: Console) -> None:
    """Base against best on the test part."""
    for protocol, part in benchmark["protocols"].items():
        table = Table(
            title=f"Test part, protocol {protocol}: {part['queries']} queries of {part['concepts']} concepts, {part['passages']} passages",
            title_justify="left",
        )
        for name in ("metric", "base", "best", "difference", "95 % interval", "p"):
            table.add_column(name, justify="left" if name == "metric" else "right")
        for metric, c in part["comparisons"].items():
            colour = "green" if c["low"] > 0 else "red" if c["high"] < 0 else "yellow"
            table.add_row(
                metric,
                f"{c['base']:.4f}",
                f"{c['other']:.4f}",
                f"[{colour}]{c['difference']:+.4f}[/]",
                f"{c['low']:+.4f} to {c['high']:+.4f}",
                f"{c['p_value']:.4f}",
                style="bold" if metric == benchmark["metric"] else "",
            )
        console.print(table)


def print_how_to_load(run: Path, console: Console) -> None:
    best = run / BEST
    try:
        best = best.relative_to(Path.cwd())
    except ValueError:
        pass  # elsewhere: shown as an absolute path
    console.print(f"The best model is in [bold]{best}[/]. Load it with", highlight=False)
    console.print("    from sentence_transformers import SentenceTransformer", highlight=False)
    console.print(f'    model = SentenceTransformer("{best}")', highlight=False)
