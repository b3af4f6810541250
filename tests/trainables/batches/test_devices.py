"""Batches over several devices: what the devices of one step hold together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler

from tests.conftest import TinyBase
from tests.kit.pairs import ALL, check_batch, pairs_of, sampler_of
from trainables.batches.sampler import batch_sampler_for
from trainables.config import BatchStrategy, TrialConfig
from trainables.data.prepared import TrialData
from trainables.model.build import build_model


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
