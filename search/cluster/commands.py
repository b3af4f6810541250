"""The commands of a search on a cluster. Nothing heavy is imported before one runs."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)
ADDRESS = click.option("--address", required=True, help="the cluster's dashboard, such as http://HEAD:8265")


@click.command()
@click.argument("spec", type=FOLDER)
@ADDRESS
@click.option("--runs", type=FOLDER, default=Path("/mnt/runs"), show_default=True, help="folder that all nodes see")
def submit(spec: Path, address: str, runs: Path) -> None:
    """Run a search as a job of a Ray cluster; the spec's folder goes along."""
    from search.cluster.jobs import submit as submit_job

    job = submit_job(spec, address, runs)
    click.echo(f"{job}\n  embtune status {job} --address {address}\n  embtune logs {job} --address {address}")


@click.command()
@click.argument("job")
@ADDRESS
def status(job: str, address: str) -> None:
    """Say how a submitted search stands."""
    from search.cluster.jobs import details

    found = details(address, job)
    click.echo(f"{found.status}: {found.message}" if found.message else str(found.status))


@click.command()
@click.argument("job")
@ADDRESS
def logs(job: str, address: str) -> None:
    """Print what a submitted search has printed so far."""
    from search.cluster.jobs import client, details

    details(address, job)
    click.echo(client(address).get_job_logs(job), nl=False)


@click.command()
@click.argument("job")
@ADDRESS
def stop(job: str, address: str) -> None:
    """Stop a submitted search; submitting it again goes on with it."""
    from search.cluster.jobs import client, details

    details(address, job)
    stopping = client(address).stop_job(job)
    click.echo("stopping" if stopping else "it had ended already")
