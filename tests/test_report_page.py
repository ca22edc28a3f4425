"""The report in a real browser: for eyes, for a phone, for the keyboard and for a screen reader."""

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

from soundback.attrition import Account
from soundback.judging import report
from soundback.judging.curves import Curve
from soundback.judging.provenance import read_provenance
from tests import heard
from tests.synthetic import Film
from tests.test_browser import find_browser
from tests.test_provenance import STAGES

# They need a browser, which `make test-all` sees to and `make test` does not.
pytestmark = pytest.mark.slow

DESK, PHONE = {"width": 1300, "height": 900}, {"width": 360, "height": 740}
each_width = pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A page that shows all there can be."""
    root = tmp_path_factory.mktemp("data")
    trials = heard.make_trials()
    for trial in trials:
        trial.sounds["paper"] = trial.sounds["category_only"]
    results = heard.with_every_outcome(heard.make_results(trials))
    cell = {"mean": 7.25, "low": 6.0, "high": 8.5, "n": 6}
    nothing = {"mean": None, "low": None, "high": None, "n": 0}
    stitched = dict.fromkeys(results.evaluation["rows"]["real"], nothing) | {"seam_discontinuity_db": cell}
    rows = results.evaluation["rows"] | {"paper_stitched": stitched}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": STAGES}))
    report.write_report(
        replace(results, evaluation=results.evaluation | {"rows": rows}),
        trials,
        heard.make_examples(trials, results, Film(duration_s=4.0).write(root / "clip.mp4")),
        root / "report",
        heard.SAMPLE_RATE,
        missed=[np.full((32, 32), 10 * place, np.uint8) for place in range(len(results.watching.missed))],
        accounts=[
            Account(label, 9, 8, 6, {"private": 2, "duplicate": 1}, {"private": "Private video"})
            for label in heard.CATEGORIES
        ],
        provenance=read_provenance([Path("data/models")], [root / "dvc.lock"]),
        curves=[
            Curve(name, ((1, 3.0), (2, 2.0)), ((1, 2.5), (2, 2.0))) for name in ("classifier", "spotter", "wavenet")
        ],
    )
    return (root / "report" / "index.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        # As root Chromium has no sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        found = find_browser(playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    """The page, which may ask nobody for anything, and whose script must not fail."""
    page = browser.new_page(viewport=DESK)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(address)
    yield page
    page.close()
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [address]
    assert not errors


def unfold(page: Page) -> None:
    """Opens all that can be opened."""
    page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")


@each_width
def test_axe_finds_nothing_serious(page, viewport):
    page.set_viewport_size(viewport)
    unfold(page)
    found = Axe().run(page).response
    assert len(found["passes"]) > 20, "it has looked"
    grave = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert not grave, [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in grave]


@each_width
def test_the_page_itself_never_scrolls_sideways(page, viewport):
    page.set_viewport_size(viewport)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
        unfold(page)


def test_every_picture_is_there(page):
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_tab_reaches_every_link_player_fold_and_all_that_scrolls(page):
    unfold(page)
    wanted = page.evaluate(
        """() => {
            const scrolls = element => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
            const all = [...document.querySelectorAll("main *, nav *, .skip")].filter(
                element => element.matches("a[href], video, audio, summary") || scrolls(element));
            all.forEach((element, place) => { element.dataset.place = place; });
            return all.length;
        }"""
    )
    reached = set()
    for _ in range(20 * wanted):
        page.keyboard.press("Tab")
        place = page.evaluate("document.activeElement.dataset.place")
        if place is None:
            break  # Past the last of them.
        reached.add(int(place))
    assert reached == set(range(wanted))


def test_the_first_tab_offers_to_skip_to_the_results(page):
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the results")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()


def test_headings_go_down_one_level_at_a_time_and_there_is_one_of_each_landmark(page):
    levels = [int(tag[1]) for tag in page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => one.tagName)")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for role in ("banner", "navigation", "main"):
        expect(page.get_by_role(role)).to_have_count(1)


def test_every_cell_of_every_table_has_a_header_for_its_row_and_its_column(page):
    odd = page.locator("table").evaluate_all(
        """tables => tables.flatMap(table => {
            const width = cells => [...cells].reduce((sum, cell) => sum + cell.colSpan, 0);
            const n_columns = width(table.tHead.rows[0].cells);
            const bad = [...table.tHead.querySelectorAll("td, th:not([scope])")].map(cell => cell.outerHTML);
            for (const body of table.tBodies) {
                let above = 0;  // rows that the header of several still covers
                for (const row of body.rows) {
                    const header = row.querySelector("th[scope^=row]");
                    const covered = !header && above > 0;
                    above = header ? header.rowSpan - 1 : above - 1;
                    if (!(header || covered) || width(row.cells) + covered !== n_columns) bad.push(row.outerHTML);
                }
            }
            return bad.map(html => html.slice(0, 200));
        })"""
    )
    assert not odd


def test_what_a_row_is_called_stays_in_sight_while_its_numbers_are_scrolled(page):
    page.set_viewport_size(PHONE)
    region = page.get_by_role("group", name="The table")
    name = region.get_by_role("rowheader").first
    before = name.bounding_box()["x"]
    region.focus()
    region.evaluate("region => { region.scrollLeft = 10000; }")
    assert region.evaluate("region => region.scrollLeft") > 300
    assert name.bounding_box()["x"] == pytest.approx(before, abs=1)


def test_real_and_generated_video_stand_side_by_side_and_on_a_phone_one_under_the_other(page):
    def places():
        article = page.get_by_role("article").first
        return [article.locator("video").nth(place).bounding_box() for place in range(2)]

    real, made = places()
    assert made["x"] >= real["x"] + real["width"]
    assert made["y"] == real["y"]
    page.set_viewport_size(PHONE)
    real, made = places()
    assert made["x"] == real["x"]
    assert made["y"] >= real["y"] + real["height"]


def test_a_line_goes_over_the_spectrogram_with_the_sound_and_one_sound_ends_another(page):
    article = page.get_by_role("article").first
    first, second = (article.locator("audio").nth(place) for place in range(2))
    line = article.locator(".playhead")
    expect(line).to_be_hidden()
    for player in (first, second):
        player.focus()
        page.keyboard.press("Space")
        page.wait_for_function("player => player.currentTime > 0", arg=player.element_handle())
        expect(line).to_be_visible()
    expect(first).to_have_js_property("paused", True)
    second.evaluate("player => { player.pause(); player.currentTime = player.duration / 2; }")
    spectra = article.locator(".spectra")
    start, end = (float(spectra.get_attribute(f"data-{name}")) for name in ("start", "end"))
    page.wait_for_function(
        "line => Math.abs(parseFloat(line.style.left) - %f) < 0.1" % ((start + end) / 2), arg=line.element_handle()
    )


def test_a_stage_that_is_pointed_at_unfolds(page):
    folded = page.locator("details#stage-train")
    expect(folded).not_to_have_attribute("open", "")
    page.get_by_role("link", name="train").click()
    expect(folded).to_have_attribute("open", "")
    expect(folded.get_by_text("data/models/x.keras")).to_be_visible()
    assert folded.locator("code").first.get_attribute("title") == "0" * 32
