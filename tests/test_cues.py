"""The cue sheet: measured, written, read, told to a network."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundback.cue_files import read_cues, write_cues
from soundback.cues import (
    N_CURVE_FEATURES,
    CueSheet,
    Hearing,
    Segment,
    conditioning,
    pick_hits,
)
from soundback.errors import DataContractError
from soundback.params import Cues

SAMPLE_RATE, HOP = 8000, 320
PARAMS = Cues(loudness_window_s=0.16, loudness_floor_db=-60.0, hit_quantile=0.99, hit_threshold=0.3)


def thuds(*at_s, duration_s=2.0):
    """Decaying tones that start at the given times."""
    time = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    parts = [np.where(time >= at, np.exp(-12 * (time - at)) * np.sin(2 * np.pi * 200 * (time - at)), 0) for at in at_s]
    return np.sum(parts, axis=0).astype(np.float32) * 0.5


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


def test_hits_are_measured_where_the_sound_starts_and_nowhere_else():
    waveform = thuds(0.30, 0.90, 1.50)
    hearing = Hearing.of([waveform], sample_rate=SAMPLE_RATE, hop=HOP, cues=PARAMS)
    _, hit = hearing.measure(waveform)
    frames = np.flatnonzero(hit)
    assert np.all(np.abs(frames - np.array([0.30, 0.90, 1.50]) * 25) <= 1)


def test_loudness_follows_the_level_decibel_by_decibel():
    waveform = thuds(0.3, 0.9)
    hearing = Hearing.of([waveform], sample_rate=SAMPLE_RATE, hop=HOP, cues=PARAMS)
    loud, _ = hearing.measure(waveform)
    soft, _ = hearing.measure(waveform / 2)
    above_floor = soft > PARAMS.loudness_floor_db
    np.testing.assert_allclose((loud - soft)[above_floor], 20 * np.log10(2), atol=1e-3)
    assert soft.min() >= PARAMS.loudness_floor_db


def test_only_maxima_above_the_threshold_are_hits_and_edges_count():
    strength = np.array([0.9, 0.1, 0.1, 0.1, 0.5, 0.8, 0.5, 0.1, 0.2, 0.1, 3.0])
    np.testing.assert_allclose(pick_hits(strength, 0.3), [0.9, 0, 0, 0, 0, 0.8, 0, 0, 0, 0, 1.0])


def test_conditioning_tells_category_confidence_and_curves():
    sheet = CueSheet(25, (Segment(0.04, 0.12, "Bell", 0.75),), np.float32([-60, -30, 0, -30]), np.float32([0, 1, 0, 0]))
    told = conditioning(sheet, ["Bell", "Drum"])
    assert told.shape == (4, 2 + N_CURVE_FEATURES)
    np.testing.assert_array_equal(told[:, 0], [0, 0.75, 0.75, 0])
    np.testing.assert_array_equal(told[:, 1], 0)
    np.testing.assert_allclose(told[:, 2], [-1, 0, 1, 0])
    np.testing.assert_allclose(told[:, 3], [0, 2, 2, -2])
    np.testing.assert_array_equal(told[:, 4], sheet.hit)
    np.testing.assert_array_equal(conditioning(sheet, ["Bell", "Drum"], with_curves=False)[:, 2:], 0)


def test_a_category_that_the_model_does_not_know_is_named():
    sheet = CueSheet(25, (Segment(0, 0.04, "Cello", 1.0),), np.float32([-20]), np.float32([0]))
    with pytest.raises(DataContractError, match=r"'Cello'.*It knows Bell, Drum"):
        conditioning(sheet, ["Bell", "Drum"])
