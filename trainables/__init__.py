"""One trial, readable top to bottom and runnable without Ray: base model, adapter, batches, training, merge, export.

from trainables import DataConfig, TrialConfig, TrialData, prepare_data, train_trial
prepare_data(DataConfig(source="pairs.jsonl"), Path("."), 42, Path("data"))
best = train_trial(TrialConfig(base="intfloat/multilingual-e5-small"), TrialData.load(Path("data")), print,
                   folder=Path("trial"))
best.metrics["ndcg@10"]                      # of the best rung, whose weights are in best.folder
"""

from typing import TYPE_CHECKING

from evaluation.lazy import lazy_doors

if TYPE_CHECKING:
    from trainables.config import TrialConfig
    from trainables.data.config import DataConfig
    from trainables.data.prepared import TrialData
    from trainables.prepare import prepare as prepare_data
    from trainables.train import train as train_trial

__all__ = ["DataConfig", "TrialConfig", "TrialData", "prepare_data", "train_trial"]
if not TYPE_CHECKING:  # a type checker sees the imports above
    __getattr__ = lazy_doors(
        __name__,
        {
            "DataConfig": "trainables.data.config:DataConfig",
            "TrialConfig": "trainables.config:TrialConfig",
            "TrialData": "trainables.data.prepared:TrialData",
            "prepare_data": "trainables.prepare:prepare",
            "train_trial": "trainables.train:train",
        },
    )
