"""When a film flashes and clicks, as Soundback reads it: in which of its frames."""

from pathlib import Path

import numpy as np

from soundback.media import ffmpeg
from tests.synthetic import BRIGHT, DARK

RATE, HOP = 25, 320
SAMPLE_RATE = RATE * HOP


def all_frames(path: Path, *, size: int = 16, fit: str = "stretch", frame_rate: int = RATE) -> np.ndarray:
    """Frames uint8 [n_frames, size, size]."""
    return np.concatenate(list(ffmpeg.read_frames(path, frame_rate=frame_rate, size=size, fit=fit)))


def flash_frames(path: Path) -> list[int]:
    """Frames in which a flash begins."""
    bright = all_frames(path).mean(axis=(1, 2)) > (DARK + BRIGHT) / 2
    return np.flatnonzero(np.diff(bright.astype(int), prepend=0) == 1).tolist()


def click_frames(path: Path) -> list[int]:
    """Frames in which most of a click's energy lies."""
    waveform = ffmpeg.read_waveform(path, sample_rate=SAMPLE_RATE)
    energy = np.square(waveform[: len(waveform) // HOP * HOP]).reshape(-1, HOP).sum(axis=1)
    return np.flatnonzero(energy > 0.3 * energy.max()).tolist()
