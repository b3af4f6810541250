"""A trial's weights -> a checked folder that `SentenceTransformer(folder)` loads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.files import put_in_place, write_whole
from trainables.config import TrialConfig
from trainables.export.merge import merged_model, trained_model
from trainables.export.reload import embed_both
from trainables.model.build import no_bars
from trainables.training.rungs import ADAPTER

RECORD = "embtune.json"
MIN_COSINE = 0.9999  # between the reloaded export and the model it came from; float32 noise is below 1e-6
PROBE_TEXTS = 64


class ExportError(RuntimeError):
    """The exported model is not the trained model; nothing was put in place."""


def export_model(
    config: TrialConfig,
    checkpoint: Path,
    dest: Path,
    queries: Sequence[str],
    passages: Sequence[str],
    record: Mapping[str, Any],
    card: str,
    device: str | None = None,
) -> float:
    """Merge, save, reload in a fresh process, compare, and only then let `dest` appear. Returns the lowest cosine.

    Args:
        queries, passages: 32 of the first and of the second what is missing to 64 texts are embedded, each with its
            prompt, by the unmerged model here and by the exported one in a process of its own.
        record: goes into `embtune.json`: base, configuration and scores of the model.
        card: the model card, README.md.
        device: where the models are built; none: the first GPU, else the CPU. The check's own process is on the CPU.

    Raises:
        ExportError: a cosine is below 0.9999.
        FileExistsError: `dest` exists.
    """
    if dest.exists():
        raise FileExistsError(f"{dest}: exists already; expected a new folder")
    dest.parent.mkdir(parents=True, exist_ok=True)
    asked = list(queries[: PROBE_TEXTS // 2])
    probe = {"queries": asked, "passages": list(passages[: PROBE_TEXTS - len(asked)])}
    expected_ND = embed_both(trained_model(config, checkpoint, device), probe)
    aside = Path(tempfile.mkdtemp(prefix=f".{dest.name}-", dir=dest.parent))
    try:
        with no_bars():
            merged_model(config, checkpoint, device).save_pretrained(
                str(aside), create_model_card=False, safe_serialization=True
            )
        if config.method == "lora":
            (aside / "adapter").mkdir()
            for name in (ADAPTER, "adapter_config.json"):
                shutil.copy(checkpoint / name, aside / "adapter" / name)
        write_whole(aside / RECORD, json.dumps(dict(record), indent=1, ensure_ascii=False))
        write_whole(aside / "README.md", card)
        cosine = _reloaded_cosine(aside, probe, expected_ND, config.trust_remote_code)
        if not cosine >= MIN_COSINE:
            raise ExportError(f"{dest}: the reloaded model differs from the trained one (lowest cosine {cosine:.6f})")
        aside.chmod(0o755)
        put_in_place(aside, dest)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return cosine


def _reloaded_cosine(folder: Path, texts: dict[str, list[str]], expected_ND: np.ndarray, code: bool) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        inputs, outputs = Path(scratch) / "texts.json", Path(scratch) / "embeddings.npy"
        inputs.write_text(json.dumps(texts))
        command = [sys.executable, "-m", "trainables.export.reload", str(folder), str(inputs), str(outputs)]
        command += ["--trust-remote-code"] if code else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ExportError(f"{folder}: does not load in a fresh process: {why[-1]}")
        got_ND = np.load(outputs, allow_pickle=False)
    return float((got_ND * expected_ND).sum(axis=1).min())
