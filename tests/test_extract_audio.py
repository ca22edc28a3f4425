"""Clips in, wavs and their table out."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ffmpeg as graphs
import numpy as np
import pyloudnorm
import pytest

from soundback import schemas
from soundback.media import ffmpeg
from soundback.media.audio import read_wav
from soundback.params import Audio
from stages.extract_audio import extract_audio
from tests.synthetic import Film, write_downloads

PROJECT = Path(__file__).parents[1]
PARAMS = Audio(sample_rate=8000, loudness_lufs=-20, true_peak_db=-1, min_duration_s=0.5, silence_db=-60)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "threads")
    monkeypatch.setenv("SOUNDBACK_WORKERS", "2")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos" / "drum"
    folder.mkdir(parents=True)
    Film(events_s=(0.5, 1.5)).write(folder / "good_00.mp4")
    Film(events_s=(0.5,)).write(folder / "also_00.mkv")
    Film(has_sound=False).write(folder / "mute_00.mp4")
    Film(events_s=()).write(folder / "quiet_00.mp4")
    Film(duration_s=0.3, events_s=(0.1,)).write(folder / "brief_00.mp4")
    (folder / "broken_00.mp4").write_bytes(b"not a video at all" * 50)
    files = {path.stem[:-3]: path.name for path in sorted(folder.iterdir(), reverse=True)}
    write_downloads(folder, files | {"gone": "", "lost": "lost_00.mp4"})
    return folder


def rows(folder: Path) -> list[dict]:
    return schemas.read_table(folder / "audio.parquet", schemas.AUDIO).to_pylist()


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_every_downloaded_clip_has_a_row_that_says_what_became_of_it(videos, tmp_path, caplog):
    caplog.set_level("INFO")
    sounds = tmp_path / "audio" / "drum"
    extract_audio(videos, sounds, params=PARAMS)
    assert [(row["video_id"], row["status"]) for row in rows(sounds)] == [
        ("also", "ok"),
        ("brief", "too_short"),
        ("broken", "corrupt"),
        ("good", "ok"),
        ("lost", "corrupt"),
        ("mute", "no_audio"),
        ("quiet", "silent"),
    ]
    for row in rows(sounds):
        assert (row["reason"] is None) == (row["status"] == "ok") == (row["path"] is not None)
        assert str(tmp_path) not in (row["reason"] or "")
    assert sorted(path.name for path in sounds.iterdir()) == ["also_00.wav", "audio.parquet", "good_00.wav"]
    assert [path.name for path in sounds.parent.iterdir()] == ["drum"]
    assert "2 of 7 clips have usable sound; not: 2 corrupt, 1 no_audio, 1 silent, 1 too_short" in caplog.text


def test_wavs_are_what_their_rows_say(videos, tmp_path):
    extract_audio(videos, tmp_path / "drum", params=PARAMS)
    for row in rows(tmp_path / "drum"):
        if row["status"] != "ok":
            continue
        waveform = read_wav(tmp_path / "drum" / row["path"])
        assert len(waveform) == row["n_samples"]
        assert row["sample_rate"] == 8000
        assert 0.7 < row["silence_share"] < 1  # clicks in silence
        loudness = pyloudnorm.Meter(8000).integrated_loudness(waveform.astype(np.float64))
        assert loudness == pytest.approx(row["loudness_lufs_in"] + row["gain_db"], abs=0.1)
        assert row["gain_limited_by"] == "peak"
        assert np.abs(waveform).max() <= 10 ** (-1 / 20)


RINGING = Film(events_s=tuple(k / 10 for k in range(20)))


def plain(folder: Path, name: str, **options: Any) -> Path:
    """An ordinary film that clicks throughout."""
    return RINGING.write(folder / name, **options)


def without_picture(folder: Path) -> Path:
    film = plain(folder, "whole.mp4")
    ffmpeg.run(graphs.input(str(film)).output(str(folder / "sound.mp4"), c="copy", map="0:a"))
    film.unlink()
    return folder / "sound.mp4"


def cut_off(folder: Path, name: str, share: float, **options: Any) -> Path:
    film = plain(folder, name, **options)
    film.write_bytes(film.read_bytes()[: int(film.stat().st_size * share)])
    return film


def put_into(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def in_an_unknown_codec(folder: Path) -> Path:
    film = plain(folder, "film.mkv")
    return put_into(film, film.read_bytes().replace(b"A_AAC", b"A_XYZ"))


@pytest.mark.parametrize(
    ("make", "status", "reason"),
    [
        (lambda folder: plain(folder, "film.mp4"), "ok", None),
        (lambda folder: plain(folder, "film.mp4", ac=6), "ok", None),
        (lambda folder: plain(folder, "film.mp4", ar=8000), "ok", None),
        (lambda folder: plain(folder, "film.mkv", ar=96000, **{"c:a": "flac"}), "ok", None),
        (lambda folder: plain(folder, "film.mp4").rename(folder / "film.mkv"), "ok", None),
        (lambda folder: plain(folder, "film.mp4").rename(folder / "film.jpg"), "ok", None),
        (without_picture, "ok", None),
        (lambda folder: Film(has_sound=False).write(folder / "film.mp4"), "no_audio", "film.mp4 has no sound track."),
        (lambda folder: Film(events_s=()).write(folder / "film.mp4"), "silent", "Never louder than -60 dBFS."),
        (
            lambda folder: Film(duration_s=0.36, events_s=(0.1,)).write(folder / "film.avi"),
            "too_short",
            "0.36 s of sound; audio.min_duration_s asks for 0.5 s.",
        ),
        (lambda folder: cut_off(folder, "film.mkv", 0.7), "ok", None),
        (lambda folder: cut_off(folder, "film.mp4", 0.9, movflags="+faststart"), "ok", None),
        (
            lambda folder: cut_off(folder, "film.mp4", 0.5, **{"c:a": "flac", "strict": -2}),
            "corrupt",
            "film.mp4 is not a video or sound file, or its head is damaged.",
        ),
        (lambda folder: put_into(folder / "film.mp4", b""), "corrupt", "film.mp4 is empty."),
        (
            lambda folder: put_into(folder / "film.mp4", b"words " * 99),
            "corrupt",
            "film.mp4 is not a video or sound file, or its head is damaged.",
        ),
        (in_an_unknown_codec, "corrupt", "The sound of film.mkv is in a codec that ffmpeg does not know."),
    ],
    ids=[
        "ordinary", "5.1", "8 kHz", "96 kHz", "mp4 named mkv", "mp4 named jpg", "sound only", "picture only", "silent",
        "short", "cut mkv", "cut mp4", "mp4 cut before its index", "zero bytes", "text", "unknown codec",
    ],
)  # fmt: skip
def test_each_kind_of_file_has_the_row_it_deserves(tmp_path, request, make, status, reason):
    folder = tmp_path / "videos"
    folder.mkdir()
    path = make(folder)
    write_downloads(folder, {"clip": path.name})
    extract_audio(folder, tmp_path / "out", params=PARAMS)
    (row,) = rows(tmp_path / "out")
    assert (row["status"], row["reason"]) == (status, reason)
    if status == "ok":
        waveform = read_wav(tmp_path / "out" / row["path"])
        assert len(waveform) == row["n_samples"]
        starts = np.abs(waveform[: len(waveform) // 800 * 800].reshape(-1, 800)[:, :80]).max(axis=1)
        heard = list(np.flatnonzero(starts > 0.05))
        # Each click in its place: all of them, or what is left of a file that was cut off.
        assert heard == list(range(len(heard)))
        assert (7 if request.node.callspec.id.startswith("cut") else 20) <= len(heard) <= 20


@pytest.mark.parametrize("duration_s", [600, pytest.param(7200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", ["extract_audio", "extract_frames"])
def test_long_videos_need_no_more_memory(tmp_path, stage, duration_s):
    short = Film(duration_s=10, frame_rate="10", size=(32, 32), events_s=(1.0, 5.0)).write(
        tmp_path / "film.mp4", ar=16000
    )
    looped = graphs.input(str(short), stream_loop=duration_s // 10 - 1)
    ffmpeg.run(looped.output(str(tmp_path / "looped.mp4"), c="copy"))
    resident_mb = [peak_resident_mb(tmp_path, name, stage) for name in ("film.mp4", "looped.mp4")]
    assert resident_mb[1] - resident_mb[0] < (100 if duration_s == 7200 else 30)


def peak_resident_mb(folder: Path, name: str, stage: str) -> float:
    """The most that a stage and its ffmpeg hold together, run on one file in a process of its own."""
    videos = folder / f"{name}.videos"
    videos.mkdir()
    (folder / name).rename(videos / name)
    write_downloads(videos, {"clip": name})
    code = (
        "import resource, sys; from pathlib import Path; from soundback.params import load_params; "
        f"from stages.{stage} import {stage}; videos, out, section = sys.argv[1:]; "
        f"{stage}(Path(videos), Path(out), params=getattr(load_params(), section)); "
        "print(*(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))"
    )
    arguments = [str(videos), str(folder / f"{name}.out"), stage.removeprefix("extract_")]
    env = os.environ | {"SOUNDBACK_EXECUTOR": "threads", "SOUNDBACK_WORKERS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=PROJECT, env=env, capture_output=True, text=True, check=True
    )
    return sum(map(int, child.stdout.splitlines()[-1].split())) / 1000


def test_same_clips_give_the_same_bytes_with_any_number_of_workers(videos, tmp_path, monkeypatch):
    extract_audio(videos, tmp_path / "two", params=PARAMS)
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "processes")
    monkeypatch.setenv("SOUNDBACK_WORKERS", "1")
    extract_audio(videos, tmp_path / "one", params=PARAMS)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_interrupted_run_leaves_no_half_output_and_the_next_runs_cleanly(videos, tmp_path, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.extract_audio.audio.write_wav_pieces", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract_audio(videos, tmp_path / "out" / "drum", params=PARAMS)
    assert list((tmp_path / "out").iterdir()) == []
    leftover = tmp_path / "out" / ".drum.partial"  # of a run that was killed
    leftover.mkdir()
    (leftover / "old_00.wav").write_bytes(b"half")
    extract_audio(videos, tmp_path / "out" / "drum", params=PARAMS)
    assert not (tmp_path / "out" / "drum" / "old_00.wav").exists()
    assert not leftover.exists()
