"""Clips in, wavs and their table out."""

import hashlib
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest

from soundback import schemas
from soundback.media.audio import read_wav
from soundback.params import Audio
from stages.extract_audio import extract_audio
from tests.synthetic import Film, write_downloads

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
        patch.setattr("stages.extract_audio.audio.write_wav", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract_audio(videos, tmp_path / "out" / "drum", params=PARAMS)
    assert list((tmp_path / "out").iterdir()) == []
    leftover = tmp_path / "out" / ".drum.partial"  # of a run that was killed
    leftover.mkdir()
    (leftover / "old_00.wav").write_bytes(b"half")
    extract_audio(videos, tmp_path / "out" / "drum", params=PARAMS)
    assert not (tmp_path / "out" / "drum" / "old_00.wav").exists()
    assert not leftover.exists()
