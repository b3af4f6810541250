"""The driver of a search without its beginning and end, in a process of its own that tests can kill."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ray import tune

from search.paths import RunFolder
from search.spec.load import load_spec
from search.study.study import Study
from search.tune.nodes import Nodes
from search.tune.ray_internals import loopback_only
from search.tune.tuner import connect, make_tuner


def drive(
    spec_path: Path,
    run: Path,
    callbacks: Sequence[tune.Callback] = (),
    say: Callable[[str], None] = print,
    patience_s: float = 0,
) -> Study:
    """Run the trials that the run's study still has to run on the Ray that is connected."""
    spec = load_spec(spec_path)
    study = Study(run, spec)
    make_tuner(spec, RunFolder(run), study, list(callbacks), Nodes(spec, say, patience_s=patience_s)).fit()
    return study


if __name__ == "__main__":
    with loopback_only():  # where the Ray of the tests listens
        connect(sys.argv[3])
    drive(Path(sys.argv[1]), Path(sys.argv[2]))
