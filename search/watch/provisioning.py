"""The Grafana dashboard of searches, put where Ray keeps its own: a Grafana that was set up for Ray shows it."""

from __future__ import annotations

from pathlib import Path

from evaluation.files import write_whole
from search.tune.ray_internals import session_folder

DASHBOARD = Path(__file__).parent / "grafana.json"


def provision() -> None:
    """Put the dashboard beside Ray's, where this machine is the head's: Ray writes them there for Grafana."""
    folder = session_folder() / "metrics" / "grafana" / "dashboards"
    if folder.is_dir():
        write_whole(folder / "embtune_grafana_dashboard.json", DASHBOARD.read_text(encoding="utf-8"))
