"""`embtune bases`: what is known of base models, and of one of them everything and from where."""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from trainables.bases.known import DEFAULT_TASK, LEFT_OUT
from trainables.plan.facts import TOKENS, TRIAL, BaseFacts, base_facts, known_bases
from trainables.plan.memory import GIB

WIDE = 150  # columns of a terminal that takes every fact
NEEDS = (
    f"memory: of a trial, LoRA on {TRIAL['targets']} with rank {TRIAL['r']}, {TRIAL['batch_size']} pairs of {TOKENS} "
    "tokens, bf16 on a GPU; `embtune plan SPEC` says it for your data"
)


def show_bases(name: str | None, as_json: bool, console: Console) -> None:
    """Print the table of the known bases, or all that is resolved of one.

    Raises:
        InputError: nothing is known of the one that is asked for, or it cannot be adapted.
    """
    found = known_bases() if name is None else [base_facts(name)]
    if as_json:
        rows = [facts.as_dict() for facts in found]
        print(json.dumps(rows if name is None else rows[0], indent=1, ensure_ascii=False))
        return
    if name is not None:
        console.print(_one(found[0]))
        return
    console.print(_all(found, console.width))
    console.print(_targets(found))
    for left, (_, why) in LEFT_OUT.items():
        console.print(f"left out: {left}: {why}", highlight=False)


def _all(found: list[BaseFacts], width: int) -> Table:
    table = Table(title="Known bases", title_justify="left", caption=NEEDS, caption_justify="left")
    for place, column in enumerate(_cells(found[0], width)):
        right = column in ("parameters", "size", "tokens", "memory")
        table.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=place > 0 and right)
    for facts in found:
        table.add_row(*(escape(cell) for cell in _cells(facts, width).values()))
    return table


def _cells(facts: BaseFacts, width: int) -> dict[str, str]:
    cells = {
        "base": facts.name + (" (gated)" if facts.gated else ""),
        "architecture": facts.architecture,
        "parameters": _number(facts.parameters),
        "size": _number(facts.dimensions),
        "tokens": _number(facts.max_length),
        "pooling": facts.pooling,
        "query prompt": _shown(facts.query_prompt.replace(DEFAULT_TASK, "{task}")),
        "passage prompt": _shown(facts.passage_prompt),
        "licence": facts.licence or "?",
        "languages": facts.languages or "?",
        "memory": _memory(facts),
    }
    if width < WIDE:
        for name in ("size", "passage prompt", "licence", "languages"):
            del cells[name]
    return cells


def _targets(found: list[BaseFacts]) -> Table:
    """What q, k, v, o and ffn are called, once for each architecture."""
    table = Table("architecture", "target", "modules", title="Targets by meaning", title_justify="left")
    for facts in {facts.architecture: facts for facts in found}.values():
        for place, (role, modules) in enumerate(facts.targets.items()):
            table.add_row("" if place else facts.architecture, _role(role), ", ".join(modules))
        table.add_section()
    return table


def _one(facts: BaseFacts) -> Table:
    value = Column("value", overflow="fold")
    table = Table("fact", value, "from", title=facts.name, title_justify="left", caption=NEEDS)
    sources, figures = facts.sources, "its configuration, on torch's meta device"
    family = f"family {facts.family}" if facts.licence else ""
    rows = [
        ("architecture", facts.architecture, ""),
        ("parameters", _number(facts.parameters), figures),
        ("published parameters", _number(facts.published), "the hub, as mteb 2.26 holds it" if facts.published else ""),
        ("embedding size", _number(facts.dimensions), figures),
        ("licence", (facts.licence or "?") + (", gated: needs a token" if facts.gated else ""), family),
        ("languages", facts.languages or "?", family),
        ("query prompt", _shown(facts.query_prompt), sources["query_prompt"]),
        ("passage prompt", _shown(facts.passage_prompt), sources["passage_prompt"]),
        *((f"prompt {name}", _shown(text), "the model's own files") for name, text in facts.prompts.items()),
        ("pooling", facts.pooling, sources["pooling"]),
        ("padding", facts.padding, sources["padding"]),
        ("longest input", f"{facts.max_length:,} tokens", sources["max_length"]),
        ("Dense modules", " -> ".join(map(str, facts.dense)) or "none", ""),
        ("precision", "any" if facts.fp16 else "bf16 or fp32: overflows in fp16", "trainables/bases/architectures.py"),
        *((f"target {_role(role)}", ", ".join(names), figures) for role, names in facts.targets.items()),
        ("memory", _memory(facts), "trainables/plan/memory.py"),
        *(("conflict", line, "") for line in facts.conflicts),
        *(("note", line, "") for line in facts.notes),
    ]
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _role(role: str) -> str:
    return "q, k, v (one projection)" if role == "qkv" else role


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _memory(facts: BaseFacts) -> str:
    return "?" if facts.memory is None else f"{facts.memory / GIB:.1f} GiB"


def _shown(prompt: str) -> str:
    return json.dumps(prompt, ensure_ascii=False) if prompt else "none"
