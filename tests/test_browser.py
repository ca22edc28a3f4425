"""Prefect's pages in a real browser: what a user finds there, starts, sees and stops."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import yaml
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.clones import Clone, make_clone
from tests.prefects import Ui, ui_in
from tests.processes import processes_in, still_running

# Each builds a dataset, and the first trains as well.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_BROWSER = "These tests need a browser: `make browser` finds one or installs it."
PAGE_S = 120
"""How long a page may take."""
BUILD_S = 900
"""How long a whole run of the smoke profile may take on a busy machine."""


def find_browser(installed: str) -> str:
    """A browser of the system, or the one that Playwright installed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), installed)
    assert Path(found).exists(), NO_BROWSER
    return found


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a browser that may ask this machine only; anything else that it asks fails the test."""
    with sync_playwright() as playwright:
        # As root Chromium has no sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        found = find_browser(playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        page = browser.new_page(viewport={"width": 1300, "height": 1100})
        page.set_default_timeout(1000 * PAGE_S)
        expect.set_options(timeout=1000 * PAGE_S)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        yield page
        browser.close()
    contacted = [urlsplit(url.removeprefix("blob:")) for url in asked if not url.startswith("data:")]
    assert {url.hostname for url in contacted} == {"127.0.0.1"}


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    root = tmp_path / "clone"
    root.mkdir()
    clone = make_clone(root, profile="smoke")
    (root / "dvc.lock").unlink()  # It speaks of other params, and of data that is not here.
    clone.run("git", "add", "--all")
    # Without a commit DVC cannot record a run.
    clone.run("git", "-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet", "--message", "all")
    return clone


@pytest.fixture
def ui(clone: Clone) -> Iterator[Ui]:
    with ui_in(clone) as ui:
        yield ui


@pytest.fixture
def shoot(page: Page, tmp_path: Path) -> Callable[[str], None]:
    """Writes what the page looks like to a numbered file."""
    shots = tmp_path / "shots"
    shots.mkdir()

    def take(name: str) -> None:
        page.wait_for_timeout(1000)  # Its graphs and cards move into place.
        page.screenshot(path=shots / f"{len(list(shots.iterdir())) + 1:02}-{name}.png")

    return take


def test_a_user_starts_a_run_with_other_labels_watches_it_and_sees_its_numbers_and_pictures(
    page: Page, ui: Ui, shoot: Callable[[str], None]
) -> None:
    open_form(page, ui, "pipeline")
    shoot("form")
    fill_list(page, "labels", ["Drum", "Bell"])
    field(page, "keep").get_by_role("switch").click()
    shoot("form-filled")
    submit(page, "drums-and-bells")
    badge(page, "Running")
    shoot("running")
    badge(page, "Completed", within_s=BUILD_S)
    shoot("completed")

    page.reload()  # The pages count the tasks once.
    expect(page.get_by_role("banner")).to_contain_text("14 Task runs")
    open_tab(page, "Task Runs")
    for task in ("extract_audio@bell", "extract_frames@drum", "train_wavenet", "evaluate"):
        expect(page.get_by_role("link", name=task, exact=True)).to_be_visible()
    assert set(yaml.safe_load((ui.clone.root / "params.yaml").read_text())["labels"].values()) == {"Drum", "Bell"}
    assert "drums-and-bells" in ui.clone.run("dvc", "exp", "show", "--csv"), "DVC tells the same story"

    run = page.url
    open_artifact(page, "metrics")
    shoot("metrics")
    measured = json.loads((ui.clone.root / "data" / "metrics" / "classifier.json").read_text())
    shown = read_table(page)
    for name in ("accuracy", "macro_f1", "n_clips", "steps_done"):
        assert shown[f"classifier.{name}"] == [f"{round(measured[name], 4):g}", "", "new"]

    page.goto(run)
    open_artifact(page, "evaluation-spectrograms")
    assert n_colours(page.locator("img")) > 100, "a spectrogram is drawn"
    shoot("spectrograms")
    page.goto(run)
    open_artifact(page, "dataset")
    assert page.get_by_role("row").filter(has_text="Bell").count() == 1
    shoot("losses")

    open_form(page, ui, "pipeline")
    fill_list(page, "settings", [f"classifier.steps={measured['steps_done'] + 1}"])
    fill_list(page, "stages", ["train_classifier"])
    submit(page, "one-step-more")
    badge(page, "Completed", within_s=BUILD_S)
    open_artifact(page, "metrics")
    shoot("metrics-changed")
    steps = measured["steps_done"]
    assert read_table(page)["classifier.steps_done"] == [str(steps + 1), str(steps), "+1.0000"]


def test_a_second_run_is_held_until_the_first_is_cancelled_which_leaves_nothing_behind(
    page: Page, ui: Ui, shoot: Callable[[str], None]
) -> None:
    root = ui.clone.root
    params = (root / "params.yaml").read_bytes()
    open_form(page, ui, "pipeline")
    fill_list(page, "labels", ["Drum", "Bell"])
    submit(page, "the-first")
    first = page.url
    # When there is something to put back.
    wait_until(lambda: (root / "dvc.lock").exists() and "list_videos@bell" in (root / "dvc.lock").read_text())
    wait_until(lambda: any("stages." in command for command in commands(processes_in(root))))
    (flow,) = [each for each in processes_in(root) if "prefect.engine" in "".join(commands([each]))]

    open_form(page, ui, "dataset")
    submit(page, "the-second")
    second = page.url
    badge(page, "Held", within_s=60)
    open_tab(page, "Details")
    expect(page.get_by_text("The workspace is taken by run 'the-first' of pipeline")).to_be_visible()
    page.get_by_text("See More").click()
    expect(page.get_by_text("This one begins when that has ended.").last).to_be_visible()
    shoot("held")

    page.goto(first)
    badge(page, "Running")
    page.get_by_role("button", name="Cancel", exact=True).click()
    shoot("cancel")
    work = flow.children(recursive=True)
    assert any("stages." in command for command in commands(work))
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    assert not still_running(work, within_s=5)
    assert not still_running([flow], within_s=15), "it has told Prefect's server how it ended"
    assert (root / "params.yaml").read_bytes() == params
    badge(page, "Cancelled", within_s=60)
    shoot("cancelled")

    page.goto(second)
    badge(page, "Completed", within_s=BUILD_S)
    shoot("went-on")
    assert (root / "params.yaml").read_bytes() == params
    locked = (root / "dvc.lock").read_text()
    assert "extract_audio@rain" in locked
    assert "@bell" not in locked, "the lock was put back before the second began"
    assert not (root / ".dvc" / "tmp" / "flow.lock").read_text()


def test_a_schedule_switched_on_fires_and_what_falls_due_during_a_run_is_held_and_then_skips_all(
    page: Page, ui: Ui, shoot: Callable[[str], None]
) -> None:
    weekly = ui.deployment("dataset/dataset-weekly")
    (schedule,) = weekly["schedules"]
    assert not schedule["active"]
    # A build takes longer than that, so the second falls due while the first is at work.
    ui.change(f"deployments/{weekly['id']}/schedules/{schedule['id']}", schedule={"interval": 5})
    find_deployment(page, ui, "dataset-weekly")
    shoot("schedule-off")
    page.get_by_role("switch").click()
    expect(page.get_by_role("switch")).to_be_checked()
    shoot("schedule-on")
    wait_until(lambda: len(ui.runs_of("dataset/dataset-weekly")) > 1, within_s=180)
    first, second = (run["id"] for run in ui.runs_of("dataset/dataset-weekly")[:2])
    # Due every 5 s they come faster than they end.
    page.get_by_role("switch").click()
    expect(page.get_by_role("switch")).not_to_be_checked()

    assert ui.wait_until(first, BUILD_S)["state"]["name"] == "Completed"
    assert set(ui.task_states(first).values()) == {"Completed"}
    assert len(ui.task_states(first)) == 9
    page.goto(f"{ui.address}/runs/flow-run/{second}")
    badge(page, "Completed", within_s=120)
    shoot("second")
    passed = ui.states_passed(second)
    (held,) = [message for name, message in passed if name == "Held"]
    assert f"run {ui.run(first)['name']!r} of dataset" in held
    assert [name for name, _ in passed][-3:] == ["Held", "Running", "Completed"]
    assert passed[-1][1] == "9 skipped"
    wait_until(lambda: set(ui.task_states(second).values()) == {"Skipped"})


def find_deployment(page: Page, ui: Ui, *words: str) -> None:
    """Clicks through to the only deployment whose row begins with these words."""
    page.goto(ui.address)
    page.get_by_text("Deployments", exact=True).first.click()
    row = page.get_by_role("row", name=" ".join(words))
    row.get_by_role("link").first.click()


def open_form(page: Page, ui: Ui, flow: str) -> None:
    find_deployment(page, ui, f"{flow}-now", flow)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text("Custom run").click()
    expect(page.get_by_role("button", name="Add item").first).to_be_visible()


def field(page: Page, name: str) -> Locator:
    """What belongs to one field of a form."""
    label = page.get_by_text(f"{name} (Optional)", exact=True)
    return page.locator(".p-label").filter(has=label).last


def fill_list(page: Page, name: str, items: list[str]) -> None:
    for number, item in enumerate(items):
        field(page, name).get_by_role("button", name="Add item").click()
        field(page, name).get_by_role("textbox").nth(number).fill(item)


def submit(page: Page, name: str) -> None:
    """Names the run, sends the form, and opens the run that it starts."""
    # Last of all: while it loads, the form thinks of a name itself.
    page.wait_for_timeout(2000)
    page.get_by_role("textbox").first.fill(name)
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("button", name="View run").last.click()
    page.wait_for_url(re.compile("/runs/flow-run/"))


def badge(page: Page, state: str, *, within_s: float = 60) -> None:
    """Waits until the page of a run shows this state; at once an error if it shows another final one."""
    shown = page.get_by_role("banner").get_by_text(re.compile(f"^({state}|Completed|Failed|Crashed|Cancelled)$"))
    shown.wait_for(timeout=1000 * within_s)
    assert shown.inner_text() == state


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tablist").get_by_text(name, exact=True).click()


def open_artifact(page: Page, key: str) -> None:
    open_tab(page, "Artifacts")
    page.get_by_role("link", name=re.compile(rf"^\w+ {key} ")).click()
    expect(page.get_by_role("heading", name="Artifact", exact=True)).to_be_visible()


def read_table(page: Page) -> dict[str, list[str]]:
    """The rows of the table on an artifact's page: what stands before the last cell, by the last one."""
    expect(page.get_by_role("columnheader", name="change")).to_be_in_viewport()
    rows = [row.get_by_role("cell").all_inner_texts() for row in page.get_by_role("row").all()[1:20]]
    return {cells[-1].strip(): [cell.strip() for cell in cells[:-1]] for cells in rows}


def n_colours(image: Locator) -> int:
    """How many colours a picture has as the browser draws it."""
    image.wait_for()
    return image.evaluate(
        """async image => {
            await image.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
            return new Set(pixels).size;
        }"""
    )


def commands(processes: list[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        try:
            found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def wait_until(is_so: Callable[[], bool], *, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)
