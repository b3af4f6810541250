"""Whether memory ran out, and how to get it back before a smaller try."""

from __future__ import annotations

import gc

# What torch says on the CPU, cuBLAS when its workspace does not fit, and oneDNN when one of its kernels does not.
MESSAGES = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "could not create a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    import torch  # heavy, and there already where an encoder failed

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def free_memory() -> None:
    """Give back what a failed try held. Outside its `except`: the exception held the frames, and they the tensors."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
