"""Opens media files with PyAV and says what is in them; refuses what is no media file.

imageio-ffmpeg brings no ffprobe; PyAV reads the same headers without a process.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from soundback.errors import MediaError

# Real containers only: no demuxer on this list opens other files or addresses, as playlists and manifests do.
CONTAINERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,ivf,nut,mxf,rm,dv,h264,hevc,obu,yuv4mpegpipe,"
    "wav,w64,mp3,flac,aac,ac3,aiff,caf,amr,au"
)
PROTOCOLS = "file,pipe"
MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
FIELD_ORDERS = (2, 3, 4, 5)  # ffmpeg's numbers of the interlaced ones
PLAYLIST_STARTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"<SmoothStreamingMedia", b"[playlist]", b"<?xml", b"v=0", b"<ASX")


@dataclass(frozen=True)
class Probe:
    """What a video file says of itself.

    Attributes:
      container: ffmpeg's name of the format.
      start_s: seconds, the container's own time stamp of its time 0.
      duration_s: seconds from time 0 to the end of the last picture.
      width: pixels as shown, after rotation and with square pixels.
      height: pixels as shown, likewise.
      frame_rate: pictures per second, on average.
      n_frames: pictures in the file, None where the container does not say.
      video_codec: ffmpeg's name.
      has_audio: whether there is a sound track.
      audio_codec: ffmpeg's name, None without sound or if ffmpeg has none.
      audio_sample_rate: Hz, None likewise.
      transfer: how grays stand for light, in the numbers of H.273; 2 where the file does not say.
      interlaced: whether the odd and the even lines of a picture were taken one after the other.
      late_s: by how many seconds its decoder shows the pictures too late.
      in_milliseconds: whether the time stamps of the pictures are rounded to milliseconds.
    """

    container: str
    start_s: float
    duration_s: float
    width: int
    height: int
    frame_rate: float
    n_frames: int | None
    video_codec: str
    has_audio: bool
    audio_codec: str | None
    audio_sample_rate: int | None
    transfer: int
    interlaced: bool
    late_s: float
    in_milliseconds: bool


@dataclass(frozen=True)
class Outline:
    """What a video file says of its length.

    Attributes:
      duration_s: as in `Probe`, and so the others.
      frame_rate: pictures per second.
      has_audio: whether there is a sound track.
    """

    duration_s: float
    frame_rate: float
    has_audio: bool


def outline(path: Path) -> Outline:
    """Reads what a video file says of its length; decodes nothing, and so takes half the time of `probe`.

    Raises:
      MediaError: as `probe`; but pictures that cannot be decoded are not found out.
    """
    with open_media(path) as container:
        return _outline(container, picture_stream(container, path), path)


def probe(path: Path) -> Probe:
    """Reads what a video file says of itself; decodes one picture.

    Raises:
      MediaError: missing, not_media, no_video, corrupt, or refused (a playlist or another non-file).
    """
    with open_media(path) as container:
        video = picture_stream(container, path)
        audio = next(iter(container.streams.audio), None)
        sound = audio.codec_context if audio else None  # None also for a codec that nobody knows
        picture, n_packets = _first_picture(container, video, path)
        width, height = _shown_size(video, picture)
        told = _outline(container, video, path)
        return Probe(
            container=container.format.name,
            start_s=start_time_s(container),
            duration_s=told.duration_s,
            width=width,
            height=height,
            frame_rate=told.frame_rate,
            n_frames=video.frames or None,
            video_codec=video.codec_context.name,
            has_audio=told.has_audio,
            audio_codec=sound.name if sound else None,
            audio_sample_rate=sound.sample_rate if sound else None,
            transfer=picture.color_trc,
            interlaced=_is_interlaced(video, picture),
            # AVI does not say when a picture is shown, only which one is next; so its decoder counts the pictures that
            # it waits for before it can show the first.
            late_s=(n_packets - 1) / told.frame_rate if container.format.name == "avi" and told.frame_rate else 0.0,
            in_milliseconds=video.time_base == Fraction(1, 1000),
        )


def file_address(path: Path) -> str:
    """A path as ffmpeg must read it: "-x" is no option then, and "a:b" no protocol."""
    return f"file:{path}"


def muxer(out: Path) -> tuple[str, dict[str, str]]:
    """Ffmpeg's name of the container that a suffix names, and the options it needs.

    Raises:
      MediaError: refused.
    """
    try:
        kind = MUXERS[out.suffix.lower()]
    except KeyError:
        raise MediaError("refused", f"{out.name} must end in one of {', '.join(MUXERS)}.") from None
    # A player can begin before it has all of the file.
    return kind, {"movflags": "+faststart"} if kind in ("mp4", "mov") else {}


@contextmanager
def open_media(path: Path) -> Iterator[Any]:
    """Opens a file with PyAV.

    Raises:
      MediaError: missing, not_media or refused.
    """
    _refuse_what_is_no_media_file(path)
    options = {"protocol_whitelist": PROTOCOLS, "format_whitelist": CONTAINERS}
    try:
        container = av.open(file_address(path), options=options, metadata_errors="replace")
    except av.error.InvalidDataError as error:
        raise MediaError("not_media", f"{path.name} is not a video or sound file, or its head is damaged.") from error
    except av.error.ArgumentError as error:
        raise MediaError("refused", f"{path.name} is of a kind that Soundback does not open.") from error
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError("corrupt", f"{path.name} cannot be opened: {error.strerror}.") from error
    with container:
        yield container


def picture_stream(container: Any, path: Path) -> Any:
    """The first video stream that is no cover art."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise MediaError("no_video", f"{path.name} has no moving picture.")


def picture_end_s(path: Path) -> float:
    """Where the last picture ends, in seconds from time 0, read from the packets: right where the container is not.

    Raises:
      MediaError: as `probe`.
    """
    end = Fraction(0)
    with open_media(path) as container:
        video = picture_stream(container, path)
        usual = 1 / (video.average_rate or video.guessed_rate or Fraction(25))
        try:
            for packet in container.demux(video):
                if packet.pts is not None and not packet.is_discard:
                    length = packet.duration * packet.time_base if packet.duration else usual
                    end = max(end, packet.pts * packet.time_base + length)
        except av.error.FFmpegError as error:
            raise MediaError("corrupt", f"{path.name} cannot be read to its end: {error.strerror}.") from error
        return float(end) - start_time_s(container)


def start_time_s(container: Any) -> float:
    """The container's own time stamp of its time 0, in seconds."""
    return float((container.start_time or 0) / av.time_base)


def _refuse_what_is_no_media_file(path: Path) -> None:
    """Names what can be told without opening it as media."""
    if not path.exists():
        raise MediaError("missing", f"There is no file {path}.")
    if not path.is_file():
        raise MediaError("not_media", f"{path} is not a file.")
    try:
        with path.open("rb") as file:
            head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise MediaError("missing", f"{path} cannot be read ({error.strerror}).") from error
    if not head:
        raise MediaError("not_media", f"{path.name} is empty.")
    if head.startswith(PLAYLIST_STARTS):
        raise MediaError("refused", f"{path.name} is a playlist, not a video; it could name any other file.")


def _outline(container: Any, video: Any, path: Path) -> Outline:
    rate = video.average_rate or video.guessed_rate or video.base_rate
    duration_s = _told_duration_s(container, video)
    return Outline(
        duration_s=picture_end_s(path) if duration_s is None else duration_s,
        frame_rate=float(rate) if rate else 0.0,
        has_audio=bool(container.streams.audio),
    )


def _first_picture(container: Any, video: Any, path: Path) -> tuple[Any, int]:
    """The first picture shown, and how many packets it took to decode it."""
    if video.codec_context is None:
        raise MediaError("corrupt", f"The pictures of {path.name} are in a codec that ffmpeg does not know.")
    # Several threads would take longer to start than one takes for the picture.
    video.codec_context.thread_count = 1
    n_packets = 0
    try:
        for packet in container.demux(video):
            # An empty one says "the same picture again", where it is not the last; a decoder takes it for the end.
            if not packet.size and packet.dts is not None:
                continue
            n_packets += packet.size > 0
            for picture in packet.decode():
                return picture, n_packets
    except av.error.FFmpegError as error:
        raise MediaError("corrupt", f"{path.name} cannot be decoded: {error.strerror}.") from error
    raise MediaError("corrupt", f"{path.name} has a picture track, but nothing in it can be decoded.")


def _shown_size(video: Any, picture: Any) -> tuple[int, int]:
    """Width and height with square pixels, after rotation."""
    shape = video.sample_aspect_ratio or Fraction(1)
    width, height = max(1, round(picture.width * shape)), picture.height
    return (height, width) if picture.rotation % 180 == 90 else (width, height)


def _is_interlaced(video: Any, picture: Any) -> bool:
    # Turned by a quarter, its lines would be columns, by a half, the odd ones the even ones: then they stay together.
    if picture.height < 2 or picture.rotation:
        return False
    return bool(picture.interlaced_frame) or video.codec_context.field_order in FIELD_ORDERS


def _told_duration_s(container: Any, video: Any) -> float | None:
    """Where the container says that the picture ends, in seconds from its time 0."""
    # What is told of an MPEG program stream is ffmpeg's guess from a few of its last packets.
    if container.format.name == "mpeg":
        return None
    if video.duration is not None:
        return float(((video.start_time or 0) + video.duration) * video.time_base) - start_time_s(container)
    # Matroska says it in a tag of the track, if at all; its own duration is that of the longer of picture and sound.
    if match := re.fullmatch(r"(\d+):(\d+):([\d.]+)", video.metadata.get("DURATION", "")):
        return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) - start_time_s(container)
    return container.duration / av.time_base if container.duration else None
