"""docs/notebook.ipynb runs from its first cell to its last, and is committed with what it shows."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.kit.toy_run import make_run

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"
LARGEST = 400_000  # bytes


def test_every_cell_runs_on_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("RUN", str(make_run(tmp_path)))
    # A cell that fails raises. The folder is the one that Jupyter starts the kernel in.
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output for cell in code for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
    assert sum("text/html" in output.get("data", {}) for output in shown) == 5
    assert [output for output in shown if output.get("name") == "stderr"] == []


def test_it_is_committed_with_its_outputs_and_names_no_folder_of_the_machine_that_made_it() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert "/tmp" not in text
    assert "/home" not in text
    code = [cell for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) == len(code) - 2  # the first two set up and open the run
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
