"""A batch that does not fit into memory, under a real limit of the process."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import TinyBase
from tests.kit.alone import alone
from tests.kit.toy import trial_data
from trainables.config import TrialConfig
from trainables.training.out_of_memory import micro_batch


def test_a_batch_too_large_for_the_memory_is_trained_in_pieces(tiny_base: TinyBase, tmp_path: Path) -> None:
    data = trial_data(tmp_path, concepts=150)
    large = TrialConfig(
        base=str(tiny_base("bert", width=256, layers=4)),
        max_length=64,
        r=4,
        dropout=0.0,
        lr=1e-3,
        batch_size=256,
        rungs=1,
        epochs=0.4,
        precision="fp32",
    )
    tokens = micro_batch(large)
    pieces = alone(large.model_copy(update={"micro_batch_tokens": tokens}), data, tmp_path / "pieces")
    assert pieces["tokens"] == []
    tight = alone(large, data, tmp_path / "tight", limit=850)
    assert tight["tokens"] == [tokens]
    assert tight["rungs"] == pieces["rungs"]  # as if it had been asked for; gradients are those of the whole batch
    hopeless = alone(large, data, tmp_path / "hopeless", limit=4)
    assert "out of memory, with micro-batches of" in str(hopeless["failed"])
