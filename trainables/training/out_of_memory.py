"""A trial that runs out of memory is tried once more in smaller pieces: the same batch, so the same experiment."""

from __future__ import annotations

from collections.abc import Callable

from evaluation.out_of_memory import free_memory, is_out_of_memory
from trainables.config import TrialConfig
from trainables.training.sanity import TrialFailed

LONGEST = 512  # tokens of a text where the configuration leaves the length to the base
SMALLEST = 64  # tokens of a micro-batch, as TrialConfig has it


def train_in_memory(
    config: TrialConfig,
    attempt: Callable[[TrialConfig], None],
    *,
    smaller: Callable[[int], None] = lambda tokens: None,
    workers: int = 1,
    kills: int = 0,
) -> None:
    """Train, and once more with a cached loss over micro-batches (arXiv 2101.06983) when memory runs out.

    Gradients are those of the whole batch; what differs is rounding and the masks that dropout draws. The second try
    goes on from the last complete rung.

    Args:
        attempt: trains what it is given, with `train`.
        smaller: told the tokens of a micro-batch before the second try.
        workers: processes that share out the batch.
        kills: tries of this trial before, in processes that were killed for the memory they took.

    Raises:
        TrialFailed: the memory does not suffice for micro-batches either; and what `attempt` raises.
    """
    reason = "its process was killed twice, on a machine that was full"
    if not kills or config.method == "none":
        try:
            return attempt(config)
        except Exception as error:
            if not is_out_of_memory(error) or config.method == "none":
                raise
            reason = first_line(error)[:200]
    free_memory()
    tokens = micro_batch(config, workers)
    failure = f"out of memory, with micro-batches of {tokens} tokens too: {reason}"
    if kills > 1:
        raise TrialFailed(failure, config)
    smaller(tokens)
    try:
        attempt(config.model_copy(update={"micro_batch_tokens": tokens}))
    except Exception as error:
        if is_out_of_memory(error):
            raise TrialFailed(failure, config) from None
        raise


def first_line(error: BaseException) -> str:
    """What an error says; its name where it says nothing, as Python's own MemoryError does."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def micro_batch(config: TrialConfig, workers: int = 1) -> int:
    """Tokens of a micro-batch that is a sixteenth of what a process tried, and holds the longest text."""
    longest = config.max_length or LONGEST
    tried = config.micro_batch_tokens or 2 * (config.batch_size // workers) * longest
    return max(SMALLEST, min(longest, tried // 2), tried // 16)
