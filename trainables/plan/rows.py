"""What a search would train, before it does: parameters, memory and steps of each configuration, without weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table

from evaluation.errors import InputError
from trainables.bases.architectures import fused_note
from trainables.bases.families import ResolvedBase, resolve_base
from trainables.config import ClassifierConfig, TrialConfig
from trainables.model.precision import (
    AMPERE,
    AttentionName,
    Device,
    Precision,
    describe,
    precision_note,
    resolve_attention,
    resolve_precision,
)
from trainables.plan.longest import LongestTexts
from trainables.plan.memory import GIB, HEADROOM, DeviceKind, estimate_memory, fit_to_memory
from trainables.plan.parameters import count_parameters
from trainables.targets import parse_targets


@dataclass(frozen=True)
class PlanRow:
    """One configuration of a plan.

    Attributes:
        longest: tokens of the data's longest text, at most max_length; None: the data is unknown.
        trainable, total, share: parameters that are trained, all, and the first as a share of the second; None for a
            base that runs code of its own which is out of reach.
        memory: estimated, in bytes; None: likewise, or where that code does not say its sizes.
        steps: of the optimizer; None: the data is unknown.
        fits: whether the estimate stays under the device's memory; None: that is unknown.
        advice: the fields of the configuration that would make it fit.
    """

    base: str
    method: str
    targets: str | None
    last_n: int | None
    r: int | None
    dora: bool
    batches: str
    batch_size: int
    max_length: int
    longest: int | None
    precision: str
    attention: AttentionName | None
    trainable: int | None
    total: int | None
    share: float | None
    memory: int | None
    steps: int | None
    fits: bool | None
    advice: dict[str, Any]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plan_rows(
    configs: Iterable[TrialConfig],
    train_pairs: int | None = None,
    device: DeviceKind | None = None,
    device_memory: int | None = None,
    workers: int = 1,
    own_negatives: int | None = None,
    texts: LongestTexts | None = None,
) -> list[PlanRow]:
    """One row for each configuration. Nothing is downloaded but small JSON files, and those only when the hub answers.

    Args:
        train_pairs: pairs of the training part, for the number of steps; None: unknown.
        device: what the trials run on; None: what this machine has.
        device_memory: bytes of it that a trial may take; None: a GPU's own memory when it is one of this machine, else
            unknown.
        workers: processes that share out a trial's batches, each on such a device.
        own_negatives: of the training row that brings the most; None: unknown.
        texts: the data's longest; None: unknown, and every text is taken for one of the maximum length.

    Raises:
        InputError: an unknown base, targets that match nothing, a max_length beyond the base's positions.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device_memory is None and kind == "cuda" and torch.cuda.is_available():
        device_memory = torch.cuda.get_device_properties(0).total_memory
    longest: dict[tuple[Any, ...], int | None] = {}  # of each base: configurations of one differ in what is trained

    def row(config: TrialConfig) -> PlanRow:
        key = (config.base, config.revision, config.task, config.query_prompt, config.passage_prompt)
        if key not in longest:
            longest[key] = texts.tokens(config) if texts is not None else None
        return _row(config, train_pairs, kind, device_memory, workers, own_negatives, longest[key])

    return [row(config) for config in configs]


def optimizer_steps(config: TrialConfig, train_pairs: int) -> int:
    """Optimizer steps of a trial over `train_pairs` pairs; a batch strategy that leaves pairs out takes fewer."""
    if config.method == "none":
        return 0
    return max(config.rungs, math.ceil(config.epochs * math.ceil(train_pairs / config.batch_size)))


def plan_table(rows: Sequence[PlanRow], title: str | None = None, width: int = 140) -> Table:
    """The plan for a terminal of so many columns: a narrow one is shown what tells configurations apart."""
    left_out = {"all", "share"} if width < 118 else set()
    if width < 95:
        left_out |= {"steps"} | ({"length"} if len({row.max_length for row in rows}) == 1 else set())
    table = Table(title=title, title_justify="left")
    for place, row in enumerate(rows):
        cells = {name: cell for name, cell in _cells(row).items() if name not in left_out}
        for name in cells if place == 0 else ():
            text = name in ("base", "method", "targets")
            table.add_column(
                name, justify="left" if text else "right", no_wrap=name != "base", overflow="fold", min_width=len(name)
            )
        table.add_row(*cells.values())
    known = any(row.longest is not None for row in rows)
    what = "as long as the longest of the data" if known else "of the maximum length"
    legend = [f"memory: at most, with every text {what}"]
    if any(row.fits is False and row.advice for row in rows):
        legend.append("* fits with the advice of --json (cached loss, gradient checkpointing)")
    if any(row.fits is False and not row.advice for row in rows):
        legend.append("! does not fit the device")
    table.caption = "; ".join(legend)
    return table


def _cells(row: PlanRow) -> dict[str, str]:
    memory = "?" if row.memory is None else f"{row.memory / GIB:.1f} GiB"
    if row.fits is False:
        memory += " !" if not row.advice else " *"
    targets = (row.targets or "-") + (f", last {row.last_n}" if row.last_n else "") + (" DoRA" if row.dora else "")
    return {
        "base": row.base,
        "method": row.method,
        "targets": targets,
        "r": str(row.r or "-"),
        "batch": str(row.batch_size),
        "length": str(row.max_length),
        "trainable": "?" if row.trainable is None else f"{row.trainable:,}",
        "all": "?" if row.total is None else f"{row.total:,}",
        "share": "?" if row.share is None else f"{row.share:.4%}",
        "memory": memory,
        "steps": "?" if row.steps is None else str(row.steps),
    }


def plan_notes(rows: Sequence[PlanRow]) -> list[str]:
    """Conflicts between sources and fall-backs, each once."""
    return list(dict.fromkeys(note for row in rows for note in row.notes))


def _row(
    config: TrialConfig,
    train_pairs: int | None,
    kind: DeviceKind,
    device_memory: int | None,
    workers: int,
    own_negatives: int | None,
    longest: int | None,
) -> PlanRow:
    base = resolve_base(config)
    precision, attention, notes = _arithmetic(config, base, kind)
    share = config.model_copy(update={"batch_size": config.batch_size // workers})
    counts, memory = None, None
    try:
        counts = count_parameters(config, base)
        memory = estimate_memory(share, kind, precision.name, attention, base, own_negatives, longest).total
    except InputError as error:
        if not base.foreign:  # what its own code leaves open is known when a trial loads it
            raise
        notes.append(f"{error}; unknown until it is loaded")
    if config.method == "lora" and config.targets != "all-linear":
        notes.append(fused_note(base.model_type, parse_targets(config.targets)))
    if base.dense:
        trained = "trained with the encoder" if config.method == "full" else "frozen with method lora"
        notes.append(f"{config.base}: {len(base.dense)} Dense modules after the pooling, {trained}")
    fits = None if device_memory is None or memory is None else memory <= HEADROOM * device_memory
    advice: dict[str, Any] = {}
    if fits is False and device_memory is not None:
        try:
            fitted = fit_to_memory(share, device_memory, kind, precision.name, attention, own_negatives, longest)
        except InputError as error:
            notes.append(str(error))
        else:
            advice = {
                name: getattr(fitted, name)
                for name in ("micro_batch_tokens", "gradient_checkpointing")
                if getattr(fitted, name) != getattr(config, name)
            }
    adapter = config.method == "lora"
    return PlanRow(
        base=config.base,
        method=config.method,
        targets=config.targets if adapter else None,
        last_n=config.last_n if config.method != "none" else None,
        r=config.r if adapter else None,
        dora=config.dora and adapter,
        batches="" if isinstance(config, ClassifierConfig) else config.batches,
        batch_size=config.batch_size,
        max_length=base.max_length,
        longest=None if longest is None else min(longest, base.max_length),
        precision=precision.name,
        attention=attention,
        trainable=counts.trainable if counts else None,
        total=counts.total if counts else None,
        share=counts.share if counts else None,
        memory=memory,
        steps=None if train_pairs is None else optimizer_steps(config, train_pairs),
        fits=fits,
        advice=advice,
        notes=(*base.conflicts, *base.notes, *(note for note in notes if note)),
    )


def _arithmetic(
    config: TrialConfig, base: ResolvedBase, kind: DeviceKind
) -> tuple[Precision, AttentionName | None, list[str | None]]:
    """Precision, attention and notes, on a device that this machine may lack: a GPU is then taken to be Ampere or
    newer."""
    here = kind != "cuda" or torch.cuda.is_available()
    place = describe(kind) if here else Device("cuda", bf16=True, capability=AMPERE)
    attention, note = resolve_attention(config, base, place)
    notes = [note, precision_note(config, place)] if here else []
    return resolve_precision(config, place), attention, notes
