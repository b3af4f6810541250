"""A mix of classification trials -> a checked folder that CrossEncoder and AutoModelForSequenceClassification load."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder

from evaluation.errors import InputError
from evaluation.files import write_whole
from trainables.classification.predict import logits_of
from trainables.classification.task import Text, probabilities_of
from trainables.config import ClassifierConfig
from trainables.export.export import PROBE_TEXTS, RECORD, ExportError, Form, Precision
from trainables.export.manifest import appearing
from trainables.export.mix import ADAPTER_CONFIG, Member, Mix, mixed_classifier
from trainables.model.classifier import build_classifier
from trainables.model.loaded import no_bars
from trainables.training.checkpoint import load_weights
from trainables.training.rungs import ADAPTER, HEAD

# Largest difference of a probability between the export, loaded in a fresh process, and the trained model in float32.
MAX_GAP: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.01, "bf16": 0.05}


@dataclass(frozen=True)
class ExportedClassifier:
    """What the check of an export found.

    Attributes:
        gap: the largest difference of a probability between the exported model and the trained one, on 64 inputs.
        tolerance: what it had to stay within.
    """

    gap: float
    tolerance: float


def trained_classifier(config: ClassifierConfig, checkpoint: Path, device: str | None = None) -> CrossEncoder:
    """The model as the trial left it at a checkpoint, adapter beside base, in float32."""
    model = build_classifier(config, device, dtype=torch.float32)
    load_weights(model, checkpoint)
    return model.eval()


def export_classifier(
    mix: Mix,
    dest: Path,
    texts: Sequence[Text],
    record: Mapping[str, Any],
    card: str,
    form: Form | None = None,
    force: bool = False,
    device: str | None = None,
) -> ExportedClassifier:
    """Merge, save, reload in a fresh process both ways, compare, and only then let `dest` appear.

    Each trial's merged weights are compared with its unmerged model, the export with the mix in memory.

    Args:
        texts: the first 64 are predicted.
        record: goes into `embtune.json`, beside what was mixed and how the check ended.
        card: the model card, README.md.
        form: null: a float32 model.
        force: a `dest` that exists is replaced.
        device: where the trained models are built; null: the first GPU, else the CPU.

    Raises:
        ExportError: a probability is further off than the precision's tolerance.
        InputError: `dest` exists, the members do not mix, a head is missing, or a form that classifiers do not have.
    """
    form = form or Form()
    if form.adapter_only or form.format != "safetensors":
        what = "--adapter-only" if form.adapter_only else f"--format {form.format}"
        raise InputError(f"{what}: not for a classifier, expected a merged model in safetensors")
    probe = list(texts[:PROBE_TEXTS])
    tolerance = MAX_GAP[form.precision]
    with appearing(dest, force) as aside:
        model = mixed_classifier(mix, device)
        expected_NC = probabilities_of(logits_of(model, probe))
        for member in mix.members:
            _check_merge(member, probe, device)
            gc.collect()
        _write(mix, aside, form.precision)
        write_whole(aside / "README.md", card)
        gap = 0.0
        for way, found_NC in reloaded(aside, probe).items():
            gap = max(gap, _check(str(dest), f"the model that {way} loads", found_NC, expected_NC, tolerance))
        exported = ExportedClassifier(gap, tolerance)
        document = {**record, "task": "classification", "mix": _told(mix)}
        document["export"] = {**asdict(form), **asdict(exported)}
        write_whole(aside / RECORD, json.dumps(document, indent=1, ensure_ascii=False))
    return exported


def reloaded(folder: Path, texts: Sequence[Text]) -> dict[str, NDArray[np.float64]]:
    """How it was loaded -> (N, C) probabilities, as a process computes them that has nothing but the folder.

    Raises:
        ExportError: it does not load.
    """
    with tempfile.TemporaryDirectory() as scratch:
        job, out = Path(scratch) / "job.json", Path(scratch) / "logits.npz"
        job.write_text(json.dumps({"folder": str(folder), "texts": texts, "logits": str(out)}), encoding="utf-8")
        command = [sys.executable, "-m", "trainables.classification.reload", str(job)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ExportError(f"{folder}: does not load in a fresh process: {why[-1]}")
        with np.load(out, allow_pickle=False) as arrays:
            return {way: probabilities_of(arrays[way]) for way in arrays.files}


def _check_merge(member: Member, texts: list[Text], device: str | None) -> None:
    if member.config.method != "lora":
        return
    assert isinstance(member.config, ClassifierConfig)
    trained_NC = probabilities_of(logits_of(trained_classifier(member.config, member.checkpoint, device), texts))
    merged = mixed_classifier(Mix.of(member.config, member.checkpoint), device)
    merged_NC = probabilities_of(logits_of(merged, texts))
    _check(str(member.checkpoint), "the merged model", merged_NC, trained_NC, MAX_GAP["fp32"])


def _check(
    where: str, what: str, found_NC: NDArray[np.float64], expected_NC: NDArray[np.float64], tolerance: float
) -> float:
    gap = float(np.abs(found_NC - expected_NC).max())
    if not gap <= tolerance:
        raise ExportError(
            f"{where}: {what} differs from the trained one (a probability by {gap:.6f}, expected at most {tolerance})"
        )
    return gap


def _write(mix: Mix, folder: Path, precision: Precision) -> None:
    saved = mixed_classifier(mix, "cpu")
    if precision != "fp32":
        saved = saved.to({"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
    with no_bars():
        saved.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
    member = mix.members[0]
    if len(mix.members) == 1 and member.config.method == "lora":
        (folder / "adapter").mkdir()
        for name in (ADAPTER, ADAPTER_CONFIG, HEAD):
            shutil.copy(member.checkpoint / name, folder / "adapter" / name)


def _told(mix: Mix) -> dict[str, Any]:
    return {
        "strength": mix.strength,
        "members": [
            {"weight": member.weight, "checkpoint": str(member.checkpoint), "config": member.config.model_dump()}
            for member in mix.members
        ],
        "labels": list(getattr(mix.config, "labels", ())),
    }
