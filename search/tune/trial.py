"""The Ray shell around `trainables.train.train`: one Tune trial."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ray import tune

from search.paths import RunFolder
from search.spec.sections import ResourcesSpec
from search.tune.disk import unwritable
from search.tune.messages import (
    ADDRESS,
    AVOID,
    BLIND,
    FAILURE,
    HALT,
    KILLS,
    NODE,
    NUMBER,
    RECORD,
    RUNG,
    TRIAL,
    rung_metric,
)
from search.tune.process import NodeError, Setting, on_node, train_here

if TYPE_CHECKING:
    from trainables.config import TrialConfig
    from trainables.training.rungs import Rung


def run_trial(config: dict[str, Any], *, run: RunFolder, metric: str, resources: ResourcesSpec) -> None:
    """Train one trial of a run and report each rung to Tune.

    A trial that was interrupted goes on from its last complete rung: its folder says which. What the configuration
    itself makes impossible is reported, not raised: Tune would try it again. So is what no trial is to blame for. From
    a node that does not see the run the trial goes elsewhere. At a disk that takes nothing more the search ends, and
    can be resumed.
    """
    from evaluation.errors import InputError
    from search.storage.mirror import BucketError, Mirror
    from trainables.config import config_of
    from trainables.training.out_of_memory import train_in_memory
    from trainables.training.sanity import TrialFailed

    setting = Setting(run, run.trial(config[NUMBER]), metric, resources, config.get(AVOID, {}))
    retried: dict[str, int] = {}
    copied: list[Mirror] = []  # the bucket of the run, where this node has a copy of it
    name = f"{run.tune.name}/{setting.folder.name}"

    def report(rung: Rung) -> None:
        for mirror in copied:
            mirror.push(name)  # before its verdict: another node may have to go on from it
        record = asdict(rung) | retried | _gpu_memory(resources)
        tune.report({RUNG: rung.rung, rung_metric(metric): rung.metrics[metric], RECORD: record})

    def attempt(trial: TrialConfig) -> None:
        if resources.workers > 1:
            from search.tune.workers import train_in_workers as run_it
        else:
            run_it = train_here
        run_it(trial, report, setting)

    def smaller(tokens: int) -> None:
        retried["micro_batch_tokens"] = tokens

    try:
        here = on_node(run)
        setting = replace(setting, run=here, folder=here.trial(config[NUMBER]))
        if here.url:
            copied.append(Mirror(here.url, here.path))
            copied[0].pull(name)  # what another node has done of the trial
        train_in_memory(
            config_of(config[TRIAL]),
            attempt,
            smaller=smaller,
            workers=resources.workers,
            kills=config.get(KILLS, 0),
        )
    except (TrialFailed, InputError) as error:
        tune.report({FAILURE: str(error), RUNG: 0})
    except NodeError as error:
        tune.report({BLIND: error.reason, NODE: error.node, ADDRESS: error.address, RUNG: 0})
    except BucketError as error:
        tune.report({HALT: str(error), RUNG: 0})
    except Exception:
        reason = unwritable(setting.folder)
        if not reason:
            raise
        tune.report({HALT: reason, RUNG: 0})


def _gpu_memory(resources: ResourcesSpec) -> dict[str, int]:
    """The most bytes of its GPU that this process has held; nothing on CPUs, and where others train."""
    if not resources.gpus or resources.workers > 1:
        return {}
    import torch

    return {"gpu_memory": torch.cuda.max_memory_reserved()}
