"""All that follows a search while its trials run, as callbacks of Tune."""

from __future__ import annotations

from ray import tune

from search.paths import RunFolder
from search.spec.task_data import report_of
from search.study.study import Study
from search.tune.ray_internals import joined_running_ray
from search.watch.board import Board, mean_tokens
from search.watch.loggers import loggers
from search.watch.provisioning import provision
from search.watch.rows import TrialRows


def watchers(study: Study, run: RunFolder) -> list[tune.Callback]:
    """What shows a search on the dashboard, at its metrics endpoint and in the trackers that its spec names."""
    provision()
    found: list[tune.Callback] = [Board(study, mean_tokens(report_of(study.spec, run.data))), *loggers(study, run.path)]
    if joined_running_ray():
        found.append(TrialRows(study.spec.name))
    return found
