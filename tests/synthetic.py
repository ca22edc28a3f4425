"""Makers of small test files: films that flash and click at the same instants, sounds, tables of downloads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import soundfile

from soundback import schemas
from soundback.media.ffmpeg import run

DARK, BRIGHT = 40, 220
SOUND_RATE = 44100
CODECS = {
    ".mp4": ("libx264", "aac"),
    ".m4v": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "aac"),
    ".ts": ("libx264", "aac"),
    ".avi": ("mjpeg", "pcm_s16le"),  # the delay of MP3 in AVI is written nowhere
    ".webm": ("libvpx", "libopus"),
    ".flv": ("libx264", "aac"),
    ".mpg": ("mpeg2video", "mp2"),
    ".ogv": ("libtheora", "libvorbis"),
    ".gif": ("gif", ""),
}


@dataclass(frozen=True)
class Film:
    """A dark film that is bright for `flash_s` from each event on, and clicks there.

    Attributes:
      duration_s: seconds, of picture and sound.
      frame_rate: pictures per second, as ffmpeg reads it ("30000/1001").
      size: width, height in pixels.
      events_s: when it flashes and clicks, in seconds from the file's start.
      flash_s: how long a flash lasts.
      keep: indices of the pictures that are kept, for a variable frame rate; None for all.
      picture_late_s: when the first picture is shown; whole pictures.
      sound_late_s: when the sound track begins.
      starts_at_s: time stamp of the file's start (what containers can hold: .ts, .mkv).
      has_sound: whether there is a sound track.
      rotation: degrees by which a player turns the picture.
    """

    duration_s: float = 2.0
    frame_rate: str = "25"
    size: tuple[int, int] = (64, 48)
    events_s: tuple[float, ...] = (1.0,)
    flash_s: float = 0.2
    keep: tuple[int, ...] | None = None
    picture_late_s: float = 0.0
    sound_late_s: float = 0.0
    starts_at_s: float = 0.0
    has_sound: bool = True
    rotation: int = 0

    def write(self, path: Path, **options: Any) -> Path:
        """Writes the film; the suffix names container and codecs, `options` are further ones for ffmpeg's output."""
        width, height = self.size
        picture = ffmpeg.input(
            "pipe:", format="rawvideo", pix_fmt="gray", s=f"{width}x{height}", framerate=self.frame_rate,
            itsoffset=self.picture_late_s,
        )["v:0"]  # fmt: skip
        if self.keep is not None:
            picture = picture.filter("select", "+".join(f"eq(n,{index})" for index in self.keep))
        streams = [picture]
        sound_file = path.with_name(f"{path.name}.wav")
        if self.has_sound:
            soundfile.write(sound_file, self._sound(), SOUND_RATE, subtype="PCM_16")
            streams.append(ffmpeg.input(f"file:{sound_file}", itsoffset=self.sound_late_s)["a:0"])
        run(
            ffmpeg.output(*streams, f"file:{path}", **self._output_options(path.suffix) | options),
            feed=self._pictures(),
        )
        sound_file.unlink(missing_ok=True)
        return rotated(path, self.rotation) if self.rotation else path

    def _output_options(self, suffix: str) -> dict[str, Any]:
        video_codec, audio_codec = CODECS[suffix]
        options: dict[str, Any] = {"c:v": video_codec, "output_ts_offset": self.starts_at_s}
        if self.keep is not None:
            options["fps_mode"] = "vfr"
        if self.has_sound:
            options["c:a"] = audio_codec
        if suffix in (".ts", ".mpg"):
            options |= {"muxdelay": 0, "muxpreload": 0}
        if video_codec == "libx264":
            options |= {"preset": "ultrafast", "g": 10}
        if video_codec != "gif":
            options["pix_fmt"] = "yuvj420p" if video_codec == "mjpeg" else "yuv420p"
        return options

    def _pictures(self) -> list[bytes]:
        numerator, _, denominator = self.frame_rate.partition("/")
        rate = int(numerator) / int(denominator or 1)
        width, height = self.size
        times_s = self.picture_late_s + np.arange(math.ceil(self.duration_s * rate - 1e-9)) / rate
        # A thousandth of tolerance: an event on a picture's own time is meant to be in it.
        bright = [any(-1e-3 <= t - event < self.flash_s - 1e-3 for event in self.events_s) for t in times_s]
        return [bytes([BRIGHT if lit else DARK]) * (width * height) for lit in bright]

    def _sound(self) -> np.ndarray:
        events_s = [event - self.sound_late_s for event in self.events_s]
        return clicks(events_s, duration_s=self.duration_s, sample_rate=SOUND_RATE)


def rotated(path: Path, degrees: int) -> Path:
    """Has a player turn a film, as phones do; replaces the file."""
    turned = path.with_stem(f"{path.stem}_turned")
    run(ffmpeg.input(f"file:{path}", display_rotation=degrees).output(f"file:{turned}", c="copy"))
    return turned.replace(path)


def clicks(times_s: Sequence[float], *, duration_s: float, sample_rate: int) -> np.ndarray:
    """Bursts of 5 ms that set in sharply, over silence: float32 [time]."""
    waveform = np.zeros(round(duration_s * sample_rate), np.float32)
    n = round(0.005 * sample_rate)
    burst = 0.7 * np.sin(2 * np.pi * 1500 * np.arange(n) / sample_rate + np.pi / 2) * np.exp(-3 * np.arange(n) / n)
    for time_s in times_s:
        start = round(time_s * sample_rate)
        if 0 <= start < len(waveform):
            waveform[start : start + n] += burst[: len(waveform) - start]
    return waveform


def tone(frequency: float, *, duration_s: float, sample_rate: int, amplitude: float = 0.3) -> np.ndarray:
    """A sine: float32 [time]."""
    times_s = np.arange(round(duration_s * sample_rate)) / sample_rate
    return (amplitude * np.sin(2 * np.pi * frequency * times_s)).astype(np.float32)


def noise(*, duration_s: float, sample_rate: int, amplitude: float = 0.1, seed: int = 0) -> np.ndarray:
    """White noise of an RMS of `amplitude`: float32 [time]."""
    values = np.random.default_rng(seed).normal(size=round(duration_s * sample_rate))
    return (amplitude * values).astype(np.float32)


def write_downloads(folder: Path, files: dict[str, str], *, label: str = "Drum") -> None:
    """Writes the downloads.parquet of a label's folder.

    Args:
      folder: where the videos are.
      files: name in the folder by video_id; "" for a video that did not download.
      label: display name.
    """
    rows: list[dict[str, object]] = [
        {
            "video_id": video_id,
            "clip_index": 0,
            "label": label,
            "split": "train",
            "status": "ok" if name else "private",
            "path": name or None,
            "reason": None if name else "Private video",
        }
        for video_id, name in files.items()
    ]
    schemas.write_table(rows, schemas.DOWNLOADS, folder / "downloads.parquet")
