"""Decodes and copies media files: the only module that starts ffmpeg.

ffmpeg-python writes the commands, imageio-ffmpeg brings the program (it brings no ffprobe, so PyAV does the probing).

Time 0 of a file is its container's start, for pictures and sound alike: what starts later is padded, what starts
earlier is cut. So frame k and samples [k * hop, (k + 1) * hop) belong to the same instant, whatever was probed.
"""

import itertools
import math
import re
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import ffmpeg
import imageio_ffmpeg
import numpy as np

from soundback.errors import MediaError
from soundback.lifetime import start_tied
from soundback.media.containers import (
    CONTAINERS,
    PROTOCOLS,
    Probe,
    file_address,
    muxer,
    open_media,
    probe,
    start_time_s,
)
from soundback.media.light import gray_formula, is_high_range
from soundback.outputs import whole_file

EMPTY_PHRASES = (  # what ffmpeg adds below the line that tells
    "Error opening input file",
    "Error opening output file",
    "Nothing was written into output file",
    "Terminating thread with return code",
    "Conversion failed",
    "Error sending frames to consumers",
    "Task finished with error code",
    "Error writing trailer",
)
EXACT = "area+accurate_rnd+bitexact"  # of scaling: the same on every processor
LAST_LENGTH_UNTOLD = ("gif", "asf", "ogg")  # containers of which ffmpeg guesses how long the last picture is shown
INTEGER_DECODERS = {"aac": "aac_fixed", "ac3": "ac3_fixed", "mp3": "mp3"}
FLOATING_AAC = ("LD", "ELD", "xHE-AAC")
SOUND_PIECE_BYTES = 1 << 17

__all__ = ["Probe", "ffmpeg_path", "probe", "read_frames", "read_sound", "read_waveform", "run", "strip_sound"]

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


def read_frames(path: Path, *, frame_rate: int, size: int, fit: str, batch: int = 64) -> Iterator[np.ndarray]:
    """Decodes a video into square grayscale frames at a constant rate, in constant memory.

    Time stamps decide, not picture counts. Frame k is the newest picture shown within
    [k / frame_rate, (k + 1) / frame_rate), the stretch of time whose sound belongs to it; so a flash and a click at one
    instant meet in one frame. There are duration * frame_rate frames, rounded up.

    Of interlaced video, a picture is one field. Grays of high dynamic range become those of an ordinary screen, as
    `soundback.media.light` says. What is left of a truncated file is in time; it is shorter.

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
    picture = source(path, start_s=facts.start_s + facts.late_s, reinit_filter=0)["V:0"]
    if facts.interlaced:
        # The odd and the even lines as pictures of their own, each at its own time: nothing is computed or copied, so
        # this is exact and free. To fill in the other lines takes 0.6 (bwdif) to 1.5 times (yadif) as long as decoding,
        # for lines that scaling to the size of our frames takes away again.
        picture = picture.filter("separatefields")
        # It gives the last one no length; a copy that follows it does.
        picture = picture.filter("tpad", stop=1, stop_mode="clone")
    if facts.in_milliseconds:
        picture = _on_the_grid(picture, frame_rate)
    picture = picture.filter("fps", fps=frame_rate, start_time=0, round="down", eof_action="pass")
    if facts.container in LAST_LENGTH_UNTOLD:
        picture = picture.filter("trim", end_frame=math.ceil(round(facts.duration_s * frame_rate, 3)))
    if is_high_range(facts.transfer):
        picture = _ordinary_range(picture, facts.transfer)
    picture = _fitted(picture, facts.width / facts.height, size, fit)
    node = picture.output("pipe:", format="rawvideo", fps_mode="passthrough")
    return _raw_frames(node, path, size=size, batch=batch)


def read_waveform(path: Path, *, sample_rate: int) -> np.ndarray:
    """Decodes the sound of a file into one mono waveform: the pieces of `read_sound`, joined.

    Returns:
      float32 [time] in [-1, 1).
    """
    return np.concatenate([np.zeros(0, np.float32), *read_sound(path, sample_rate=sample_rate)])


def read_sound(path: Path, *, sample_rate: int) -> Iterator[np.ndarray]:
    """Decodes the sound of a file into one mono waveform, in time with the pictures of `read_frames`.

    The same samples on every processor: decoders and resampling in integer arithmetic, the other decoders without the
    instructions that some processors have and others have not.

    Returns:
      Pieces, float32 [time] in [-1, 1), from time 0 of the file; sound that starts late is padded with silence.
      Closing the iterator early ends ffmpeg.

    Raises:
      MediaError: missing, not_media, no_audio, corrupt or refused.
    """
    with open_media(path) as container:
        audio = next(iter(container.streams.audio), None)
        if audio is None:
            raise MediaError("no_audio", f"{path.name} has no sound track.")
        start_s = start_time_s(container)
        if audio.codec_context is None:
            raise MediaError("corrupt", f"The sound of {path.name} is in a codec that ffmpeg does not know.")
        codec = audio.codec_context.codec.canonical_name
        # Some profiles of AAC only the floating-point decoder knows.
        integer = None if audio.profile in FLOATING_AAC else INTEGER_DECODERS.get(codec)
    decoder = {"c:a": integer} if integer else {"cpuflags": 0}
    sound = source(path, start_s=start_s, **decoder)["a:0"].filter(
        "aresample",
        sample_rate,
        internal_sample_fmt="s16p",
        dither_method="none",
        exact_rational=1,
        first_pts=0,
    )
    sound = sound.filter("aformat", sample_fmts="s16", channel_layouts="mono")
    with _running(sound.output("pipe:", format="s16le"), reads=True) as process:
        assert process.stdout is not None  # noqa: S101 (for mypy; Popen was asked for a pipe)
        while samples := process.stdout.read(SOUND_PIECE_BYTES):
            yield np.frombuffer(samples, dtype="<i2").astype(np.float32) / np.float32(32768)


def strip_sound(path: Path, out: Path) -> None:
    """Copies a video's picture without its sound, whole or not at all; nothing is decoded.

    Raises:
      MediaError: as `probe`.
    """
    probe(path)
    kind, options = muxer(out)
    picture = source(path, start_s=None, fflags="+genpts")["V:0"]
    with whole_file(out) as partial:
        run(picture.output(file_address(partial), c="copy", format=kind, **options))


def source(path: Path, *, start_s: float | None, **options: Any) -> Any:
    """The input node of a file, its time stamps counted from `start_s`, or from where ffmpeg thinks best.

    Args:
      path: of a file that `probe` has let pass.
      start_s: time stamp that becomes 0, or None.
      options: of ffmpeg's for this input.
    """
    if start_s is not None:
        # Left to itself, ffmpeg counts a transport stream from the first of the streams it decodes: picture and sound
        # read apart would lose their offset.
        options |= {"copyts": None, "itsoffset": f"{-start_s:.6f}"}
    return ffmpeg.input(file_address(path), format_whitelist=CONTAINERS, **options)


def _on_the_grid(picture: Any, frame_rate: int) -> Any:
    """Moves time stamps that are within a millisecond of a frame's beginning there.

    Rounded to milliseconds, a picture of 1/30 s would come before the frame of 1/30 s begins.
    """
    picture = picture.filter("settb", f"1/{1000 * frame_rate}")
    begin = "1000*round(PTS/1000)"
    return picture.filter("setpts", f"if(lte(abs(PTS-{begin}),{frame_rate}),{begin},PTS)")


def _ordinary_range(picture: Any, transfer: int) -> Any:
    """The grays that a picture of high dynamic range has on an ordinary screen; in 12 bits, so that no dark ones merge.

    Before scaling, so that the mean of some pixels is that of what is seen. Exact on every processor: the formula
    becomes a table of integers, and none of its values is near enough to a half for the last bits of a power to count.
    """
    picture = picture.filter("scale", flags=EXACT).filter("format", "gray12")
    return picture.filter("lut", c0=gray_formula(transfer, bits=12))


def _fitted(picture: Any, aspect: float, size: int, fit: str) -> Any:
    """Scales to size x size in grayscale, bit-exact on every processor; `aspect` is width / height as shown."""
    long, short = max(size, round(size * max(aspect, 1 / aspect))), max(1, round(size * min(aspect, 1 / aspect)))
    wide = aspect >= 1
    width, height = {
        "stretch": (size, size),
        "pad": (size, short) if wide else (short, size),
        "crop": (long, size) if wide else (size, long),
    }[fit]
    picture = picture.filter("scale", width, height, flags=EXACT).filter("format", "gray")
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
    # With a pipe it ends when we do. Not tied then: the kernel counts the thread that started it as its parent, and an
    # iterator may outlive that thread.
    start = subprocess.Popen if feeds or reads else start_tied
    process = start(
        command,
        stdin=subprocess.PIPE if feeds else subprocess.DEVNULL,
        stdout=subprocess.PIPE if reads else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    words: deque[bytes] = deque(maxlen=20)
    listener = Thread(target=_listen, args=(process.stderr, words), daemon=True)
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
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                _close_quietly(pipe)
    if status != 0:
        raise MediaError("corrupt", f"ffmpeg failed on {_subject(command)}: {_last_words(words, command)}")


def _listen(pipe: Any, words: deque[bytes]) -> None:
    """Keeps the last lines; closes the pipe itself, since a thread that Python's end cut off still holds its lock."""
    with pipe:
        words.extend(pipe)


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


def _subject(command: list[str]) -> str:
    """The file that a command reads, or else writes."""
    inputs = [following for part, following in itertools.pairwise(command) if part == "-i"]
    files = [part.removeprefix("file:") for part in inputs if part.startswith("file:")]
    return Path((files or [command[-1].removeprefix("file:")])[0]).name


def _last_words(words: Iterable[bytes], command: list[str]) -> str:
    """What ffmpeg said last, without memory addresses and folders: the same words on every machine."""
    lines = [line.decode(errors="replace").strip() for line in words]
    telling = [line for line in lines if line and not any(phrase in line for phrase in EMPTY_PHRASES)]
    text = "; ".join(line.rstrip(".") for line in (telling or lines)[-2:]) or "it did not say why"
    for part in command:
        if part.startswith("file:"):
            path = Path(part.removeprefix("file:"))
            text = text.replace(part, path.name).replace(str(path), path.name)
    return re.sub(r" @ 0x[0-9a-f]+", "", text).rstrip(".") + "."
