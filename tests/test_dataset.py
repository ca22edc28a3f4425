"""Which clips the trainings and the evaluation read."""

import logging

import numpy as np
import pytest

from soundback import schemas
from soundback.dataset import audio_clips, frame_shards, prune
from soundback.errors import DataContractError
from tests import watched


def row(video_id, label, split="train", status="ok", clip_index=0):
    return {
        "video_id": video_id,
        "clip_index": clip_index,
        "label": label,
        "split": split,
        "status": status,
        "path": f"{video_id}_{clip_index:02d}.wav" if status == "ok" else None,
        "n_samples": 100 if status == "ok" else None,
    }


def write_audio(root, **tables):
    for slug, rows in tables.items():
        schemas.write_table(rows, schemas.AUDIO, root / slug / "audio.parquet")


@pytest.fixture
def none(tmp_path):
    """A table of no duplicates, beside the folder of labels."""
    watched.write_duplicates(tmp_path)
    return tmp_path / "duplicates.parquet"


@pytest.fixture
def audio(tmp_path):
    return tmp_path / "audio"


def test_usable_clips_are_listed_in_a_fixed_order_and_by_split(audio, none):
    write_audio(audio, drum=[row("a", "Drum"), row("b", "Drum", "test"), row("c", "Drum", status="silent")], bell=[])
    assert [clip.video_id for clip in audio_clips(audio, none, ["drum", "bell"])] == ["a", "b"]
    (clip,) = audio_clips(audio, none, ["drum", "bell"], split="test")
    assert clip.path == audio / "drum" / "b_00.wav"


def test_a_video_under_two_labels_is_left_out_of_both(audio, none):
    write_audio(audio, drum=[row("a", "Drum"), row("b", "Drum")], bell=[row("b", "Bell"), row("c", "Bell")])
    assert [clip.video_id for clip in audio_clips(audio, none, ["drum", "bell"])] == ["c", "a"]


def test_ids_that_differ_in_case_are_different_videos(audio, none):
    write_audio(audio, drum=[row("aB", "Drum")], bell=[row("Ab", "Bell")])
    assert len(audio_clips(audio, none, ["drum", "bell"])) == 2


def test_a_video_that_resembles_a_held_out_one_is_left_out_with_all_its_clips(audio, none, caplog):
    caplog.set_level(logging.INFO)
    clips = [row("a", "Drum"), row("a", "Drum", clip_index=1), row("b", "Drum"), row("t", "Drum", "test")]
    write_audio(audio, drum=clips)
    watched.write_duplicates(none.parent, "a", "of another label set")
    assert [clip.video_id for clip in audio_clips(audio, none, ["drum"])] == ["b", "t"]
    assert "1 videos resemble some that are held out" in caplog.text


def test_frames_and_sounds_are_of_the_same_videos(tmp_path, audio, none):
    rng = np.random.default_rng(0)
    films = {slug: watched.film(label, rng, n_frames=30)[0] for slug, label in watched.LABELS.items()}
    for slug, label in watched.LABELS.items():
        ids = [f"{slug}{n}" for n in range(3)] + ["both"]
        watched.write_frames([(each, label, "train", films[slug]) for each in ids], tmp_path / "frames" / slug)
        write_audio(audio, **{slug: [row(each, label) for each in ids]})
    watched.write_duplicates(tmp_path, "disc1", "square0")
    shards = frame_shards(tmp_path / "frames", none, watched.LABELS)
    assert shards.left_out == {"both", "disc1", "square0"}
    heard = {clip.video_id for clip in audio_clips(audio, none, watched.LABELS)}
    assert heard == {"disc0", "disc2", "square1", "square2"}


def test_a_stale_or_missing_label_folder_stops_with_a_sentence(audio, none):
    write_audio(audio, drum=[row("a", "Drum")], bell=[row("b", "Bell")])
    with pytest.raises(DataContractError, match=r"holds bell, which params.yaml does not name"):
        audio_clips(audio, none, ["drum"])
    with pytest.raises(DataContractError, match=r"lacks rain, which params.yaml names"):
        audio_clips(audio, none, ["drum", "bell", "rain"])


def test_labels_of_a_shared_branch_are_read_like_others(audio, none):
    write_audio(audio, **{"drum": [row("a", "Drum")], "wet/rain": [row("b", "Rain")], "wet/fall": [row("c", "Fall")]})
    labels = ["drum", "wet/rain", "wet/fall"]
    assert [clip.path.relative_to(audio).as_posix() for clip in audio_clips(audio, none, labels)] == [
        "drum/a_00.wav",
        "wet/fall/c_00.wav",
        "wet/rain/b_00.wav",
    ]
    with pytest.raises(DataContractError, match=r"holds wet/fall, which params.yaml does not name"):
        audio_clips(audio, none, ["drum", "wet/rain"])
    with pytest.raises(DataContractError, match=r"holds wet, which params.yaml does not name"):
        audio_clips(audio, none, ["drum"])


def test_what_is_pruned_is_what_no_label_has_also_within_a_shared_branch(tmp_path, none):
    tables = {key: [row("a", "Drum")] for key in ("drum", "old", "wet/rain", "wet/old", "once/shared")}
    write_audio(tmp_path / "audio", **tables)
    (tmp_path / "videos/wet").mkdir(parents=True)
    (tmp_path / "videos/wet/of_when_it_was_a_label.mp4").touch()
    labels = ["drum", "wet/rain"]
    removed = {path.relative_to(tmp_path).as_posix() for path in prune(tmp_path, labels)}
    assert removed == {"audio/old", "audio/wet/old", "audio/once", "videos/wet/of_when_it_was_a_label.mp4"}
    assert not prune(tmp_path, labels)
