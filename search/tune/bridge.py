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
from search.tune.messages import FAILURE, HALT, NUMBER, RECORD, RUNG, TRIAL


class _Held:
    """A study that is left out when Tune pickles its holder for a snapshot."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.numbers: dict[str, int] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (object, ())


class StudySearcher(Searcher):
    """Proposes what the study proposes, and tells it how trials ended."""

    def __init__(self, held: _Held) -> None:
        super().__init__()
        self._held = held

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, or Tune's words for there being none now or any more."""
        study = self._held.study
        proposal = None
        if not study.halted:
            try:
                proposal = study.next_trial()
            except OSError as error:
                study.halted = str(error)
        if proposal is None:
            return Searcher.FINISHED if study.halted or study.exhausted() else None  # None: not now
        self._held.numbers[trial_id] = proposal.number
        return {NUMBER: proposal.number, TRIAL: proposal.config.model_dump(mode="json")}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        study, number = self._held.study, self._held.numbers[trial_id]
        if study.halted:
            return  # the trial stays RUNNING and goes on when the search resumes
        try:
            if error:
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


def bridge(study: Study) -> tuple[StudySearcher, RungStopper]:
    """The searcher and the stopper of one search, sharing its study."""
    held = _Held(study)
    return StudySearcher(held), RungStopper(held)
