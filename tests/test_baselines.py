"""The simple predictors that a WaveNet has to beat, on sounds whose entropy is known."""

from dataclasses import replace

import numpy as np
import pytest

from soundback.media.audio import mu_law_decode, write_wav
from soundback.sounding.baselines import Baselines
from soundback.sounding.clips import CuedClip

HOP, N_FRAMES = 100, 400


def clip_of(path, waveform):
    write_wav(path, np.asarray(waveform, np.float32), 1000)
    nothing = np.zeros(len(waveform) // HOP, np.float32)
    return CuedClip(path, "Bell", 10, HOP, nothing, nothing, nothing.astype(int))


def test_independent_samples_cost_their_entropy_and_their_past_is_of_no_help(tmp_path):
    generator = np.random.default_rng(0)
    chances = np.array([0.5, 0.25, 0.125, 0.125])
    classes = generator.choice([60, 120, 140, 200], HOP * N_FRAMES, p=chances)
    clip = clip_of(tmp_path / "a.wav", mu_law_decode(classes))
    bits = Baselines.fit([clip]).measure([clip], 1)
    assert bits["histogram_bits"] == pytest.approx(1.75, abs=0.03)
    assert bits["previous_sample_bits"] == pytest.approx(1.75, abs=0.03)


def test_a_cycle_costs_nothing_after_the_previous_sample(tmp_path):
    cycle = np.tile([100, 150, 110, 140], HOP * N_FRAMES // 4)
    clip = clip_of(tmp_path / "a.wav", mu_law_decode(cycle))
    bits = Baselines.fit([clip]).measure([clip], 1)
    assert bits["histogram_bits"] == pytest.approx(2, abs=0.05)
    assert bits["previous_sample_bits"] < 0.05


def test_the_linear_prediction_finds_the_coefficients_of_an_autoregression(tmp_path):
    generator = np.random.default_rng(1)
    waveform = np.zeros(HOP * N_FRAMES)
    noise = generator.laplace(scale=0.02, size=len(waveform))
    for t in range(2, len(waveform)):
        waveform[t] = 1.6 * waveform[t - 1] - 0.8 * waveform[t - 2] + noise[t]
    clip = clip_of(tmp_path / "a.wav", waveform)
    baselines = Baselines.fit([clip])
    np.testing.assert_allclose(baselines.coefficients[-2:], [-0.8, 1.6], atol=0.05)
    np.testing.assert_allclose(baselines.coefficients[:-2], 0, atol=0.05)
    bits = baselines.measure([clip], 1)
    assert bits["linear_prediction_bits"] < bits["previous_sample_bits"] < bits["histogram_bits"]


def test_only_whole_windows_are_measured(tmp_path):
    generator = np.random.default_rng(2)
    quiet, loud = 0.01 * generator.normal(size=30 * HOP), 0.4 * generator.normal(size=5 * HOP)
    clip = clip_of(tmp_path / "a.wav", np.concatenate([quiet, loud]))
    first = replace(clip, loudness_db=clip.loudness_db[:30], hit=clip.hit[:30])
    baselines = Baselines.fit([clip])
    assert baselines.measure([clip], 15) == baselines.measure([first], 15)
