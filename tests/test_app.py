"""The page of `soundback app`: in a real browser, and what it is made of without one."""

import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect, sync_playwright

from soundback.app import segment_table, sheet_picture
from soundback.app.page import Limits
from soundback.app.serving import open_app
from soundback.app.visitors import Stopped, Visitors
from soundback.cue_files import read_cues, write_cues
from soundback.cues import CueSheet, Segment
from soundback.errors import DataContractError, MediaError, SoundbackError
from soundback.media.containers import probe
from soundback.soundtrack import Soundtrack
from soundback.takes import Take
from tests.synthetic import Film
from tests.test_browser import NO_BROWSER, find_browser
from tests.tiny import CATEGORIES, FRAME_RATE, make_soundtrack

DESK, PHONE = {"width": 1300, "height": 1000}, {"width": 360, "height": 740}
WAIT_S = 60
MOST_MB, MOST_MINUTES = 1, 0.2

slow = pytest.mark.slow
"""Of what needs a browser, `make test` runs the first test only."""

HOP = 320
"""Of 8 kHz, so that there is something to see in a spectrogram."""


class SteadySpotter:
    """Stands in for the spotter: as loud all the time, and a hit every second."""

    size, fit, frame_rate = 8, "stretch", FRAME_RATE

    def predict(self, batches):
        n_frames = sum(len(batch) for batch in batches)
        hit = np.zeros(n_frames, np.float32)
        hit[::FRAME_RATE] = 0.8
        return np.linspace(-35, -15, n_frames, dtype=np.float32), hit


FILM = Film(duration_s=4.0, size=(160, 90), events_s=(1.0,), flash_s=1.0)
"""Dark, and bright from 1 s to 2 s."""


@pytest.fixture(scope="module")
def soundtrack() -> Soundtrack:
    return make_soundtrack(SteadySpotter(), hop=HOP)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory) -> Iterator[Path]:
    """The only folder that anything may be written to."""
    folder = tmp_path_factory.mktemp("temporary")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def address(soundtrack, temporary) -> Iterator[str]:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        port = probing.getsockname()[1]
    contacted: set[str] = set()

    def watch_sockets(event: str, arguments: tuple) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            contacted.add(arguments[1][0])
        elif event == "socket.getaddrinfo":
            contacted.add(str(arguments[0]))

    sys.addaudithook(watch_sockets)  # It stays, but nobody looks at what it finds later.
    with open_app(soundtrack, port=port, most_mb=MOST_MB, most_minutes=MOST_MINUTES) as address:
        yield address
    assert contacted <= {"127.0.0.1", "localhost"}, "the server itself asks no other machine either"
    assert not Path(".gradio").exists()
    assert not list(temporary.glob("soundback-app-*")), "all is removed when the page is no longer served"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        try:
            found = find_browser(playwright.chromium.executable_path)
        except AssertionError:
            pytest.skip(NO_BROWSER)
        # As root Chromium has no sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Opens pages, which may ask their own server only, and whose scripts must not fail."""
    asked, errors, contexts = [], [], []

    def visit() -> Page:
        contexts.append(browser.new_context(viewport=DESK))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * WAIT_S)
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.goto(address)
        return page

    expect.set_options(timeout=1000 * WAIT_S)
    yield visit
    for context in contexts:
        context.close()
    elsewhere = {urlsplit(url.removeprefix("blob:")).netloc for url in asked if not url.startswith("data:")}
    assert elsewhere == {urlsplit(address).netloc}
    assert not errors


@pytest.fixture
def page(open_page) -> Page:
    return open_page()


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return FILM.write(tmp_path_factory.mktemp("film") / "film.mp4")


def bring(page: Page, file: Path, *, place: int = 0) -> None:
    page.locator("input[type=file]").nth(place).set_input_files(file)


def press(page: Page, name: str) -> None:
    """Presses a button as a keyboard does."""
    page.get_by_role("button", name=re.compile(rf"^{name}( ▼)?$")).focus()
    page.keyboard.press("Enter")


def said(page: Page):
    return page.locator(".said", has_text="Done.")


def watch(page: Page, film: Path) -> None:
    bring(page, film)
    expect(page.get_by_text("film.mp4: 4.0 s, 160 x 90 pixels, with sound of its own.")).to_be_visible()
    press(page, "Watch and sound")
    expect(said(page)).to_be_visible()


def fetch(page: Page, link: str, folder: Path) -> Path:
    with page.expect_download() as started:
        page.get_by_role("link", name=link).click()
    out = folder / started.value.suggested_filename
    started.value.save_as(out)
    return out


def test_a_visitor_brings_a_video_hears_it_corrects_it_by_keyboard_hears_it_again_and_takes_it_away(
    page, film, tmp_path
):
    watch(page, film)
    made = page.get_by_label("Your video with sound")
    page.wait_for_function("video => video.readyState >= 2 && video.duration > 3.9", arg=made.element_handle())
    first = made.get_attribute("src")
    words = page.locator(".sheet img").get_attribute("alt")
    assert "Drum from 0.00 to 1.00 s, 83% sure; Bell from 1.00 to 2.00 s" in words
    assert "hits at 0.00, 1.00, 2.00, 3.00 s; loudness from -35 to -15 dB" in words
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 1000)")

    line = page.locator(".playhead")
    expect(line).to_be_hidden()
    made.focus()
    page.keyboard.press("Space")
    page.wait_for_function("video => video.currentTime > 0", arg=made.element_handle())
    expect(line).to_be_visible()
    made.evaluate("video => { video.pause(); video.currentTime = video.duration / 2; }")
    page.wait_for_function("line => Math.abs(parseFloat(line.style.left) - 50) < 0.1", arg=line.element_handle())

    page.get_by_label("Segment 2 what sounds").focus()
    page.keyboard.press("ArrowDown")  # Bell, Drum
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Segment 2 louder by, in dB")).to_be_focused()
    page.keyboard.type("6")
    press(page, "Sound it again")
    page.wait_for_function(
        "([video, first]) => video.getAttribute('src') !== first", arg=[made.element_handle(), first]
    )
    assert "Drum from 1.00 to 2.00 s" in page.locator(".sheet img").get_attribute("alt")
    expect(page.get_by_label("Segment 2 louder by, in dB")).to_have_value("6")

    video = fetch(page, "Download the video with sound", tmp_path)
    assert video.name == "film_with_sound.mp4"
    facts = probe(video)
    assert facts.has_audio
    assert facts.duration_s == pytest.approx(4.0, abs=0.05)
    sheet = read_cues(fetch(page, "Download the cue sheet", tmp_path), CATEGORIES)
    assert [segment.category for segment in sheet.segments] == ["Drum", "Drum", "Drum"]
    expected = SteadySpotter().predict([np.zeros(100)])[0]
    expected[25:50] += 6
    np.testing.assert_allclose(sheet.loudness_db, expected, atol=1e-4)


@slow
def test_a_table_that_says_nonsense_is_named_row_by_row_and_nothing_is_sounded(page, film):
    watch(page, film)
    source = page.get_by_label("Your video with sound").get_attribute("src")
    page.get_by_label("Segment 1 ends at").fill("1.5")
    page.get_by_label("Segment 3 ends at").fill("9")
    press(page, "Add a segment")
    expect(page.get_by_label("Segment 4 starts at")).to_be_focused()
    page.get_by_label("Segment 4 starts at").fill("3")
    page.get_by_label("Segment 4 ends at").fill("2.5")
    press(page, "Sound it again")
    fault = page.get_by_role("alert").filter(has_text="Nothing was sounded")
    expect(fault).to_be_in_viewport()  # Far from the button that was pressed, but seen.
    for words in (
        "Row 2 starts at 1 s, before row 1 has ended (1.5 s).",
        "Row 3 ends at 9 s; the video is 4.00 s long.",
        "Row 4 ends at 2.5 s, and does not start before that (3 s).",
    ):
        expect(fault).to_contain_text(words)
    assert page.get_by_label("Your video with sound").get_attribute("src") == source


@slow
def test_an_edited_cue_sheet_takes_the_place_of_the_table_and_a_faulty_one_is_named_by_its_lines(page, film, tmp_path):
    watch(page, film)
    sheet = fetch(page, "Download the cue sheet", tmp_path)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(sheet.read_text().replace(",Bell,", ",Gong,"))
    bring(page, wrong, place=1)
    fault = page.get_by_role("alert").filter(has_text="wrong.csv has 1 fault(s)")
    expect(fault).to_contain_text("line 4: the models do not know 'Gong'; they know Bell, Drum")
    assert "/" not in fault.inner_text().split("has 1 fault")[0], "where it lies on the server is told to nobody"
    right = tmp_path / "right.csv"
    right.write_text(sheet.read_text().replace(",Bell,", ",Drum,"))
    bring(page, right, place=1)
    expect(page.get_by_text("right.csv is in the table now.")).to_be_visible()
    expect(page.get_by_label("Segment 2 what sounds")).to_have_value("Drum")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("long.mp4", "long.mp4 is 0.3 minutes long; this page takes at most 0.2."),
        ("<b>broken.mp4", "broken.mp4 is not a video or sound file, or its head is damaged."),
        ("list.mp4", "list.mp4 is a playlist, not a video; it could name any other file."),
        ("big.mp4", "exceed the maximum allowed size of 1.0 Mb"),
    ],
)
@slow
def test_what_cannot_be_sounded_is_refused_in_a_sentence(page, tmp_path, temporary, name, words):
    file = tmp_path / name
    if name == "long.mp4":
        Film(duration_s=16.0).write(file)
    else:
        file.write_bytes({"list.mp4": b"#EXTM3U\n", "big.mp4": bytes(1_200_000)}.get(name, b"no video" * 100))
    bring(page, file)
    expect(page.get_by_text(words)).to_be_visible()
    assert page.locator("b").count() == 0, "what visitors write is shown as they wrote it"
    assert not list(temporary.rglob(name))
    press(page, "Watch and sound")
    expect(page.get_by_role("alert").filter(has_text="Bring a video first.")).to_be_visible()


@pytest.fixture
def slow_watching(soundtrack, monkeypatch):
    """Has watching take a minute; says whether it is under way, and counts how often it was ended before."""
    counts = {"begun": 0, "ended": 0}

    def spot(video, take, progress):
        counts["begun"] += 1
        try:
            for done in range(600):
                time.sleep(0.1)
                progress(done, 600)
        except Stopped:
            counts["ended"] += 1
            raise

    monkeypatch.setattr(soundtrack, "spot", spot)
    return counts


def wait_until(is_so, *, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@slow
def test_stop_ends_the_work_itself_and_the_page_goes_on(page, film, slow_watching, monkeypatch):
    bring(page, film)
    expect(page.get_by_text("film.mp4:")).to_be_visible()
    press(page, "Watch and sound")
    expect(page.get_by_role("progressbar", name="Watching")).to_be_visible()
    expect(page.get_by_text(" s left")).to_be_visible()
    press(page, "Stop")
    expect(page.get_by_text("Stopped.")).to_be_visible()
    wait_until(lambda: slow_watching["ended"] == 1, within_s=3)
    expect(page.get_by_role("progressbar")).to_have_count(0)
    monkeypatch.undo()
    press(page, "Watch and sound")
    expect(said(page)).to_be_visible()


@slow
def test_a_failure_that_nobody_foresaw_is_told_and_the_page_goes_on(page, film, soundtrack, monkeypatch):
    def fail(video, take, progress):
        raise RuntimeError("a bug")

    bring(page, film)
    expect(page.get_by_text("film.mp4:")).to_be_visible()
    monkeypatch.setattr(soundtrack, "spot", fail)
    press(page, "Watch and sound")
    expect(page.get_by_role("alert").filter(has_text="in a way that nobody foresaw")).to_be_visible()
    expect(page.get_by_role("progressbar")).to_have_count(0)
    monkeypatch.undo()
    press(page, "Watch and sound")
    expect(said(page)).to_be_visible()


@slow
@pytest.mark.parametrize(
    ("label", "typed", "words"),
    [
        ("Loudness in LUFS", "loud", "Loudness must be a number from -70 to 0 LUFS, not 'loud'."),
        ("Loudness in LUFS", "6", "Loudness must be a number from -70 to 0 LUFS, not '6'."),
        ("Seed", "", "The seed must be a whole number from 0 to 4294967295."),
        ("Seed", "-1", "The seed must be a whole number from 0 to 4294967295."),
    ],
)
def test_an_option_that_cannot_be_is_named(page, film, label, typed, words):
    bring(page, film)
    expect(page.get_by_text("film.mp4:")).to_be_visible()
    press(page, "Options")
    page.get_by_label(label).fill(typed)
    press(page, "Watch and sound")
    expect(page.get_by_role("alert").filter(has_text=words)).to_be_visible()


@slow
def test_the_options_reach_the_sound(page, film, soundtrack, monkeypatch):
    takes, generate = [], soundtrack.generate

    def note(video, out, *, take, **options):
        takes.append(take)
        return generate(video, out, take=take, **options)

    monkeypatch.setattr(soundtrack, "generate", note)
    bring(page, film)
    expect(page.get_by_text("film.mp4:")).to_be_visible()
    press(page, "Options")
    page.get_by_label("Loudness in LUFS").fill("-30")
    page.get_by_label("Keep it, and add ours").focus()
    page.keyboard.press("Space")
    page.get_by_label("What it is, when watching").focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    press(page, "Watch and sound")
    expect(said(page)).to_be_visible()
    (take,) = takes
    assert take == Take(0, "Drum", "quiet", mix="keep", loudness_lufs=-30.0)
    assert "What sounds when: Drum from 0.00 to" in page.locator(".sheet img").get_attribute("alt")


@slow
def test_the_second_visitor_waits_and_goes_on_when_the_first_closes_the_page_and_neither_leaves_files(
    open_page, film, slow_watching, temporary
):
    first, second = open_page(), open_page()
    for page in (first, second):
        bring(page, film)
        expect(page.get_by_text("film.mp4:")).to_be_visible()
        press(page, "Watch and sound")
        if page is first:
            expect(page.get_by_role("progressbar", name="Watching")).to_be_visible()
    expect(second.get_by_text("queue: 1/1")).to_be_visible()
    assert slow_watching == {"begun": 1, "ended": 0}
    folders = [path.parent.parent for path in temporary.rglob("film.mp4")]
    assert len(folders) == 2
    first.close()
    wait_until(lambda: slow_watching == {"begun": 2, "ended": 1})
    wait_until(lambda: sum(folder.exists() for folder in folders) == 1)
    second.close()
    wait_until(lambda: slow_watching["ended"] == 2)
    wait_until(lambda: not any(folder.exists() for folder in folders))
    assert not [path for path in temporary.rglob("*") if path.suffix in (".mp4", ".wav", ".csv")]


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@slow
def test_axe_finds_nothing_serious_and_the_page_never_scrolls_sideways(page, film, viewport):
    page.set_viewport_size(viewport)
    assert page.evaluate("document.documentElement.lang") == "en"
    press(page, "Options")
    watch(page, film)
    found = Axe().run(page).response
    assert len(found["passes"]) > 20, "it has looked"
    grave = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert not grave, [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in grave]
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


@slow
def test_two_hundred_segments_stay_usable(page, tmp_path):
    film = Film(duration_s=8.0, size=(160, 90)).write(tmp_path / "film.mp4")
    segments = tuple(Segment(i / 25, (i + 1) / 25, CATEGORIES[i % 2], 0.5) for i in range(200))
    curves = np.full(200, -20, np.float32), np.zeros(200, np.float32)
    write_cues(CueSheet(50, segments[:100], *curves), tmp_path / "other_rate.csv")
    write_cues(CueSheet(FRAME_RATE, segments, *curves), tmp_path / "many.csv")
    bring(page, film)
    expect(page.get_by_text("film.mp4: 8.0 s")).to_be_visible()
    press(page, "Watch and sound")
    expect(said(page)).to_be_visible()
    bring(page, tmp_path / "other_rate.csv", place=1)
    expect(page.get_by_role("alert").filter(has_text="50 loudness rows per second; the models need 25")).to_be_visible()
    bring(page, tmp_path / "many.csv", place=1)
    last = page.get_by_label("Segment 200 what sounds")
    last.focus()
    began = time.monotonic()
    for _ in range(10):
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowDown")
    assert time.monotonic() - began < 5
    press(page, "Remove segment 1")
    expect(page.get_by_label("Segment 200 what sounds")).to_have_count(0)
    press(page, "Sound it again")
    expect(said(page)).to_be_visible()
    words = page.locator(".sheet img").get_attribute("alt")
    assert "and 187 more, all in the table" in words


SHEET = CueSheet(
    FRAME_RATE,
    (Segment(0.0, 1.0, "Drum", 0.83), Segment(1.0, 2.0, "Bell", 0.9)),
    np.full(100, -30, np.float32),
    np.zeros(100, np.float32),
)


def changed(**changes) -> str:
    """The table of SHEET with the second row changed."""
    rows = json.loads(segment_table.rows_of(SHEET))
    rows[1] |= changes
    return json.dumps(rows)


def test_a_table_that_was_not_touched_says_the_sheet_it_was_filled_from():
    assert segment_table.edited(SHEET, segment_table.rows_of(SHEET), CATEGORIES) == SHEET


def test_louder_raises_the_loudness_of_its_segment_alone_and_times_move_to_the_next_frame():
    edited = segment_table.edited(SHEET, changed(louder_db="-4.5", start_s="1.219", category="Drum"), CATEGORIES)
    assert edited.segments[1] == Segment(1.2, 2.0, "Drum", 0.9)
    np.testing.assert_array_equal(edited.loudness_db[[29, 30, 49, 50]], [-30, -34.5, -34.5, -30])
    assert (SHEET.loudness_db == -30).all()


def test_rows_may_stand_in_any_order():
    rows = json.loads(segment_table.rows_of(SHEET))[::-1]
    assert segment_table.edited(SHEET, json.dumps(rows), CATEGORIES) == SHEET


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start_s": ""}, "Row 2: the start is no number."),
        ({"end_s": "nan"}, "Row 2: the end is no number."),
        ({"louder_db": None}, "Row 2: louder by dB is no number."),
        ({"category": "Gong"}, "Row 2: the models do not know 'Gong'; they know Bell, Drum."),
        ({"confidence": 1.5}, "Row 2: how sure must lie between 0 and 1, not be 1.5."),
        ({"start_s": 3}, "Row 2 ends at 2 s, and does not start before that (3 s)."),
        ({"start_s": -1}, "Row 2 starts before the video."),
        ({"start_s": 1.99}, "Row 2 is shorter than a frame (1/25 s)."),
        ({"end_s": 4.1}, "Row 2 ends at 4.1 s; the video is 4.00 s long."),
        ({"end_s": 1e300}, "Row 2 ends at 1e+300 s"),
        ({"start_s": 0.5}, "Row 2 starts at 0.5 s, before row 1 has ended (1 s)."),
        ({"louder_db": 200}, "Row 2: louder by 200 dB is too much; at most 60."),
    ],
)
def test_each_fault_of_a_table_is_named_by_its_row(changes, words):
    with pytest.raises(DataContractError, match="Nothing was sounded") as caught:
        segment_table.edited(SHEET, changed(**changes), CATEGORIES)
    assert words in str(caught.value)


@pytest.mark.parametrize("rows", ["", "{}", "[1]", "null", "[[]]"])
def test_what_is_no_table_at_all_is_refused(rows):
    with pytest.raises(DataContractError, match="no table"):
        segment_table.edited(SHEET, rows, CATEGORIES)


def test_what_sounds_when_is_told_in_words():
    assert sheet_picture.tell(SHEET) == (
        "What sounds when: Drum from 0.00 to 1.00 s, 83% sure; Bell from 1.00 to 2.00 s, 90% sure; 0 hits; "
        "loudness from -30 to -30 dB."
    )


@pytest.mark.parametrize("duration_s", [4.0, 40.0], ids=["decoded-through", "by-key-frames"])
def test_the_strip_shows_each_stretch_of_the_video_in_its_place(tmp_path, duration_s):
    film = Film(duration_s=duration_s, size=(160, 90), events_s=(duration_s / 2,), flash_s=duration_s / 2)
    frames = sheet_picture.read_strip(film.write(tmp_path / "film.mp4"), n_frames=6)
    assert [np.asarray(frame).mean() > 128 for frame in frames] == [False] * 3 + [True] * 3


def test_a_picture_that_a_player_turns_stands_upright_in_the_strip(tmp_path):
    film = Film(size=(160, 90), rotation=90).write(tmp_path / "film.mp4")
    (frame,) = sheet_picture.read_strip(film, n_frames=1)
    assert frame.height > frame.width


def test_work_begun_anew_ends_the_work_before_it_and_who_leaves_has_no_files_left(tmp_path, film):
    visitors = Visitors(tmp_path)
    visitor = visitors.of("somebody")
    brought = shutil.copy(film, tmp_path / "brought.mp4")
    visitor.take_video(Path(brought))

    def long(progress):
        for _ in range(600):
            time.sleep(0.05)
            progress(1, 2)

    first = visitors.begin(visitor, long, lambda done, total: None)
    second = visitors.begin(visitor, long, lambda done, total: None)
    with pytest.raises(Stopped, match=r"^$"):
        first.result(timeout=5)
    assert visitors.of("somebody") is visitor
    assert visitors.of("somebody else").folder != visitor.folder
    visitors.leave("somebody")
    with pytest.raises(Stopped, match=r"^$"):
        second.result(timeout=5)
    assert list(tmp_path.iterdir()) == []
    visitors.close()


def test_requests_that_belong_to_no_page_are_refused(tmp_path):
    with pytest.raises(SoundbackError, match="soundback generate"):
        Visitors(tmp_path).of(None)


def test_the_length_is_read_from_the_pictures(tmp_path):
    film = Film(duration_s=3.0).write(tmp_path / "film.mp4")
    assert Limits(1, 0.05).check(film) == "film.mp4: 3.0 s, 64 x 48 pixels, with sound of its own."
    with pytest.raises(MediaError, match=r"is 0.1 minutes long; this page takes at most 0\.04"):
        Limits(1, 0.04).check(film)


def test_the_server_fetches_nothing_for_visitors_and_answers_to_no_other_name(address):
    assert requests.get(f"{address}gradio_api/file=http://127.0.0.1:9/x", timeout=10).status_code == 404
    assert requests.get(address, headers={"Host": "example.org"}, timeout=10).status_code == 400
    large = {"files": ("large.mp4", bytes(1_200_000))}
    assert requests.post(f"{address}gradio_api/upload", files=large, timeout=10).status_code == 413
    assert "connect-src 'self'" in requests.get(address, timeout=10).headers["Content-Security-Policy"]


def test_an_address_that_a_forged_request_puts_in_a_files_place_is_not_fetched(address, monkeypatch):
    fetched = []

    async def fetch(url: str, cache_dir: str) -> str:
        fetched.append(url)
        raise OSError(url)

    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", fetch)
    settings = requests.get(f"{address}config", timeout=10).json()
    uploads = [part["id"] for part in settings["components"] if part["type"] == "file"]
    taking = next(each["id"] for each in settings["dependencies"] if each["inputs"] == uploads[:1])
    forged = {"path": "http://elsewhere.example/film.mp4", "meta": {"_type": "gradio.FileData"}}
    asking = {"fn_index": taking, "data": [forged], "session_hash": "forged"}
    joined = requests.post(f"{address}gradio_api/queue/join", json=asking, timeout=10)
    assert joined.ok
    with requests.get(f"{address}gradio_api/queue/data?session_hash=forged", stream=True, timeout=10) as answers:
        said = next(line for line in answers.iter_lines(decode_unicode=True) if "process_completed" in line)
    assert "nothing is fetched from elsewhere" in said
    assert not fetched


def test_a_port_that_is_taken_is_named(soundtrack, address):
    port = urlsplit(address).port
    with (
        pytest.raises(SoundbackError, match=f"port {port}: the port is taken"),
        open_app(soundtrack, port=port, most_mb=1, most_minutes=1),
    ):
        pass
