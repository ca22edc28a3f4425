"""Loudness and peaks are what other meters say, however the sound comes in pieces; what is normalised keeps both."""

import re
import subprocess
import warnings

import numpy as np
import pyloudnorm
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.signal import resample, resample_poly

from soundback.media import audio, ffmpeg, loudness
from soundback.params import Audio
from tests.synthetic import clicks, noise, tone

RATE = 8000
RATES = (8000, 11025, 16000, 22050, 44100, 48000, 96000)


def wanting(*, rate: int = RATE, lufs: float = -20, peak_db: float = -1) -> Audio:
    return Audio(sample_rate=rate, loudness_lufs=lufs, true_peak_db=peak_db, min_duration_s=1, silence_db=-60)


def measured(waveform: np.ndarray, *, rate: int = RATE, piece: int = 1 << 16) -> loudness.Measured:
    pieces = (waveform[start : start + piece] for start in range(0, len(waveform), piece))
    return loudness.measure(pieces, sample_rate=rate, silence_db=-60)


def stored(waveform: np.ndarray) -> np.ndarray:
    """As 16-bit samples hold it."""
    return (np.clip(np.rint(waveform * 32768), -32768, 32767) / 32768).astype(np.float32)


def by_pyloudnorm(waveform: np.ndarray, rate: int) -> float:
    return pyloudnorm.Meter(rate).integrated_loudness(waveform.astype(np.float64))


def sine_between_samples(rate: int, n: int) -> np.ndarray:
    """A quarter of the rate, 45 degrees off its crests, faded in and out: samples of 0.7 under a curve of 1."""
    return (np.sin(np.pi / 2 * np.arange(n) + np.pi / 4) * np.hanning(n)).astype(np.float32)


@st.composite
def sounds(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Sounds of all kinds, levels, rates and lengths, those about as long as one gating block among them."""
    rate = draw(st.sampled_from(RATES))
    duration_s = draw(st.sampled_from([0.01, 0.3, 0.399, 0.4, 0.401, 0.449, 0.46, 0.5, 0.74]) | st.floats(0.5, 2.0))
    level = 10 ** (draw(st.floats(-85, 3)) / 20)
    n, seed = round(duration_s * rate), draw(st.integers(0, 99))
    times_s = np.arange(n) / rate
    white = noise(duration_s=1 + duration_s, sample_rate=rate, amplitude=0.3, seed=seed)[:n]
    kinds = {
        "noise": white,
        "tone": np.sin(2 * np.pi * draw(st.floats(30, rate / 2 - 30)) * times_s + seed),
        "clicks": clicks([0, duration_s / 2, duration_s - 3 / rate], duration_s=2 + duration_s, sample_rate=rate)[:n],
        "square": np.sign(np.sin(2 * np.pi * draw(st.floats(30, 3000)) * times_s)),
        "between samples": sine_between_samples(rate, n),
        "alternating": (-1.0) ** np.arange(n),
        "dying away": white * 10 ** (-draw(st.floats(1, 60)) / 20 * times_s * 4),
        "loud then quiet": white * np.where(times_s < draw(st.floats(0, 2)), 1, 10 ** (-draw(st.floats(0, 60)) / 20)),
        "one impulse": np.eye(1, n, draw(st.integers(0, n - 1)))[0],
    }
    return stored(kinds[draw(st.sampled_from(sorted(kinds)))] * level), rate


HALF_A_STEP_OVER = stored((-1.0) ** np.arange(6000)), 8000


@settings(deadline=None, max_examples=150)
@example(sound=HALF_A_STEP_OVER, piece=97)
@given(sound=sounds(), piece=st.sampled_from([1, 7, 97, 1000, 4095, 1 << 16]))
def test_measured_in_pieces_it_is_what_the_whole_is(sound, piece):
    waveform, rate = sound
    waveform = waveform if piece > 1000 else waveform[: 200 * piece + 3]  # or it takes minutes
    found = measured(waveform, rate=rate, piece=piece)
    assert found.n_samples == len(waveform)
    at_once = np.abs(resample_poly(np.pad(waveform, 50).astype(np.float64), 4, 1)).max()
    assert 10 ** (found.true_peak_db / 20) == pytest.approx(at_once, rel=1e-12)
    tenth = round(rate / 10)
    rms = [np.sqrt(np.mean(waveform[i : i + tenth].astype(float) ** 2)) for i in range(0, len(waveform), tenth)]
    whole = rms[: len(waveform) // tenth] or [rms[0] * np.sqrt(len(waveform) / tenth)]
    assert found.silence_share == np.mean(np.array(whole) < 0.001)
    if len(waveform) < 0.4 * rate:
        assert found.loudness_lufs() is None
    else:
        assert found.loudness_lufs() == pytest.approx(by_pyloudnorm(waveform, rate), abs=1e-9) or (
            found.loudness_lufs() is None and by_pyloudnorm(waveform, rate) == -np.inf
        )


@settings(deadline=None, max_examples=400)
@given(sound=sounds(), lufs=st.integers(-40, -6), peak_db=st.integers(-20, 0))
def test_normalised_sound_has_the_loudness_asked_for_and_never_a_higher_peak(sound, lufs, peak_db):
    waveform, rate = sound
    before = measured(waveform, rate=rate)
    if before.true_peak_db == -np.inf:
        return
    gain = loudness.choose_gain(before, wanting(rate=rate, lufs=lufs, peak_db=peak_db))
    after = stored(gain.apply(waveform))
    peak_after = measured(after, rate=rate).true_peak_db
    assert peak_after <= peak_db
    if gain.limited_by == "loudness":
        assert by_pyloudnorm(after, rate) == pytest.approx(lufs, abs=0.5)
    else:
        # Up to the limit, as far as 16 bits reach: of sound that is one step high, rounding may take half.
        assert before.true_peak_db + gain.gain_db == pytest.approx(peak_db, abs=0.01)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", ["noise", "tone", "clicks", "swelling"])
def test_ffmpeg_s_own_meter_finds_the_loudness_asked_for(tmp_path, rate, kind):
    seconds = {"duration_s": 4, "sample_rate": rate}
    waveform = {
        "noise": noise(amplitude=0.02, **seconds),
        "tone": tone(997, amplitude=0.7, **seconds),
        "clicks": clicks(np.arange(0.05, 4, 0.1), **seconds),
        "swelling": noise(amplitude=0.05, **seconds) * np.linspace(0, 1, 4 * rate, dtype=np.float32),
    }[kind]
    gain = loudness.choose_gain(measured(waveform, rate=rate), wanting(rate=rate, lufs=-27))
    assert gain.limited_by == "loudness"
    wav = tmp_path / "sound.wav"
    audio.write_wav(wav, gain.apply(waveform), rate)
    command = [
        ffmpeg.ffmpeg_path(),
        "-nostats",
        "-i",
        str(wav),
        "-af",
        "ebur128=peak=true:framelog=quiet",
        "-f",
        "null",
    ]
    summary = subprocess.run([*command, "-"], capture_output=True, text=True, check=True).stderr
    assert float(re.findall(r"I: +(-[\d.]+) LUFS", summary)[-1]) == pytest.approx(-27, abs=0.5)
    assert float(re.findall(r"Peak: +(-[\d.]+) dBFS", summary)[-1]) <= -1


def test_what_passes_the_gate_only_after_the_gain_counts():
    quiet = noise(duration_s=4, sample_rate=RATE, amplitude=0.0004)
    quiet[2 * RATE :] *= 0.5
    waveform = stored(np.concatenate([quiet, quiet]))
    assert by_pyloudnorm(waveform, RATE) < -66
    gain = loudness.choose_gain(measured(waveform), wanting())
    assert gain.limited_by == "loudness"
    assert by_pyloudnorm(gain.apply(waveform), RATE) == pytest.approx(-20, abs=0.01)


@pytest.mark.parametrize("amplitude", [0.001, 0.02, 0.3])
def test_loudness_is_reached_by_linear_gain_alone(amplitude):
    before = noise(duration_s=3, sample_rate=RATE, amplitude=amplitude)
    gain = loudness.choose_gain(measured(before), wanting())
    assert gain.limited_by == "loudness"
    assert by_pyloudnorm(gain.apply(before), RATE) == pytest.approx(-20, abs=0.01)
    np.testing.assert_allclose(gain.apply(before), before * 10 ** (gain.gain_db / 20), rtol=1e-6)


def test_peaky_sound_stops_at_the_true_peak_limit(tmp_path):
    waveform = noise(duration_s=3, sample_rate=RATE, amplitude=0.001)
    waveform[RATE] = 0.4
    gain = loudness.choose_gain(measured(waveform), wanting())
    assert gain.limited_by == "peak"
    audio.write_wav(tmp_path / "peaky.wav", gain.apply(waveform), RATE)
    # Another oversampling, by Fourier transform, of what lies in the file.
    peak = np.abs(resample(audio.read_wav(tmp_path / "peaky.wav"), 4 * len(waveform))).max()
    assert -1.2 < 20 * np.log10(peak) <= -0.95
    assert measured(audio.read_wav(tmp_path / "peaky.wav")).true_peak_db <= -1


def test_sound_shorter_than_a_gating_block_goes_by_its_peak():
    waveform = tone(1000, duration_s=0.3, sample_rate=RATE)
    found = measured(waveform)
    gain = loudness.choose_gain(found, wanting())
    assert (found.loudness_lufs(), gain.limited_by) == (None, "peak")
    assert measured(gain.apply(waveform)).true_peak_db == pytest.approx(-1, abs=0.01)


def test_digital_silence_stays_silence_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measured(np.zeros(RATE, np.float32))
        gain = loudness.choose_gain(found, wanting())
    assert (gain.gain_db, found.loudness_lufs(), found.silence_share) == (0.0, None, 1)
    assert not gain.apply(np.zeros(RATE, np.float32)).any()


def test_true_peak_lies_between_the_samples():
    waveform = sine_between_samples(RATE, 6000)
    assert np.abs(waveform).max() == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert measured(waveform).true_peak_db == pytest.approx(0, abs=0.1)


def test_silence_share_counts_the_quiet_tenths():
    waveform = noise(duration_s=2, sample_rate=RATE)
    waveform[: RATE // 2] = 0
    assert measured(waveform).silence_share == 0.25
    assert measured(waveform[:100]).silence_share == 1
    assert measured(waveform[:0]).silence_share == 1
