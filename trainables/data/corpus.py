"""What dev and test search: the corpus of a run's data folder, and what in it answers a part's queries.

Two files beside the parts say so. `corpus.jsonl` holds every passage that is searched, once: those of all parts and,
of a BEIR folder, the rest of its corpus. `answers.jsonl` holds rows that are in no part but say what answers what: a
pair that was left out still makes its passage right, and every judgement of a BEIR folder counts, whatever became of
its row. Without them a right passage of another part would count as wrong.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from evaluation.errors import InputError
from evaluation.files import aside, read_jsonl, text_of
from evaluation.task import Protocol, RetrievalTask, fold, merged_concepts, named
from trainables.data.beir import beir_folders, read_beir
from trainables.data.config import DataConfig
from trainables.data.pairs import GROUP_NAME
from trainables.data.rows import PARTS
from trainables.data.splits import text_hash

CORPUS = "corpus.jsonl"
ANSWERS = "answers.jsonl"
Row = dict[str, Any]  # a line of a part


def write_corpus(config: DataConfig, folder: Path, earlier: Path | None, out: Path) -> int:
    """Write corpus.jsonl from the parts that are there, the source's BEIR folders and an earlier run's corpus.

    Returns:
        the number of passages.
    """
    seen: set[int] = set()
    with aside(out / CORPUS) as draft, draft.open("w", encoding="utf-8") as file:
        for text in _passages(config, folder, earlier, out):
            folded = fold(text)
            key = text_hash(folded)
            if folded and key not in seen:
                file.write(json.dumps({"_id": f"p{len(seen)}", "text": text.strip()}, ensure_ascii=False) + "\n")
                seen.add(key)
    return len(seen)


def _passages(config: DataConfig, folder: Path, earlier: Path | None, out: Path) -> Iterator[str]:
    for part in PARTS:
        for _, row in read_jsonl(out / f"{part}.jsonl"):
            yield row["positive"]
    for beir, _ in beir_folders(config, folder):
        yield from RetrievalTask.load_beir(beir).corpus.values()
    if earlier is not None and (earlier / CORPUS).is_file():
        yield from read_corpus(earlier).values()


def judgements(config: DataConfig, folder: Path) -> Iterator[Row]:
    """Every judgement of the source's BEIR folders as a line of answers.jsonl."""
    for beir, part in beir_folders(config, folder):
        for row in read_beir(beir, part):
            yield {**row.cells, "concept": None, "kind": None, "grade": row.grade}


def read_corpus(out: Path, only: Collection[str] | None = None) -> dict[str, str]:
    """Passage id -> text, of the whole corpus or of some ids: the others are read past and never held."""
    rows = ((text_of(where, row, "_id"), row["text"]) for where, row in read_jsonl(out / CORPUS))
    return {i: text for i, text in rows if only is None or i in only}


def part_task(
    name: str, own: list[Row], others: Iterable[Row], corpus: dict[str, str], protocol: Protocol, *, judged: bool
) -> RetrievalTask:
    """The queries of a part's rows over a corpus.

    Relevant to a query are the passages of its own rows, with their grades, and each passage of its concepts: with
    protocol definition, those whose kind is definition. Where the source judges (a BEIR folder), rows without a concept
    of their own are judgements and nothing follows from the groups that were made of them.

    Args:
        name: of the task.
        own: rows of the part.
        others: rows that bring no query but say what answers what. A passage that is not in the corpus is passed over.
        corpus: passage id -> text, each text once (white space folded).
        protocol: see RetrievalTask.from_pairs.
        judged: whether the source judges.

    Raises:
        InputError: no query has a relevant passage.
    """
    passage_ids = {fold(text): i for i, text in corpus.items()}
    query_ids: dict[str, str] = {}
    queries: dict[str, str] = {}
    for row in own:
        queries.setdefault(query_ids.setdefault(fold(row["anchor"]), f"q{len(query_ids)}"), row["anchor"].strip())
    own_grades: dict[str, dict[str, int]] = {query: {} for query in queries}
    concepts_of: dict[str, dict[str, None]] = {query: {} for query in queries}
    answers: dict[str, dict[str, None]] = {}  # concept -> its relevant passages, an ordered set
    for row in chain(own, others):
        query, passage = query_ids.get(fold(row["anchor"])), passage_ids.get(fold(row["positive"]))
        concept = row["concept"]
        if query is not None and concept is not None:
            concepts_of[query][concept] = None
        if passage is None or not (protocol == "concept" or row["kind"] == "definition"):
            continue
        if concept is not None and means_a_concept(concept, judged):
            answers.setdefault(concept, {})[passage] = None
        if query is not None:
            grades = own_grades[query]
            grades[passage] = max(row.get("grade", 1), grades.get(passage, 1))
    qrels = {q: {p: 1 for c in own for p in answers.get(c, ())} | own_grades[q] for q, own in concepts_of.items()}
    kept = [query for query in queries if qrels[query]]
    unanswered = [repr(queries[query]) for query in queries if not qrels[query]]
    left_out = f"left out {named(unanswered)}: no definition among the passages of their concept" if unanswered else ""
    if not kept:
        raise InputError(f"task {name}: no query left of {len(own)} rows. {left_out}")
    groups = merged_concepts(concepts_of)
    return RetrievalTask(
        name=name,
        corpus=corpus,
        queries={query: queries[query] for query in kept},
        qrels={query: qrels[query] for query in kept},
        groups={query: groups[query] for query in kept},
        left_out=(left_out,) if left_out else (),
    )


def means_a_concept(concept: str, judged: bool) -> bool:
    """Whether the passages of a concept answer each of its queries.

    Not where it is a group that was made of judgements, which may chain queries that share no passage.
    """
    return not (judged and GROUP_NAME.fullmatch(concept))
