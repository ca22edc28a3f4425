"""Joins a video and the sound that was made for it: picture copied, all else kept that the container can hold.

Mixing, resampling and limiting are ffmpeg's own filters.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ffmpeg as graphs
import numpy as np
from scipy.ndimage import binary_opening
from slugify import slugify

from soundback.errors import MediaError, SoundbackError
from soundback.media import ffmpeg
from soundback.media.audio import rms_db
from soundback.media.containers import (
    MUXERS,
    Probe,
    file_address,
    muxer,
    open_media,
    picture_end_s,
    picture_stream,
    probe,
    start_time_s,
)
from soundback.outputs import check_free, whole_file, whole_folder

Mix = Literal["replace", "keep", "under", "fill"]

SAMPLE_RATE = 48000
SOUND_NOTE = "synthetic sound by Soundback"
WAV = ".wav"

DUCKING = {"threshold": 0.01, "ratio": 8, "attack": 20, "release": 400}
"""Of ffmpeg's sidechain compressor: what is heard at -20 dBFS lowers the original by about 17 dB."""

CEILING = 10 ** (-1 / 20)
"""Where mixed or amplified sound is limited: -1 dBFS."""

QUIET_DB = -50.0
QUIET_STEP_S, QUIET_LEAST_S = 0.04, 0.3
"""Silence is looked for in steps of the one, over which sound is also faded, and lasts as long as the other."""

TEXT_SUBTITLES = ("subrip", "ass", "webvtt", "mov_text", "text")
KEPT_SUBTITLES = {
    "mp4": ("mov_text",),
    "mov": ("mov_text",),
    "webm": ("webvtt",),
    "matroska": ("subrip", "ass", "webvtt", "dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle"),
}
WRITTEN_SUBTITLES = {"mp4": "mov_text", "mov": "mov_text", "webm": "webvtt", "matroska": "subrip"}
"""What text is written as where it cannot stay what it is."""


@dataclass(frozen=True)
class Wanted:
    """How the sound that was made meets the one that the video has.

    Attributes:
      mix: "replace" drops the video's own sound; "keep" adds to it; "under" lowers it where ours sounds; "fill" adds to
        it, of a sound that is made for its silent stretches alone, see `quiet_gain`.
      gain_db: of the sound that was made.
    """

    mix: Mix = "replace"
    gain_db: float = 0.0


@dataclass(frozen=True)
class Joined:
    """What was written.

    Attributes:
      path: the file.
      note: why it is not the one that was asked for; None if it is.
    """

    path: Path
    note: str | None


@dataclass(frozen=True)
class _Extras:
    """What a video brings beside its picture and its sound."""

    subtitles: tuple[str, ...]
    has_attachments: bool
    comment: str


def check_output(out: Path, video: Path, *, overwrite: bool) -> None:
    """Refuses, before any work is done, what could not be written, or would be written over the video itself.

    Raises:
      SoundbackError: when the suffix names no container, something is there already, the folder is missing or takes no
        files, or `out` is the video.
    """
    if out.suffix.lower() not in (*MUXERS, WAV):
        raise MediaError("refused", f"{out.name} must end in one of {', '.join((*MUXERS, WAV))}.")
    check_free(out, overwrite=overwrite)
    if out.exists() and video.exists() and out.samefile(video):
        raise SoundbackError(f"{out} is the video itself, which would be lost. Choose another name.")
    if not os.access(out.parent, os.W_OK):
        raise SoundbackError(f"Nothing may be written to {out.parent.resolve()}. Choose another folder.")


def join(
    video: Path, tracks: Sequence[Path], out: Path, *, wanted: Wanted = Wanted(), overwrite: bool = False
) -> Joined:
    """Writes a video with sound, or the sound alone: whole or not at all.

    The picture is copied untouched; subtitles, fonts, chapters, rotation and metadata are kept. Where the container
    that `out` names cannot hold them, a Matroska file is written instead. The sound is as long as the picture, at
    48 kHz (Opus in .webm, PCM in .wav, else AAC), and the file's comment says that it is synthetic.

    Args:
      video: a video file.
      tracks: sound files that are added up; their time 0 is the video's time 0.
      out: where to; its suffix names the container.
      wanted: how they meet the video's own sound.
      overwrite: whether a Matroska file that is written instead may replace another.

    Raises:
      MediaError: as `probe`; refused when no container takes the picture.
      SoundbackError: when there is no room for a Matroska file in place of `out`.
    """
    facts = probe(video)
    if missing := next((track for track in tracks if not track.is_file()), None):
        raise MediaError("missing", f"There is no file {missing}.")
    sound = _mixed(video, facts, tracks, wanted)
    extras = _look_for_extras(video)
    if out.suffix.lower() == WAV:
        with whole_file(out) as partial:
            metadata = {"metadata": f"comment={SOUND_NOTE}"}
            ffmpeg.run(sound.output(file_address(partial), format="wav", **{"c:a": "pcm_s16le"}, **metadata))
        return Joined(out, None)
    try:
        _write(video, facts, sound, extras, out)
    except MediaError as error:
        instead = out.with_suffix(".mkv")
        if instead == out:
            raise MediaError(
                "refused", f"The picture of {video.name} ({facts.video_codec}) could not be copied: {error}"
            ) from error
        check_free(instead, overwrite=overwrite)
        _write(video, facts, sound, extras, instead)
        brought = ", ".join((facts.video_codec, *extras.subtitles))
        return Joined(instead, f"{out.suffix} cannot hold what is in {video.name} ({brought}): it is {instead.name}.")
    return Joined(out, None)


def write_stems(
    video: Path, tracks: Mapping[str, Path], folder: Path, *, gain_db: float = 0.0, overwrite: bool = False
) -> list[Path]:
    """Writes the parts of a soundtrack as wav files of the picture's length, and the video's own sound if it has one.

    Args:
      video: a video file.
      tracks: sound file of each category.
      folder: appears whole or not at all; CATEGORY.wav and original.wav.
      gain_db: of the tracks.
      overwrite: whether it may replace a folder.

    Returns:
      The files.

    Raises:
      SoundbackError: when the folder is there already.
    """
    check_free(folder, overwrite=overwrite)
    facts = probe(video)
    end_s = picture_end_s(video)
    parts = {slugify(name, lowercase=False): _made([track], gain_db, end_s) for name, track in tracks.items()}
    if facts.has_audio:
        parts["original"] = _own(video, facts, end_s)
    with whole_folder(folder) as partial:
        for name, sound in parts.items():
            node = sound.output(file_address(partial / f"{name}.wav"), format="wav", **{"c:a": "pcm_s16le"})
            ffmpeg.run(node)
    return [folder / f"{name}.wav" for name in parts]


def quiet_gain(video: Path, *, sample_rate: int) -> Callable[[int, int], np.ndarray]:
    """Finds where a video's own sound is silent for some tenths of a second.

    Args:
      video: a video file.
      sample_rate: of the sound that will fill these stretches, Hz.

    Returns:
      Gain of samples [first, last) of that sound: float32 [last - first], 1 in silence, 0 elsewhere, with fades
      between. All 1 for a video without sound, and behind the end of a shorter one.
    """
    # What is shorter than the least does not survive an opening; what is longer stays as it is.
    quiet = binary_opening(_loudness(video) < QUIET_DB, np.ones(round(QUIET_LEAST_S / QUIET_STEP_S)))
    middles = (np.arange(len(quiet)) + 0.5) * QUIET_STEP_S * sample_rate

    def gain(first: int, last: int) -> np.ndarray:
        if not len(quiet):
            return np.ones(last - first, np.float32)
        return np.interp(np.arange(first, last), middles, quiet, right=1.0).astype(np.float32)

    return gain


def key_frame_before(path: Path, start_s: float) -> float:
    """The time of the last picture at or before `start_s` from which a copy can begin, in seconds from time 0.

    Raises:
      MediaError: as `probe`.
    """
    with open_media(path) as container:
        video = picture_stream(container, path)
        begin_s = start_time_s(container)
        container.seek(round((start_s + begin_s) / video.time_base), stream=video)
        for packet in container.demux(video):
            if packet.size and packet.is_keyframe and packet.pts is not None:
                return max(0.0, float(packet.pts * packet.time_base) - begin_s)
    return 0.0


def _write(video: Path, facts: Probe, sound: Any, extras: _Extras, out: Path) -> None:
    kind, options = muxer(out)
    source = ffmpeg.source(video, start_s=facts.start_s, fflags="+genpts")
    streams = [source["V:0"], sound]
    codecs: dict[str, Any] = {"c:v": "copy", "c:a": "libopus" if kind == "webm" else "aac"}
    for index, codec in enumerate(extras.subtitles):
        streams.append(source[f"s:{index}"])
        as_text = codec in TEXT_SUBTITLES and codec not in KEPT_SUBTITLES[kind]
        codecs[f"c:s:{index}"] = WRITTEN_SUBTITLES[kind] if as_text else "copy"
    if extras.has_attachments and kind == "matroska":
        streams.append(source["t"])
        codecs["c:t"] = "copy"
    note = f"{extras.comment}; {SOUND_NOTE}" if extras.comment else SOUND_NOTE
    codecs |= {"format": kind, "map_metadata": 0, "map_chapters": 0, "metadata": f"comment={note}"}
    with whole_file(out) as partial:
        ffmpeg.run(graphs.output(*streams, file_address(partial), **codecs, **options))


def _mixed(video: Path, facts: Probe, tracks: Sequence[Path], wanted: Wanted) -> Any:
    end_s = picture_end_s(video)
    made = _made(tracks, wanted.gain_db, end_s)
    if wanted.mix == "replace" or not facts.has_audio:
        return made
    own = _own(video, facts, end_s)
    if wanted.mix == "under":
        split = made.asplit()
        own, made = graphs.filter([own, split[0]], "sidechaincompress", **DUCKING), split[1]
    both = graphs.filter([own, made], "amix", inputs=2, duration="longest", normalize=0)
    return _limited(both)


def _made(tracks: Sequence[Path], gain_db: float, end_s: float) -> Any:
    parts = [graphs.input(file_address(track)).filter("aresample", SAMPLE_RATE) for track in tracks]
    sound = parts[0]
    if len(parts) > 1:
        sound = graphs.filter(parts, "amix", inputs=len(parts), duration="longest", normalize=0)
    if gain_db:
        sound = _limited(sound.filter("volume", f"{gain_db:.3f}dB"))
    return _as_long(sound, end_s)


def _own(video: Path, facts: Probe, end_s: float) -> Any:
    # A gap in its time stamps is silence, and so is what lies before it.
    sound = ffmpeg.source(video, start_s=facts.start_s)["a:0"].filter(
        "aresample", SAMPLE_RATE, first_pts=0, **{"async": 1}
    )
    return _as_long(sound, end_s)


def _as_long(sound: Any, end_s: float) -> Any:
    return sound.filter("apad", whole_dur=f"{end_s:.6f}").filter("atrim", end=f"{end_s:.6f}")


def _limited(sound: Any) -> Any:
    return sound.filter("alimiter", limit=f"{CEILING:.6f}", level=0, latency=1)


def _look_for_extras(path: Path) -> _Extras:
    with open_media(path) as container:
        subtitles = tuple(
            stream.codec_context.codec.canonical_name for stream in container.streams.subtitles if stream.codec_context
        )
        metadata = {key.lower(): value for key, value in container.metadata.items()}
        attachments = any(stream.type == "attachment" for stream in container.streams)
    comment = metadata.get("comment", "").removesuffix(SOUND_NOTE).removesuffix("; ")
    return _Extras(subtitles, attachments, comment)


def _loudness(video: Path) -> np.ndarray:
    """RMS in dBFS of every QUIET_STEP_S of a video's own sound, float32 [n]; of one without sound, none."""
    hop, curves = round(QUIET_STEP_S * SAMPLE_RATE), [np.zeros(0, np.float32)]
    try:
        # At the full rate: a whistle is no silence to a model of 8 kHz either.
        for block in _blocks(ffmpeg.read_sound(video, sample_rate=SAMPLE_RATE), hop):
            curves.append(rms_db(block, hop=hop, window_samples=hop, floor_db=2 * QUIET_DB))
    except MediaError as error:
        if error.status != "no_audio":
            raise
    return np.concatenate(curves)


def _blocks(pieces: Iterator[np.ndarray], hop: int) -> Iterator[np.ndarray]:
    """The same samples in blocks of whole hops; what is left at the end is dropped."""
    rest = np.zeros(0, np.float32)
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        whole = len(rest) // hop * hop
        yield rest[:whole]
        rest = rest[whole:]
