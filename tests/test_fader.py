"""The fader brings a sound to the loudness that the cue sheet says."""

import numpy as np
import pytest

from soundback.judging.trials import Ear
from soundback.media.audio import rms_db
from soundback.params import load_params
from soundback.sounding.fader import MOST_BOOST_DB, ride

SAMPLE_RATE, HOP = 8000, 320
MEASURED = {"hop": HOP, "window_samples": 1280, "floor_db": -60.0}


def noise(level_db, n_frames=100):
    samples = np.random.default_rng(0).normal(size=n_frames * HOP)
    return (10 ** (level_db / 20) * samples).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("level_db", [-45.0, -20.0])
def test_the_loudness_measured_on_the_result_is_the_one_asked_for(level_db):
    wanted_db = (-30 + 10 * np.sin(np.arange(100) / 12)).astype(np.float32)
    ridden = ride(noise(level_db), wanted_db, np.zeros(100, np.float32), **MEASURED)
    np.testing.assert_allclose(rms_db(ridden, **MEASURED), wanted_db, atol=1.0)


def test_a_sound_that_is_right_stays_as_it_is():
    waveform = noise(-25.0)
    ridden = ride(waveform, rms_db(waveform, **MEASURED), np.zeros(100, np.float32), **MEASURED)
    np.testing.assert_allclose(ridden, waveform, atol=1e-6)


def test_silence_is_not_boosted_into_noise():
    wanted_db = np.full(100, -10, np.float32)
    ridden = ride(noise(-60.0), wanted_db, np.zeros(100, np.float32), **MEASURED)
    assert rms_db(ridden, **MEASURED).max() <= -60 + MOST_BOOST_DB + 3
    assert not ride(np.zeros(100 * HOP, np.float32), wanted_db, np.zeros(100, np.float32), **MEASURED).any()


def test_the_level_waits_for_a_hit_instead_of_rising_towards_it():
    hit = np.zeros(100, np.float32)
    hit[50] = 1
    # As a window of four frames sees a sound that starts at frame 50: it rises before.
    wanted_db = np.where(np.arange(100) < 48, -60, -15).astype(np.float32)
    ridden = ride(noise(-25.0), wanted_db, hit, **MEASURED)
    level = np.abs(ridden.reshape(100, HOP)).max(axis=1)
    assert level[:49].max() < 0.05 * level[51:].max()


def test_following_a_curve_that_is_a_little_wrong_makes_no_onsets_of_its_own():
    """Thuds that die away too soon, under the loudness of longer ones with the errors that a prediction has."""
    times_s, at_s = np.arange(125 * HOP) / SAMPLE_RATE, (0.5, 1.5, 2.6, 3.7)
    n_more = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        made, real = (thuds(times_s, at_s, decay) + 1e-4 * rng.normal(size=len(times_s)) for decay in (30, 9))
        wanted_db = rms_db(real, **MEASURED) + rng.normal(0, 1.5, 125)
        hit = np.isin(np.arange(125), [round(25 * at) for at in at_s]).astype(np.float32)
        ridden = ride(made.astype(np.float32), wanted_db.astype(np.float32), hit, **MEASURED)
        n_more += len(Ear(SAMPLE_RATE, HOP, load_params().cues).find_onsets(ridden)) - len(at_s)
    # Of 32; with twice as many passes there are a dozen more.
    assert 0 <= n_more <= 2


def thuds(times_s, at_s, decay):
    """Tones that set in at some times and die away."""
    since_s = [times_s - at for at in at_s]
    return 0.5 * np.sum([(s >= 0) * np.exp(-decay * s.clip(0)) * np.sin(400 * np.pi * s) for s in since_s], axis=0)
