"""One trial: build the model, train it with sentence-transformers' own trainer, evaluate and report at each rung."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.model import BaseModel
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState

from evaluation.retrieval import Scores
from trainables.bases.families import resolve_base
from trainables.classification.kind import Classification
from trainables.classification.prepared import LabelledData
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.distributed import device_batch, lead
from trainables.model.precision import Precision, autocast, resolve_attention, resolve_device, resolve_precision
from trainables.plan.memory import DeviceKind, fit_to_memory
from trainables.training.checkpoint import trainable_parameters
from trainables.training.kind import Kind
from trainables.training.retrieval import Retrieval
from trainables.training.rungs import LAST, Rung, best_of, complete_rung, keep_best, rungs_done


def train(
    config: TrialConfig,
    data: TrialData | LabelledData,
    report: Callable[[Rung], None],
    *,
    folder: Path,
    metric: str | None = None,
    cache: Path | None = None,
    device: str | None = None,
    memory: int | None = None,
) -> Rung:
    """Run one trial and return its best rung.

    Each rung is saved before it is reported, so `report` may end the trial by raising and nothing is lost. Called
    again with the same folder, the trial tells its rungs again and goes on after the last of them: weights, optimizer,
    schedule, random numbers and the position in the data are those it stopped with.

    In several processes of one process group (torch.distributed), one on each device, they train the trial together:
    each takes its share of every batch, and negatives are gathered over all. The first of them measures and reports.

    Args:
        config: of the trial; a ClassifierConfig for labelled data.
        data: its task: pairs to retrieve by, or labelled texts.
        folder: of the trial's checkpoints; must exist on a disk that the caller can read afterwards.
        metric: dev metric that decides which rung's weights are kept; None: ndcg@10, or macro_f1.
        cache: folder for what trials of one base share: its embeddings, mined negatives, converted weights.
        device: None: the first GPU, else the CPU.
        memory: bytes of the device that the trial may take; None: all of a GPU, no limit on a CPU. Where the estimate
            says that the batch would not fit, the loss is cached and activations are recomputed: the same batch, and
            so the same experiment, in less memory.

    Raises:
        InputError: the configuration cannot be built (unknown base, targets that match nothing, ...), or one text at
            a time would not fit in the memory.
        TrialFailed: training went wrong (a loss that is not finite, an adapter that does not move).
    """
    kind: Kind = Classification(data) if isinstance(data, LabelledData) else Retrieval(data)
    metric = metric or kind.metric
    place = resolve_device(device)
    precision = resolve_precision(config, place)

    def tell_again() -> list[Rung]:
        told = rungs_done(folder)
        for rung in told:
            report(rung)
        return told

    def end() -> list[Rung]:
        keep_best(folder, metric, LAST)  # who runs the trial knows whether it can still win
        return rungs_done(folder)

    done = lead(tell_again)
    if not (done and done[-1].rung == done[-1].rungs):
        config = _fitted(config, kind, place, precision, memory)
        model = kind.build(config, place, cache)
        dev = _DevEvaluation(config, kind, report, folder, metric, precision, model)
        if config.method == "none":
            dev.measure(step=0, steps=0, pairs=0, rung=config.rungs)
        else:
            _fit(config, kind, dev, model, folder, cache, precision, place, done[-1] if done else None)
    return best_of(lead(end), metric)


def _fitted(
    config: TrialConfig, task: Kind, place: torch.device, precision: Precision, memory: int | None
) -> TrialConfig:
    if memory is None and place.type == "cuda":
        memory = torch.cuda.get_device_properties(place).total_memory
    if memory is None or config.method == "none":
        return config
    attention, _ = resolve_attention(config, resolve_base(config), place)
    share = config.model_copy(update={"batch_size": device_batch(config)})
    kind: DeviceKind = "cuda" if place.type == "cuda" else "cpu"
    longest = task.longest(config)
    fitted = fit_to_memory(share, memory, kind, precision.name, attention, task.own_negatives(), longest)
    return fitted.model_copy(update={"batch_size": config.batch_size})


def _fit(
    config: TrialConfig,
    kind: Kind,
    dev: _DevEvaluation,
    model: BaseModel,
    folder: Path,
    cache: Path | None,
    precision: Precision,
    place: torch.device,
    last: Rung | None,
) -> None:
    batches = kind.batches(config, model, cache, last.step if last else 0, folder)
    steps = max(config.rungs, math.ceil(config.epochs * batches.steps))
    pairs_per_step = batches.examples / batches.steps
    arguments = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batches.device_batch,
        "gradient_accumulation_steps": batches.pieces,
        "batch_sampler": batches.sampler,
        "learning_rate": config.lr,
        "warmup_steps": config.warmup,
        "lr_scheduler_type": config.schedule,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "activation_checkpointing": config.gradient_checkpointing,
        "bf16": precision.bf16,
        "fp16": precision.fp16,
        "use_cpu": place.type == "cpu",
        "seed": config.seed,
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": place.type == "cuda",
    }
    callbacks = [kind.gate(config, model), _Rungs(config, steps, pairs_per_step, dev)]
    trainer = kind.trainer(config, model, batches.rows, arguments, callbacks)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last.folder if last else None)


class _DevEvaluation:
    """Scores the model on the dev part and reports, as the rungs are reached."""

    def __init__(
        self,
        config: TrialConfig,
        kind: Kind,
        report: Callable[[Rung], None],
        folder: Path,
        metric: str,
        precision: Precision,
        model: BaseModel,
    ) -> None:
        self._config, self._kind, self._report, self._folder = config, kind, report, folder
        self._metric, self._precision, self._model = metric, precision, model
        self._metrics = tuple(dict.fromkeys((*kind.metrics, metric)))
        self._counts = trainable_parameters(model)
        self._since = time.perf_counter()

    def measure(self, step: int, steps: int, pairs: int, rung: int, loss: float = math.nan) -> None:
        """Evaluate and report, in the first process; `report` ends the trial in all of them when it raises."""
        lead(partial(self._measure, step, steps, pairs, rung, loss))

    def _measure(self, step: int, steps: int, pairs: int, rung: int, loss: float) -> None:
        train_s = time.perf_counter() - self._since
        scores, eval_s = self._scores()
        trainable, total = self._counts
        done = Rung(
            rung=rung,
            rungs=self._config.rungs,
            step=step,
            steps=steps,
            pairs=pairs,
            loss=loss,
            train_s=round(train_s, 3),
            eval_s=round(eval_s, 3),
            trainable=trainable,
            total=total,
            metrics=scores.means,
            errors={name: scores.standard_error(name) for name in scores.per_query},
            folder=str(self._folder / f"checkpoint-{step}"),
        )
        complete_rung(done, scores, self._metric)
        self._report(done)
        self._since = time.perf_counter()

    def _scores(self) -> tuple[Scores, float]:
        start = time.perf_counter()
        with autocast(self._precision, self._model.device):
            scores = self._kind.evaluate(self._model, self._metrics)
        return scores, time.perf_counter() - start


class _Rungs(TrainerCallback):
    """Saves at each rung and, once the checkpoint is written, measures and reports it."""

    def __init__(self, config: TrialConfig, steps: int, pairs_per_step: float, dev: _DevEvaluation) -> None:
        self._steps, self._pairs_per_step, self._dev = steps, pairs_per_step, dev
        self._at = {round(steps * i / config.rungs): i for i in range(1, config.rungs + 1)}
        self._loss = math.nan

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        if state.global_step in self._at:
            control.should_log = control.should_save = True
        return control

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        self._loss = (logs or {}).get("loss", self._loss)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step = state.global_step
        if step in self._at:
            self._dev.measure(step, self._steps, round(step * self._pairs_per_step), self._at[step], self._loss)
