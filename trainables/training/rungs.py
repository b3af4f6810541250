"""A trial's folder on disk: one `checkpoint-<step>` folder for each rung, read and tidied without torch.

`rung.json` is written last in it: its existence means that the checkpoint is complete. While the trial may go on, the
weights of the best and of the latest rung stay, the adapters of the last LAST, which may be averaged, and the
optimizer's state of the latest; once it has ended, the best rung's weights and, of a trial that can still win, those
adapters. Weights of full fine-tunings, each as large as the model, are not kept to be averaged. Scores stay for every
rung.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.files import to_disk, write_whole
from evaluation.retrieval import Scores

MARKER = "rung.json"
SCORES = "scores.npz"
ADAPTER = "adapter_model.safetensors"  # PEFT's own file name: the folder loads with PeftModel.from_pretrained
HEAD = "head.safetensors"  # of a classifier, beside the adapter
WEIGHTS = "model.safetensors"
WEIGHT_FILES = (ADAPTER, HEAD, WEIGHTS)
LAST = 3  # rungs of one trial whose adapters can be averaged
RESUME_FILES = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth", "trainer_state.json")


@dataclass(frozen=True)
class Rung:
    """A dev evaluation of a trial at an equal share of its training.

    Attributes:
        rung, rungs: which of how many, from 1.
        step, steps: optimizer steps done, and of the whole trial.
        pairs: training pairs seen.
        loss: mean training loss since the rung before; NaN where nothing was trained.
        train_s, eval_s: seconds of training since the rung before, and of this evaluation.
        trainable, total: parameters that are trained, and of the model.
        metrics: mean over the dev queries of each metric.
        errors: cluster-robust standard error of each mean.
        folder: the checkpoint.
    """

    rung: int
    rungs: int
    step: int
    steps: int
    pairs: int
    loss: float
    train_s: float
    eval_s: float
    trainable: int
    total: int
    metrics: dict[str, float]
    errors: dict[str, float]
    folder: str

    def scores(self) -> Scores:
        """Per-query dev scores."""
        return Scores.load(Path(self.folder) / SCORES)


def rungs_done(folder: Path) -> list[Rung]:
    """The complete rungs in a trial's folder, in order."""
    markers = [json.loads(path.read_text()) for path in folder.glob(f"checkpoint-*/{MARKER}")]
    # The folder as it is found, not as it was written: a run that was moved still works.
    rungs = [Rung(**{**m, "folder": str(folder / f"checkpoint-{m['step']}")}) for m in markers]
    return sorted(rungs, key=lambda rung: rung.rung)


def complete_rung(rung: Rung, scores: Scores, metric: str) -> None:
    """Mark a checkpoint as complete, then drop what older rungs no longer need."""
    folder = Path(rung.folder)
    folder.mkdir(parents=True, exist_ok=True)
    scores.save(folder / SCORES)
    for path in folder.iterdir():  # the marker must not outlive a power cut that they do not
        to_disk(path)
    write_whole(folder / MARKER, json.dumps(asdict(rung)))
    done = rungs_done(folder.parent)
    for older in done[:-1]:
        drop_resume_state(Path(older.folder))
    _drop_older_weights(done, best_of(done, metric), LAST)
    for partial in folder.parent.glob("checkpoint-*"):
        if not (partial / MARKER).exists():
            shutil.rmtree(partial)


def keep_best(folder: Path, metric: str, last: int = 0) -> None:
    """Tidy the folder of a trial that has ended: of its weights, those of its best rung stay.

    Args:
        last: so many of its last rungs' adapters stay, too.
    """
    done = rungs_done(folder)
    for rung in done:
        drop_resume_state(Path(rung.folder))
    if done:
        _drop_older_weights(done, best_of(done, metric), last, latest=False)


def _drop_older_weights(done: list[Rung], best: Rung, last: int, latest: bool = True) -> None:
    """Keep the weights of the best rung, of the latest one where it may go on, and the last rungs' adapters."""
    for rung in done:
        folder = Path(rung.folder)
        recent = rung.rung > done[-1].rung - last and (folder / ADAPTER).exists()
        if not (rung is best or recent or (latest and rung is done[-1])):
            drop_weights(folder)


def adapters_of_last(folder: Path) -> list[Rung]:
    """Of the last LAST rungs of a trial those whose adapters are there, in order."""
    done = rungs_done(folder)[-LAST:]
    return [rung for rung in done if (Path(rung.folder) / ADAPTER).is_file()]


def best_rung(scores: Mapping[int, float]) -> tuple[int, float]:
    """Of a trial's dev scores by rung: the rung with the best, the earliest of equals, and that score.

    (0, -inf) before the first.
    """
    best, value = 0, -math.inf
    for rung, score in sorted(scores.items()):
        if score > value:
            best, value = rung, score
    return best, value


def best_of(done: list[Rung], metric: str) -> Rung:
    """The rung of a trial whose weights are kept, which `best_rung` decides."""
    best, _ = best_rung({rung.rung: rung.metrics[metric] for rung in done})
    return next(rung for rung in done if rung.rung == best)


def drop_resume_state(folder: Path) -> None:
    """Delete what only a resume needs: optimizer (twice the adapter's size), schedule, random numbers."""
    for pattern in RESUME_FILES:
        for path in folder.glob(pattern):
            path.unlink()


def drop_weights(folder: Path) -> None:
    """Delete a checkpoint's weights; its scores stay."""
    for name in (*WEIGHT_FILES, "adapter_config.json"):
        (folder / name).unlink(missing_ok=True)
