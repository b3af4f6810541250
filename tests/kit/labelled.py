"""Small labelled data for tests: texts and pairs whose classes a tiny model can learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.kit.toy import write_changed
from trainables.classification.config import LabelledDataConfig
from trainables.classification.prepared import LabelledData, prepare_labelled

WORDS = {"impots": "impôt budget fisc", "mairie": "commune maire école", "sante": "médecin hôpital soin"}


def labelled_rows(count: int = 20, pairs: bool = False) -> list[dict[str, Any]]:
    """`count` rows of each of three labels; each text says a word of its label, and a number that no other has."""
    rows = []
    for number in range(count):
        for label, words in WORDS.items():
            word = words.split()[number % 3]
            row = {"text": f"Le {word} de l'État, dossier {number}", "label": label}
            if pairs:
                row["text_pair"] = f"Un {word} du service {number}"
            rows.append(row)
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled_data(folder: Path, count: int = 20, pairs: bool = False) -> LabelledData:
    """Prepared data in `folder`/data."""
    write_rows(folder / "rows.jsonl", labelled_rows(count, pairs))
    columns: dict[str, Any] = {"text_pair": "text_pair"} if pairs else {}
    config = LabelledDataConfig.model_validate({"source": "rows.jsonl", "columns": columns})
    prepare_labelled(config, folder, 42, folder / "data")
    return LabelledData.load(folder / "data")


def write_spec(folder: Path, base: Path, count: int = 20, pairs: bool = False, **changes: Any) -> Path:
    """A spec of a few short trials on a tiny base."""
    write_rows(folder / "rows.jsonl", labelled_rows(count, pairs))
    spec: dict[str, Any] = {
        "name": "labels",
        "task": "classification",
        "data": {"source": "rows.jsonl", "columns": {"text_pair": "text_pair"} if pairs else {}},
        "space": {
            "base": str(base),
            "max_length": 24,
            "targets": ["qv", "all-linear"],
            "r": [2, 4],
            "lr": {"low": 1e-3, "high": 3e-2, "log": True},
            "batch_size": 8,
            "epochs": 2,
            "precision": "fp32",
            "rungs": 2,
        },
        "sampler": {"startup": 2},
        "budget": {"trials": 3},
        "resources": {"concurrent": 1},
    }
    return write_changed(folder / "labels.yaml", spec, changes)
