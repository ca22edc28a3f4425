"""The cue sheet: measured, and told to a network."""

import numpy as np
import pytest

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
