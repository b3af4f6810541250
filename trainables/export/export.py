"""A mix of trials -> a checked folder that `SentenceTransformer(folder)` loads."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from evaluation.compare import Comparison, compare
from evaluation.errors import InputError
from evaluation.files import read_json, write_whole
from evaluation.retrieval import evaluate
from evaluation.task import RetrievalTask
from trainables.config import TrialConfig
from trainables.export.backends import Format, check_installed, load_backend, write_backend
from trainables.export.manifest import appearing
from trainables.export.merge import trained_model
from trainables.export.mix import ADAPTER_CONFIG, Mix, check_mix, mixed_model
from trainables.export.reload import embed_both
from trainables.model.loaded import forget_bases, no_bars
from trainables.training.rungs import ADAPTER

Precision = Literal["fp32", "bf16", "fp16", "int8"]
RECORD = "embtune.json"
# Lowest cosine between the export, loaded in a fresh process, and the trained model in float32. Rounding weights and
# activations to 8 (bf16), 11 (fp16) or 8 bits with a scale (int8) moves each vector by so much; float32 noise is below
# 1e-6.
MIN_COSINE: dict[Precision, float] = {"fp32": 0.9999, "bf16": 0.995, "fp16": 0.9995, "int8": 0.95}
POSSIBLE: dict[Format, tuple[Precision, ...]] = {
    "safetensors": ("fp32", "bf16", "fp16"),
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "int8"),
}
PROBE_TEXTS = 64


class ExportError(RuntimeError):
    """The exported model is not the trained model; nothing was put in place."""


@dataclass(frozen=True)
class Form:
    """What a model is exported as.

    Attributes:
        format: safetensors is always written; onnx and openvino put their file beside it.
        precision: of the weights in that format; beside onnx and openvino the safetensors are float32.
        adapter_only: PEFT's two files instead of a model.

    Raises:
        InputError: a precision that the format does not have, or a package that is not installed.
    """

    format: Format = "safetensors"
    precision: Precision = "fp32"
    adapter_only: bool = False

    def __post_init__(self) -> None:
        if self.precision not in POSSIBLE[self.format]:
            expected = ", ".join(POSSIBLE[self.format])
            raise InputError(f"--precision {self.precision}: not with --format {self.format}, expected {expected}")
        if self.adapter_only and (self.format, self.precision) != ("safetensors", "fp32"):
            raise InputError("--adapter-only: adapters are float32 safetensors, expected no other format or precision")
        check_installed(self.format)


@dataclass(frozen=True)
class Exported:
    """What the check of an export found.

    Attributes:
        cosine: the lowest, of up to 64 texts, between the exported model and the trained one.
        tolerance: what it had to reach.
        dev: of an export in int8, it against float32 on dev; None for others, and where dev has a single concept.
    """

    cosine: float
    tolerance: float
    dev: Comparison | None = None

    @property
    def told(self) -> str:
        """How the check ended, for people."""
        return (
            f"Reloaded in a fresh process, the export embeds {PROBE_TEXTS} texts of dev, or all where there are fewer, as "
            f"the trained model in float32 does: the lowest cosine is {self.cosine:.6f}, expected at least "
            f"{self.tolerance:g}."
        )

    @property
    def on_dev(self) -> str:
        """What int8 costs on dev, for people; empty where it was not measured."""
        if self.dev is None:
            return ""
        c = self.dev
        return (
            f"In int8 {c.metric} on dev is {c.other:.4f}, in float32 {c.base:.4f}: a loss of {-c.difference:+.4f} "
            f"(95 % {-c.high:+.4f} to {-c.low:+.4f}, {c.queries:,} queries)."
        )


def export_model(
    mix: Mix,
    dest: Path,
    queries: Sequence[str],
    passages: Sequence[str],
    record: Mapping[str, Any],
    card: str,
    form: Form | None = None,
    force: bool = False,
    device: str | None = None,
    dev: tuple[RetrievalTask, str] | None = None,
) -> Exported:
    """Merge, save, reload in a fresh process, compare, and only then let `dest` appear.

    A single trial is compared with its unmerged model. Of a mix, each member's merged weights are compared with its
    unmerged model, then the export with the mix in memory.

    Args:
        queries, passages: 32 of the first and of the second what is missing to 64 texts are embedded, each with its
            prompt, by the trained model here and by the exported one in a process of its own.
        record: goes into `embtune.json` (base, configuration and scores of the model), beside what was mixed and how
            the check ended.
        card: the model card, README.md.
        form: None: a float32 model in safetensors.
        force: a `dest` that exists is replaced.
        device: where the trained models are built; None: the first GPU, else the CPU. The check's own process is on
            the CPU.
        dev: the task, and the metric, on which int8 is held against float32, for the card and for `Exported`.

    Raises:
        ExportError: a cosine is below the precision's tolerance.
        InputError: `dest` exists, or the members do not mix.
    """
    form = form or Form()
    asked = list(queries[: PROBE_TEXTS // 2])
    probe = {"queries": asked, "passages": list(passages[: PROBE_TEXTS - len(asked)])}
    check_mix(mix)
    with appearing(dest, force) as aside:
        if form.adapter_only:
            _write_adapter(mix, aside)
        expected_ND = _expected(mix, probe, device)
        gc.collect()
        if not form.adapter_only:
            _write_model(mix, aside, form)
        got_ND = reloaded(aside, probe, form.format, mix.config, form.adapter_only)
        found = Exported(float((got_ND * expected_ND).sum(axis=1).min()), MIN_COSINE[form.precision])
        _check(str(dest), "the reloaded model", found)
        if form.precision == "int8" and dev is not None:
            found = replace(found, dev=_against_float32(mix, aside, form.format, *dev, device))
        write_whole(aside / "README.md", card + "".join(f"\n{line}\n" for line in (found.told, found.on_dev) if line))
        document = {**record, "mix": _told(mix), "export": {**asdict(form), **asdict(found)}}
        write_whole(aside / RECORD, json.dumps(document, indent=1, ensure_ascii=False))
    return found


def reloaded(
    folder: Path,
    texts: dict[str, list[str]],
    target: Format,
    config: TrialConfig | None = None,
    adapter_only: bool = False,
) -> np.ndarray:
    """(N, D) unit rows of texts, as a process that has nothing but the folder computes them.

    Args:
        config: of the trial: whether the folder's own code is run and, where it is an adapter alone, which base it is
            put on; None: a plain model.
    """
    with tempfile.TemporaryDirectory() as scratch:
        job, embeddings = Path(scratch) / "job.json", Path(scratch) / "embeddings.npy"
        told = {
            "folder": str(folder),
            "format": target,
            "adapter_only": adapter_only,
            "config": config.model_dump() if config else None,
        }
        job.write_text(json.dumps({**told, "texts": texts, "embeddings": str(embeddings)}), encoding="utf-8")
        command = [sys.executable, "-m", "trainables.export.reload", str(job)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ExportError(f"{folder}: does not load in a fresh process: {why[-1]}")
        got: np.ndarray = np.load(embeddings, allow_pickle=False)
    return got


def _expected(mix: Mix, probe: dict[str, list[str]], device: str | None) -> np.ndarray:
    """(N, D) unit rows of the trained model."""
    alone = len(mix.members) == 1 and mix.strength == 1
    for member in mix.members:
        unmerged_ND = embed_both(trained_model(member.config, member.checkpoint, device), probe)
        gc.collect()
        if alone:
            return unmerged_ND
        if member.config.method == "lora":
            merged_ND = embed_both(mixed_model(Mix.of(member.config, member.checkpoint), device), probe)
            found = Exported(float((merged_ND * unmerged_ND).sum(axis=1).min()), MIN_COSINE["fp32"])
            _check(str(member.checkpoint), "the merged model", found)
        gc.collect()  # models refer to themselves: without this, several would be in memory at once
    forget_bases()  # whose pages were read to run the adapters
    return embed_both(mixed_model(mix, device), probe)


def _against_float32(
    mix: Mix, folder: Path, target: Format, task: RetrievalTask, metric: str, device: str | None
) -> Comparison | None:
    """The runtime's int8 model against the mix in float32; none where the task has a single concept."""
    if len(set(task.groups.values())) < 2:
        return None
    whole = evaluate(mixed_model(mix, device), task, (metric,))
    gc.collect()
    return compare(whole, evaluate(load_backend(folder, target), task, (metric,)), metric)


def _check(where: str, what: str, found: Exported) -> None:
    if not found.cosine >= found.tolerance:
        raise ExportError(
            f"{where}: {what} differs from the trained one (lowest cosine {found.cosine:.6f}, expected at least "
            f"{found.tolerance})"
        )


def _write_model(mix: Mix, folder: Path, form: Form) -> None:
    model = mixed_model(mix, "cpu")
    if form.format == "safetensors" and form.precision != "fp32":
        model = model.to({"bf16": torch.bfloat16, "fp16": torch.float16}[form.precision])
    save_model(model, folder)
    if form.format != "safetensors":
        write_backend(model, folder, form.format, form.precision == "int8")
    member = mix.members[0]
    if len(mix.members) == 1 and member.config.method == "lora":
        (folder / "adapter").mkdir()
        for name in (ADAPTER, ADAPTER_CONFIG):
            shutil.copy(member.checkpoint / name, folder / "adapter" / name)


def save_model(model: SentenceTransformer, folder: Path) -> None:
    """Write a model's folder, in safetensors alone and without a card."""
    with no_bars():
        model.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)


def _write_adapter(mix: Mix, folder: Path) -> None:
    """PEFT's files of a single LoRA trial; the strength goes into the scale that they state."""
    member = mix.members[0]
    if len(mix.members) > 1 or member.config.method != "lora":
        raise InputError("--adapter-only: an average or a full fine-tuning has no adapter, expected one LoRA trial")
    if member.config.dora and mix.strength != 1:
        raise InputError(f"--adapter-only: strength {mix.strength} of a DoRA adapter, expected 1")
    for name in (ADAPTER, ADAPTER_CONFIG):
        if not (member.checkpoint / name).is_file():
            raise InputError(f"{member.checkpoint / name}: no such file, expected a trained adapter")
    shutil.copy(member.checkpoint / ADAPTER, folder / ADAPTER)
    stated = read_json(member.checkpoint / ADAPTER_CONFIG)
    stated["lora_alpha"] *= mix.strength
    write_whole(folder / ADAPTER_CONFIG, json.dumps(stated, indent=2))


def _told(mix: Mix) -> dict[str, Any]:
    from trainables.bases.families import resolve_base

    base = resolve_base(mix.config)
    return {
        "strength": mix.strength,
        "members": [
            {"weight": member.weight, "checkpoint": str(member.checkpoint), "config": member.config.model_dump()}
            for member in mix.members
        ],
        "prompts": {"query": base.query_prompt, "document": base.passage_prompt},
        "pooling": base.pooling,
        "max_length": base.max_length,
    }
