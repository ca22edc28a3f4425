"""Sounds and videos small enough to lie in a page. The same input gives the same bytes."""

import base64
import io
import tempfile
from pathlib import Path

import ffmpeg as ffmpeg_python
import numpy as np
import soundfile

from soundback.media import ffmpeg, muxing

LARGE_VIDEO_BYTES, LARGEST_VIDEO_BYTES = 120_000, 300_000
"""A page should open on a phone: a large video is made smaller, and left out if it is the largest even so."""

SMALL_HEIGHT, SMALL_QUALITY = 288, 32
"""Of a video that is made smaller: pixels, and x264's constant rate factor."""


def embed(kind: str, content: bytes) -> str:
    """An address that holds what it is the address of.

    Args:
      kind: media type, e.g. "audio/flac".
      content: of the file.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def encode_sound(waveform: np.ndarray, sample_rate: int, kind: str) -> bytes:
    """A sound file of 16 bits.

    Args:
      waveform: float32 [time], samples in [-1, 1].
      sample_rate: Hz.
      kind: "WAV" or "FLAC".
    """
    written = io.BytesIO()
    soundfile.write(written, waveform, sample_rate, format=kind, subtype="PCM_16")
    return written.getvalue()


def encode_video(video: Path, wave: bytes) -> bytes | None:
    """A video with another sound as mp4, made smaller if need be; None where it is too large for a page even so.

    Args:
      video: of any container.
      wave: a sound file.
    """
    with tempfile.TemporaryDirectory() as folder:
        track, whole, small = (Path(folder) / name for name in ("track.wav", "whole.mp4", "small.mp4"))
        track.write_bytes(wave)
        muxing.join(video, [track], whole)
        if whole.stat().st_size <= LARGE_VIDEO_BYTES:
            return whole.read_bytes()
        _shrink(whole, small)
        return small.read_bytes() if small.stat().st_size <= LARGEST_VIDEO_BYTES else None


def _shrink(video: Path, out: Path) -> None:
    """Writes a video anew, less high and less exact, its sound as it is."""
    source = ffmpeg_python.input(str(video))
    picture = source.video.filter("scale", -2, SMALL_HEIGHT)
    codecs = {"c:v": "libx264", "crf": SMALL_QUALITY, "pix_fmt": "yuv420p", "c:a": "copy"}
    ffmpeg.run(ffmpeg_python.output(picture, source.audio, str(out), **codecs, movflags="+faststart"))
