"""The study of a run, read while its search may be at work in it."""

from __future__ import annotations

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from evaluation.errors import InputError
from search.paths import RunFolder


def read_study(run: RunFolder) -> optuna.Study:
    """The study; nothing is written and no lock is taken.

    Raises:
        InputError: the folder holds no search.
    """
    for path in (run.spec, run.journal):
        if not path.is_file():
            raise InputError(f"{run.path}: no {path.name}; expected the folder of a search, such as runs/demo")
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    names = optuna.get_all_study_names(storage)
    if len(names) != 1:
        raise InputError(f"{run.journal}: {len(names)} studies, expected the one of this search")
    return optuna.load_study(study_name=names[0], storage=storage)
