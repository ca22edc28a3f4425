"""Which clips the trainings and the evaluation read."""

import pytest

from soundback import schemas
from soundback.dataset import audio_clips
from soundback.errors import DataContractError


def row(video_id, label, split="train", status="ok"):
    return {
        "video_id": video_id,
        "clip_index": 0,
        "label": label,
        "split": split,
        "status": status,
        "path": f"{video_id}_00.wav" if status == "ok" else None,
        "n_samples": 100 if status == "ok" else None,
    }


def write_audio(root, **tables):
    for slug, rows in tables.items():
        schemas.write_table(rows, schemas.AUDIO, root / slug / "audio.parquet")


def test_usable_clips_are_listed_in_a_fixed_order_and_by_split(tmp_path):
    write_audio(tmp_path, drum=[row("a", "Drum"), row("b", "Drum", "test"), row("c", "Drum", status="silent")], bell=[])
    assert [clip.video_id for clip in audio_clips(tmp_path, ["drum", "bell"])] == ["a", "b"]
    (clip,) = audio_clips(tmp_path, ["drum", "bell"], split="test")
    assert clip.path == tmp_path / "drum" / "b_00.wav"


def test_a_video_under_two_labels_is_left_out_of_both(tmp_path):
    write_audio(tmp_path, drum=[row("a", "Drum"), row("b", "Drum")], bell=[row("b", "Bell"), row("c", "Bell")])
    assert [clip.video_id for clip in audio_clips(tmp_path, ["drum", "bell"])] == ["c", "a"]


def test_ids_that_differ_in_case_are_different_videos(tmp_path):
    write_audio(tmp_path, drum=[row("aB", "Drum")], bell=[row("Ab", "Bell")])
    assert len(audio_clips(tmp_path, ["drum", "bell"])) == 2


def test_a_stale_or_missing_label_folder_stops_with_a_sentence(tmp_path):
    write_audio(tmp_path, drum=[row("a", "Drum")], bell=[row("b", "Bell")])
    with pytest.raises(DataContractError, match=r"holds bell, which params.yaml does not name"):
        audio_clips(tmp_path, ["drum"])
    with pytest.raises(DataContractError, match=r"lacks rain, which params.yaml names"):
        audio_clips(tmp_path, ["drum", "bell", "rain"])
