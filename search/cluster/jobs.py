"""Searches as jobs of a running Ray cluster, through the Ray Jobs API."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from evaluation.errors import InputError, first_line
from search.spec.load import load_spec
from search.tune.token import refused

PATIENCE_S = 30  # that a cluster may take before it accepts jobs


def client(address: str) -> JobSubmissionClient:
    """A client of the cluster's dashboard. The token comes from RAY_AUTH_TOKEN or ~/.ray/auth_token, as Ray has it.

    Raises:
        InputError: no http address, nobody answers there, or the token is refused.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise InputError(f"--address {address}: expected the dashboard's address, such as http://127.0.0.1:8265")
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise refused(address) from None
    except (ConnectionError, RuntimeError) as error:
        raise InputError(f"--address {address}: no Ray dashboard answers there ({first_line(error)})") from None


def submit(spec: Path, address: str, runs: Path) -> str:
    """Check the spec here, send its folder to the cluster and start the search there. Returns the job's id.

    Raises:
        InputError: the spec is wrong, or the cluster cannot be reached or takes no job.
    """
    load_spec(spec)
    command = ["embtune", "search", spec.name, "--address", "auto", "--runs", str(runs), "--resume"]
    jobs = client(address)
    for _ in range(PATIENCE_S):
        try:
            return jobs.submit_job(entrypoint=shlex.join(command), runtime_env={"working_dir": str(spec.parent)})
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            if "No available agent" not in str(error):  # a head that has just started has none yet
                break
            time.sleep(1)
    raise InputError(f"--address {address}: the cluster takes no job ({reason})")


def details(address: str, job: str) -> JobDetails:
    """What the cluster knows of a job.

    Raises:
        InputError: no such job.
    """
    jobs = client(address)
    try:
        return jobs.get_job_info(job)
    except RuntimeError:
        known = ", ".join(sorted(j.submission_id for j in jobs.list_jobs() if j.submission_id)) or "none"
        raise InputError(f"job {job}: not on {address}; jobs there: {known}") from None
