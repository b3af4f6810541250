"""A submitted search for people: a list of jobs, how one stands, its live table."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ray.job_submission import JobDetails, JobStatus
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.cluster.jobs import Jobs, described, last_words

# What the search adds to its job's metadata, in the order in which it is shown.
TOLD = ("trials", "best", "trials at rungs", "time", "device-hours", "nodes", "retries")
EVERY_S = 2.0


def jobs_table(jobs: Sequence[JobDetails]) -> Table:
    """One row for each search."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("job", "search", "state", "started", "trials", "best", "run folder"):
        table.add_column(name, no_wrap=name == "job")
    for job in jobs:
        if not (told := described(job)).get("search"):
            continue
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime((job.start_time or 0) / 1000))
        rest = (told.get(key, "") for key in ("trials", "best", "run"))
        table.add_row(job.submission_id, told["search"], str(job.status), started, *rest)
    return table


def status_lines(job: JobDetails) -> list[str]:
    """How a search stands, a line for each thing; where it failed, its last words."""
    told = described(job)
    lines = [f"{job.submission_id}: {job.status}"]
    if job.status == JobStatus.FAILED and (words := last_words(job)):
        lines[0] += f" ({words})"
    lines += [f"  {key}: {told[key]}" for key in ("search", "run", *TOLD) if told.get(key)]
    return lines


def watch_job(jobs: Jobs, job: str, console: Console) -> None:
    """The live table of a job, as its search publishes it; without a terminal, the table at the end alone."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            found = jobs.one(job)
            table = described(found).get("leaderboard", "")
            live.update(Group(Text(table), Text("\n".join(status_lines(found)))), refresh=console.is_terminal)
            if found.status.is_terminal():
                return
            time.sleep(EVERY_S)
