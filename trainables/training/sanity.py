"""A gate on every trial: training moves the weights and the embeddings, and its loss is finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from trainables.config import TrialConfig

SAMPLED = 256  # values watched in each trained tensor: a full fine-tuning is not copied for it


class TrialFailed(RuntimeError):  # noqa: N818  # it is a state of a trial
    """A trial's training went wrong. The message says how and holds the configuration; the search goes on."""

    def __init__(self, what: str, config: TrialConfig) -> None:
        # Both arguments, so that the exception survives the pickling between Ray's processes.
        super().__init__(what, config)

    def __str__(self) -> str:
        what, config = self.args
        return f"{what}; configuration: {config.model_dump_json(exclude_defaults=True)}"


class SanityGate(TrainerCallback):
    """Ends a trial that trains nothing.

    After 2, 4, 8, ... optimizer steps that were taken (fp16's gradient scaler leaves out those that overflow, the first
    few as a rule) it compares the trained weights and what the model makes of `probe` with those at the
    start, and is content once both have changed. It waits at most until the warm-up is over, because the first steps of
    a long one are too small to show in 16-bit arithmetic. A loss that is logged as NaN or infinite ends the trial at
    once; the trainer must run with logging_nan_inf_filter=False, or it hides them.

    Raises:
        TrialFailed: from within the training.
    """

    def __init__(
        self, config: TrialConfig, model: Any, probe: str, logits: Callable[[str], torch.Tensor] | None = None
    ) -> None:
        """Args: logits: what a classifier makes of a text; None: the model embeds."""
        self._config, self._model, self._probe, self._logits = config, model, probe, logits
        self._weights: list[torch.Tensor] = []
        self._seen = torch.empty(0)
        self._begin = 0
        self._taken = 0  # optimizer steps since then
        self._passed = False

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.logging_nan_inf_filter:
            raise ValueError("SanityGate needs logging_nan_inf_filter=False: the filter replaces a loss of NaN")
        self._begin = state.global_step
        self._passed = self._begin > 0  # before it was interrupted
        self._weights, self._seen = self._sample(), self._looked()
        if not self._weights:
            raise TrialFailed("nothing is trained: no weight has requires_grad", self._config)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._passed or (taken := _taken(kwargs["optimizer"])) == self._taken:
            return
        self._taken = taken
        # Powers of two: a check costs one short encoding, and few are needed.
        if self._taken < 2 or self._taken & (self._taken - 1):
            return
        stuck = self._stuck()
        if stuck is None:
            self._passed = True
        elif self._taken > args.get_warmup_steps(state.max_steps) + 1:
            raise TrialFailed(f"after {self._taken} optimizer steps {stuck}", self._config)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        steps = state.global_step - self._begin
        if steps and not self._passed and (stuck := self._stuck()):
            skipped = f" ({steps - self._taken} left out, their gradients overflowed)" if self._taken < steps else ""
            raise TrialFailed(f"after all {steps} optimizer steps{skipped} {stuck}", self._config)

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise TrialFailed(f"the loss is {loss} at step {state.global_step}", self._config)

    def _stuck(self) -> str | None:
        """What has not changed since the start, or has become NaN; None when all is well."""
        now = self._sample()
        if not all(torch.isfinite(values).all() for values in now):
            return "a trained weight is NaN or infinite"
        if all(torch.equal(old, new) for old, new in zip(self._weights, now, strict=True)):
            return "no trained weight has moved"
        if torch.equal(self._seen, self._looked()):
            what = "embedding" if self._logits is None else "logits"
            return f"the {what} of {self._probe[:60]!r} has not changed"
        return None

    def _sample(self) -> list[torch.Tensor]:
        samples = []
        for parameter in self._model.parameters():
            if parameter.requires_grad:
                flat = parameter.detach().flatten()
                samples.append(flat[:: max(1, flat.numel() // SAMPLED)].float().cpu().clone())
        return samples

    @torch.no_grad()
    def _looked(self) -> torch.Tensor:
        training = self._model.training
        if self._logits is not None:
            seen = self._logits(self._probe)
        else:
            seen = self._model.encode_query(self._probe, convert_to_tensor=True, show_progress_bar=False)
        self._model.train(training)  # a model that encodes or predicts stays in evaluation mode
        return seen.float().cpu()


def _taken(optimizer: Any) -> int:
    """Optimizer steps that were taken, as the optimizer itself counts them.

    The trainer counts those that were left out too. So does accelerate where the optimizer is fused, transformers'
    default: torch's gradient scaler calls its step all the same, and the step itself does nothing.
    """
    return max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)
