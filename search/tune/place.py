"""Work of a search that is no trial, on a node that has what a trial asks for and that sees what it works on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import NodeDiedError, RayTaskError

from search.paths import RunFolder
from search.tune.nodes import Nodes
from search.tune.process import NodeError, on_node

T = TypeVar("T")


def on_a_node(
    nodes: Nodes, work: Callable[..., T], *args: object, brings: Sequence[str] = (), gives: Sequence[str] = ()
) -> T:
    """What `work` returns. A node that dies, or does not see the run's folder, gives it back to another.

    Args:
        work: a function of a module. A RunFolder among its arguments becomes the one of its node.
        brings, gives: names within the run that `work` reads beside the data, and that it makes: they are carried
            where the run is kept in a bucket.

    Raises:
        ray.exceptions.RayTaskError: `work` raised.
        ray.exceptions.WorkerCrashedError: its process died.
    """
    resources = nodes.resources
    task: Any = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus or 0, max_retries=0)(_carried)
    while True:
        try:
            labels = nodes.selector() or None
            answer: T = ray.get(task.options(label_selector=labels).remote(work, args, brings, gives))
            _bring_back(args, gives)
            return answer
        except NodeDiedError:
            nodes.say("the node that was at work died; another one begins anew")
        except RayTaskError as error:
            if not isinstance(error.cause, NodeError):
                raise
            nodes.leave_alone(error.cause.node, error.cause.address, error.cause.reason)
            if not nodes.at_once():
                raise


def _bring_back(args: Sequence[object], gives: Sequence[str]) -> None:
    """Have what was made here too, but for the model."""
    for run in args:
        if isinstance(run, RunFolder) and run.url and gives:
            from search.storage.mirror import Mirror

            Mirror(run.url, run.path).pull(*(name for name in gives if name != run.best.name))


def _carried(work: Callable[..., T], args: Sequence[object], brings: Sequence[str], gives: Sequence[str]) -> T:
    here = [on_node(argument, *brings) if isinstance(argument, RunFolder) else argument for argument in args]
    answer = work(*here)
    for run in here:
        if isinstance(run, RunFolder) and run.url and gives:
            from search.storage.mirror import Mirror

            Mirror(run.url, run.path).replace(*gives)
    return answer
