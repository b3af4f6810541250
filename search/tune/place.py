"""Work of a search that is no trial, on a node that has what a trial asks for and that sees what it works on."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import ray
from ray.exceptions import NodeDiedError, RayTaskError

from search.paths import RunFolder
from search.tune.nodes import Nodes
from search.tune.process import NodeError, require_run

P = ParamSpec("P")
T = TypeVar("T")


def on_a_node(nodes: Nodes, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns. A node that dies, or does not see the run's folder, gives it back to another.

    Args:
        work: a function of a module; a run's folder among its arguments is one that its node must see.

    Raises:
        ray.exceptions.RayTaskError: `work` raised.
        ray.exceptions.WorkerCrashedError: its process died.
    """
    resources = nodes.resources
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus or 0, max_retries=0)(_seeing)
    while True:
        try:
            answer: T = ray.get(task.options(label_selector=nodes.selector() or None).remote(work, args, kwargs))
            return answer
        except NodeDiedError:
            nodes.say("the node that was at work died; another one begins anew")
        except RayTaskError as error:
            if not isinstance(error.cause, NodeError):
                raise
            nodes.leave_alone(error.cause.node, error.cause.address, error.cause.reason)
            if not nodes.at_once():
                raise


def _seeing(work: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]) -> T:
    for argument in args:
        if isinstance(argument, RunFolder):
            require_run(argument)
    return work(*args, **kwargs)
