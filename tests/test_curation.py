"""What is said of a clip, and that fingerprints know copies from strangers."""

import hashlib
import itertools
import os
import subprocess
import sys

import ffmpeg
import numpy as np
import pytest
import soundfile
from numpy._core._multiarray_umath import __cpu_dispatch__
from scipy.ndimage import gaussian_filter
from scipy.signal import butter, sosfilt

from soundback.errors import MediaError
from soundback.media import curation, loudness, prints
from soundback.media.curation import Inspection, inspect
from soundback.media.ffmpeg import run
from soundback.params import Curation
from tests.synthetic import Film, noise, tone

RATE, SECONDS = 44100, 4.0
HEIGHT, WIDTH = 120, 160
NOTHING = Curation(
    min_motion=None, max_clipped_share=None, silence_db=-60.0, max_silence_share=None, min_agreement=None,
    max_offset_s=0.5, max_print_distance=None,
)  # fmt: skip
NEAR, FAR = 0.12, 0.3


def wanting(**limits):
    return NOTHING.model_copy(update=limits)


PRINTS = wanting(max_print_distance=0.1)


def scene(seed):
    """A blob that is still, then jumps, over a background: its pictures, and when it jumps."""
    rng = np.random.default_rng(seed)
    blurred = gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), 12)
    background = 110 + 45 * blurred / blurred.std()
    times_s = np.sort(rng.choice(np.arange(3, round(SECONDS / 0.1) - 3), 9, replace=False)) * 0.1
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    places = rng.uniform((20, 20), (HEIGHT - 20, WIDTH - 20), (len(times_s) + 1, 2))
    pictures = []
    for k in range(round(SECONDS * 25)):
        row, column = places[np.searchsorted(times_s, k / 25 + 1e-9, side="right")]
        blob = 90 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 300)
        pictures.append(background + blob + rng.normal(0, 2, (HEIGHT, WIDTH)))
    return np.clip(pictures, 0, 255).astype(np.uint8), times_s


def knocks(times_s, seed):
    """A decaying noise of its own colour at each time, over a hiss."""
    rng = np.random.default_rng(1000 + seed)
    waveform = 0.001 * rng.normal(size=round(SECONDS * RATE))
    for time_s in times_s:
        low = rng.uniform(200, 1500)
        burst = sosfilt(butter(2, [low, 2 * low], "band", fs=RATE, output="sos"), rng.normal(size=RATE // 2))
        burst *= 0.2 / burst.std() * np.exp(-np.arange(len(burst)) / (0.06 * RATE))
        start = round(time_s * RATE)
        waveform[start : start + len(burst)] += burst[: len(waveform) - start]
    return waveform


def write(path, pictures, waveform, *, rate=25, **options):
    """Writes a clip; None for no sound."""
    height, width = pictures.shape[1:]
    streams = [ffmpeg.input("pipe:", format="rawvideo", pix_fmt="gray", s=f"{width}x{height}", framerate=rate)["v:0"]]
    sound_file = path.with_suffix(".wav")
    if waveform is not None:
        soundfile.write(sound_file, waveform, RATE, subtype="PCM_16")
        streams.append(ffmpeg.input(f"file:{sound_file}")["a:0"])
    options = {"c:v": "libx264", "preset": "veryfast", "crf": 23, "pix_fmt": "yuv420p", "c:a": "aac"} | options
    run(ffmpeg.output(*streams, f"file:{path}", **options), feed=[pictures.tobytes()])
    return path


def write_scene(path, seed, sound_of=None):
    pictures, times_s = scene(seed)
    return write(path, pictures, knocks(times_s, seed) if sound_of is None else knocks(scene(sound_of)[1], sound_of))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("clip") / "clip.mp4", 0)


def test_with_no_limit_set_the_file_is_not_even_opened(tmp_path):
    assert inspect(tmp_path / "there_is_none.mp4", NOTHING) == Inspection("ok", None, None, None)


def test_a_clip_that_is_all_right_is_ok_under_every_limit(clip):
    limits = wanting(
        min_motion=0.3, max_clipped_share=0.001, max_silence_share=0.5, min_agreement=0.3, max_print_distance=0.1
    )
    found = inspect(clip, limits)
    assert (found.status, found.reason) == ("ok", None)
    assert found.picture_print is not None
    assert len(found.picture_print) == len(found.sound_print or b"") == prints.PRINT_BITS // 8


def test_prints_are_made_only_where_asked_for_and_of_wanted_clips(clip):
    assert inspect(clip, wanting(min_motion=0.3)).picture_print is None
    rejected = inspect(clip, wanting(min_motion=100.0, max_print_distance=0.1))
    assert (rejected.status, rejected.picture_print, rejected.sound_print) == ("still", None, None)


COPIES = {
    "coded again and coarser": {"crf": 36, "b:a": "48k"},
    "smaller": {"vf": "scale=96:72", "ar": 22050},
    "larger and of another shape": {"vf": "scale=320:180"},
    "darker and with less contrast": {"vf": "eq=brightness=-0.1:contrast=0.8"},
    "quieter": {"af": "volume=-14dB"},
    "in WebM": {"c:v": "libvpx", "b:v": "300k", "c:a": "libopus", "ar": 48000, "f": "webm"},
    "at another frame rate": {"r": 30},
    "cut 60 ms later": {"ss": 0.06},
}


@pytest.mark.parametrize("options", COPIES.values(), ids=COPIES)
def test_a_copy_is_near_by_picture_and_by_sound(clip, tmp_path, options):
    path = tmp_path / "copy.mkv"
    encoders = {"c:v": "libx264", "preset": "veryfast", "c:a": "aac"}
    options = {{"vf": "filter:v", "af": "filter:a"}.get(name, name): value for name, value in options.items()}
    run(ffmpeg.input(f"file:{clip}").output(f"file:{path}", **encoders | options))
    one, other = inspect(clip, PRINTS), inspect(path, PRINTS)
    assert one != other
    assert prints.print_distance(one.picture_print, other.picture_print) < NEAR
    assert prints.print_distance(one.sound_print, other.sound_print) < NEAR


def test_strangers_are_far_by_picture_and_by_sound(clip, tmp_path):
    found = [inspect(clip, PRINTS), *(inspect(write_scene(tmp_path / f"{n}.mp4", n), PRINTS) for n in range(1, 5))]
    for one, other in itertools.combinations(found, 2):
        assert prints.print_distance(one.picture_print, other.picture_print) > FAR
        assert prints.print_distance(one.sound_print, other.sound_print) > FAR


def test_another_sound_over_the_same_picture_is_near_by_picture_alone(clip, tmp_path):
    one, other = inspect(clip, PRINTS), inspect(write_scene(tmp_path / "other.mp4", 0, sound_of=7), PRINTS)
    assert prints.print_distance(one.picture_print, other.picture_print) < NEAR
    assert prints.print_distance(one.sound_print, other.sound_print) > FAR


def test_what_stands_still_does_not_count(tmp_path):
    pictures, _ = scene(0)
    others = scene(1)[0]
    place = np.clip(pictures.astype(int) + others[0] - pictures[0], 0, 255).astype(np.uint8)
    same_camera = np.clip(others.astype(int) + pictures[0] - others[0], 0, 255).astype(np.uint8)

    def print_of(film):
        small = film[:, :96].reshape(len(film), 32, 3, 32, 5).mean(axis=(2, 4)).astype(np.uint8)
        return prints.picture_print(small)

    assert prints.print_distance(print_of(pictures), print_of(place)) < NEAR
    assert prints.print_distance(print_of(pictures), print_of(same_camera)) > FAR


def test_what_says_too_little_has_no_print_and_so_resembles_nothing(tmp_path):
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32), np.uint8), 50, axis=0)
    assert prints.picture_print(still) is None
    assert prints.picture_print(np.random.default_rng(0).integers(0, 256, (32, 32, 32), np.uint8)) is None
    flashes = inspect(Film().write(tmp_path / "flashes.mp4"), PRINTS)
    assert flashes.picture_print is None
    hum = tone(200, duration_s=3, sample_rate=8000)
    assert prints.sound_print(prints.band_levels(hum, 8000)) is None
    assert prints.sound_print(prints.band_levels(np.zeros(24000, np.float32), 8000)) is None
    assert prints.sound_print(prints.band_levels(noise(duration_s=1.2, sample_rate=8000), 8000)) is None


def made_prints():
    """Prints of a picture and a sound that hang on no library."""
    place = np.arange(60 * 32 * 32).reshape(60, 32, 32)
    pictures = ((place * place // 7919 + place // 512 * 31) % 256).astype(np.uint8)
    walk = (np.arange(3 * 8000) ** 2 // 77 % 2003 - 1001) * (np.arange(3 * 8000) // 1500 % 5)
    levels = prints.band_levels((walk / 8192).astype(np.float32), 8000)
    return prints.picture_print(pictures) + prints.sound_print(levels)


def test_prints_are_those_that_stand_in_older_tables():
    assert (
        hashlib.sha256(made_prints()).hexdigest() == "68d6644ae547b2b748a5dc03e864a46171b3659ad11c532e5e6373f81253fcb4"
    )


def test_prints_do_not_hang_on_what_the_processor_can_do():
    code = "from tests.test_curation import made_prints; print(made_prints().hex())"
    plain = {"NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__), "OPENBLAS_CORETYPE": "Nehalem"}
    made = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | plain, capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == made_prints().hex()


def test_distance_is_the_share_of_bits_that_differ_and_the_nearest_is_found():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (40, prints.PRINT_BITS), np.uint8)
    packed = [np.packbits(row).tobytes() for row in bits]
    assert prints.print_distance(packed[0], packed[1]) == np.mean(bits[0] != bits[1])
    others = [*packed[10:], packed[12]]
    expected = [min(range(31), key=lambda j: prints.print_distance(one, others[j])) for one in packed[:20]]
    assert prints.find_nearest(packed[:20], others).tolist() == expected


def test_the_nearest_does_not_hang_on_the_size_of_the_blocks(monkeypatch):
    packed = [np.random.default_rng(n).bytes(prints.PRINT_BITS // 8) for n in range(50)]
    whole = prints.find_nearest(packed[:30], packed[20:])
    monkeypatch.setattr(prints, "_BLOCK_PAIRS", 70)
    np.testing.assert_array_equal(prints.find_nearest(packed[:30], packed[20:]), whole)


def test_the_level_of_a_band_is_that_of_a_tone_in_it():
    levels = prints.band_levels(tone(1000, duration_s=2, sample_rate=16000, amplitude=0.1), 16000)
    assert levels.shape == (50, 16)
    middle = levels[5:-5] / 4 - 90
    assert np.argmax(middle.mean(axis=0)) == np.searchsorted(np.geomspace(150, 3600, 17), 1000) - 1
    # A Hann window spreads a tone over its bin and half as much over each neighbour's: 1.8 dB more than the tone.
    np.testing.assert_allclose(middle.max(axis=1), -20 + 1.8, atol=0.3)


def test_a_still_picture_is_still_for_all_its_noise(tmp_path):
    pictures, times_s = scene(0)
    still = np.clip(pictures[:1] + np.random.default_rng(0).normal(0, 2, pictures.shape), 0, 255).astype(np.uint8)
    path = write(tmp_path / "still.mp4", still, knocks(times_s, 0))
    found = inspect(path, wanting(min_motion=0.5))
    assert found.status == "still"
    assert found.reason.endswith("gray levels of change, at least 0.5 are wanted")
    assert float(found.reason.split()[0]) < 0.25


def test_motion_is_the_mean_change_over_a_fifth_of_a_second():
    brightening = np.arange(50, dtype=np.uint8)[:, None, None] * np.ones((32, 32), np.uint8)
    assert curation.mean_motion(brightening) == 5.0
    assert curation.mean_motion(brightening[::-1]) == 5.0
    assert curation.mean_motion(brightening[:1]) == 0.0


def test_a_clipped_sound_is_clipped_even_after_a_lossy_codec(tmp_path):
    pictures, _ = scene(0)
    loud = np.clip(tone(220, duration_s=SECONDS, sample_rate=RATE, amplitude=6.0), -1, 1)
    full = tone(220, duration_s=SECONDS, sample_rate=RATE, amplitude=0.97)
    limits = wanting(max_clipped_share=0.01)
    found = inspect(write(tmp_path / "loud.mp4", pictures, loud), limits)
    assert found.status == "clipped"
    assert found.reason.endswith("% of the samples are clipped, at most 1.0% is wanted")
    assert inspect(write(tmp_path / "full.mp4", pictures, full), limits).status == "ok"


def test_clipped_is_what_lies_at_full_scale_with_two_others():
    top, low = 1.0, -1.0
    waveform = np.array([0, top, top, 0, low, low, low, 0.9, top, low, top, top, top, top], np.float32)
    assert curation.clipped_share(waveform) == round(7 / 14, 3)
    assert curation.clipped_share(waveform[:2]) == 0.0


@pytest.mark.parametrize(("seconds_of_silence", "status"), [(SECONDS, "silent"), (3.0, "silent"), (1.0, "ok")])
def test_a_silent_track_is_silent_and_so_is_one_with_too_much_silence(tmp_path, seconds_of_silence, status):
    pictures, _ = scene(0)
    waveform = noise(duration_s=SECONDS, sample_rate=RATE)
    waveform[: round(seconds_of_silence * RATE)] = 0
    found = inspect(write(tmp_path / "clip.mp4", pictures, waveform), wanting(max_silence_share=0.5))
    assert found.status == status
    if status == "silent":
        assert float(found.reason.split("%")[0]) / 100 == pytest.approx(seconds_of_silence / SECONDS, abs=0.05)
        assert found.reason.endswith("of the sound is below -60 dBFS, at most 50% is wanted")


def test_silence_is_what_the_extraction_of_sound_takes_for_it():
    waveform = noise(duration_s=3, sample_rate=RATE) * np.repeat(10.0 ** -np.arange(6), RATE // 2).astype(np.float32)
    for silence_db in (-90.0, -60.0, -35.0):
        measured = loudness.measure([waveform], sample_rate=RATE, silence_db=silence_db)
        expected = round(measured.silence_share, 2)
        assert curation.silent_share(waveform, sample_rate=RATE, silence_db=silence_db) == expected
    assert curation.silent_share(waveform[:10], sample_rate=RATE, silence_db=-60.0) == 1.0


@pytest.mark.parametrize(("shift_s", "told"), [(1.0, "1.0 s late"), (-1.0, "1.0 s early")])
def test_a_sound_shifted_by_a_second_is_offset(tmp_path, shift_s, told):
    pictures, times_s = scene(0)
    path = write(tmp_path / "clip.mp4", pictures, np.roll(knocks(times_s, 0), round(shift_s * RATE)))
    found = inspect(path, wanting(min_agreement=0.3))
    assert (found.status, found.reason) == ("offset", f"the sound fits best {told}, at most 0.5 s is wanted")
    assert inspect(path, wanting(min_agreement=0.3, max_offset_s=1.2)).status == "ok"


def test_the_sound_of_another_video_agrees_less_than_the_own(tmp_path):
    def agreement(picture, sound):
        pictures, waveform = scene(picture)[0], knocks(scene(sound)[1], sound)
        small = pictures[:, :96].reshape(len(pictures), 32, 3, 32, 5).mean(axis=(2, 4)).astype(np.uint8)
        return curation.measure_agreement(small, prints.band_levels(waveform, RATE), 0.5)

    for n in range(4):
        own, other = agreement(n, n), agreement(n, n + 10)
        assert own.correlation > 0.6
        assert abs(own.lag_s) <= 0.08
        assert abs(other.lag_s) > 0.5 or other.correlation < own.correlation - 0.2


def test_a_steady_sound_can_be_offset_from_nothing(tmp_path):
    path = write(tmp_path / "rain.mp4", scene(0)[0], noise(duration_s=SECONDS, sample_rate=RATE))
    assert inspect(path, wanting(min_agreement=0.99)).status == "ok"


def test_a_clip_without_a_sound_track_says_so_where_sound_is_to_be_judged(tmp_path):
    path = write(tmp_path / "mute.mp4", scene(0)[0], None)
    assert inspect(path, wanting(min_motion=0.3)).status == "ok"
    with pytest.raises(MediaError, match="no sound track"):
        inspect(path, wanting(max_silence_share=0.5))
