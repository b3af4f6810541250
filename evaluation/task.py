"""RetrievalTask: which passages answer which queries. Built from pairs, or read from a BEIR folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evaluation.errors import InputError
from evaluation.files import read_jsonl, read_lines, text_of, write_whole

Protocol = Literal["concept", "definition"]
BEIR_SPLITS = ("test", "dev", "validation", "train")  # the order in which load_beir looks for a split


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, the corpus that is searched, and the graded judgements between them.

    Attributes:
        name: what tables and errors call the task.
        corpus: passage id -> text.
        queries: query id -> text. Each one has at least one relevant passage.
        qrels: query id -> passage id -> grade. 1 or more is relevant; what is not named counts as 0.
        groups: query id -> concept id. Rows of one concept are not independent, so statistics resample whole groups.
            A query that is not named is a group of its own.
        left_out: one line for each kind of row that the builder could not use: how many, and which.
        triplets: (anchor, positive, negative) texts, where the source gives negatives.

    Raises:
        InputError: empty corpus, no queries, qrels or groups that name unknown ids, a query without relevant passage.
    """

    name: str
    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    groups: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    triplets: tuple[tuple[str, str, str], ...] = ()

    def __post_init__(self) -> None:
        if not self.corpus:
            raise InputError(f"task {self.name}: the corpus is empty, expected at least one passage")
        if not self.queries:
            raise InputError(f"task {self.name}: no queries, expected at least one with a relevant passage")
        _refuse_unknown(self.name, "qrels name a query", self.qrels, self.queries)
        _refuse_unknown(self.name, "groups name a query", self.groups, self.queries)
        judged = {passage for grades in self.qrels.values() for passage in grades}
        _refuse_unknown(self.name, "qrels name a passage", sorted(judged), self.corpus)
        without = [query for query in self.queries if not any(g > 0 for g in self.qrels.get(query, {}).values())]
        if without:
            raise InputError(
                f"task {self.name}: {named(without)} without a relevant passage in the qrels, expected a grade >= 1"
            )
        groups = {query: self.groups.get(query, query) for query in self.queries}
        object.__setattr__(self, "groups", groups)  # frozen for the callers, completed once here

    @classmethod
    def from_pairs(
        cls,
        name: str,
        anchors: Sequence[str],
        positives: Sequence[str],
        concepts: Sequence[str | int],
        kinds: Sequence[str | None] | None = None,
        protocol: Protocol = "concept",
        distractors: Sequence[str] = (),
    ) -> RetrievalTask:
        """A task from N rows (anchor, positive, concept, kind).

        The corpus holds each distinct passage once and the queries each distinct anchor once (white space folded).
        An anchor that stands under several concepts (an acronym with two meanings) is one query: the passages of each
        of its concepts are relevant, and those concepts form one group.

        Args:
            name: the task's name.
            anchors: N query texts.
            positives: N passages, one that answers each anchor.
            concepts: N concept ids.
            kinds: N kinds of passage, "definition" or another word; needed by the definition protocol.
            protocol: "concept": every passage of the query's concepts is relevant (tolerant).
                "definition": their definitions only; the other passages stay in the corpus as distractors (strict).
            distractors: more passages that answer none of the queries.

        Raises:
            InputError: columns of different lengths, unknown protocol, no usable row.
        """
        if protocol not in ("concept", "definition"):
            raise InputError(f"task {name}: protocol {protocol!r}, expected concept or definition")
        if protocol == "definition" and kinds is None:
            raise InputError(f"task {name}: the definition protocol needs a kind for each row, got none")
        kinds = [None] * len(anchors) if kinds is None else kinds
        sizes = {"anchor": len(anchors), "positive": len(positives), "concept": len(concepts), "kind": len(kinds)}
        if len(set(sizes.values())) != 1:
            raise InputError(f"task {name}: columns of different lengths {sizes}, expected one value for each row")

        passage_ids: dict[str, str] = {}  # folded text -> id
        query_ids: dict[str, str] = {}
        corpus: dict[str, str] = {}
        queries: dict[str, str] = {}
        answers: dict[str, dict[str, None]] = {}  # concept -> its relevant passages, an ordered set
        concepts_of: dict[str, dict[str, None]] = {}  # query -> its concepts
        blank = []
        for row, (anchor, positive, concept, kind) in enumerate(zip(anchors, positives, concepts, kinds, strict=True)):
            folded_anchor, folded_passage = fold(anchor), fold(positive)
            if not folded_anchor or not folded_passage:
                blank.append(f"row {row + 1}")
                continue
            passage = passage_ids.setdefault(folded_passage, f"p{len(passage_ids)}")
            corpus.setdefault(passage, positive.strip())
            query = query_ids.setdefault(folded_anchor, f"q{len(query_ids)}")
            queries.setdefault(query, anchor.strip())
            concepts_of.setdefault(query, {})[str(concept)] = None
            if protocol == "concept" or kind == "definition":
                answers.setdefault(str(concept), {})[passage] = None
        for text in distractors:
            folded = fold(text)
            if folded and folded not in passage_ids:
                passage_ids[folded] = f"p{len(passage_ids)}"
                corpus[passage_ids[folded]] = text.strip()

        qrels = {q: {p: 1 for c in own for p in answers.get(c, ())} for q, own in concepts_of.items()}
        unanswered = [query for query, grades in qrels.items() if not grades]
        left_out = []
        if blank:
            left_out.append(f"left out {named(blank, 'row')}: blank anchor or positive")
        if unanswered:
            texts = [repr(queries[query]) for query in unanswered]
            left_out.append(f"left out {named(texts)}: no definition among the passages of their concept")
        groups = merged_concepts(concepts_of)
        kept = [query for query in queries if qrels[query]]
        if not kept:
            raise InputError(f"task {name}: no query left of {len(anchors)} rows. " + "; ".join(left_out))
        return cls(
            name=name,
            corpus=corpus,
            queries={query: queries[query] for query in kept},
            qrels={query: qrels[query] for query in kept},
            groups={query: groups[query] for query in kept},
            left_out=tuple(left_out),
        )

    @classmethod
    def load_beir(cls, folder: str | Path, split: str | None = None) -> RetrievalTask:
        """Read corpus.jsonl, queries.jsonl and qrels/<split>.tsv; the queries are those that the split judges.

        Title and text of a passage are joined by a space. A query's group is `metadata.group` where save_beir wrote it.

        Args:
            folder: the task's folder.
            split: a file name of qrels/ without its ending; None: the first of test, dev, validation, train.

        Raises:
            InputError: a missing file or split, a line that is not what BEIR's format asks for, unknown ids.
        """
        folder = Path(folder)
        split = _choose_split(folder, split)
        corpus: dict[str, str] = {}
        for where, row in read_jsonl(folder / "corpus.jsonl"):
            text = f"{row.get('title') or ''} {text_of(where, row, 'text')}".strip()
            _add_once(where, corpus, text_of(where, row, "_id"), text)
        texts: dict[str, str] = {}
        all_groups: dict[str, str] = {}
        for where, row in read_jsonl(folder / "queries.jsonl"):
            query = text_of(where, row, "_id")
            _add_once(where, texts, query, text_of(where, row, "text"))
            metadata = row.get("metadata")
            if isinstance(metadata, dict) and "group" in metadata:
                all_groups[query] = str(metadata["group"])
        qrels = _read_qrels(folder / "qrels" / f"{split}.tsv")
        _refuse_unknown(f"{folder.name}/{split}", "qrels name a query", qrels, texts)
        irrelevant = [query for query, grades in qrels.items() if not any(g > 0 for g in grades.values())]
        kept = [query for query in texts if query in qrels and query not in set(irrelevant)]
        left_out = []
        if irrelevant:
            left_out.append(f"left out {named(irrelevant)}: no grade >= 1 in qrels/{split}.tsv")
        unjudged = [query for query in texts if query not in qrels]
        for other in (folder / "qrels").glob("*.tsv"):
            if unjudged and other.stem != split:
                with suppress(InputError):  # a broken split is told where it is asked for
                    judged = _read_qrels(other)
                    unjudged = [query for query in unjudged if query not in judged]
        if unjudged:
            left_out.append(f"left out {named(unjudged)}: no split judges them")
        return cls(
            name=f"{folder.name}/{split}",
            corpus=corpus,
            queries={query: texts[query] for query in kept},
            qrels={query: qrels[query] for query in kept},
            groups={query: all_groups[query] for query in kept if query in all_groups},
            left_out=tuple(left_out),
        )

    def save_beir(self, folder: str | Path, split: str = "test") -> None:
        """Write the task in BEIR's layout; the qrels come last, so their existence means that the rest is there."""
        folder = Path(folder)
        corpus = [{"_id": i, "title": "", "text": text} for i, text in self.corpus.items()]
        queries = [{"_id": i, "text": t, "metadata": {"group": self.groups[i]}} for i, t in self.queries.items()]
        for file, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
            write_whole(folder / file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        lines = ["query-id\tcorpus-id\tscore"]
        lines += [f"{q}\t{p}\t{grade}" for q, grades in self.qrels.items() for p, grade in grades.items()]
        write_whole(folder / "qrels" / f"{split}.tsv", "\n".join(lines) + "\n")


def fold(text: str) -> str:
    """White space folded: how texts are matched.

    >>> fold("  Le SG\\n est ")
    'Le SG est'
    """
    return " ".join(text.split())


def named(items: Sequence[str], noun: str = "query", show: int = 3) -> str:
    """How many, and the first few by name.

    >>> named(["q1", "q2", "q3", "q4"])
    '4 queries (q1, q2, q3, ...)'
    >>> named(["row 7"], "row")
    '1 row (row 7)'
    """
    plural = noun if len(items) == 1 else {"query": "queries"}.get(noun, noun + "s")
    return f"{len(items)} {plural} ({', '.join(items[:show])}{', ...' if len(items) > show else ''})"


def merged_concepts(concepts_of: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Query -> its group: concepts that share a query are one group, named after the first of them.

    >>> merged_concepts({"q0": {"a": 1}, "q1": {"a": 1, "b": 1}, "q2": {"b": 1}, "q3": {"c": 1}})
    {'q0': 'a', 'q1': 'a', 'q2': 'a', 'q3': 'c'}
    """
    parent: dict[str, str] = {}

    def root(concept: str) -> str:
        parent.setdefault(concept, concept)
        while parent[concept] != concept:
            parent[concept] = parent[parent[concept]]
            concept = parent[concept]
        return concept

    for own in concepts_of.values():
        first, *others = own
        for other in others:
            parent[root(other)] = root(first)
    return {query: root(next(iter(own))) for query, own in concepts_of.items()}


def _refuse_unknown(task: str, what: str, ids: Sequence[str] | Mapping[str, Any], known: Mapping[str, Any]) -> None:
    unknown = [repr(i) for i in ids if i not in known]
    if unknown:
        raise InputError(f"task {task}: {what} that does not exist: {named(unknown, 'id')}")


def _choose_split(folder: Path, split: str | None) -> str:
    there = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    if not there:
        raise InputError(
            f"{folder}: no qrels/*.tsv, expected a BEIR folder: corpus.jsonl, queries.jsonl, qrels/test.tsv"
        )
    if split is None:
        return next((s for s in BEIR_SPLITS if s in there), there[0])
    if split not in there:
        raise InputError(f"{folder}: no split {split!r} in qrels/, expected one of {', '.join(there)}")
    return split


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, (where, line) in enumerate(read_lines(path), start=1):
        cells = line.rstrip("\r\n").split("\t")
        if cells == [""] or (number == 1 and cells[0] == "query-id"):
            continue
        try:
            query, passage, grade = cells[0], cells[1], int(cells[2])
        except (IndexError, ValueError):
            raise InputError(
                f"{where}: {line.strip()!r}, expected query id, passage id and a whole grade, tab-separated"
            ) from None
        qrels.setdefault(query, {})[passage] = grade
    return qrels


def _add_once(where: str, texts: dict[str, str], key: str, text: str) -> None:
    if key in texts:
        raise InputError(f"{where}: id {key!r} stands there twice, expected distinct ids")
    texts[key] = text
