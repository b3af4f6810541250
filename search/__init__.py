"""The search around the trial: specification, space, Optuna study, Ray Tune, leaderboard, promotion, command line.

from search import open_run, run_search
run = run_search("my_spec.yaml")             # or a dictionary; what `embtune search` does
run = open_run("runs/demo")                  # a search that has ended, was stopped or is at work
run.leaderboard(), run.curves(), run.benchmark(), run.movers()     # pandas data frames
run.model(), run.report()
"""

from typing import TYPE_CHECKING

from evaluation.lazy import lazy_doors

if TYPE_CHECKING:
    from search.notebook import OpenRun, SearchFailedError, open_run, run_search

__version__ = "0.1.0"
__all__ = ["OpenRun", "SearchFailedError", "open_run", "run_search"]
if not TYPE_CHECKING:  # a type checker sees the imports above
    __getattr__ = lazy_doors(__name__, {name: f"search.notebook:{name}" for name in __all__})
