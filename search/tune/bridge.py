"""Ray Tune over one Optuna study, by Tune's public interfaces alone.

Ray's own OptunaSearch never prunes and tells a stopped trial to the study as if its early score were final. Here a
`Searcher` hands out the study's proposals, and a `Stopper`, which Tune asks at every report, takes the rung into the
study and answers with the pruner's verdict. Tune's snapshots of the two are never read: the study is the memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ray.tune import Stopper
from ray.tune.search import Searcher

from search.study.study import Study, Verdict
from search.tune.losses import Losses
from search.tune.messages import ADDRESS, AVOID, BLIND, FAILURE, HALT, NODE, NUMBER, RECORD, RUNG, TRIAL
from search.tune.nodes import Nodes


class _Held:
    """What is left out when Tune pickles its holder for a snapshot."""

    def __init__(self, study: Study, nodes: Nodes, losses: Losses) -> None:
        self.study, self.nodes, self.losses = study, nodes, losses
        self.numbers: dict[str, int] = {}
        self.live: set[str] = set()  # trials that Tune has and that have not ended

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())


class StudySearcher(Searcher):
    """Proposes what the study proposes, and tells it how trials ended."""

    def __init__(self, held: _Held) -> None:
        super().__init__()
        self._held = held

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, or Tune's words for there being none now or any more."""
        study, nodes, live = self._held.study, self._held.nodes, self._held.live
        at_once = nodes.at_once()
        study.halted = study.halted or nodes.hopeless()
        if study.halted:
            return Searcher.FINISHED
        if len(live) >= at_once:
            return None  # not now
        study.concurrent = at_once
        try:
            proposal = study.next_trial()
        except OSError as error:
            study.halted = str(error)
            return Searcher.FINISHED
        if proposal is None:  # a trial that is live may be put back: only without one is it over
            return Searcher.FINISHED if study.exhausted() and not live else None
        self._held.numbers[trial_id] = proposal.number
        live.add(trial_id)
        return {NUMBER: proposal.number, TRIAL: proposal.config.model_dump(mode="json"), AVOID: nodes.selector()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        study, number = self._held.study, self._held.numbers[trial_id]
        self._held.live.discard(trial_id)
        if study.halted:
            return  # the trial stays RUNNING and goes on when the search resumes
        try:
            if (result and BLIND in result) or (error and self._held.losses.of_a_node(trial_id)):
                study.put_back(number)
            elif error:
                study.fail(number, "its worker failed; the traceback is in error.txt in the trial's folder")
            elif result:
                study.complete(number)
        except OSError as failure:
            study.halted = str(failure)
        # Neither: Tune drops a trial that never ran. It stays RUNNING in the study and runs when the search resumes.

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text(json.dumps({"memory": "study.journal"}))

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("Tuner.restore is not used: `embtune search --resume` goes on from study.journal")


class RungStopper(Stopper):
    """Reports each rung to the study; stops the trial when the pruner says so, and the search when it cannot go on."""

    def __init__(self, held: _Held) -> None:
        self._held = held

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        study, number = self._held.study, result["config"][NUMBER]
        study.halted = study.halted or result.get(HALT, "")
        if study.halted:
            return True
        if BLIND in result:
            self._held.nodes.leave_alone(result[NODE], result[ADDRESS], result[BLIND])
            return True
        try:
            if FAILURE in result:
                study.fail(number, result[FAILURE])
                return True
            return study.report(number, result[RUNG], result[RECORD]) is Verdict.STOP
        except OSError as error:
            study.halted = str(error)
            return True

    def stop_all(self) -> bool:
        # A spent budget lets trials finish: what they cost is spent, and a half-told one teaches the sampler nothing.
        return bool(self._held.study.halted)


def bridge(study: Study, nodes: Nodes, losses: Losses) -> tuple[StudySearcher, RungStopper]:
    """The searcher and the stopper of one search, sharing its study."""
    held = _Held(study, nodes, losses)
    return StudySearcher(held), RungStopper(held)
