"""Waveforms: what is written is read, loudness and onsets lie in the frames where they are."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from soundback.errors import MediaError
from soundback.media import audio
from tests.synthetic import noise, tone

RATE, HOP = 8000, 320


def test_wav_read_and_written_again_is_the_same_file(tmp_path):
    first, second = tmp_path / "first.wav", tmp_path / "second.wav"
    audio.write_wav(first, noise(duration_s=1, sample_rate=RATE, amplitude=0.5), RATE)  # some of it clips
    waveform = audio.read_wav(first)
    audio.write_wav(second, waveform, RATE)
    assert waveform.dtype == np.float32
    assert waveform.shape == (RATE,)
    assert first.read_bytes() == second.read_bytes()
    assert (soundfile.info(first).subtype, soundfile.info(first).samplerate) == ("PCM_16", RATE)


def test_wav_keeps_a_waveform_within_half_a_step(tmp_path):
    waveform = noise(duration_s=1, sample_rate=RATE)
    audio.write_wav(tmp_path / "noise.wav", waveform, RATE)
    np.testing.assert_allclose(audio.read_wav(tmp_path / "noise.wav"), waveform, atol=0.5 / 32768 + 1e-9)


def test_unusable_wavs_are_named(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", np.zeros((100, 2)), RATE)
    (tmp_path / "text.wav").write_text("no sound")
    for name, status in (("stereo.wav", "not_media"), ("text.wav", "not_media"), ("nothing.wav", "missing")):
        with pytest.raises(MediaError, match=name) as caught:
            audio.read_wav(tmp_path / name)
        assert caught.value.status == status


@settings(deadline=None)  # first calls are slow on a busy machine
@given(n=st.integers(0, 3000), hop=st.integers(1, 700), window=st.integers(1, 2000))
def test_loudness_of_a_frame_is_the_rms_around_its_middle(n, hop, window):
    waveform = noise(duration_s=n / 100, sample_rate=100)
    loudness = audio.rms_db(waveform, hop=hop, window_samples=window, floor_db=-60)
    assert loudness.dtype == np.float32
    assert len(loudness) == n // hop
    for frame in range(0, n // hop, 7):
        start = frame * hop + (hop - window) // 2
        heard = waveform[max(start, 0) : start + window].astype(np.float64)
        expected = max(20 * np.log10(np.sqrt(np.mean(heard**2))), -60)
        assert loudness[frame] == pytest.approx(expected, abs=1e-3)


def test_loudness_has_a_floor():
    assert (audio.rms_db(np.zeros(RATE, np.float32), hop=HOP, window_samples=1280, floor_db=-60) == -60).all()


@pytest.mark.parametrize("background", [0.0, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_click_anywhere_in_a_frame_peaks_in_that_frame(background, rate):
    random = np.random.default_rng(7)
    hop = rate // 25
    for trial in range(20):
        waveform = noise(duration_s=1, sample_rate=rate, amplitude=background, seed=trial)
        at, length = random.integers(hop, rate - 50), random.integers(1, 40)
        waveform[at : at + length] += 0.5 * (-1.0) ** np.arange(length) * np.exp(-np.arange(length) / 10)
        strength = audio.onset_strength(waveform, sample_rate=rate, hop=hop)
        assert strength.shape == (25,)
        assert 1 + strength[1:].argmax() == at // hop  # frame 0 holds the onset of the background


@pytest.mark.parametrize("attack_s", [0.005, 0.02, 0.03])
def test_soft_attack_peaks_within_one_frame(attack_s):
    random = np.random.default_rng(3)
    for _ in range(30):
        at = random.integers(HOP, RATE // 2)
        body = tone(600, duration_s=0.4, sample_rate=RATE)
        times_s = np.arange(len(body)) / RATE
        waveform = noise(duration_s=1, sample_rate=RATE, amplitude=1e-3)
        waveform[at : at + len(body)] += body * np.minimum(times_s / attack_s, 1) * np.exp(-times_s * 10)
        strength = audio.onset_strength(waveform, sample_rate=RATE, hop=HOP)
        assert 0 <= 1 + strength[1:].argmax() - at // HOP <= 1


def test_sound_from_the_very_start_sets_in_at_frame_zero():
    strength = audio.onset_strength(noise(duration_s=1, sample_rate=RATE), sample_rate=RATE, hop=HOP)
    assert strength.argmax() == 0
    assert strength[0] > 10 * strength[1:].max()


def test_silence_has_no_onsets_and_too_little_sound_no_frames():
    assert not audio.onset_strength(np.zeros(RATE, np.float32), sample_rate=RATE, hop=HOP).any()
    assert audio.onset_strength(np.zeros(HOP - 1, np.float32), sample_rate=RATE, hop=HOP).shape == (0,)


@pytest.mark.parametrize("steady", ["hum", "tone", "rush"])
def test_strike_stands_out_of_a_steady_sound(steady):
    seconds = {"duration_s": 4, "sample_rate": RATE}
    background = {
        "hum": sum(tone(83 * k, amplitude=0.05 / k, **seconds) for k in range(1, 12)),
        "tone": tone(440, amplitude=0.2, **seconds),
        "rush": noise(amplitude=0.03, **seconds),
    }[steady]
    at = 2 * RATE + 57
    partials = ((700, 0.2), (1930, 0.1), (3400, 0.05))
    strike = sum(tone(f, duration_s=0.5, sample_rate=RATE, amplitude=a) for f, a in partials)
    waveform = background.copy()
    waveform[at : at + len(strike)] += strike * np.exp(-np.arange(len(strike)) / RATE * 8)
    strength = audio.onset_strength(waveform, sample_rate=RATE, hop=HOP)
    others = np.delete(strength, [0, at // HOP])
    assert strength[at // HOP] > 2 * others.max()


def test_onset_strength_does_not_depend_on_what_else_the_clip_holds():
    alone = noise(duration_s=1, sample_rate=RATE, amplitude=0.001)
    alone[4000:4100] += tone(1000, duration_s=100 / RATE, sample_rate=RATE, amplitude=0.05)
    beside_something_loud = np.concatenate([alone, noise(duration_s=1, sample_rate=RATE, amplitude=0.3)])
    first = audio.onset_strength(alone, sample_rate=RATE, hop=HOP)
    second = audio.onset_strength(beside_something_loud, sample_rate=RATE, hop=HOP)
    np.testing.assert_allclose(first, second[:25], atol=1e-4)


@pytest.mark.parametrize("mu", [15, 255])
def test_mu_law_classes_survive_decoding_and_encoding(mu):
    classes = np.arange(mu + 1)
    np.testing.assert_array_equal(audio.mu_law_encode(audio.mu_law_decode(classes, mu), mu), classes)
    assert audio.mu_law_encode(np.zeros(1)).dtype == np.int32
    assert audio.mu_law_decode(classes).dtype == np.float32


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50),
    mu=st.sampled_from([1, 15, 255, 1023, 65535]),
)
def test_mu_law_round_trip_stays_within_half_a_step_of_the_companded_curve(values, mu):
    waveform = np.array(values)

    def companded(x: np.ndarray) -> np.ndarray:
        """F(x) = sgn(x) ln(1 + mu |x|) / ln(1 + mu), as ITU-T G.711 and the WaveNet paper have it."""
        return np.copysign(np.log(1 + mu * np.abs(x)) / np.log(1 + mu), x)

    decoded = audio.mu_law_decode(audio.mu_law_encode(waveform, mu), mu).astype(np.float64)
    # Steps are even on the curve: mu of them from -1 to 1. Where it is steepest, they are narrowest on the waveform.
    assert (np.abs(companded(decoded) - companded(waveform)) <= 1 / mu + 1e-6).all()
    slope = np.log(1 + mu) * (1 + mu * np.maximum(np.abs(waveform), np.abs(decoded))) / mu
    assert (np.abs(decoded - waveform) <= slope / mu + 1e-7).all()


@settings(deadline=None)
@given(
    first=st.floats(allow_nan=False),
    second=st.floats(allow_nan=False),
    mu=st.sampled_from([1, 15, 255, 65535]),
)
def test_mu_law_keeps_order_sign_and_range(first, second, mu):
    low, high = audio.mu_law_encode(np.array(sorted([first, second])), mu)
    assert 0 <= low <= high <= mu
    (mirrored,) = audio.mu_law_encode(np.array([-first]), mu)
    (plain,) = audio.mu_law_encode(np.array([first]), mu)
    assert mirrored + plain in (mu, mu + 1)  # ties at the middle between two classes go up on both sides


@settings(deadline=None)
@given(data=st.data(), hop=st.integers(1, 700), n_frames=st.integers(1, 40), rest=st.integers(0, 699))
def test_frame_k_covers_the_samples_from_k_hops_to_the_next(data, hop, n_frames, rest):
    n_samples = n_frames * hop + rest % hop
    at = data.draw(st.integers(0, n_samples - 1))
    waveform = np.zeros(n_samples, np.float32)
    waveform[at] = 1
    heard = np.flatnonzero(audio.rms_db(waveform, hop=hop, window_samples=hop, floor_db=-60) > -60)
    # What comes after the last whole frame belongs to none.
    assert list(heard) == ([at // hop] if at // hop < n_frames else [])
