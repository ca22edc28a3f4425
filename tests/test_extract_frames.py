"""Clips in, shards of frames out."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from soundback.errors import SoundbackError
from soundback.media import shards
from soundback.media.ffmpeg import read_frames
from soundback.params import Frames
from stages import extract_frames as stage
from stages.extract_frames import extract_frames
from tests.synthetic import Film, write_downloads

PARAMS = Frames(
    frame_rate=25, size=32, fit="stretch", encoding="png", jpeg_quality=90, shard_bytes=10**6, row_group_frames=64
)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "threads")
    monkeypatch.setenv("SOUNDBACK_WORKERS", "2")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos" / "drum"
    folder.mkdir(parents=True)
    Film(duration_s=4.0, events_s=(0.5, 2.5)).write(folder / "long_00.mp4")
    Film(frame_rate="30", has_sound=False).write(folder / "mute_00.mkv")
    Film(duration_s=1.0, size=(48, 64)).write(folder / "tall_00.mp4")
    (folder / "broken_00.mp4").write_bytes(b"not a video at all" * 50)
    files = {path.stem[:-3]: path.name for path in sorted(folder.iterdir(), reverse=True)}
    write_downloads(folder, files | {"gone": ""})
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_clips_lie_in_the_order_of_their_ids_and_broken_ones_are_named(videos, tmp_path, caplog):
    caplog.set_level("INFO")
    frames = tmp_path / "frames" / "drum"
    extract_frames(videos, frames, params=PARAMS)
    clips = [(clip.video_id, sum(map(len, clip.frames))) for clip in shards.iter_clips(frames)]
    assert clips == [("long", 100), ("mute", 50), ("tall", 25)]
    assert [path.name for path in frames.iterdir()] == ["part-00000.parquet"]
    assert [path.name for path in frames.parent.iterdir()] == ["drum"]
    assert "175 frames of 3 clips; clips left out: 1" in caplog.text
    assert "broken_00.mp4" in caplog.text


def test_stored_frames_are_the_decoded_ones(videos, tmp_path):
    extract_frames(videos, tmp_path / "drum", params=PARAMS)
    decoded = np.concatenate(list(read_frames(videos / "long_00.mp4", frame_rate=25, size=32, fit="stretch")))
    np.testing.assert_array_equal(shards.read_clip(tmp_path / "drum", "long", 0), decoded)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_each_fit_reaches_the_shards_to_the_pixel_as_png_and_nearly_as_jpeg(videos, tmp_path, fit):
    for encoding in ("png", "jpeg"):
        params = PARAMS.model_copy(update={"fit": fit, "encoding": encoding})
        extract_frames(videos, tmp_path / encoding, params=params)
        shown = shards.read_format(tmp_path / encoding / "part-00000.parquet")
        assert shown == shards.ShardFormat(size=32, frame_rate=25, encoding=encoding)
    for name, bars in (("long", np.s_[:, [0, 3, 28, 31]]), ("tall", np.s_[:, :, [0, 3, 28, 31]])):
        decoded = np.concatenate(list(read_frames(videos / f"{name}_00.mp4", frame_rate=25, size=32, fit=fit)))
        as_png, as_jpeg = (shards.read_clip(tmp_path / encoding, name, 0) for encoding in ("png", "jpeg"))
        np.testing.assert_array_equal(as_png, decoded)
        assert np.abs(as_jpeg.astype(int) - decoded).mean() < 3
        assert (as_png[:, 16, 16] > 0).all()
        assert (as_png[bars] == 0).all() == (fit == "pad")


def test_when_packing_fails_the_clips_that_have_not_begun_are_left(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("SOUNDBACK_WORKERS", "1")
    for number in range(12):
        (videos / f"n{number:02d}_00.mp4").hardlink_to(videos / "long_00.mp4")
    write_downloads(videos, {f"n{number:02d}": f"n{number:02d}_00.mp4" for number in range(12)})
    begun = []
    extract = stage._extract

    def noting(row, folder, **rest):
        begun.append(row["video_id"])
        return extract(row, folder, **rest)

    def failing(folders, *_, **__):
        next(folders)
        raise SoundbackError("The disk is full.")

    monkeypatch.setattr(stage, "_extract", noting)
    monkeypatch.setattr(stage.shards, "merge_shards", failing)
    with pytest.raises(SoundbackError, match="The disk is full"):
        extract_frames(videos, tmp_path / "out" / "drum", params=PARAMS)
    assert 1 <= len(begun) < 6
    assert list((tmp_path / "out").iterdir()) == []


def test_a_clip_is_kept_twice_only_until_it_is_packed(videos, tmp_path, monkeypatch):
    merge = shards.merge_shards
    lying = []

    def watching(folders, *rest, **params):
        def watched():
            for folder in folders:
                lying.append(sorted(path.name for path in folder.parent.glob("[0-9]*") if path.name < folder.name))
                yield folder

        merge(watched(), *rest, **params)

    monkeypatch.setattr(stage.shards, "merge_shards", watching)
    extract_frames(videos, tmp_path / "drum", params=PARAMS)
    assert lying == [[]] * 4


def test_same_clips_give_the_same_bytes_with_any_number_of_workers(videos, tmp_path, monkeypatch):
    params = PARAMS.model_copy(update={"encoding": "jpeg", "shard_bytes": 60_000})
    extract_frames(videos, tmp_path / "two", params=params)
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "processes")
    monkeypatch.setenv("SOUNDBACK_WORKERS", "1")
    extract_frames(videos, tmp_path / "one", params=params)
    assert len(hashes(tmp_path / "one")) > 1
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_interrupted_run_leaves_no_half_output(videos, tmp_path):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.extract_frames.shards.merge_shards", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract_frames(videos, tmp_path / "out" / "drum", params=PARAMS)
    assert list((tmp_path / "out").iterdir()) == []
