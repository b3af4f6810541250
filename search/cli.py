"""The command line. Nothing heavy is imported before a command runs: `embtune --help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

FOLDER = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="embtune")
def cli() -> None:
    """Hyper-parameter search for text-embedding models, on Ray and Optuna."""


@cli.command()
@click.argument("spec", type=FOLDER)
@click.option("--runs", default="runs", show_default=True, help="folder of all runs, or s3://BUCKET/FOLDER")
@click.option("--base", help="base model in place of the spec's")
@click.option("--resume", is_flag=True, help="go on with a search that was stopped")
@click.option("--smoke", is_flag=True, help="the whole search on tiny stand-in models, in about a minute")
@click.option("--address", help="a running Ray cluster: 'auto', or HOST:PORT of its head")
def search(spec: Path, runs: str, base: str | None, resume: bool, smoke: bool, address: str | None) -> None:
    """Search, merge the best trial, benchmark it against its base and export it."""
    from search.spec.load import load_spec
    from search.storage.where import Where

    # What is wrong with it is told before Ray and the rest are imported.
    where = Where.of(runs)
    checked = load_spec(spec, base, resumed=where if resume and not smoke else None)
    from search.run import search_to_the_end

    sys.exit(search_to_the_end(checked, runs, resume=resume, smoke=smoke, address=address))


@cli.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="the rows as JSON")
@click.option("--csv", "as_csv", is_flag=True, help="the rows as CSV")
def leaderboard(run: str, as_json: bool, as_csv: bool) -> None:
    """Show a run's trials, best first."""
    from search.paths import RunFolder
    from search.results import table
    from search.results.leaderboard import read_leaderboard
    from search.screen.console import make_console
    from search.storage.bucket import opened

    if as_json and as_csv:
        raise click.UsageError("--json and --csv: expected one of the two")
    folder = opened(run)
    metric, rows = read_leaderboard(folder)
    if as_json:
        click.echo(RunFolder(folder).leaderboard.read_text())
    elif as_csv:
        click.echo(table.as_csv(rows), nl=False)
    else:
        console = make_console()
        console.print(table.as_table(rows, metric, title=run, width=console.width))


@cli.command()
@click.argument("run")
@click.argument("dest", type=FOLDER)
@click.option("--trial", type=int, help="a trial's number; without it the run's best model")
@click.option("--candidate", help="a candidate's name, as the end of the search and the report tell it")
@click.option("--format", "form", type=click.Choice(["safetensors", "onnx", "openvino"]), default="safetensors")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16", "int8"]), default="fp32", show_default=True)
@click.option("--adapter-only", is_flag=True, help="PEFT's files of a single LoRA trial instead of a model")
@click.option("--force", is_flag=True, help="replace DEST")
@click.option("--push-to-hub", "repo", metavar="REPO", help="upload DEST there too; the token is read from HF_TOKEN")
def export(
    run: str,
    dest: Path,
    trial: int | None,
    candidate: str | None,
    form: Literal["safetensors", "onnx", "openvino"],
    precision: Literal["fp32", "bf16", "fp16", "int8"],
    adapter_only: bool,
    force: bool,
    repo: str | None,
) -> None:
    """Write a run's best (or chosen) model to DEST, for SentenceTransformer(DEST)."""
    from search.results.export import export_from_run
    from search.storage.bucket import opened
    from trainables.export.export import Form

    if trial is not None and candidate is not None:
        raise click.UsageError("--trial and --candidate: expected one of the two")
    wanted = Form(form, precision, adapter_only)
    export_from_run(opened(run, "best", "tune"), dest, trial, candidate, None if wanted == Form() else wanted, force)
    backend = "" if form == "safetensors" else f", backend={form!r}"
    how = f"(base).load_adapter({str(dest)!r})" if adapter_only else f"({str(dest)!r}{backend})"
    click.echo(f"{dest}: SentenceTransformer{how} loads it")
    if repo is not None:
        from trainables.export.upload import push_to_hub

        click.echo(push_to_hub(dest, repo))


@cli.command()
@click.argument("models", type=FOLDER, nargs=-1, required=True)
@click.argument("dest", type=FOLDER)
@click.option("--weights", help="of each model, as in 2,1; scaled to sum to one; without them equal ones")
@click.option("--force", is_flag=True, help="replace DEST")
def merge(models: tuple[Path, ...], dest: Path, weights: str | None, force: bool) -> None:
    """Average models of one base, each a run or a model's folder, and write the mean to DEST."""
    from search.results.merge import merge_by_hand

    found = merge_by_hand(models, weights, dest, force)
    click.echo(f"{dest}: SentenceTransformer({str(dest)!r}) loads it (lowest cosine to the mean {found.cosine:.6f})")


@cli.command()
@click.argument("run", type=FOLDER)
@click.option("--yes", is_flag=True, help="do not ask")
def clean(run: Path, yes: bool) -> None:
    """Free what an ended run no longer needs: its cache, and the weights of trials that are in no candidate."""
    from search.clean import removable, remove
    from search.report.page import size_text

    found = removable(run)
    if not found:
        click.echo(f"{run}: nothing to free")
        return
    size = size_text(sum(found.values()))
    if not yes:
        click.confirm(
            f"{run}: free {size} in {len(found)} files (cache, weights that are in no candidate)?", abort=True
        )
    remove(run, found)
    click.echo(f"{run}: {size} freed")


@cli.command()
@click.argument("run")
def report(run: str) -> None:
    """Write a run's report: report.html, one page that needs no network, and plots/*.png."""
    from search.screen.console import make_console

    console = make_console()
    with console.status("Writing the report"):
        from search.report.write import write_report
        from search.storage.bucket import opened

        page = write_report(opened(run))
    click.echo(page)


@cli.command()
@click.argument("spec", type=FOLDER)
@click.option("--base", help="base model in place of the spec's")
@click.option("--json", "as_json", is_flag=True, help="the plan as JSON")
def plan(spec: Path, base: str | None, as_json: bool) -> None:
    """Show what a search would do: data, space, parameters, memory. No weights, no training."""
    from search.screen.console import make_console
    from search.spec.plan import plan as show_plan

    show_plan(spec, base=base, as_json=as_json, console=make_console())


@cli.command()
@click.option("--task", "tasks", multiple=True, help="BEIR folder or .jsonl file of pairs; may be repeated")
@click.option("--mteb", multiple=True, help="an MTEB retrieval task by name; may be repeated; needs the extra [mteb]")
@click.option("--model", "models", multiple=True, required=True, help="hub id, model folder or run; may be repeated")
@click.option("--split", help="of the tasks; without it test where there is one, else dev, else train")
@click.option("--metric", default="ndcg@10", show_default=True, help="what rows are sorted by and compared on")
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    type=click.Choice(["concept", "definition"]),
    default=("concept",),
    show_default=True,
    help="of files of pairs: what counts as relevant; may be repeated",
)
@click.option(
    "--details", is_flag=True, help="also cosines, context precision, triplets, shorter embeddings and encoding speed"
)
@click.option("--judge", help="URL of an OpenAI-compatible endpoint that judges contexts: RAGAS's precision and recall")
@click.option("--judge-model", help="that the endpoint is asked for; without it the only one that it has")
@click.option("--cache", type=FOLDER, help="folder where embeddings are kept for the next time")
@click.option("--output", type=FOLDER, help="folder for the table as JSON, CSV and Markdown")
@click.option("--json", "as_json", is_flag=True, help="the table as JSON")
@click.option("--csv", "as_csv", is_flag=True, help="the table as CSV")
@click.option("--markdown", "as_markdown", is_flag=True, help="the table as Markdown")
def benchmark(
    tasks: tuple[str, ...],
    mteb: tuple[str, ...],
    models: tuple[str, ...],
    split: str | None,
    metric: str,
    protocols: tuple[Literal["concept", "definition"], ...],
    details: bool,
    judge: str | None,
    judge_model: str | None,
    cache: Path | None,
    output: Path | None,
    as_json: bool,
    as_csv: bool,
    as_markdown: bool,
) -> None:
    """Compare models side by side on the same tasks, each fine-tuned one with its base."""
    from evaluation.benchmark.endpoint import Endpoint
    from evaluation.benchmark.judge import Judge
    from evaluation.benchmark.run import run_benchmark
    from search.screen.console import make_console
    from trainables.export.merge import base_model

    if as_json + as_csv + as_markdown > 1:
        raise click.UsageError("--json, --csv and --markdown: expected one of them")
    console = make_console()
    plain = as_json or as_csv or as_markdown
    table = run_benchmark(
        tasks,
        models,
        mteb=mteb,
        split=split,
        protocols=protocols,
        metric=metric,
        details=details,
        judge=Judge(Endpoint.open(judge, judge_model)) if judge else None,
        cache=cache,
        output=output,
        load=base_model,
        progress=not plain and console.is_terminal,
    )
    if plain:
        click.echo(table.json() if as_json else table.csv() if as_csv else table.markdown())
        return
    for shown in (table.rich(console.width), *table.rich_details()):
        console.print(shown)
    for note in table.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


@cli.command(name="try")
@click.argument("run", type=FOLDER)
@click.option("--corpus", type=FOLDER, help="BEIR folder or .jsonl file of passages; without it the run's own")
@click.option("--model", "models", multiple=True, help="one more model, at most two; hub id, model folder or run")
@click.option(
    "--language",
    "languages",
    multiple=True,
    default=("fr", "en"),
    show_default=True,
    help="of questions; first the corpus's",
)
@click.option("--translate", help="Marian model (opus-mt) that translates other languages; hub id or folder")
@click.option("--log", type=FOLDER, help="SQLite file that keeps questions and thumbs; without it nothing is kept")
@click.option(
    "--llm", help="URL of an OpenAI-compatible endpoint that answers from the passages; its key: OPENAI_API_KEY"
)
@click.option("--llm-model", help="that the endpoint is asked for; without it the only one that it has")
@click.option("--host", help="address to listen on, with a token; without it localhost, for this machine alone")
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0 takes a free one")
def try_models(
    run: Path,
    corpus: Path | None,
    models: tuple[str, ...],
    languages: tuple[str, ...],
    translate: str | None,
    log: Path | None,
    llm: str | None,
    llm_model: str | None,
    host: str | None,
    port: int,
) -> None:
    """Serve a page that asks a run's base and best model the same question. Needs the extra [app]."""
    try:
        from search.app.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("search", "evaluation", "trainables"):
            raise
        from evaluation.errors import InputError

        raise InputError(
            f"embtune try: no package {error.name}, expected the extra: pip install 'embtune[app]'"
        ) from None

    serve(
        run,
        corpus=corpus,
        models=models,
        host=host,
        port=port,
        languages=languages,
        translate=translate,
        log=log,
        llm=llm,
        llm_model=llm_model,
        say=click.echo,
    )


@cli.group()
def data() -> None:
    """Look at data before a search."""


@data.command()
@click.argument("file", type=FOLDER)
@click.argument("spec", type=FOLDER, required=False)
@click.option("--json", "as_json", is_flag=True, help="the report as JSON")
def check(file: Path, spec: Path | None, as_json: bool) -> None:
    """Show what is wrong with the data, row by row. Exit code 1 when it cannot be used."""
    from search.screen.console import make_console
    from search.spec.load import load_spec
    from trainables.check.check import check_file
    from trainables.check.view import print_report

    if not file.exists():
        from evaluation.errors import InputError

        raise InputError(f"{file}: no such file; expected .jsonl, .json, .csv, .tsv, .parquet or a folder")
    if spec is None:
        report = check_file(file.resolve())
    else:
        from trainables.bases.token_counts import token_counts

        loaded = load_spec(spec)
        tokens = token_counts(next(loaded.parsed_space.configs()))
        earlier = loaded.earlier_data
        report = check_file(file.resolve(), loaded.data, seed=loaded.seed, earlier=earlier, tokens=tokens)
    if as_json:
        click.echo(report.model_dump_json(indent=1))
    else:
        print_report(report, make_console())
    sys.exit(0 if report.unusable is None else 1)


ADDRESS = click.option("--address", required=True, help="the cluster's dashboard, such as http://HEAD:8265")


@cli.command()
@click.argument("spec", type=FOLDER)
@ADDRESS
@click.option("--runs", type=FOLDER, default=Path("/mnt/runs"), show_default=True, help="folder that all nodes see")
def submit(spec: Path, address: str, runs: Path) -> None:
    """Run a search as a job of a Ray cluster; the spec's folder goes along."""
    from search.jobs import submit as submit_job

    job = submit_job(spec, address, runs)
    click.echo(f"{job}\n  embtune status {job} --address {address}\n  embtune logs {job} --address {address}")


@cli.command()
@click.argument("job")
@ADDRESS
def status(job: str, address: str) -> None:
    """Say how a submitted search stands."""
    from search.jobs import details

    found = details(address, job)
    click.echo(f"{found.status}: {found.message}" if found.message else str(found.status))


@cli.command()
@click.argument("job")
@ADDRESS
def logs(job: str, address: str) -> None:
    """Print what a submitted search has printed so far."""
    from search.jobs import client, details

    details(address, job)
    click.echo(client(address).get_job_logs(job), nl=False)


@cli.command()
@click.argument("job")
@ADDRESS
def stop(job: str, address: str) -> None:
    """Stop a submitted search; submitting it again goes on with it."""
    from search.jobs import client, details

    details(address, job)
    stopping = client(address).stop_job(job)
    click.echo("stopping" if stopping else "it had ended already")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: bad input is one line and exit code 2, a failure one line and exit code 1.

    EMBTUNE_TRACEBACK=1 in the environment shows where a failure came from. Without `arguments`, those of the process.
    """
    from evaluation.errors import InputError

    try:
        cli.main(arguments, standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(1)
    except InputError as error:
        click.echo(f"embtune: {error}", err=True)
        sys.exit(2)
    except Exception as error:
        if os.environ.get("EMBTUNE_TRACEBACK"):
            raise
        what = " ".join(str(error).split())[:500]
        click.echo(f"embtune: failed: {type(error).__name__}: {what} (EMBTUNE_TRACEBACK=1 shows where)", err=True)
        sys.exit(1)
