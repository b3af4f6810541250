"""Searches as jobs of a running Ray cluster, through the Ray Jobs API."""

from __future__ import annotations

import json
import platform
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from evaluation.errors import InputError, first_line
from search.cluster.parcel import Parcel, pack
from search.spec.load import load_spec
from search.spec.sections import SearchSpec
from search.spec.smoke import smoke_name
from search.storage.where import Where
from search.tune.ray_internals import ask_dashboard, dashboard_asks_for_token, say_nothing_of_packages, show_token
from search.tune.token import refused

PATIENCE_S = 30  # that a cluster may take before it accepts jobs
FOLLOW_S = 1.0
STOP_S = 60  # that a search which is stopped has to write down how it stands
PYTHON = re.compile(r"/python(\d+\.\d+)/(?:site|dist)-packages/ray/")  # in the command of a node's raylet


class Jobs:
    """A cluster's jobs, by the address of its dashboard."""

    def __init__(self, address: str) -> None:
        """Connect. The token comes from RAY_AUTH_TOKEN or ~/.ray/auth_token, as Ray has it.

        Raises:
            InputError: no http address, nobody answers there, or the token is refused.
        """
        if urlsplit(address).scheme not in ("http", "https"):
            raise InputError(f"--address {address}: expected the dashboard's address, such as http://127.0.0.1:8265")
        say_nothing_of_packages()
        show_token()
        self.address = address.rstrip("/")
        with self._answering():
            self.client = JobSubmissionClient(self.address)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError:
            raise refused(self.address) from None
        except ConnectionError as error:
            raise InputError(
                f"--address {self.address}: no Ray dashboard answers there ({first_line(error)})"
            ) from None
        except RuntimeError as error:
            raise InputError(f"--address {self.address}: not a dashboard that takes jobs ({_last(error)})") from None

    def all(self) -> list[JobDetails]:
        """Those that were submitted, the latest first."""
        with self._answering():
            found = [job for job in self.client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: job.start_time or 0, reverse=True)

    def one(self, job: str) -> JobDetails:
        """What the cluster knows of a job.

        Raises:
            InputError: no such job.
        """
        found = next((known for known in self.all() if known.submission_id == job), None)
        if found is None:
            known = ", ".join(sorted(str(j.submission_id) for j in self.all())) or "none"
            raise InputError(f"job {job}: not on {self.address}; jobs there: {known}")
        return found

    def latest(self) -> JobDetails:
        """The search that was submitted last.

        Raises:
            InputError: there is none.
        """
        for job in self.all():
            if (job.metadata or {}).get("search"):
                return job
        raise InputError(f"--address {self.address}: no search was submitted there")

    @property
    def asks_for_token(self) -> bool:
        """Whether it lets nobody in without its token, as far as this client knows."""
        return dashboard_asks_for_token()

    def logs(self, job: str, follow: bool) -> Iterator[str]:
        """What a job has printed; when followed, also what it prints until it has ended."""
        told = 0
        while True:
            ended = self.one(job).status.is_terminal()
            with self._answering():
                text: str = self.client.get_job_logs(job)
            yield text[told:]
            told = len(text)
            if ended or not follow:
                return
            time.sleep(FOLLOW_S)

    def stop(self, job: str) -> bool:
        """Ask a job to end; False: it had ended already."""
        self.one(job)
        return bool(self.client.stop_job(job))

    def require_same_versions(self) -> None:
        """Check that the cluster has this client's Ray and Python.

        Raises:
            InputError: it has others; both are named.
        """
        with self._answering():
            theirs = str(ask_dashboard(self.client, "/api/version")["ray_version"])
            nodes = ask_dashboard(self.client, "/nodes?view=summary")
        if theirs != version("ray"):
            raise self._other("Ray", theirs, version("ray"))
        here = ".".join(platform.python_version_tuple()[:2])
        for there in PYTHON.findall(json.dumps(nodes)):
            if there != here:
                raise self._other("Python", there, here)

    def _other(self, what: str, theirs: str, ours: str) -> InputError:
        return InputError(
            f"--address {self.address}: the cluster runs {what} {theirs}, here is {ours}; expected the same"
        )

    def submit(
        self, path: Path, runs: str, *, base: str | None = None, smoke: bool = False, new: bool = False
    ) -> tuple[str, str]:
        """Check the spec and what it needs here, send that, and start the search there.

        Args:
            path: of the spec.
            runs: folder of the runs, as every node of the cluster sees it.
            base: base model in place of the spec's.
            smoke: the whole search on stand-ins.
            new: a search that ended is kept under another name and a new one begins; else it is gone on with.

        Returns:
            The job's id, and the run's folder on the cluster.

        Raises:
            InputError: the spec is wrong, what it names is missing or too large, `runs` is relative or no bucket, the
                cluster has other versions or takes no job, or a job is at work in that folder.
        """
        if not runs.startswith("/") and "://" not in runs:
            raise InputError(
                f"--runs {runs}: relative to a folder of the cluster that goes with the job; expected an absolute path "
                "that every node sees, such as /mnt/runs"
            )
        Where.of(runs)  # refuses the address of what is no bucket
        spec = load_spec(path, base)
        parcel = pack(path, spec)
        self.require_same_versions()
        folder = f"{runs.rstrip('/')}/{smoke_name(spec) if smoke else spec.name}"
        for job in self.all():
            if job.status in (JobStatus.PENDING, JobStatus.RUNNING) and (job.metadata or {}).get("run") == folder:
                raise InputError(f"{folder}: job {job.submission_id} is at work there; expected it to end first")
        command = ["embtune", "search", str(path.resolve().relative_to(parcel.root)), "--address", "auto"]
        command += ["--runs", runs, *_base(base, parcel), *["--smoke"] * smoke, *["--resume"] * (not new)]
        with TemporaryDirectory(prefix="embtune-") as aside:
            parcel.lay_out(Path(aside))
            job_id = self._send(shlex.join(command), aside, _metadata(spec, folder))
        return job_id, folder

    def _send(self, command: str, folder: str, metadata: dict[str, str]) -> str:
        # A search that is stopped by SIGINT says how it stands, which takes longer than Ray's three seconds.
        stop = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}
        environment = {"working_dir": folder, "env_vars": stop}
        for _ in range(PATIENCE_S):
            try:
                return self.client.submit_job(entrypoint=command, runtime_env=environment, metadata=dict(metadata))
            except RuntimeError as error:
                reason = _last(error)
                if "No available agent" not in str(error):  # a head that has just started has none yet
                    break
                time.sleep(1)
        raise InputError(f"--address {self.address}: the cluster takes no job ({reason})")


def _base(base: str | None, parcel: Parcel) -> list[str]:
    """The option for the base: a folder that goes along is named by its place there."""
    if base is None:
        return []
    folder = Path(base).resolve()
    along = not Path(base).is_absolute() and folder.is_relative_to(parcel.root) and folder.is_dir()
    return ["--base", f"./{folder.relative_to(parcel.root)}" if along else base]


def _metadata(spec: SearchSpec, run: str) -> dict[str, str]:
    """What the dashboard shows of the job from the start; the search itself adds how it stands."""
    digest = sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    return {"job_name": spec.name, "search": spec.name, "spec": digest[:12], "run": run}


def _last(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def last_words(job: JobDetails) -> str:
    """Why a job ended as it did, in one line; Ray's own message holds the end of its log."""
    lines = [line.strip() for line in str(job.message or "").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def described(job: JobDetails) -> dict[str, Any]:
    """What the job's metadata tell of its search."""
    return {k: v for k, v in (job.metadata or {}).items() if k not in ("job_submission_id", "job_name")}
