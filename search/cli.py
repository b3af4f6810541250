"""The command line. Nothing heavy is imported before a command runs: `embtune --help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="embtune")
def cli() -> None:
    """Hyper-parameter search for text-embedding models, on Ray and Optuna."""


@cli.command()
@click.argument("spec", type=FOLDER)
@click.option("--runs", type=FOLDER, default=Path("runs"), show_default=True, help="folder of all runs")
@click.option("--base", help="base model in place of the spec's")
@click.option("--resume", is_flag=True, help="go on with a search that was stopped")
@click.option("--smoke", is_flag=True, help="the whole search on tiny stand-in models, in about a minute")
@click.option("--address", help="a running Ray cluster: 'auto', or HOST:PORT of its head")
def search(spec: Path, runs: Path, base: str | None, resume: bool, smoke: bool, address: str | None) -> None:
    """Search, merge the best trial, benchmark it against its base and export it."""
    from search.run import run_search

    sys.exit(run_search(spec, runs, base=base, resume=resume, smoke=smoke, address=address))


@cli.command()
@click.argument("run", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="the rows as JSON")
@click.option("--csv", "as_csv", is_flag=True, help="the rows as CSV")
def leaderboard(run: Path, as_json: bool, as_csv: bool) -> None:
    """Show a run's trials, best first."""
    from rich.console import Console

    import search.leaderboard as board

    if as_json and as_csv:
        raise click.UsageError("--json and --csv: expected one of the two")
    metric, rows = board.read_leaderboard(run)
    if as_json:
        click.echo((run / board.LEADERBOARD).read_text())
    elif as_csv:
        click.echo(board.as_csv(rows), nl=False)
    else:
        console = Console()
        console.print(board.as_table(rows, metric, title=str(run), width=console.width))


@cli.command()
@click.argument("run", type=FOLDER)
@click.argument("dest", type=FOLDER)
@click.option("--trial", type=int, help="a trial's number; without it the run's best model")
def export(run: Path, dest: Path, trial: int | None) -> None:
    """Write a run's best (or chosen) model to DEST, for SentenceTransformer(DEST)."""
    from search.promote import export_from_run

    export_from_run(run, dest, trial)
    click.echo(f"{dest}: SentenceTransformer({str(dest)!r}) loads it")


def main() -> None:
    """Entry point: bad input is one line and exit code 2, never a traceback."""
    from evaluation.errors import InputError

    try:
        cli.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(1)
    except InputError as error:
        click.echo(f"embtune: {error}", err=True)
        sys.exit(2)
