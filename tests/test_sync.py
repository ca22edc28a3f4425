"""What is heard meets what is seen, at the start and after ten minutes alike."""

from pathlib import Path

import numpy as np
import pytest

from soundback.cues import CueSheet, Hearing, Segment
from soundback.judging.trials import Ear
from soundback.media import ffmpeg
from soundback.model_files import load_model
from soundback.soundtrack import Soundtrack
from tests import trained, watched

DURATION_S = 612.0
RATES = {"25": (25, 1), "29.97": (30000, 1001)}
FLASHES_S = [round(1.0 + 0.8 * k + 0.013 * (k % 7), 3) for k in range(10)]
"""In the first ten seconds; and again ten minutes later."""


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return trained.train_models(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def soundtrack(models) -> Soundtrack:
    return Soundtrack.load(models, params=trained.small_params().soundtrack)


@pytest.fixture(scope="module", params=["25", pytest.param("29.97", marks=pytest.mark.slow)])
def film(request, tmp_path_factory) -> tuple[str, Path, np.ndarray]:
    """Its pictures per second, the film, and when its flashes are shown, in seconds."""
    numerator, denominator = RATES[request.param]
    flashes_s = [*FLASHES_S, *(600 + flash_s for flash_s in FLASHES_S)]
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    trained.write_flashing_disc(path, flashes_s, duration_s=DURATION_S, rate=(numerator, denominator))
    period_s = denominator / numerator
    return request.param, path, np.ceil((np.array(flashes_s) - 1e-3) / period_s) * period_s


def hits(path: Path) -> np.ndarray:
    """When something sets in, by librosa's detector, in the first and the last twelve seconds: seconds."""
    ear = Ear(watched.SAMPLE_RATE, watched.HOP, trained.small_params().cues)
    waveform = ffmpeg.read_waveform(path, sample_rate=watched.SAMPLE_RATE)
    start, end = waveform[: 12 * watched.SAMPLE_RATE], waveform[600 * watched.SAMPLE_RATE :]
    assert not waveform[13 * watched.SAMPLE_RATE : 599 * watched.SAMPLE_RATE].any()
    return np.concatenate([ear.find_onsets(start), 600 + ear.find_onsets(end)])


def off_ms(found_s: np.ndarray, flashes_s: np.ndarray) -> np.ndarray:
    """How much later than each flash the nearest hit is."""
    nearest = np.abs(found_s[:, None] - flashes_s).argmin(axis=0)
    return 1000 * (found_s[nearest] - flashes_s)


@pytest.mark.parametrize("cues", ["true", "predicted"])
def test_hits_meet_the_flashes_at_the_start_and_after_ten_minutes(
    soundtrack, models, film, tmp_path, record_property, cues
):
    rate, video, flashes_s = film
    if cues == "true":
        _, card = load_model(models / "wavenet.keras", "wavenet")
        hearing = Hearing(watched.SAMPLE_RATE, watched.HOP, trained.small_params().cues, card["hit_scale"])
        loudness_db, hit = hearing.measure(trained.ring(flashes_s.tolist(), duration_s=DURATION_S))
    else:
        seen = soundtrack.spot(video)
        loudness_db, hit = seen.loudness_db, seen.hit
    # Between them nothing flashes, and to sound it would take longer than all else.
    both = (Segment(0.0, 12.0, "Disc", 1.0), Segment(600.0, DURATION_S, "Disc", 1.0))
    sheet = CueSheet(watched.FRAME_RATE, both, loudness_db, hit)
    out = tmp_path / "out.mp4"
    soundtrack.generate(video, out, cues=sheet)
    late_ms = off_ms(hits(out), flashes_s)
    start, end = late_ms[:10], late_ms[10:]
    record_property(
        "sync",
        f"{cues:10} {rate:5} {np.abs(start).max():10.0f} {np.abs(end).max():10.0f} "
        f"{np.median(end) - np.median(start):+10.1f}",
    )
    assert np.abs(late_ms).max() <= (50 if cues == "true" else 100)
    assert abs(np.median(end) - np.median(start)) <= 15, "no drift"
