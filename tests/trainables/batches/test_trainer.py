"""Batches as the real trainer sees them: resumed, and from files with their columns in any order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import Tensor, nn

from tests.conftest import TinyBase
from trainables.batches.sampler import batch_sampler_for, training_columns
from trainables.config import BatchStrategy, TrialConfig
from trainables.data.config import DataConfig
from trainables.data.prepared import TrialData
from trainables.model.build import build_model
from trainables.prepare import prepare
from trainables.training.losses import make_loss


class _Seen(nn.Module):
    """A loss that writes down what reaches it."""

    def __init__(self, model: SentenceTransformer, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.batches: list[list[list[int]]] = []

    def forward(self, features: list[dict[str, Tensor]], labels: Tensor) -> Tensor:
        self.batches.append([feature["input_ids"].flatten().tolist() for feature in features])
        loss: Tensor = self.loss(features, labels)
        return loss


class _SavingTrainer(SentenceTransformerTrainer):
    """The trainer pickles its arguments beside each checkpoint, so the sampler comes by another way here."""

    make_sampler: Any = None

    def get_batch_sampler(self, dataset: Any, *args: Any, **options: Any) -> Any:
        return self.make_sampler(dataset, *args, **options)


def _trainer(config: TrialConfig, data: TrialData, folder: Path, **options: Any) -> tuple[_SavingTrainer, _Seen]:
    model = build_model(config, "cpu")
    pairs, sampler = batch_sampler_for(config, data, model, folder / "cache")
    loss = _Seen(model, make_loss(model, config))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size,
        seed=config.seed,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **options,
    )
    columns = training_columns(pairs)
    trainer = _SavingTrainer(model=model, args=arguments, train_dataset=pairs.select_columns(columns), loss=loss)
    trainer.make_sampler = sampler
    return trainer, loss


@pytest.mark.parametrize("strategy", ["in_batch", "mixed"])
def test_resumed_training_sees_the_same_batches(
    strategy: BatchStrategy, prepared: TrialData, tiny_base: TinyBase, tmp_path: Path
) -> None:
    config = TrialConfig(base=str(tiny_base("bert")), batches=strategy, batch_size=16, precision="fp32", lr=1e-4)
    whole, seen = _trainer(config, prepared, tmp_path, max_steps=14, save_strategy="steps", save_steps=10)
    whole.train()
    steps_per_epoch = len(whole.get_train_dataloader())
    assert steps_per_epoch < 10  # the checkpoint is in the middle of the second epoch
    again, seen_again = _trainer(config, prepared, tmp_path, max_steps=14, save_strategy="no")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert len(seen.batches) == 14
    assert seen_again.batches == seen.batches[10:]


def test_shuffled_columns_give_the_same_training_batches(tiny_base: TinyBase, tmp_path: Path) -> None:
    """The file's column order must not matter: the loss reads by position."""
    rows = [{"anchor": f"a{c}", "positive": f"p{c}", "concept": c, "kind": "x", "negative": f"n{c}"} for c in range(60)]
    seen = []
    for at, order in enumerate((["anchor", "positive", "concept", "kind", "negative"],
                                ["negative", "kind", "positive", "concept", "anchor"])):  # fmt: skip
        folder = tmp_path / str(at)
        folder.mkdir()
        lines = [json.dumps({name: row[name] for name in order}) for row in rows]
        (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
        prepare(DataConfig(source="pairs.jsonl"), folder, 42, folder / "data")
        config = TrialConfig(base=str(tiny_base("bert")), batch_size=8, precision="fp32")
        trainer, loss = _trainer(config, TrialData.load(folder / "data"), folder, max_steps=3, save_strategy="no")
        assert isinstance(trainer.train_dataset, Dataset)
        assert trainer.train_dataset.column_names == ["anchor", "positive", "negative_1"]
        trainer.train()
        seen.append(loss.batches)
    assert seen[0] == seen[1]
    assert [len(batch) for batch in seen[0]] == [3, 3, 3]
