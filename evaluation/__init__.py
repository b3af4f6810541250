"""Retrieval evaluation of text-embedding models: tasks, exact search, metrics, significance.

The leaf of the import order search -> trainables -> evaluation: it knows nothing of LoRA, Ray or Optuna.

    from evaluation import RetrievalTask, compare_scores, evaluate
    task = RetrievalTask.load_beir("scifact", "test")
    before, after = evaluate(base, task), evaluate(tuned, task)
    compare_scores(before, after, "ndcg@10")     # difference, 95 % interval, p-value; concepts are resampled

`run_benchmark` does it for several models and tasks at once and gives one table.
"""

from typing import TYPE_CHECKING

from evaluation.lazy import lazy_doors

if TYPE_CHECKING:
    from evaluation.benchmark.run import run_benchmark
    from evaluation.compare import compare as compare_scores
    from evaluation.retrieval import Scores, evaluate
    from evaluation.task import RetrievalTask

__all__ = ["RetrievalTask", "Scores", "compare_scores", "evaluate", "run_benchmark"]
if not TYPE_CHECKING:  # a type checker sees the imports above
    __getattr__ = lazy_doors(
        __name__,
        {
            "RetrievalTask": "evaluation.task:RetrievalTask",
            "Scores": "evaluation.retrieval:Scores",
            "compare_scores": "evaluation.compare:compare",
            "evaluate": "evaluation.retrieval:evaluate",
            "run_benchmark": "evaluation.benchmark.run:run_benchmark",
        },
    )
