"""Resources, failure policy and storage of a search -> a Ray Tuner."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import AuthenticationError
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

from evaluation.errors import InputError, first_line
from search.paths import RunFolder
from search.spec.sections import SearchSpec
from search.study.study import Study
from search.tune.bridge import bridge
from search.tune.losses import Losses
from search.tune.messages import AVOID, NUMBER
from search.tune.nodes import Nodes
from search.tune.ray_internals import loopback_only, say_how_workers_died
from search.tune.token import PROBE_S, refused, require_token
from search.tune.trial import run_trial

# How long Tune waits for the thread of a stopped trial before it gives the worker the next one. The thread ends at its
# next report, and a rung may take minutes. When Tune waits too short a time, it loses the worker for the whole search.
THREAD_TIMEOUT_S = "600"


def connect(address: str | None) -> None:
    """Start Ray here, or join the cluster at `address` ("auto", or HOST:PORT of its head).

    Raises:
        InputError: nobody answers there, or it wants another token.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the spec says which there are
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own boxes, which verbose=0 does not silence
    # The searcher itself says how many run at once. Tune would take one new trial at a time, ten seconds apart.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(10**6)
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # a traceback; search/tune/losses.py tells it in a line
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    if address is not None:
        _require_answer(address)
    environment: dict[str, object] = {"env_vars": worker_environment()}
    if address is None:  # Ray gives it to a shell as it stands: a space in its path would end it
        environment["py_executable"] = shlex.quote(sys.executable)
    try:
        with loopback_only() if address is None else nullcontext():
            ray.init(
                address=address or "local",  # without a word, Ray would join whatever was started on this machine last
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                include_dashboard=None if address else True,
                runtime_env=environment,
            )
    except AuthenticationError:
        if address is None:
            raise
        raise refused(address) from None
    except ConnectionError as error:
        if address is None:
            raise
        raise InputError(f"--address {address}: {first_line(error)}") from None
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() and token.stat().st_mode & 0o077:
        token.chmod(0o600)  # Ray writes its token readable by everyone


def _require_answer(address: str) -> None:
    """Ray itself would ask for minutes.

    Raises:
        InputError: nobody answers at HOST:PORT within PROBE_S, or it wants another token.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        if address == "auto":
            return
        raise InputError(f"--address {address}: expected auto, or HOST:PORT of the cluster's head")
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_S).close()
    except OSError as error:
        raise InputError(f"--address {address}: no Ray head answers there ({error})") from None
    require_token(address, f"{host}:{port}")


def worker_environment() -> dict[str, str]:
    """Environment of the workers."""
    hub = ("HF_HUB_OFFLINE", "HF_HOME", "HF_TOKEN_PATH")
    bucket = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AZURE_STORAGE_ACCOUNT")
    names = (*hub, *bucket)  # and nothing that is secret: anyone who sees the dashboard reads these
    return {
        "TUNE_FUNCTION_THREAD_TIMEOUT_S": THREAD_TIMEOUT_S,
        "TOKENIZERS_PARALLELISM": "false",
        # Each trial is a thread, and glibc gives each thread a heap of its own that later ones do not reuse.
        "MALLOC_ARENA_MAX": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **{name: os.environ[name] for name in names if name in os.environ},
    }


def make_tuner(
    spec: SearchSpec, run: RunFolder, study: Study, callbacks: list[tune.Callback], nodes: Nodes
) -> tune.Tuner:
    """A Tuner for the trials that the study still has to run, as many at once as the nodes hold."""
    say_how_workers_died()
    losses = Losses(nodes.say)
    searcher, stopper = bridge(study, nodes, losses)
    trainable = partial(run_trial, run=run, metric=spec.metric, resources=spec.resources)
    trainable.__name__ = f"{spec.name}-worker"  # type: ignore[attr-defined]  # Tune names actors and folders after it
    request = {"CPU": float(spec.resources.cpus)} | ({"GPU": spec.resources.gpus} if spec.resources.gpus else {})
    if spec.resources.workers > 1:
        request = {"memory": 2.0**20}  # the processes ask for theirs themselves; Tune wants a request for the trial

    def placed(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        if not (avoided := config[AVOID]):
            return tune.PlacementGroupFactory([request])
        return tune.PlacementGroupFactory([request], bundle_label_selector=[avoided])

    return tune.Tuner(
        tune.with_resources(trainable, placed),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,  # the study says when it is over
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial_{trial.config[NUMBER]:04d}",
            trial_dirname_creator=lambda trial: run.trial(trial.config[NUMBER]).name,
        ),
        run_config=tune.RunConfig(
            name=run.tune.name,
            storage_path=str(run.path),
            stop=stopper,
            # Tune's own two files of each trial, which its results are read from
            callbacks=[JsonLoggerCallback(), CSVLoggerCallback(), losses, *callbacks],
            failure_config=tune.FailureConfig(max_failures=spec.resources.retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
