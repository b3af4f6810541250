"""The commands of a search on a cluster. Nothing heavy is imported before one runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from search.cluster.jobs import Jobs

FOLDER = click.Path(path_type=Path)
ADDRESS = click.option("--address", required=True, help="the cluster's dashboard, such as http://HEAD:8265")


def _jobs(address: str) -> Jobs:
    from search.cluster.jobs import Jobs

    return Jobs(address)


@click.command()
@click.argument("spec", type=FOLDER)
@ADDRESS
@click.option("--runs", default="/mnt/runs", show_default=True, help="folder that all nodes see")
@click.option("--base", help="base model in place of the spec's")
@click.option("--smoke", is_flag=True, help="the whole search on tiny stand-in models, in about a minute")
@click.option("--new", is_flag=True, help="begin anew where a search of this name has ended; without it go on")
def submit(spec: Path, address: str, runs: str, base: str | None, smoke: bool, new: bool) -> None:
    """Run a search as a job of a Ray cluster; the spec and what it names go along, nothing else."""
    jobs = _jobs(address)
    job, run = jobs.submit(spec, runs, base=base, smoke=smoke, new=new)
    click.echo(f"{job}\n  run folder {run}\n  dashboard {jobs.address}/#/jobs/{job}")
    if jobs.asks_for_token:
        click.echo("  (the dashboard asks for the cluster's token: `ray get-auth-token` prints it)")
    for command in ("status", "logs -f", "watch", "stop"):
        click.echo(f"  embtune {command} {job} --address {jobs.address}")


@click.command()
@ADDRESS
def jobs(address: str) -> None:
    """List the searches that were submitted to a cluster, the latest first."""
    found = _jobs(address).all()
    from search.cluster.shown import jobs_table
    from search.screen.console import make_console

    make_console().print(jobs_table(found))


@click.command()
@click.argument("job", required=False)
@ADDRESS
def status(job: str | None, address: str) -> None:
    """Say how a submitted search stands; without JOB, the latest."""
    found = _jobs(address)
    from search.cluster.shown import status_lines

    click.echo("\n".join(status_lines(found.latest() if job is None else found.one(job))))


@click.command()
@click.argument("job")
@ADDRESS
@click.option("-f", "--follow", is_flag=True, help="go on until the search has ended")
def logs(job: str, address: str, follow: bool) -> None:
    """Print what a submitted search has printed so far."""
    for text in _jobs(address).logs(job, follow):
        click.echo(text, nl=False)


@click.command()
@click.argument("run_or_job")
@click.option("--address", help="the cluster's dashboard, for a job; a run's folder needs none")
def watch(run_or_job: str, address: str | None) -> None:
    """Show the table of a search's trials, live, until it ends: of a run's folder, or of a job."""
    from search.screen.console import make_console

    if address is None:
        from search.watch.follow import watch_run

        watch_run(Path(run_or_job), make_console())
    else:
        found = _jobs(address)
        from search.cluster.shown import watch_job

        watch_job(found, run_or_job, make_console())


@click.command()
@click.argument("job")
@ADDRESS
def stop(job: str, address: str) -> None:
    """Stop a submitted search; submitting it again goes on with it."""
    stopping = _jobs(address).stop(job)
    click.echo("stopping" if stopping else "it had ended already")
