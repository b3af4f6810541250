"""The command line. Nothing heavy is imported before a command runs: `embtune --help` answers at once."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from search.app.command import try_models
from search.cluster import commands

if TYPE_CHECKING:
    from trainables.classification.report import LabelReport
    from trainables.data.report import DataReport

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

    own = [argument for argument in sys.argv[1:] if argument != "--resume"]
    program = [sys.argv[0]] if Path(sys.argv[0]).name == "embtune" else [sys.executable, "-m", "search"]
    again = shlex.join([*program, *own, "--resume"])
    sys.exit(search_to_the_end(checked, runs, again=again, resume=resume, smoke=smoke, address=address))


@cli.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="the rows as JSON")
@click.option("--csv", "as_csv", is_flag=True, help="the rows as CSV")
def leaderboard(run: str, as_json: bool, as_csv: bool) -> None:
    """Show a run's trials, best first; those so far while it is at work or when it was stopped."""
    from search.results import table
    from search.results.so_far import ranking
    from search.screen.console import make_console
    from search.storage.bucket import opened

    if as_json and as_csv:
        raise click.UsageError("--json and --csv: expected one of the two")
    found = ranking(opened(run))
    if as_json:
        click.echo(found.as_json())
    elif as_csv:
        click.echo(table.as_csv(found.rows), nl=False)
    else:
        console = make_console()
        console.print(table.as_table(found.rows, found.metric, title=f"{run}{found.title}", width=console.width))


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
    """Write a run's best (or chosen) model to DEST, for SentenceTransformer(DEST).

    While the search is at work, or was stopped, the best of its complete trials so far.
    """
    from search.results.export import export_from_run
    from search.results.so_far import best_so_far
    from search.spec.record import classifies
    from search.storage.bucket import opened
    from trainables.export.export import Exported, Form

    if trial is not None and candidate is not None:
        raise click.UsageError("--trial and --candidate: expected one of the two")
    wanted = Form(form, precision, adapter_only)
    if repo is not None:
        from trainables.export.upload import push_to_hub, token_for

        token_for(repo)  # a missing one is told now and not after the export
    folder = opened(run, "best", "tune")
    if trial is None and candidate is None and (trial := best_so_far(folder)) is not None:
        click.echo(f"{run}: the search has not ended; trial {trial} is the best so far")
    found = export_from_run(folder, dest, trial, candidate, None if wanted == Form() else wanted, force)
    how = f"(base).load_adapter({str(dest)!r})" if adapter_only else f"({str(dest)!r})"
    loader = "CrossEncoder" if classifies(folder) else "SentenceTransformer"
    click.echo(f"{dest}: {loader}{how} loads it")
    if form != "safetensors":
        from trainables.export.backends import FILES

        loaders = f"load_backend of trainables.export.backends, and backend={form!r} beside a transformers with optimum"
        click.echo(f"{dest / FILES[form]}: for {loaders}")
    if isinstance(found, Exported):
        click.echo(f"{dest}: {found.told}")
        if found.on_dev:
            click.echo(found.on_dev)
    if repo is not None:
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
@click.option("--model", "models", multiple=True, help="hub id, model folder or run; may be repeated")
@click.option("--all-bases", is_flag=True, help="every known base too, with sizes and encoding speed")
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
    all_bases: bool,
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
    from trainables.bases.known import FAMILIES
    from trainables.export.merge import base_model

    if as_json + as_csv + as_markdown > 1:
        raise click.UsageError("--json, --csv and --markdown: expected one of them")
    if not models and not all_bases:
        raise click.UsageError("no model to benchmark, expected --model or --all-bases")
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
        bases=[family.base for family in FAMILIES] if all_bases else (),
        sizes=all_bases,
    )
    if plain:
        click.echo(table.json() if as_json else table.csv() if as_csv else table.markdown())
        return
    for shown in (table.rich(console.width), *table.rich_details()):
        console.print(shown)
    for note in table.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


@cli.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="as JSON")
def bases(name: str | None, as_json: bool) -> None:
    """Show what is known of base models; of one (hub id or folder), all that is resolved and from where."""
    from search.screen.bases import show_bases
    from search.screen.console import make_console

    show_bases(name, as_json, make_console())


cli.add_command(try_models)
for _command in (
    *(commands.submit, commands.jobs, commands.status, commands.logs),
    *(commands.watch, commands.stop),
):
    cli.add_command(_command)


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
    from search.spec.task_data import check_data, print_data
    from trainables.check.check import check_file

    if not file.exists():
        from evaluation.errors import InputError

        raise InputError(f"{file}: no such file; expected .jsonl, .json, .csv, .tsv, .parquet or a folder")
    report: DataReport | LabelReport
    if spec is None:
        report = check_file(file.resolve())
    else:
        from trainables.bases.token_counts import token_counts

        loaded = load_spec(spec)
        tokens = token_counts(next(loaded.parsed_space.configs()))
        report = check_data(loaded, tokens, source=file.resolve())
    if as_json:
        click.echo(report.model_dump_json(indent=1))
    else:
        print_data(report, make_console())
    sys.exit(0 if report.unusable is None else 1)


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
