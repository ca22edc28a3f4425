"""Cue sheets as files: written, read back, and refused with every fault; and as captions."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundback.cue_files import CAPTION_S, read_cues, write_captions, write_cues
from soundback.cues import CueSheet, Segment
from soundback.errors import DataContractError


@st.composite
def sheets(draw):
    n_frames, rate = draw(st.integers(1, 60)), draw(st.sampled_from([10, 25, 30, 50]))
    borders = sorted(draw(st.sets(st.integers(0, n_frames), max_size=6)))
    names = st.sampled_from(["Drum", "Rain, heavy", 'the "Bell"', "Pluie d'été"])
    segments = tuple(
        Segment(start / rate, end / rate, draw(names), draw(st.floats(0, 1)))
        for start, end in zip(borders[::2], borders[1::2], strict=False)
    )
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    loudness_db = generator.uniform(-60, 0, n_frames).astype(np.float32)
    hit = (generator.random(n_frames) * (generator.random(n_frames) < 0.2)).astype(np.float32)
    return CueSheet(rate, segments, loudness_db, hit)


@settings(deadline=None, max_examples=60)
@given(sheets())
def test_reading_what_was_written_gives_the_same_sheet(tmp_path_factory, sheet):
    path = tmp_path_factory.mktemp("cues") / "cues.csv"
    write_cues(sheet, path)
    assert read_cues(path) == sheet


def test_a_sheet_survives_a_spreadsheet_that_drops_comments_and_pads_rows(tmp_path):
    sheet = CueSheet(25, (Segment(0.0, 0.08, "Drum", 0.5),), np.float32([-20, -30]), np.float32([0, 0.25]))
    write_cues(sheet, tmp_path / "a.csv")
    lines = [line for line in (tmp_path / "a.csv").read_text().splitlines() if not line.startswith("#")]
    (tmp_path / "b.csv").write_text("\r\n".join(lines) + "\r\n")
    assert read_cues(tmp_path / "b.csv") == sheet


def test_every_fault_of_a_broken_sheet_is_named_with_its_line(tmp_path):
    path = tmp_path / "broken.csv"
    path.write_text(
        "# comment\nkind,start_s,end_s,category,value\n"
        "segment,0,0.08,Drum,1.5\n"
        "loudness,0.0,0.04,,-20\n"
        "loudness,abc,0.08,,-20\n"
        "boom,0,0.04,,1\n"
        "hit,0.04,0.0,,1\n"
        "segment,0,0.08,,1\n"
    )
    with pytest.raises(DataContractError) as caught:
        read_cues(path)
    message = str(caught.value)
    assert "5 fault(s)" in message
    for line, words in [(3, "between 0 and 1"), (5, "abc"), (6, "boom"), (7, "before end_s"), (8, "needs a category")]:
        assert any(f"line {line}:" in row and words in row for row in message.splitlines()), (line, message)


def test_rows_that_do_not_fit_each_other_are_named(tmp_path):
    path = tmp_path / "broken.csv"
    path.write_text(
        "kind,start_s,end_s,category,value\n"
        "segment,0,0.08,Drum,1\nsegment,0.04,0.12,Bell,1\n"
        "loudness,0.0,0.04,,-20\nloudness,0.04,0.08,,-20\nloudness,0.04,0.08,,-21\nhit,0.05,0.09,,1\n"
    )
    with pytest.raises(DataContractError, match="4 fault") as caught:
        read_cues(path)
    assert "line 3: this segment starts before" in str(caught.value)
    assert "line 6: a second loudness at 0.04 s; the first is in line 5" in str(caught.value)
    assert "line 3: the segment ends at 0.12 s, after the last frame (0.08 s)" in str(caught.value)
    assert "line 7: 0.05 s is no frame time" in str(caught.value)


def faults_of(path, *rows, categories=None) -> list[str]:
    path.write_text("kind,start_s,end_s,category,value\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataContractError) as caught:
        read_cues(path, categories)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


LOUD = ["loudness,0.0,0.04,,-20", "loudness,0.04,0.08,,-20", "loudness,0.08,0.12,,-20"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([LOUD[0], LOUD[2]], ["there is no loudness at 0.04 s; every frame needs one"]),
        ([*LOUD, "hit,0.04,0.08,,1", "hit,0.04,0.08,,0.5"], ["line 6: a second hit at 0.04 s; the first is in line 5"]),
        ([*LOUD, "hit,0.2,0.24,,1"], ["line 5: the hit is after the last frame (0.12 s)"]),
        ([*LOUD, "segment,0.041,0.055,Bell,1"], ["line 5: the segment is shorter than a frame (1/25 s)"]),
        (["loudness,0,4,,-20"], ["line 2: a loudness row is one frame long, 1/25 s for instance, not 4 s"]),
        (["loudness,0,1e-9,,-20"], ["line 2: a loudness row is one frame long, 1/25 s for instance, not 1e-09 s"]),
        (["segment,0,1,Bell,1"], ["there is no loudness row; every frame needs one"]),
    ],
)
def test_what_is_missing_double_or_beyond_the_end_is_named(tmp_path, rows, expected):
    assert faults_of(tmp_path / "cues.csv", *rows) == expected


def test_a_row_far_beyond_the_end_is_named_and_takes_no_memory(tmp_path):
    found = faults_of(tmp_path / "cues.csv", LOUD[0], "loudness,1e12,1000000000000.04,,-20")
    assert found[:2] == [f"there is no loudness at {k / 25:g} s; every frame needs one" for k in (1, 2)]
    assert len(found) == 5


def test_categories_are_checked_only_against_those_that_are_given(tmp_path):
    path = tmp_path / "cues.csv"
    (fault,) = faults_of(path, *LOUD, "segment,0,0.12,Horn,1", categories=("Bell", "Drum"))
    assert fault == "line 5: the models do not know 'Horn'; they know Bell, Drum"
    assert read_cues(path).segments == (Segment(0.0, 0.12, "Horn", 1.0),)


def captions(path) -> list[tuple[float, float, str]]:
    """Start, end and text of each caption, read as the WebVTT standard has it."""
    head, *blocks = path.read_text().rstrip("\n").split("\n\n")
    assert head == "WEBVTT"
    found = []
    for block in blocks:
        if block.startswith("NOTE"):
            continue
        times, text = block.split("\n")
        start, end = (seconds(each) for each in times.split(" --> "))
        found.append((start, end, text))
    return found


def seconds(clock: str) -> float:
    hours, minutes, rest = re.fullmatch(r"(\d\d):(\d\d):(\d\d\.\d\d\d)", clock).groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_captions_say_what_sounds_how_loud_and_when_it_hits(tmp_path):
    hit = np.zeros(200, np.float32)
    hit[[0, 30, 60, 120]] = 1
    loudness_db = np.repeat(np.float32([-10, -25, -50]), (50, 50, 100))
    segments = (Segment(0.0, 2.0, "Drum", 1.0), Segment(2.0, 4.0, "Bell", 0.8), Segment(4.8, 8.0, "Rain", 0.9))
    write_captions(CueSheet(25, segments, loudness_db, hit), tmp_path / "a.vtt")
    assert captions(tmp_path / "a.vtt") == [
        (0.0, 2.0, "[Drum, loud] \u2022 <00:00:01.200>\u2022"),
        (2.0, 4.0, "[Bell] <00:00:02.400>\u2022"),
        (4.8, 8.0, "[Rain, quiet] \u2022"),
    ]


def test_a_caption_is_repeated_while_its_segment_lasts(tmp_path):
    n_frames = 25 * 4000
    segment = Segment(0.0, 4000.0, "Rain", 1.0)
    sheet = CueSheet(25, (segment,), np.full(n_frames, -20, np.float32), np.zeros(n_frames, np.float32))
    write_captions(sheet, tmp_path / "a.vtt")
    found = captions(tmp_path / "a.vtt")
    assert len(found) == 4000 / CAPTION_S
    assert found[-1] == (3995.0, 4000.0, "[Rain]")
    assert all(before[1] == after[0] for before, after in itertools.pairwise(found))
