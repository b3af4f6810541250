"""A study over a toy objective: its spec, and its trials run one after the other."""

from __future__ import annotations

from typing import Any

from search.spec.sections import SearchSpec
from search.study.study import Study, Verdict
from trainables.config import TrialConfig


def make_spec(**changes: Any) -> SearchSpec:
    raw: dict[str, Any] = {
        "name": "toy",
        "data": {"source": "pairs.jsonl"},
        "space": {"base": "some/base", "r": [4, 8, 16, 32], "lr": {"low": 1e-5, "high": 1e-2, "log": True}, "rungs": 4},
        "budget": {"trials": 12},
        "sampler": {"startup": 4},
    }
    return SearchSpec.model_validate({**raw, **changes})


def score(config: TrialConfig, rung: int) -> float:
    """A toy objective: best at r 16 and lr 1e-3, growing with training."""
    import math

    return (0.9 - 0.1 * abs(math.log10(config.lr) + 3) - 0.01 * abs(config.r - 16)) * (0.6 + 0.1 * rung)


def record(config: TrialConfig, rung: int) -> dict[str, Any]:
    return {
        "metrics": {"ndcg@10": score(config, rung)},
        "train_s": 90.0,
        "eval_s": 10.0,
        "trainable": 1000 * config.r,
        "errors": {"ndcg@10": 0.01},
        "folder": "none",
    }


def run_all(study: Study, stop_after: int | None = None) -> None:
    """Run trials one after the other until the budget ends, or leave the search after so many rungs."""
    told = 0
    while (proposal := study.next_trial()) is not None:
        known = len(study.trial(proposal.number).intermediate_values)
        for rung in range(known + 1, study.space.rungs + 1):
            if stop_after is not None and told == stop_after:
                return
            told += 1
            if study.report(proposal.number, rung, record(proposal.config, rung)) is Verdict.STOP:
                break
        study.complete(proposal.number)


def view(study: Study) -> list[Any]:
    return [(t.number, t.state.name, t.user_attrs["config"], t.intermediate_values, t.value) for t in study.trials]
