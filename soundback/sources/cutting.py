"""Cuts clips out of a video that is here, and says what each one holds."""

import hashlib
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from soundback.errors import MediaError, SourceError
from soundback.media import curation as curating
from soundback.media.containers import Outline, Probe, outline, probe
from soundback.media.remuxing import cut
from soundback.params import Curation, Download
from soundback.sources.reasons import scrub

# A clip may miss this much of its length: the last frame, and what the container rounds.
SHORTFALL_S = 0.5
PRINTS = ("picture_print", "sound_print")


@dataclass(frozen=True)
class Clip:
    """What came of one clip: a row of `schemas.DOWNLOADS`, less what the catalog knows."""

    video_id: str
    clip_index: int = 0
    status: str = "ok"
    reason: str | None = None
    path: str | None = None
    n_bytes: int | None = None
    sha256: str | None = None
    clip_start_s: float | None = None
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    duration_s: float | None = None
    has_audio: bool | None = None
    picture_print: bytes | None = None
    sound_print: bytes | None = None
    source_path: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Clip":
        """What `to_json` gave."""
        return cls(**row | {name: bytes.fromhex(row[name]) for name in PRINTS if row[name] is not None})


class NoVideo(Exception):
    """A video that cannot be had or is not wanted.

    Attributes:
      status: one of `schemas.DOWNLOAD_STATUSES`.
      reason: the source's own words, scrubbed.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def cut_clips(video_id: str, source: Path, folder: Path, *, params: Download, curation: Curation) -> list[Clip]:
    """Cuts a video into clips and looks at each.

    Args:
      video_id: names the clips, `<video_id>_<clip_index>.mp4` (a single .mkv where MP4 cannot hold the codecs).
      source: the whole video.
      folder: where the clips go.
      params: which clips.
      curation: which of them are wanted; the files of the others do not stay.

    Raises:
      NoVideo: if there is nothing to cut.
      SourceError: if the disk is full.
    """
    facts = _outline(source)
    refuse_unwanted_duration(facts.duration_s, params)
    if not facts.has_audio:
        raise NoVideo("no_audio", "the video has no sound track")
    length_s = min(params.clip_s, facts.duration_s)
    starts = clip_starts(
        facts.duration_s, frame_rate=facts.frame_rate, clip_s=params.clip_s, clips_per_video=params.clips_per_video
    )
    try:
        clips = []
        for index, start_s in enumerate(starts):
            path = folder / f"{video_id}_{index:02d}.mp4"
            clips.append(_cut_one(source, path, Clip(video_id, index, clip_start_s=start_s), length_s))
    except MediaError as error:
        refuse_full_disk(str(error))
        clips = [_cut_as_matroska(source, video_id, folder, length_s)]
    return [curate(clip, folder, curation) for clip in clips]


def curate(clip: Clip, folder: Path, curation: Curation) -> Clip:
    """Looks at a clip and judges whether it is wanted.

    Args:
      clip: as it was cut; one that could not be had stays as it is.
      folder: where it is.
      curation: what is wanted.

    Returns:
      The clip with its fingerprints; or, if it is not wanted, what is wrong with it, and its file is gone.
    """
    if clip.path is None:
        return clip
    path = folder / clip.path
    try:
        seen = curating.inspect(path, curation)
    except MediaError as error:
        seen = curating.Inspection("corrupt", _media_words(error, path))
    if seen.status == "ok":
        return replace(clip, picture_print=seen.picture_print, sound_print=seen.sound_print)
    path.unlink()
    return Clip(clip.video_id, clip.clip_index, status=seen.status, reason=seen.reason)


def clip_starts(duration_s: float, *, frame_rate: float, clip_s: float, clips_per_video: int) -> list[float]:
    """Where clips begin so that the gaps before, between and after them are equal, within a picture.

    Args:
      duration_s: seconds, of the video.
      frame_rate: pictures per second; clips begin with a picture.
      clip_s: seconds, of each clip.
      clips_per_video: at most so many; fewer if they would overlap, at least one.

    Returns:
      Seconds, rounded to microseconds.
    """
    n_clips = max(1, min(clips_per_video, int(duration_s / clip_s)))
    gap_s = max(0.0, duration_s - n_clips * clip_s) / (n_clips + 1)
    starts = [gap_s + index * (gap_s + clip_s) for index in range(n_clips)]
    return [round(int(start * frame_rate) / frame_rate, 6) if frame_rate else start for start in starts]


def _cut_as_matroska(source: Path, video_id: str, folder: Path, length_s: float) -> Clip:
    """Matroska holds the codecs that MP4 does not, but cannot hide pictures.

    Such a clip begins at a key frame, of which the first picture is the one we know.
    """
    try:
        return _cut_one(source, folder / f"{video_id}_00.mkv", Clip(video_id, clip_start_s=0.0), length_s)
    except MediaError as error:
        refuse_full_disk(str(error))
        raise NoVideo("corrupt", _media_words(error, source)) from error


def _cut_one(source: Path, path: Path, clip: Clip, length_s: float) -> Clip:
    cut(source, path, start_s=clip.clip_start_s or 0.0, duration_s=length_s)
    try:
        facts = _probe(path)
        if facts.duration_s < length_s - SHORTFALL_S:
            raise NoVideo("too_short", f"the video breaks off: {facts.duration_s:.1f} s of a {length_s:.1f} s clip")
    except NoVideo as fault:
        return Clip(clip.video_id, clip.clip_index, status=fault.status, reason=fault.reason)
    return replace(
        clip,
        path=path.name,
        n_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        width=facts.width,
        height=facts.height,
        frame_rate=facts.frame_rate,
        duration_s=facts.duration_s,
        has_audio=facts.has_audio,
    )


def _outline(path: Path) -> Outline:
    try:
        return outline(path)
    except MediaError as error:
        raise NoVideo("corrupt", _media_words(error, path)) from error


def _probe(path: Path) -> Probe:
    try:
        return probe(path)
    except MediaError as error:
        raise NoVideo("corrupt", _media_words(error, path)) from error


def _media_words(error: MediaError, path: Path) -> str:
    return scrub(str(error).replace(str(path), "the video").replace(path.name, "the video"))


def refuse_unwanted_duration(duration_s: float, params: Download) -> None:
    """Raises a `NoVideo` if a video is shorter or longer than is wanted."""
    if duration_s < params.min_duration_s:
        raise NoVideo("too_short", f"{duration_s:.1f} s; at least {params.min_duration_s:g} s are wanted")
    if duration_s > params.max_duration_s:
        raise NoVideo("too_long", f"{duration_s:.1f} s; at most {params.max_duration_s:g} s are wanted")


def refuse_full_disk(words: str) -> None:
    """Raises a `SourceError` if the words of a failure mean that the disk is full."""
    if "No space left on device" in words:
        free_mb = shutil.disk_usage(".").free / 1e6
        raise SourceError(
            f"The disk is full ({free_mb:.0f} MB left). Free some space (`soundback doctor` says how much these params "
            "need) and run again: what was fetched is kept."
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
