"""Pieces of videos, held to what the ffmpeg program copies."""

import subprocess
from dataclasses import replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest

from soundback.errors import MediaError
from soundback.media import ffmpeg
from soundback.media.remuxing import cut
from tests.synthetic import BRIGHT, DARK, Film

SIX_SECONDS = Film(duration_s=6.0, events_s=(1.0, 3.0, 5.0))  # a key frame every 10 pictures
FILMS = {
    ".mp4": SIX_SECONDS,
    ".mov": SIX_SECONDS,
    ".mkv": SIX_SECONDS,
    ".webm": SIX_SECONDS,
    ".avi": SIX_SECONDS,
    ".ts": SIX_SECONDS,
    "29.97.mp4": replace(SIX_SECONDS, frame_rate="30000/1001"),
    "12.mkv": replace(SIX_SECONDS, frame_rate="12"),
    "variable.mp4": replace(SIX_SECONDS, keep=tuple(n for n in range(150) if n % 5 in (0, 1))),
    "late picture.mp4": replace(SIX_SECONDS, picture_late_s=0.52),
    "late sound.mp4": replace(SIX_SECONDS, sound_late_s=0.31),
    "late start.ts": replace(SIX_SECONDS, starts_at_s=7.5),
    "late start.mkv": replace(SIX_SECONDS, starts_at_s=7.5),
    "portrait.mp4": replace(SIX_SECONDS, rotation=90),
    "silent.mp4": replace(SIX_SECONDS, has_sound=False),
}
OPTIONS = {
    "both ways.mp4": {"preset": "medium", "bf": 3},
    "both ways.mkv": {"preset": "medium", "bf": 3},
    "both ways.ts": {"preset": "medium", "bf": 3},
    "few key frames.mp4": {"g": 100},
    "wide.mp4": {"aspect": "16:9"},
    "wide.mkv": {"aspect": "16:9"},
    "titled.mp4": {"metadata": "title=Mine"},
}
NOT_FOR_MP4 = (".webm", ".avi")


def program_cut(path: Path, out: Path, *, start_s: float, duration_s: float) -> None:
    command = [ffmpeg.ffmpeg_path(), "-v", "error", "-fflags", "+genpts", "-ss", f"{start_s:.6f}", "-i", path]
    command += ["-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-t", f"{duration_s:.6f}", "-map_metadata", "-1"]
    subprocess.run([*command, "-fflags", "+bitexact", out], check=True)


def packets_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """By kind of stream: when shown, when decoded, whether it is a key frame, whether it is hidden, and the bytes.

    Times count from the container's start, as `read_frames` and `read_waveform` count them.
    """
    packets: dict[str, list[tuple[object, ...]]] = {"video": [], "audio": []}
    with av.open(str(path)) as container:
        start = Fraction(container.start_time, av.time_base)
        for packet in container.demux():
            if packet.size:
                stamps = (packet.pts, packet.dts)  # Matroska does not hold when pictures are decoded.
                times = [
                    None if stamp is None else round(float(stamp * packet.time_base - start), 3) for stamp in stamps
                ]
                packets[packet.stream.type].append((*times, packet.is_keyframe, packet.is_discard, bytes(packet)))
    return packets


def pictures_of(path: Path) -> np.ndarray:
    return np.concatenate(list(ffmpeg.read_frames(path, frame_rate=25, size=16, fit="stretch")))


def flash_s(path: Path) -> float:
    """When the first flash is shown, in seconds from the file's start."""
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            if picture.to_ndarray(format="gray").mean() > (DARK + BRIGHT) / 2:
                return picture.time - container.start_time / av.time_base
    raise AssertionError("it never flashes")


def click_s(path: Path) -> float:
    """When the first click sets in, likewise."""
    loud = np.abs(ffmpeg.read_waveform(path, sample_rate=48000))
    return float(np.argmax(loud > loud.max() / 2)) / 48000


@pytest.mark.parametrize("start_s", [0.0, 1.6, 2.36])
@pytest.mark.parametrize("name", [*FILMS, *OPTIONS])
def test_a_piece_is_what_the_ffmpeg_program_copies(tmp_path, name, start_s):
    video = FILMS.get(name, SIX_SECONDS).write(tmp_path / f"film {name}", **OPTIONS.get(name, {}))
    suffix = ".mp4" if name.endswith(("mp4", "mov", "ts")) else ".mkv"
    ours, theirs = tmp_path / f"ours{suffix}", tmp_path / f"theirs{suffix}"
    cut(video, ours, start_s=start_s, duration_s=2.0)
    program_cut(video, theirs, start_s=start_s, duration_s=2.0)
    assert packets_of(ours) == packets_of(theirs)
    assert ffmpeg.probe(ours) == ffmpeg.probe(theirs)
    assert np.array_equal(pictures_of(ours), pictures_of(theirs))
    if name != "silent.mp4":
        assert np.array_equal(*[ffmpeg.read_waveform(path, sample_rate=8000) for path in (ours, theirs)])


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        (name, suffix)
        for name in [*FILMS, *OPTIONS]
        for suffix in (".mp4", ".mkv")
        if name != "silent.mp4" and (name, suffix) not in product(NOT_FOR_MP4, [".mp4"])
    ],
)
def test_a_flash_and_its_click_stay_together_from_any_container_into_any(tmp_path, name, suffix):
    video = FILMS.get(name, SIX_SECONDS).write(tmp_path / f"film {name}", **OPTIONS.get(name, {}))
    out = tmp_path / f"cut{suffix}"
    cut(video, out, start_s=2.0, duration_s=1.5)  # from a picture on, at all these rates
    # Where no picture is shown at 3 s sharp, the next one flashes.
    assert flash_s(out) == pytest.approx(click_s(out), abs=0.005)


def test_a_name_that_no_container_has_is_refused(tmp_path):
    video = Film().write(tmp_path / "film.mp4")
    with pytest.raises(MediaError, match=r"cut\.txt must end in one of \.mp4") as caught:
        cut(video, tmp_path / "cut.txt", start_s=0, duration_s=1)
    assert caught.value.status == "refused"


def test_what_a_container_cannot_hold_is_said_and_nothing_is_left(tmp_path):
    video = Film().write(tmp_path / "film.mp4")
    with pytest.raises(MediaError, match=r"film\.mp4 cannot be cut: .*webm.*h264") as caught:
        cut(video, tmp_path / "cut.webm", start_s=0, duration_s=1)
    assert caught.value.status == "corrupt"
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".webm"])
def test_of_a_video_that_breaks_off_comes_what_the_ffmpeg_program_copies(tmp_path, suffix):
    options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    video = SIX_SECONDS.write(tmp_path / f"film{suffix}", **options)
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 4])
    kept = ".mp4" if suffix in (".mp4", ".ts") else ".mkv"
    ours, theirs = tmp_path / f"ours{kept}", tmp_path / f"theirs{kept}"
    cut(video, ours, start_s=2.0, duration_s=3.0)
    program_cut(video, theirs, start_s=2.0, duration_s=3.0)
    assert packets_of(ours) == packets_of(theirs)
