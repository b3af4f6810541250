"""The page of `embtune try` in a real Chromium without JavaScript: ask, correct, judge, export, train on the export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page

from search import run_search
from search.app.ask import Desk
from search.app.corpus import training_pairs
from search.app.log import Log
from search.app.service import Service
from search.paths import RunFolder
from tests.conftest import TinyBase
from tests.kit.app import app_run, quiet_desk
from tests.kit.browser import CHROMIUM, chromium, served
from tests.kit.toy import DEMO, write_guard
from trainables.config import TrialConfig
from trainables.data.config import DataConfig
from trainables.data.prepared import TrialData
from trainables.prepare import prepare
from trainables.train import train

QUESTION = "comment installer les styles officiels dans mon projet web ?"  # of the demo's training part

pytestmark = [
    # .ci/run installs it where it may; on another machine that is its owner's affair.
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's, with the first of its trials alone, a third as long, and a guard of a few questions."""
    folder = tmp_path_factory.mktemp("browser")
    spec = yaml.safe_load(DEMO.with_suffix(".yaml").read_text(encoding="utf-8"))
    spec["data"]["source"] = str(DEMO)
    spec["space"] |= {"epochs": 0.33, "rungs": 1}
    spec |= {"guard": {"source": write_guard(folder).name}, "budget": {"trials": 1}}
    (folder / "demo.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return run_search(folder / "demo.yaml", folder / "runs").folder.path


@pytest.fixture(scope="module")
def demo(run: Path) -> Desk:
    found: Desk = quiet_desk(run)
    return found


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, tiny_base: TinyBase) -> Desk:
    found: Desk = quiet_desk(app_run(tmp_path_factory.mktemp("browser"), tiny_base("bert")))
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def texts(page: Page, model: int) -> list[str]:
    return page.locator(f"section[aria-labelledby=m{model}] .text").all_text_contents()


def test_from_a_question_to_a_trained_step(run: Path, demo: Desk, browser: Browser, tmp_path: Path) -> None:
    pairs = list(training_pairs(RunFolder(run)))
    with served(Service(demo, Log(tmp_path / "log.sqlite"))) as address:
        page = browser.new_page(java_script_enabled=False, locale="en-GB")
        outside: list[str] = []
        page.on("request", lambda request: outside.append(request.url) if address not in request.url else None)
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text))

        page.goto(address)
        page.get_by_label("Your question").fill(QUESTION.replace("installer", "instaler"))
        page.keyboard.press("Enter")
        assert page.locator("#searched").inner_text() == QUESTION
        corrected = texts(page, 1), texts(page, 2)
        assert [len(found) for found in corrected] == [10, 10]
        assert corrected[0] != corrected[1]
        assert page.locator(".change").count() == 10
        assert page.locator("section[aria-labelledby=m2] .relevant").count() >= 1

        page.get_by_role("link", name="Search without clean-up").click()
        assert (texts(page, 1), texts(page, 2)) != corrected, "the ranks change"
        page.get_by_role("link", name="Search with clean-up").click()
        page.get_by_role("link", name="Undo: instaler").click()
        assert page.locator("#searched").count() == 0, "what is searched is what was typed"
        page.get_by_role("link", name="Do it: instaler").click()
        assert (texts(page, 1), texts(page, 2)) == corrected

        answers = {text for question, text in pairs if question == QUESTION}
        new = {text for _, text in pairs} - answers
        assert answers & set(corrected[1])
        rank = next(place for place, text in enumerate(corrected[1], start=1) if text in new)
        section = page.locator("section[aria-labelledby=m2]")
        section.get_by_role("button", name=f"Answers it: passage {rank}", exact=True).click()
        pressed = section.get_by_role("button", name=f"Answers it: passage {rank}", exact=True)
        assert pressed.get_attribute("aria-pressed") == "true"
        page.get_by_role("link", name="Questions asked").click()
        assert "1 up, 0 down" in page.locator("tbody").inner_text()
        with page.expect_download() as download:
            page.get_by_role("link", name="Judged questions").click()
        download.value.save_as(tmp_path / "judged.jsonl")
        assert not outside
        assert not wrong, "the browser refused something"
        page.close()

    (row,) = [json.loads(line) for line in (tmp_path / "judged.jsonl").read_text().splitlines()]
    assert (row["anchor"], row["positive"]) == (QUESTION, corrected[1][rank - 1])
    prepare(DataConfig(source="judged.jsonl"), tmp_path, 42, tmp_path / "data", earlier=run / "data")
    data = TrialData.load(tmp_path / "data")
    assert (row["anchor"], row["positive"]) in zip(data.train["anchor"], data.train["positive"], strict=True)
    (tmp_path / "trial").mkdir()
    # One step over the judged pair and a few beside it.
    one_step = {"batch_size": 64, "rungs": 1, "lr": 1e-3, "epochs": 0.02, "warmup": 0, "precision": "fp32"}
    config = TrialConfig.model_validate({"base": str(run / "best"), "targets": "qv", "r": 2, **one_step})
    best = train(config, data, lambda _: None, folder=tmp_path / "trial")
    assert best.step == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_wide_and_narrow_in_light_and_dark(toy: Desk, browser: Browser, width: int, scheme: str) -> None:
    with served(Service(toy)) as address:
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(f"{address}/?q=qui+encaise+les+impots&lang=fr")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        boxes = [page.locator(f"#m{number}").bounding_box() for number in (1, 2)]
        assert boxes[0]
        assert boxes[1]
        assert (boxes[0]["y"] == boxes[1]["y"]) == (width == 1280), "side by side where there is room"
        # WCAG AA asks for 4.5 between a text and what it stands on.
        for place in (".text", ".soft", ".kind", ".change", "a", "ins", ".line button"):
            assert page.locator(place).first.evaluate(CONTRAST) >= 4.5, place
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Aller aux résultats"
        page.close()


CONTRAST = """element => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => numbers(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let under = element;
  while (under.parentElement && numbers(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
  const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(under).backgroundColor)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""
