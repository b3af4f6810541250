"""RAGAS's context precision and context recall, judged by a language model.

The definitions are those of ragas 0.2 (docs.ragas.io, "Context Precision" with a reference and "Context Recall"):

- context precision@K of a question = sum over k of (precision@k x v_k) / sum over k of v_k, 0 where no v_k is 1;
  v_k is 1 where the judge finds that the k-th passage was useful in arriving at the reference answer;
- context recall@K = statements of the reference answer that the judge attributes to the K passages / all of them.

A retrieval task has no written answers: a question's reference is its relevant passage of the highest grade, the first
of them in the task's order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from evaluation.benchmark.endpoint import Endpoint
from evaluation.errors import InputError
from evaluation.retrieval import Scores
from evaluation.task import RetrievalTask

DEPTH = 5  # passages of a question that are judged
QUESTIONS = 50  # of a task, drawn by a hash of their texts: the same ones for every model
AT_ONCE = 4  # calls

USEFUL = (
    "Given a question, an answer and a context, verify if the context was useful in arriving at the given answer. "
    'Reply with JSON alone: {"reason": "...", "verdict": 1} if it was useful, "verdict": 0 if not.'
)
ATTRIBUTED = (
    "Given a context and an answer, take each statement of the answer and classify whether it can be attributed to the "
    'context. Reply with JSON alone: {"classifications": [{"statement": "...", "reason": "...", "attributed": 1}]}, '
    '"attributed": 0 where it cannot.'
)


@dataclass
class Judge:
    """Judges passages for questions; what was judged once, for whichever model, is not asked again.

    Attributes:
        endpoint: that is asked.
        unread: replies, by question, that held no verdict.
    """

    endpoint: Endpoint
    unread: dict[str, str] = field(default_factory=dict)
    _known: dict[tuple[str, str], dict[str, Any] | None] = field(default_factory=dict)

    def judged(self, task: RetrievalTask, scores: Scores) -> dict[str, float]:
        """Means over the judged questions: context precision@5, context recall@5, and how many were judged.

        A question of which a reply cannot be read is left out of both.

        Raises:
            InputError: the endpoint does not answer, or none of its replies can be read.
        """
        place = {query: row for row, query in enumerate(scores.query_ids)}
        chosen = sorted(task.queries, key=lambda query: hashlib.sha256(task.queries[query].encode()).digest())

        def one(query: str) -> tuple[float, float] | None:
            found = [task.corpus[str(i)] for i in scores.top_ids_QK[place[query]][:DEPTH]]
            return self._question(task.queries[query], reference(task, query), found)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            values = [value for value in pool.map(one, chosen[:QUESTIONS]) if value is not None]
        if not values:
            raise InputError(f"judge {self.endpoint.url}: none of its replies holds a verdict, expected JSON")
        precision, recall = (sum(column) / len(values) for column in zip(*values, strict=True))
        return {f"precision@{DEPTH}": precision, f"recall@{DEPTH}": recall, "questions": len(values)}

    def _question(self, question: str, answer: str, passages: Sequence[str]) -> tuple[float, float] | None:
        verdicts = [self._useful(question, answer, passage) for passage in passages]
        statements = self._attributed(answer, passages)
        if statements is None or any(verdict is None for verdict in verdicts):
            self.unread[question] = answer
            return None
        return context_precision([bool(v) for v in verdicts]), sum(statements) / len(statements)

    def _useful(self, question: str, answer: str, passage: str) -> bool | None:
        reply = self._reply(USEFUL, f"question: {question}\n\nanswer: {answer}\n\ncontext: {passage}")
        return _flag(reply, "verdict")

    def _attributed(self, answer: str, passages: Sequence[str]) -> list[bool] | None:
        context = "\n\n".join(passages)
        reply = self._reply(ATTRIBUTED, f"answer: {answer}\n\ncontext: {context}")
        entries = reply.get("classifications") if reply else None
        flags = [_flag(entry, "attributed") for entry in entries] if isinstance(entries, list) else []
        return None if not flags or None in flags else [bool(flag) for flag in flags]

    def _reply(self, task: str, text: str) -> dict[str, Any] | None:
        if (task, text) not in self._known:
            messages = [{"role": "system", "content": task}, {"role": "user", "content": text}]
            self._known[task, text] = json_object(self.endpoint.ask(messages))
        return self._known[task, text]


def context_precision(useful: Sequence[bool]) -> float:
    """RAGAS's average of precision@k over the useful ones among the passages, best ranked first.

    >>> context_precision([True, False, True])
    0.8333333333333333
    >>> context_precision([False, False])
    0.0
    """
    hits = 0
    total = 0.0
    for rank, found in enumerate(useful, start=1):
        hits += found
        total += found * hits / rank
    return total / hits if hits else 0.0


def reference(task: RetrievalTask, query: str) -> str:
    """The relevant passage of the highest grade, the first of them in the task's order."""
    grades = task.qrels[query]
    return task.corpus[max(grades, key=lambda passage: grades[passage])]


def json_object(reply: str) -> dict[str, Any] | None:
    """The JSON object in a reply that may have words or a fence around it; None where there is none.

    >>> json_object('Sure: {"verdict": 1}')
    {'verdict': 1}
    """
    start, end = reply.find("{"), reply.rfind("}")
    try:
        value = json.loads(reply[start : end + 1]) if start >= 0 else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _flag(entry: Any, key: str) -> bool | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    return {"0": False, "1": True}.get(str(int(value) if isinstance(value, bool) else value))
