"""The promises of the batch strategies, checked on any rows that hypothesis thinks of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import Tensor, nn

from evaluation.errors import InputError
from evaluation.task import fold
from tests.conftest import TinyBase
from trainables.batches.compose import row_keys
from trainables.batches.sampler import ConceptBatchSampler, batch_sampler_for, training_columns
from trainables.config import BatchStrategy, TrialConfig
from trainables.data.config import DataConfig
from trainables.data.prepared import TrialData
from trainables.model.build import build_model
from trainables.prepare import prepare
from trainables.training.losses import make_loss

PROMISING: tuple[BatchStrategy, ...] = ("in_batch", "clustered", "mined", "mixed")
ALL: tuple[BatchStrategy, ...] = (*PROMISING, "sorted")


def pairs_of(rows: list[tuple[int, int, int]], negatives: list[int] | None = None) -> Dataset:
    """Rows of (concept, anchor, passage) numbers as training pairs."""
    columns = {
        "anchor": [f"anchor {anchor}" for _, anchor, _ in rows],
        "positive": [f"passage {passage}" for _, _, passage in rows],
        "concept": [str(concept) for concept, _, _ in rows],
    }
    if negatives is not None:
        columns["negative_1"] = [f"passage {passage}" for passage in negatives]
    return Dataset.from_dict(columns)


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def sampler_of(pairs: Dataset, strategy: BatchStrategy, size: int, seed: int = 0) -> ConceptBatchSampler:
    config = TrialConfig(base="none", batches=strategy, batch_size=size, seed=seed)
    embeddings = vectors(len(set(pairs["positive"])))
    return ConceptBatchSampler(
        pairs, config, row_keys(pairs), list(pairs["concept"]), list(pairs["anchor"]), lambda _: embeddings
    )


def check_batch(pairs: Dataset, batch: list[int]) -> None:
    """The promise, said in plain Python: no shared concept, no text twice, no negative that answers another row."""
    rows = [pairs[row] for row in batch]
    assert len({row["concept"] for row in rows}) == len(rows)
    texts = [text for row in rows for text in {fold(row["anchor"]).casefold(), fold(row["positive"]).casefold()}]
    assert len(set(texts)) == len(texts)
    if "negative_1" in pairs.column_names:
        answers: dict[str, set[str]] = {}
        for row in pairs:
            answers.setdefault(row["positive"], set()).add(row["concept"])
        for at, row in enumerate(rows):
            for other, met in enumerate(rows):
                if other != at:
                    assert row["negative_1"] not in (met["anchor"], met["positive"])
                    assert met["concept"] not in answers.get(row["negative_1"], set())


any_rows = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 30), st.integers(0, 30)), min_size=4, max_size=80, unique=True
).filter(lambda rows: len({concept for concept, _, _ in rows}) > 1)


@given(rows=any_rows, strategy=st.sampled_from(PROMISING), size=st.integers(2, 12), data=st.data())
@settings(max_examples=250, deadline=None)
def test_no_batch_breaks_its_promise(
    rows: list[tuple[int, int, int]], strategy: BatchStrategy, size: int, data: st.DataObject
) -> None:
    negatives = None
    if strategy == "mined":
        negatives = data.draw(st.lists(st.integers(0, 40), min_size=len(rows), max_size=len(rows)))
    pairs = pairs_of(rows, negatives)
    sampler = sampler_of(pairs, strategy, size)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(1 <= len(batch) <= size for batch in batches)
        assert max(Counter(row for batch in batches for row in batch).values()) == 1
        for batch in batches:
            check_batch(pairs, batch)


@given(
    concepts=st.lists(st.integers(0, 8), min_size=4, max_size=80).filter(lambda drawn: len(set(drawn)) > 1),
    strategy=st.sampled_from(PROMISING),
    size=st.integers(2, 12),
)
@settings(max_examples=200, deadline=None)
def test_each_row_is_seen_once_an_epoch(concepts: list[int], strategy: BatchStrategy, size: int) -> None:
    """Where texts are not shared, all rows are seen but those of a concept with more rows than there are batches."""
    pairs = pairs_of([(concept, row, row) for row, concept in enumerate(concepts)])
    sampler = sampler_of(pairs, strategy, size)
    batches = list(sampler)
    seen = Counter(concepts[row] for batch in batches for row in batch)
    assert seen == {concept: min(count, len(batches)) for concept, count in Counter(concepts).items()}
    sizes = {len(batch) for batch in batches}
    assert max(sizes) - min(sizes) <= 1


@given(rows=any_rows, strategy=st.sampled_from(ALL), seed=st.integers(0, 3), epoch=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_batches_depend_on_seed_and_epoch_alone(
    rows: list[tuple[int, int, int]], strategy: BatchStrategy, seed: int, epoch: int
) -> None:
    pairs = pairs_of(rows)
    one, other = sampler_of(pairs, strategy, 4, seed), sampler_of(pairs, strategy, 4, seed)
    list(one)  # an earlier epoch leaves no trace
    one.set_epoch(epoch)
    other.set_epoch(epoch)
    assert list(one) == list(other)


def test_epochs_and_seeds_differ() -> None:
    pairs = pairs_of([(row, row, row) for row in range(60)])
    for strategy in PROMISING:
        sampler = sampler_of(pairs, strategy, 8)
        first = list(sampler)
        sampler.set_epoch(1)
        assert list(sampler) != first
        assert list(sampler_of(pairs, strategy, 8, seed=1)) != first


def test_sorted_is_the_notebooks_order() -> None:
    pairs = pairs_of([(10, 0, 0), (2, 1, 1), (2, 2, 2), (10, 0, 3), (1, 3, 4)])
    assert list(sampler_of(pairs, "sorted", 2)) == [[4, 1], [2, 0]]  # the second row of anchor 0 is left out
    names = Dataset.from_dict({"anchor": ["a", "b"], "positive": ["p", "q"], "concept": ["b", "a"]})
    assert list(sampler_of(names, "sorted", 2)) == [[1, 0]]


def test_large_concept_shows_as_many_rows_as_there_are_batches() -> None:
    pairs = pairs_of([(0, row, row) for row in range(90)] + [(row, row, row) for row in range(90, 120)])
    sampler = sampler_of(pairs, "in_batch", 10)
    seen = []
    for epoch in range(40):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == 4  # 30 rows and 4 of the large concept: 34 rows in batches of 8 or 9
        seen += [row for batch in batches for row in batch if row < 90]
    assert len(set(seen)) > 60  # drawn anew each epoch


def test_a_training_part_of_one_concept_is_refused() -> None:
    with pytest.raises(InputError, match="the training part has 1"):
        sampler_of(pairs_of([(0, 0, 0), (0, 1, 1)]), "in_batch", 2)


def test_clustered_batches_hold_near_concepts() -> None:
    """Eight far blobs of eight concepts: each batch of eight should be one blob; shuffled ones hold about one."""
    rng = np.random.default_rng(0)
    blobs = np.eye(8, dtype=np.float32).repeat(8, axis=0)
    order = rng.permutation(64)
    embeddings = (blobs + rng.normal(0, 0.02, blobs.shape).astype(np.float32))[order]
    pairs = pairs_of([(row, row, row) for row in range(64)])
    purity = {}
    for strategy in ("clustered", "in_batch", "mixed"):
        config = TrialConfig(base="none", batches=strategy, batch_size=8, mixed_share=0.5)
        sampler = ConceptBatchSampler(
            pairs, config, row_keys(pairs), list(pairs["concept"]), list(pairs["anchor"]), lambda _: embeddings
        )
        largest = [max(Counter(order[row] // 8 for row in batch).values()) / len(batch) for batch in sampler]
        purity[strategy] = np.mean(largest)
    assert purity["clustered"] > 0.85
    assert purity["in_batch"] < 0.45
    assert purity["in_batch"] < purity["mixed"] < purity["clustered"]


@pytest.mark.parametrize("strategy", ALL)
def test_several_devices_share_a_step_that_keeps_the_promise(
    strategy: BatchStrategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate deals batches to devices in turn; together those of a step must hold distinct concepts."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    rows = [(concept, 3 * concept + at, 3 * concept + at) for concept in range(23) for at in range(3)]
    pairs = pairs_of(rows)
    sampler = sampler_of(pairs, strategy, 16)
    sampler.set_epoch(2)
    shards = [BatchSamplerShard(sampler, num_processes=2, process_index=rank, even_batches=False) for rank in range(2)]
    one, other = (list(shard) for shard in shards)
    assert len(one) == len(other) == len(shards[0]) == len(shards[1]) == len(sampler) // 2 == 4
    for mine, yours in zip(one, other, strict=True):
        assert len(mine) == len(yours) == 8
        if strategy != "sorted":
            check_batch(pairs, mine + yours)
    skipped = list(SkipBatchSampler(shards[0], skip_batches=2))
    assert skipped == one[2:]


def test_a_run_resumed_on_several_devices_starts_in_its_epoch(
    prepared: TrialData, tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer wraps the sampler twice there and cannot tell it the epoch."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = TrialConfig(base=str(tiny_base("bert")), batch_size=16, precision="fp32")
    model = build_model(config, "cpu")
    pairs, factory = batch_sampler_for(config, prepared, model)
    sampler = factory(pairs)
    sampler.set_epoch(3)
    _, resumed = batch_sampler_for(config, prepared, model, start_step=3 * len(sampler) // 2)
    shard = BatchSamplerShard(resumed(pairs), num_processes=2, process_index=1, even_batches=False)
    assert list(SkipBatchSampler(shard, skip_batches=2)) == list(sampler)[1::2][2:]


def test_full_batches_repeat_a_row_rather_than_fall_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    # Eight concepts, of which two share a text: only batches without one of them are full.
    pairs = pairs_of([(0, 0, 0), (1, 0, 1), *[(concept, concept, concept) for concept in range(2, 8)]])
    batches = list(sampler_of(pairs, "in_batch", 4))
    assert [len(batch) for batch in batches] == [2, 2, 2, 2]
    check_batch(pairs, batches[0] + batches[1])


# With the real trainer


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> TrialData:
    """90 concepts of two rows."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {
            "kind": "context",
            "positive": f"passage {at} of concept {c}",
            "cluster_id": c,
            "anchor": f"question {at} on {c}",
        }
        for c in range(90)
        for at in range(2)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prepare(DataConfig(source="pairs.jsonl"), folder, 42, folder / "data")
    return TrialData.load(folder / "data")


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


TWO_PROCESSES = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from trainables.batches.sampler import batch_sampler_for, training_columns
from trainables.config import TrialConfig
from trainables.data.prepared import TrialData
from trainables.training.losses import make_loss
from trainables.model.build import build_model

base, data, out = sys.argv[1:]
config = TrialConfig(base=base, batch_size=16, precision="fp32")
model = build_model(config, "cpu")
pairs, sampler = batch_sampler_for(config, TrialData.load(Path(data)), model)
arguments = SentenceTransformerTrainingArguments(output_dir=out, per_device_train_batch_size=8, max_steps=10,
    batch_sampler=sampler, seed=config.seed, report_to=[], disable_tqdm=True, use_cpu=True, save_strategy="no",
    ddp_backend="gloo")
loss = make_loss(model, config)
assert loss.gather_across_devices
trainer = SentenceTransformerTrainer(model=model, args=arguments,
    train_dataset=pairs.select_columns(training_columns(pairs)), loss=loss)
seen = []
class Keep(type(trainer.data_collator)):
    def __call__(self, rows):
        seen.append([row["anchor"] for row in rows])
        return super().__call__(rows)
trainer.data_collator.__class__ = Keep
trainer.train()
Path(out, f"rank{os.environ['RANK']}.json").write_text(json.dumps(seen))
torch.distributed.barrier()
torch.distributed.destroy_process_group()  # else a thread of gloo may outlive the interpreter and abort it
"""


def test_two_processes_train_on_disjoint_halves_of_each_step(
    prepared: TrialData, tiny_base: TinyBase, tmp_path: Path
) -> None:
    """A real run of two gloo processes, into its second epoch."""
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command = [*launch, str(script), str(tiny_base("bert")), str(prepared.folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert len(one) == len(other) >= 10
    for mine, yours in zip(one[:10], other[:10], strict=True):
        assert len(mine) == len(yours) == 8
        concepts = [anchor.split()[-1] for anchor in mine + yours]
        assert len(set(concepts)) == 16
    assert one[0] != one[len(prepared.train) // 16]  # the second epoch has an order of its own
