"""What a user may ask of a soundtrack, and the files it is made from and written to."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from soundback.cues import CueSheet
from soundback.errors import MediaError
from soundback.media import loudness, muxing, remuxing
from soundback.media.audio import read_wav_pieces
from soundback.media.containers import outline

HIDES_LEAD = (".mp4", ".m4v", ".mov")
"""Containers that can begin between two key frames."""

WhenUnsure = Literal["quiet", "best"]


@dataclass(frozen=True)
class Take:
    """How a video is to be sounded.

    Attributes:
      seed: another seed, another take; the same video, models and take give the same sound.
      category: sounds throughout, whatever is seen; hits and loudness are still those of the spotter.
      when_unsure: where the classifier is unsure, "quiet" stays so, and "best" sounds what is likeliest.
      temperature: of the sampler; None for that of the params. Less is cleaner, and duller.
      start_s: seconds; where the stretch begins that is wanted, None for the beginning.
      end_s: seconds; where it ends, None for the end.
      mix: what becomes of the video's own sound, see `muxing.Wanted`.
      loudness_lufs: integrated loudness of the sound that is made, EBU R 128; None leaves it as the cues say.
      stems: whether its parts are written as well, one wav per category and the original.
    """

    seed: int = 0
    category: str | None = None
    when_unsure: WhenUnsure = "quiet"
    temperature: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    mix: muxing.Mix = "replace"
    loudness_lufs: float | None = None
    stems: bool = False


@dataclass(frozen=True)
class Sounded:
    """What became of a video.

    Attributes:
      path: the file with sound.
      sheet: what was sounded.
      stems: its parts, if they were asked for.
      notes: what a user should know, a sentence each.
      length_s: of the video.
      spent_s: seconds on the clock, {what: for how long}: watching, sounding, writing.
    """

    path: Path
    sheet: CueSheet
    stems: tuple[Path, ...]
    notes: tuple[str, ...]
    length_s: float
    spent_s: dict[str, float]

    def totals(self) -> str:
        """How long it took, in a sentence."""
        whole_s = sum(self.spent_s.values())
        parts = ", ".join(f"{what} {spent_s:.1f} s" for what, spent_s in self.spent_s.items())
        pace = f"{self.length_s:.1f} s of video in {whole_s:.1f} s, {self.length_s / whole_s:.2f} times real time"
        return f"{pace}: {parts}."


def stems_folder(out: Path) -> Path:
    """Where the parts of a soundtrack go."""
    return out.with_name(f"{out.stem}_stems")


@dataclass(frozen=True)
class Piece:
    """A stretch of a video as a file of its own, or the whole video.

    Attributes:
      path: the file.
      start_s: where in the whole it begins.
      length_s: how long it is.
      note: what its user should know of its beginning.
    """

    path: Path
    start_s: float
    length_s: float
    note: str | None = None


def cut_piece(video: Path, take: Take, scratch: Path) -> Piece:
    """Copies the stretch that is wanted to a file of its own; the whole video stays where it is.

    Raises:
      MediaError: too_short when there is no such stretch; as `remuxing.cut`.
    """
    length_s = outline(video).duration_s
    if take.start_s is None and take.end_s is None:
        return Piece(video, 0.0, length_s)
    start_s, end_s = take.start_s or 0.0, length_s if take.end_s is None else min(take.end_s, length_s)
    if not 0 <= start_s < end_s:
        raise MediaError(
            "too_short",
            f"The stretch from {start_s:g} s to {end_s:g} s is not in {video.name}, which is {length_s:.2f} s long.",
        )
    note, suffix = None, video.suffix.lower()
    if suffix not in HIDES_LEAD:
        suffix, key_s = ".mkv", muxing.key_frame_before(video, start_s)
        if start_s - key_s > 1 / 1000:
            note = f"The stretch begins at {key_s:.2f} s, where the picture can be cut without coding it anew."
        start_s = key_s
    piece = scratch / f"{video.stem}{suffix}"
    remuxing.cut(video, piece, start_s=start_s, duration_s=end_s - start_s)
    return Piece(piece, start_s, outline(piece).duration_s, note)


def choose_gain(tracks: Sequence[Path], loudness_lufs: float | None, sample_rate: int) -> tuple[float, list[str]]:
    """By how many dB sound has to be louder to have a loudness, and what its user should know of that.

    Args:
      tracks: wav files that are added up.
      loudness_lufs: wanted, EBU R 128; None for whatever it is.
      sample_rate: of the tracks, Hz.
    """
    if loudness_lufs is None:
        return 0.0, []
    pieces = (np.sum(parts, axis=0) for parts in zip(*map(read_wav_pieces, tracks), strict=True))
    found = loudness.measure(pieces, sample_rate=sample_rate, silence_db=muxing.QUIET_DB).loudness_lufs()
    if found is None:
        return 0.0, ["The sound is silent, or shorter than 0.4 s: it has no loudness, and was left as it is."]
    return loudness_lufs - found, []


class Clock:
    """Says what took how long.

    Attributes:
      spent_s: seconds of each thing measured so far, {what: seconds}.
    """

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}

    @contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """Measures the block."""
        started = time.monotonic()
        yield
        self.spent_s[what] = time.monotonic() - started
