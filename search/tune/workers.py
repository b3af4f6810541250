"""One trial in several processes: ray.train's TorchTrainer inside a Tune trial."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.util.queue import Empty, Queue

from evaluation.errors import InputError, first_line
from evaluation.out_of_memory import is_out_of_memory
from search.tune.process import NodeError, Setting, on_node, train_here
from trainables.config import TrialConfig
from trainables.distributed import Ended
from trainables.training.rungs import Rung
from trainables.training.sanity import TrialFailed

LOOK_S = 1.0  # between two looks at whether the processes still run
PATIENCE_S = 24 * 3600


def train_in_workers(trial: TrialConfig, report: Callable[[Rung], None], setting: Setting) -> None:
    """Train in `resources.workers` processes, each with the CPUs and the GPU that the resources name.

    The first of them hands each rung over and waits for the verdict: when `report` raises, as Tune does to stop a
    trial, all of them end and free what they hold before it is raised further.

    Raises:
        MemoryError: one of the processes ran out of memory.
        TrialFailed, InputError: as `train` raises them.
        NodeError: the node of one of the processes does not see the run's folder.
        ray.train.TrainingFailedError: a process died.
    """
    # Ray starts an actor only where a CPU is free, unless it is told that it needs none.
    rungs, verdicts = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
    part = partial(_part, trial=trial, rungs=rungs, verdicts=verdicts, setting=setting)
    resources, folder = setting.resources, setting.folder
    trainer = TorchTrainer(
        part,
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=bool(resources.gpus),
            resources_per_worker={"CPU": resources.cpus} | ({"GPU": 1} if resources.gpus else {}),
            label_selector=setting.avoid or None,  # type: ignore[call-arg]  # of the class that TorchTrainer takes
        ),
        # The others wait while the first evaluates on the dev part; Ray itself sees to processes that are dead.
        torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo", timeout_s=PATIENCE_S),
        # A process that dies is the trial's failure: Tune counts its tries and starts it again from its last rung.
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder / "train"),
            # typed as the class of Ray Train before version 2
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),  # type: ignore[call-arg]
        ),
    )
    with ThreadPoolExecutor(1) as beside:
        try:
            _follow(beside.submit(trainer.fit), rungs, verdicts, report)
        finally:  # a process that still waited for a verdict fails now, and `fit` ends
            rungs.shutdown(force=True)
            verdicts.shutdown(force=True)


def _follow(training: Future[Any], rungs: Queue, verdicts: Queue, report: Callable[[Rung], None]) -> None:
    """Pass rungs on and verdicts back until the processes have ended."""
    failure: BaseException | None = None
    while True:
        ended = training.done()
        try:
            message = rungs.get(timeout=LOOK_S)
        except Empty:
            if not ended:
                continue
            if failure is not None:
                raise failure from None
            training.result()
            return
        if isinstance(message, BaseException):
            failure = failure or message
            continue
        if failure is None:
            try:
                report(message)
            except BaseException as stop:  # SystemExit, when Tune stops the trial
                failure = stop
        verdicts.put(failure is None)


def _part(trial: TrialConfig, rungs: Queue, verdicts: Queue, setting: Setting) -> None:
    """What each process runs."""

    def report(rung: Rung) -> None:
        rungs.put(rung)
        if not verdicts.get():
            raise Ended

    if setting.resources.gpus:
        torch.cuda.set_device(get_device())
    try:
        on_node(setting.run)
        train_here(trial, report, setting)
    except Ended:
        return
    except (TrialFailed, InputError, NodeError) as error:
        rungs.put(error)
        raise
    except Exception as error:
        if is_out_of_memory(error):
            rungs.put(MemoryError(first_line(error)))
        raise
