"""The pictures of docs/cluster.md: Ray's dashboard while a search that was submitted runs.

RAY_AUTH_TOKEN=... python docs/make_dashboard_pictures.py http://HEAD:8265 JOB
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.kit.browser import chromium

HERE = Path(__file__).parent
PATIENCE_MS = 120_000


def main() -> None:
    address, job = sys.argv[1:]
    shows = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    with chromium() as browser:
        context = browser.new_context(extra_http_headers=shows, viewport={"width": 1500, "height": 900})
        context.set_default_timeout(PATIENCE_MS)
        actors, page = context.new_page(), context.new_page()
        actors.goto(f"{address}/#/actors")
        actors.get_by_text("trial 00").first.wait_for()
        actors.screenshot(path=HERE / "dashboard-actors.png")
        page.goto(f"{address}/#/jobs/{job}")
        page.get_by_text("User-provided metadata").first.wait_for()
        page.screenshot(path=HERE / "dashboard-job.png")


if __name__ == "__main__":
    main()
