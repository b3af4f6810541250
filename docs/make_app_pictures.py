"""The pictures of docs/app.md: the page of `embtune try` over a run, in light and dark, wide and narrow.

python -m docs.make_app_pictures RUN
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from search.app.log import Log
from search.app.open import open_desk
from search.app.service import Service
from tests.kit.browser import chromium, served

HERE = Path(__file__).parent
QUESTION = "de quelle fussion la DGFiP est-elle issue ?"  # of the demo's data, once it is corrected
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 860}


def main() -> None:
    desk = open_desk(Path(sys.argv[1]))
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Service(desk, Log(Path(folder) / "log"))) as address,
        chromium() as browser,
    ):
        for size, viewport in (("wide", WIDE), ("narrow", NARROW)):
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport=viewport, color_scheme=scheme, locale="fr-FR")  # type: ignore[arg-type]
                page.goto(address)
                page.locator("#q").fill(QUESTION)
                page.keyboard.press("Enter")
                page.locator("li.relevant .thumbs button").first.click()
                page.wait_for_selector("[aria-pressed=true]")
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=HERE / f"app-{size}-{scheme}.png")
                page.goto(f"{address}/admin?lang=en")
                if (size, scheme) == ("wide", "light"):
                    page.screenshot(path=HERE / "app-admin.png")
                page.close()


if __name__ == "__main__":
    main()
