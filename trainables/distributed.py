"""One trial in several processes, one on each device: who leads, and how the others follow."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from evaluation.errors import InputError
from trainables.config import TrialConfig

T = TypeVar("T")


class Ended(SystemExit):
    """The leading process ended the trial, and so does this one."""


def world_size() -> int:
    """Processes that train together, one on each device."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))  # what launchers set, before the trainer joins the group


def device_batch(config: TrialConfig) -> int:
    """Pairs of a batch on one device.

    Raises:
        InputError: the batch cannot be cut evenly.
    """
    share, rest = divmod(config.batch_size, world_size())
    if rest or not share:
        raise InputError(
            f"batch_size: {config.batch_size}, expected a multiple of the {world_size()} devices of a trial"
        )
    return share


def lead(work: Callable[[], T]) -> T:
    """What `work` returns, done in the first process while the others, whose process group stands already, wait.

    All of them get its result: what one process reads from a shared disk, another may not see yet.

    Whatever it raises there ends the trial in every process: a follower that went on alone would wait for ever at the
    next gradient.

    Raises:
        Ended: in the followers, when the work raised in the first process.
    """
    if world_size() == 1:
        return work()
    torch.distributed.barrier()  # what the others write, such as their random numbers, is there
    error: BaseException | None = None
    told: list[Any] = [None, False]
    if torch.distributed.get_rank() == 0:
        try:
            told[0] = work()
        except BaseException as raised:
            error = raised
    told[1] = error is not None
    torch.distributed.broadcast_object_list(told, src=0)
    if error is not None:
        raise error
    result, stopped = told
    if stopped:
        raise Ended
    return result
