"""Opens, decodes, cuts and joins media files: the only module that starts ffmpeg.

ffmpeg-python writes the commands, imageio-ffmpeg brings the program (it brings no ffprobe, so PyAV does the probing).

Time 0 of a file is its container's start, for pictures and sound alike: what starts later is padded, what starts
earlier is cut. So frame k and samples [k * hop, (k + 1) * hop) belong to the same instant, whatever was probed.
"""

import re
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import av
import av.error
import ffmpeg
import imageio_ffmpeg
import numpy as np

from soundback.errors import MediaError
from soundback.lifetime import die_with_parent

# Real containers only: no demuxer on this list opens other files or addresses, as playlists and manifests do.
CONTAINERS = (
    "mov,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,ivf,nut,mxf,rm,dv,h264,hevc,obu,yuv4mpegpipe,"
    "wav,w64,mp3,flac,aac,ac3,aiff,caf,amr,au"
)
PROTOCOLS = "file,pipe"
PLAYLIST_STARTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"<SmoothStreamingMedia", b"[playlist]", b"<?xml", b"v=0", b"<ASX")
MUXERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
SOUND_NOTE = "synthetic sound by Soundback"

_GLOBAL = (
    "-nostdin",
    "-hide_banner",
    "-loglevel",
    "error",
    "-y",
    "-filter_threads",
    "1",
    "-filter_complex_threads",
    "1",
)
_INPUT = ("-protocol_whitelist", PROTOCOLS, "-threads", "1")
# Without these, outputs carry the encoder's version; with more threads, x264 writes other bytes.
_OUTPUT = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", "-threads", "1")


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
      audio_codec: ffmpeg's name, None without sound.
      audio_sample_rate: Hz, None without sound.
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


@cache
def ffmpeg_path() -> str:
    """The ffmpeg that imageio-ffmpeg brings."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MediaError(
            "missing", f"There is no ffmpeg on this machine ({error}). Reinstall imageio-ffmpeg."
        ) from error


def run(node: Any, *, feed: Iterable[bytes] | None = None) -> None:
    """Runs an ffmpeg-python graph with one output to its end, on one thread and bit-exact; replaces an existing output.

    Args:
      node: what `ffmpeg.output(...)` returns.
      feed: what to write to an input named "pipe:".

    Raises:
      MediaError: corrupt, with ffmpeg's own last words.
    """
    with _running(node, feeds=feed is not None) as process:
        if process.stdin is None:
            return
        try:
            for chunk in feed or ():
                process.stdin.write(chunk)
            process.stdin.close()
        except BrokenPipeError:
            pass  # It ended early; how, its exit status says.


def probe(path: Path) -> Probe:
    """Reads what a video file says of itself; decodes one picture.

    Raises:
      MediaError: missing, not_media, no_video, corrupt, or refused (a playlist or another non-file).
    """
    with _opened(path) as container:
        video = _picture_stream(container, path)
        picture = _first_picture(container, video, path)
        audio = next(iter(container.streams.audio), None)
        start_s = (container.start_time or 0) / av.time_base
        width, height = _shown_size(video, picture)
        rate = video.average_rate or video.guessed_rate or video.base_rate
        told = (video.codec_context.name, container.format.name)
        duration_s = _told_duration_s(container, video, start_s)
        n_frames = video.frames or None
    if duration_s is None:
        duration_s = _picture_end_s(path)
    return Probe(
        container=told[1],
        start_s=start_s,
        duration_s=duration_s,
        width=width,
        height=height,
        frame_rate=float(rate) if rate else 0.0,
        n_frames=n_frames,
        video_codec=told[0],
        has_audio=audio is not None,
        audio_codec=audio.codec_context.name if audio else None,
        audio_sample_rate=audio.codec_context.sample_rate if audio else None,
    )


def read_frames(path: Path, *, frame_rate: int, size: int, fit: str, batch: int = 64) -> Iterator[np.ndarray]:
    """Decodes a video into square grayscale frames at a constant rate, in constant memory.

    Time stamps decide, not picture counts. Frame k is the newest picture shown within
    [k / frame_rate, (k + 1) / frame_rate), the stretch of time whose sound belongs to it; so a flash and a click at one
    instant meet in one frame. There are duration * frame_rate frames, rounded up.

    Args:
      path: a video file.
      frame_rate: frames per second.
      size: pixels, height and width of the result.
      fit: stretch (ignores the aspect ratio), pad (black bars) or crop (the middle).
      batch: frames per array.

    Returns:
      uint8 arrays [batch, size, size] in [0, 255], the last one shorter. Closing the iterator early ends ffmpeg.

    Raises:
      MediaError: as `probe`; corrupt also while iterating, when nothing can be decoded.
    """
    facts = probe(path)
    picture = _source(path, start_s=facts.start_s, reinit_filter=0)["V:0"]
    picture = picture.filter("fps", fps=frame_rate, start_time=0, round="down", eof_action="pass")
    picture = _fitted(picture, facts.width / facts.height, size, fit).filter("format", "gray")
    node = picture.output("pipe:", format="rawvideo", fps_mode="passthrough")
    return _raw_frames(node, path, size=size, batch=batch)


def read_waveform(path: Path, *, sample_rate: int) -> np.ndarray:
    """Decodes the sound of a file into one mono waveform, in time with the pictures of `read_frames`.

    Integer arithmetic throughout, so that AAC gives the same samples on every processor.

    Returns:
      float32 [time] in [-1, 1), from time 0 of the file; sound that starts late is padded with silence.

    Raises:
      MediaError: missing, not_media, no_audio, corrupt or refused.
    """
    with _opened(path) as container:
        audio = next(iter(container.streams.audio), None)
        if audio is None:
            raise MediaError("no_audio", f"{path.name} has no sound track.")
        start_s = (container.start_time or 0) / av.time_base
        # The floating-point decoder differs from processor to processor. It alone knows the USAC profiles.
        exact = audio.codec_context.name == "aac" and "xHE" not in (audio.profile or "")
    decoder = {"c:a": "aac_fixed"} if exact else {}
    sound = _source(path, start_s=start_s, **decoder)["a:0"].filter(
        "aresample",
        sample_rate,
        internal_sample_fmt="s16p",
        dither_method="none",
        exact_rational=1,
        first_pts=0,
    )
    sound = sound.filter("aformat", sample_fmts="s16", channel_layouts="mono")
    node = sound.output("pipe:", format="s16le")
    with _running(node, reads=True) as process:
        assert process.stdout is not None  # noqa: S101 (for mypy; Popen was asked for a pipe)
        samples = np.frombuffer(process.stdout.read(), dtype="<i2")
    return samples.astype(np.float32) / np.float32(32768)


def cut(path: Path, out: Path, *, start_s: float, duration_s: float) -> None:
    """Copies a piece of a video without decoding it, whole or not at all; `out`'s suffix names the container.

    The picture may begin at the key frame before `start_s` where the container cannot hide it.

    Raises:
      MediaError: as `probe`.
    """
    facts = probe(path)
    source = _source(path, start_s=None, ss=f"{start_s:.6f}")
    streams = [source["V:0"], source["a:0"]] if facts.has_audio else [source["V:0"]]
    with _whole(out) as partial:
        run(ffmpeg.output(*streams, _file(partial), c="copy", t=f"{duration_s:.6f}", map_metadata=-1, **_muxer(out)))


def strip_sound(path: Path, out: Path) -> None:
    """Copies a video's picture without its sound, whole or not at all; nothing is decoded.

    Raises:
      MediaError: as `probe`.
    """
    probe(path)
    with _whole(out) as partial:
        run(_source(path, start_s=None)["V:0"].output(_file(partial), c="copy", **_muxer(out)))


def mux(video: Path, waveform_file: Path, out: Path) -> None:
    """Gives a video another sound: the picture is copied untouched, its own sound dropped.

    The sound is padded or cut to the length of the picture, at 48 kHz (Opus in .webm, else AAC); the file's comment
    says that it is synthetic. Written whole or not at all.

    Args:
      video: a video file.
      waveform_file: a sound file whose time 0 is the video's time 0.
      out: where to; its suffix names the container.

    Raises:
      MediaError: as `probe`; refused when the picture cannot be copied into a container of that name.
    """
    facts = probe(video)
    end_s = _picture_end_s(video)
    picture = _source(video, start_s=facts.start_s)["V:0"]
    sound = ffmpeg.input(_file(waveform_file)).filter("aresample", 48000)
    sound = sound.filter("apad", whole_dur=f"{end_s:.6f}").filter("atrim", end=f"{end_s:.6f}")
    codecs = {"c:v": "copy", "c:a": "libopus" if out.suffix.lower() == ".webm" else "aac"}
    with _whole(out) as partial:
        node = ffmpeg.output(picture, sound, _file(partial), metadata=f"comment={SOUND_NOTE}", **codecs, **_muxer(out))
        try:
            run(node)
        except MediaError as error:
            raise MediaError(
                "refused",
                f"{out.name} cannot hold the picture of {video.name} as it is ({facts.video_codec}): {error} "
                "Give the output the video's own suffix, or .mkv.",
            ) from error


def _file(path: Path) -> str:
    """A path as ffmpeg must read it: "-x" is no option then, and "a:b" no protocol."""
    return f"file:{path}"


def _source(path: Path, *, start_s: float | None, **options: Any) -> Any:
    """The input node of a file, its time stamps counted from `start_s`, or from where ffmpeg thinks best."""
    if start_s is not None:
        # Left to itself, ffmpeg counts a transport stream from the first of the streams it decodes: picture and sound
        # read apart would lose their offset.
        options |= {"copyts": None, "itsoffset": f"{-start_s:.6f}"}
    return ffmpeg.input(_file(path), format_whitelist=CONTAINERS, **options)


def _muxer(out: Path) -> dict[str, Any]:
    """Output options of the container that a suffix names."""
    try:
        muxer = MUXERS[out.suffix.lower()]
    except KeyError:
        raise MediaError("refused", f"{out.name} must end in one of {', '.join(MUXERS)}.") from None
    return {"format": muxer} | ({"movflags": "+faststart"} if muxer in ("mp4", "mov") else {})


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Yields where to write; the result appears under its name when the block ends well, else nothing stays."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    try:
        yield partial
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _fitted(picture: Any, aspect: float, size: int, fit: str) -> Any:
    """Scales to size x size, bit-exact on every processor; `aspect` is width / height as shown."""
    long, short = max(size, round(size * max(aspect, 1 / aspect))), max(1, round(size * min(aspect, 1 / aspect)))
    wide = aspect >= 1
    width, height = {
        "stretch": (size, size),
        "pad": (size, short) if wide else (short, size),
        "crop": (long, size) if wide else (size, long),
    }[fit]
    picture = picture.filter("scale", width, height, flags="area+accurate_rnd+bitexact")
    if fit == "pad":
        return picture.filter("pad", size, size, -1, -1)
    return picture.filter("crop", size, size) if fit == "crop" else picture


def _raw_frames(node: Any, path: Path, *, size: int, batch: int) -> Iterator[np.ndarray]:
    """The output of a raw gray graph as arrays."""
    n_frames = 0
    with _running(node, reads=True) as process:
        assert process.stdout is not None  # noqa: S101 (for mypy; Popen was asked for a pipe)
        while pixels := process.stdout.read(batch * size * size):
            frames = np.frombuffer(pixels[: len(pixels) // (size * size) * size * size], dtype=np.uint8)
            n_frames += len(frames) // (size * size)
            yield frames.reshape(-1, size, size)
    if not n_frames:
        raise MediaError("corrupt", f"{path.name} has a picture track, but nothing in it can be decoded.")


@contextmanager
def _running(node: Any, *, feeds: bool = False, reads: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Starts ffmpeg and waits for its end; when the block is left early, kills it.

    Raises:
      MediaError: corrupt, when it fails.
    """
    command = _command(node)
    piped = feeds or reads
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
        stdout=subprocess.PIPE if reads else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # With a pipe it ends when we do. Not asked for then: the kernel counts the thread that started it as its
        # parent, and an iterator may outlive that thread.
        preexec_fn=None if piped else die_with_parent,
    )
    words: deque[bytes] = deque(maxlen=20)
    listener = Thread(target=words.extend, args=(process.stderr,), daemon=True)
    listener.start()
    try:
        yield process
        if process.stdout is not None:
            process.stdout.close()
        status = process.wait()
        listener.join()
    finally:
        process.kill()
        process.wait()
        listener.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                _close_quietly(pipe)
    if status != 0:
        raise MediaError("corrupt", f"ffmpeg failed: {_last_words(words, command)}")


def _close_quietly(pipe: Any) -> None:
    """Closes a pipe whose other end may be gone."""
    with suppress(BrokenPipeError):
        pipe.close()


def _command(node: Any) -> list[str]:
    """The command line of a graph with one output, with the options that every run has."""
    parts: list[str] = [str(part) for part in node.compile(cmd=[ffmpeg_path(), *_GLOBAL])]
    command = []
    for part in parts[:-1]:
        command += [*_INPUT, part] if part == "-i" else [part]
    return [*command, *_OUTPUT, parts[-1]]


def _last_words(words: Iterable[bytes], command: list[str]) -> str:
    """What ffmpeg said last, without memory addresses and folders: the same words on every machine."""
    lines = [line.decode(errors="replace").strip() for line in words]
    text = "; ".join([line for line in lines if line][-2:]) or "it did not say why"
    for part in command:
        if part.startswith("file:"):
            path = Path(part.removeprefix("file:"))
            text = text.replace(part, path.name).replace(str(path), path.name)
    return re.sub(r" @ 0x[0-9a-f]+", "", text).rstrip(".") + "."


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a file with PyAV.

    Raises:
      MediaError: missing, not_media or refused.
    """
    _refuse_what_is_no_media_file(path)
    options = {"protocol_whitelist": PROTOCOLS, "format_whitelist": CONTAINERS}
    try:
        container = av.open(_file(path), options=options, metadata_errors="replace")
    except av.error.InvalidDataError as error:
        raise MediaError("not_media", f"{path.name} is not a video or sound file, or its head is damaged.") from error
    except av.error.ArgumentError as error:
        raise MediaError("refused", f"{path.name} is of a kind that Soundback does not open.") from error
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError("corrupt", f"{path.name} cannot be opened: {error.strerror}.") from error
    with container:
        yield container


def _refuse_what_is_no_media_file(path: Path) -> None:
    if not path.exists():
        raise MediaError("missing", f"There is no file {path}.")
    if not path.is_file():
        raise MediaError("not_media", f"{path} is not a file.")
    with path.open("rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        raise MediaError("not_media", f"{path.name} is empty.")
    if head.startswith(PLAYLIST_STARTS):
        raise MediaError("refused", f"{path.name} is a playlist, not a video; it could name any other file.")


def _picture_stream(container: Any, path: Path) -> Any:
    """The first video stream that is no cover art."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise MediaError("no_video", f"{path.name} has no moving picture.")


def _first_picture(container: Any, video: Any, path: Path) -> Any:
    try:
        for picture in container.decode(video):
            return picture
    except av.error.FFmpegError as error:
        raise MediaError("corrupt", f"{path.name} cannot be decoded: {error.strerror}.") from error
    raise MediaError("corrupt", f"{path.name} has a picture track, but nothing in it can be decoded.")


def _shown_size(video: Any, picture: Any) -> tuple[int, int]:
    """Width and height with square pixels, after rotation."""
    shape = video.sample_aspect_ratio or Fraction(1)
    width, height = max(1, round(picture.width * shape)), picture.height
    return (height, width) if picture.rotation % 180 else (width, height)


def _told_duration_s(container: Any, video: Any, start_s: float) -> float | None:
    """Where the container says that the picture ends, in seconds from its time 0."""
    if video.duration is not None:
        return float((video.start_time or 0) * video.time_base + video.duration * video.time_base) - start_s
    return container.duration / av.time_base if container.duration else None


def _picture_end_s(path: Path) -> float:
    """Where the last picture ends, in seconds from time 0, read from the packets: right where the container is not."""
    end = Fraction(0)
    with _opened(path) as container:
        video = _picture_stream(container, path)
        shortest = 1 / (video.average_rate or video.guessed_rate or Fraction(25))
        for packet in container.demux(video):
            if packet.pts is not None and not packet.is_discard:
                length = packet.duration * packet.time_base if packet.duration else shortest
                end = max(end, packet.pts * packet.time_base + length)
        return float(end) - (container.start_time or 0) / av.time_base
