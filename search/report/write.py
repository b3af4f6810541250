"""A run's folder -> `report.html`, one page that needs no network, and `plots/*.png`."""

from __future__ import annotations

from pathlib import Path

from evaluation.files import write_whole
from search.paths import RunFolder
from search.report.gather import gather
from search.report.images import write_images
from search.report.page import render


def write_report(run: Path) -> Path:
    """Write the report of a search that has ended, was stopped or is at work. Returns the page's path.

    Raises:
        InputError: the folder is no run, or something in it is missing.
    """
    data = gather(run)
    folder = RunFolder(run)
    write_images(data, folder.plots)
    write_whole(folder.report, render(data))
    return folder.report
