"""Soundtracks for many videos: every one has its row, and none is lost to another's failure."""

import csv
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from soundback.errors import MediaError, SoundbackError
from soundback.soundtracks import TABLE, find_videos, sound_videos
from tests.synthetic import Film


@dataclass(frozen=True)
class Done:
    """What `Recorder` gives back."""

    path: Path
    notes: tuple[str, ...]
    length_s: float = 2.0
    spent_s: Mapping[str, float] = field(default_factory=lambda: {"watching": 0.3, "sounding": 0.5})


class Recorder:
    """Stands for the models: copies, notes what it was asked, and fails where it is told to."""

    def __init__(self) -> None:
        self.loaded = 0
        self.asked: list[str] = []
        self.fails = ""

    def load(self):
        self.loaded += 1
        return self

    def __call__(self, video: Path, out: Path, *, progress) -> "Done":
        self.asked.append(video.name)
        progress(1, 2)
        if video.name == self.fails:
            raise MediaError("corrupt", f"{video.name} breaks off.")
        shutil.copy(video, out)
        return Done(out, ("Mind the gap.",) if video.name == "c.mp4" else ())


@pytest.fixture
def folder(tmp_path):
    videos = tmp_path / "silent"
    videos.mkdir()
    for name in ("a.mp4", "b.avi", "c.mp4"):
        Film(has_sound=False).write(videos / name)
    (videos / "broken.mp4").write_bytes(b"no video" * 100)
    (videos / "notes.txt").write_text("no video")
    return videos


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_video_of_a_folder_has_its_row_and_what_fails_stops_no_other(tmp_path, folder):
    models, out = Recorder(), tmp_path / "sounding"
    models.fails = "b.avi"
    done: list[tuple[int, int]] = []
    outcomes = sound_videos(
        find_videos([folder]), out, models.load, overwrite=False, progress=lambda *each: done.append(each)
    )
    assert [(each.video, each.status, each.out) for each in outcomes] == [
        ("a.mp4", "ok", "a.mp4"),
        ("b.avi", "corrupt", ""),
        ("broken.mp4", "not_media", ""),
        ("c.mp4", "ok", "c.mp4"),
    ]
    assert rows_of(out) == [{name: str(value) for name, value in asdict(each).items()} for each in outcomes]
    assert [(each.length_s, each.spent_s) for each in outcomes] == [(2.0, 0.8), (0, 0), (0, 0), (2.0, 0.8)]
    assert "breaks off" in outcomes[1].words
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "c.mp4", TABLE]
    assert (models.asked, models.loaded) == (["a.mp4", "b.avi", "c.mp4"], 1)
    assert done == sorted(done)
    assert done[-1][0] == done[-1][1]


def test_what_is_done_is_kept_and_only_the_rest_is_done_the_next_time(tmp_path, folder):
    models, out = Recorder(), tmp_path / "sounding"
    models.fails = "b.avi"
    sound_videos(find_videos([folder]), out, models.load, overwrite=False)
    models = Recorder()
    sound_videos(find_videos([folder]), out, models.load, overwrite=False)
    assert models.asked == ["b.avi"]
    assert [row["status"] for row in rows_of(out)] == ["kept", "ok", "not_media", "kept"]
    assert (out / "b.avi.mkv").is_file()
    (folder / "broken.mp4").unlink()
    models = Recorder()
    sound_videos(find_videos([folder]), out, models.load, overwrite=False)
    assert models.loaded == 0, "with nothing to do, no model is loaded"
    sound_videos(find_videos([folder]), out, models.load, overwrite=True)
    assert models.asked == ["a.mp4", "b.avi", "c.mp4"]


def test_a_folder_without_videos_and_the_folder_itself_are_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SoundbackError, match="no video in"):
        find_videos([tmp_path / "empty"])
    with pytest.raises(SoundbackError, match="another folder"):
        sound_videos(find_videos([folder]), folder / ".." / "silent", Recorder().load, overwrite=True)
    assert not (folder / TABLE).exists()


def test_files_and_folders_may_be_mixed_but_no_two_may_have_one_name(tmp_path, folder):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "a.mp4", other / "d.mp4")
    assert [path.name for path in find_videos([other / "d.mp4", folder])][:2] == ["d.mp4", "a.mp4"]
    shutil.copy(folder / "a.mp4", other / "a.mp4")
    with pytest.raises(SoundbackError, match=r"Two videos would both be written to .*a\.mp4"):
        sound_videos(find_videos([other, folder]), tmp_path / "out", Recorder().load, overwrite=False)
    shutil.copy(folder / "a.mp4", other / "b.mp4")
    videos = [folder / "b.avi", other / "b.mp4"]
    with pytest.raises(SoundbackError, match=r"Two videos would both be written to .*b\.mkv"):
        sound_videos(videos, tmp_path / "out", Recorder().load, suffix=".mkv", overwrite=False)
    assert not (tmp_path / "out").exists()


def test_all_may_go_into_one_kind_of_container(tmp_path, folder):
    outcomes = sound_videos(find_videos([folder]), tmp_path / "out", Recorder().load, suffix=".mkv", overwrite=False)
    assert [each.out for each in outcomes] == ["a.mkv", "b.mkv", "", "c.mkv"]


def test_what_there_is_to_know_of_a_video_stands_in_its_row(tmp_path, folder):
    sound_videos(find_videos([folder]), tmp_path / "out", Recorder().load, overwrite=False)
    assert [row["words"] for row in rows_of(tmp_path / "out")][-1] == "Mind the gap."


def test_progress_counts_milliseconds_of_all_videos(tmp_path, folder):
    done: list[tuple[int, int]] = []
    sound_videos(
        find_videos([folder]), tmp_path / "out", Recorder().load, overwrite=False, progress=lambda *e: done.append(e)
    )
    assert {total for _, total in done} == {6000}
    assert done == sorted(done)
    assert done[-1] == (6000, 6000)
