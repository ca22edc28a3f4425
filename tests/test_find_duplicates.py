"""Which clips are left out because one that is held out resembles them; the prints are made by hand."""

import time

import numpy as np
import pytest

from soundback import schemas
from soundback.errors import DataContractError
from soundback.media.prints import PRINT_BITS
from soundback.params import Curation
from stages.find_duplicates import find_duplicates

LABELS = ("bell", "drum")
PARAMS = Curation(
    min_motion=None, max_clipped_share=None, silence_db=-60.0, max_silence_share=None, min_agreement=None,
    max_offset_s=0.5, max_print_distance=0.1,
)  # fmt: skip
SPLITS = {"r": "train", "v": "validation", "t": "test"}


def print_of(seed, flipped=0):
    """A random print; the first bits flipped."""
    bits = np.random.default_rng(seed).integers(0, 2, PRINT_BITS, np.uint8)
    bits[:flipped] ^= 1
    return np.packbits(bits).tobytes()


def clip(video_id, *, picture=None, sound=None, status="ok", sha256=None, clip_index=0):
    """A row of the downloads; the first letter of its id says its split."""
    path = f"{video_id}_{clip_index:02d}.mp4" if status == "ok" else None
    return {
        "video_id": video_id, "clip_index": clip_index, "split": SPLITS[video_id[0]], "status": status, "path": path,
        "sha256": sha256, "picture_print": picture, "sound_print": sound,
    }  # fmt: skip


def find(tmp_path, clips, params=PARAMS, **others):
    """The table that is written of clips of one label, and of those of others by name."""
    for slug, rows in {"bell": [], "drum": clips, **others}.items():
        rows = [{**row, "label": slug.title()} for row in rows]
        schemas.write_table(rows, schemas.DOWNLOADS, tmp_path / "videos" / slug / "downloads.parquet")
    out = tmp_path / "duplicates.parquet"
    find_duplicates(tmp_path / "videos", out, params=params, labels=[*LABELS, *(set(others) - set(LABELS))])
    return schemas.read_table(out, schemas.DUPLICATES).to_pylist()


def pairs(found):
    return [(row["video_id"], row["of_video_id"], row["by"], row["distance"]) for row in found]


def test_what_trains_gives_way_to_what_is_held_out_and_never_the_other_way(tmp_path):
    clips = [
        clip(f"{split}{n}", picture=print_of(n, ord(split) % 7), sound=print_of(n)) for n in range(3) for split in "rvt"
    ]
    left_out = find(tmp_path, clips)
    assert {row["video_id"] for row in left_out} == {"r0", "r1", "r2", "v0", "v1", "v2"}
    assert all(schemas.SPLITS.index(row["split"]) < schemas.SPLITS.index(row["of_split"]) for row in left_out)


def test_copies_within_a_split_and_strangers_stay(tmp_path):
    clips = [clip("r0", picture=print_of(0)), clip("r1", picture=print_of(0)), clip("t0", picture=print_of(1))]
    assert find(tmp_path, clips) == []


def test_a_row_says_by_what_and_how_near_and_names_the_nearest(tmp_path):
    clips = [
        clip("r0", picture=print_of(0), sound=print_of(10)),
        clip("r1", picture=print_of(1), sound=print_of(11)),
        clip("r2", picture=print_of(2), sound=print_of(12)),
        clip("t0", picture=print_of(0, 40), sound=print_of(10, 200)),
        clip("t1", picture=print_of(0, 20), sound=print_of(20)),
        clip("t2", picture=print_of(21), sound=print_of(11, 8)),
        clip("t3", picture=print_of(2, 30), sound=print_of(12, 4)),
    ]
    expected = [("r0", "t1", "picture", 20 / 512), ("r1", "t2", "sound", 8 / 512), ("r2", "t3", "both", 4 / 512)]
    assert pairs(find(tmp_path, clips)) == expected


def test_labels_are_compared_with_each_other(tmp_path):
    (row,) = find(tmp_path, [clip("r0", picture=print_of(0))], bell=[clip("t0", picture=print_of(0))])
    assert (row["label"], row["of_label"]) == ("Drum", "Bell")


def test_a_video_is_no_duplicate_of_itself_under_another_label_and_in_another_split(tmp_path):
    same = clip("r0", picture=print_of(0))
    assert find(tmp_path, [same], bell=[{**same, "split": "test"}]) == []


def test_the_limit_itself_is_not_near(tmp_path):
    params = PARAMS.model_copy(update={"max_print_distance": 32 / PRINT_BITS})
    clips = [clip("r0", sound=print_of(0)), clip("t0", sound=print_of(0, 32)), clip("r1", sound=print_of(0, 1))]
    assert pairs(find(tmp_path, clips, params)) == [("r1", "t0", "sound", 31 / 512)]


def test_the_same_file_is_a_duplicate_without_any_print(tmp_path):
    clips = [clip("r0", sha256="aa"), clip("r1", sha256="bb"), clip("t1", sha256="aa"), clip("t0", sha256="aa")]
    assert pairs(find(tmp_path, clips)) == [("r0", "t0", "both", 0.0)]


def test_clips_without_prints_or_that_are_not_wanted_resemble_nothing(tmp_path):
    clips = [
        clip("r0"),
        clip("r1", picture=print_of(1)),
        clip("t0"),
        clip("t1", picture=print_of(1), status="still"),
    ]
    assert find(tmp_path, clips) == []


def test_without_a_limit_nothing_is_a_duplicate(tmp_path):
    nothing = PARAMS.model_copy(update={"max_print_distance": None})
    assert find(tmp_path, [clip("r0", sha256="aa"), clip("t0", sha256="aa")], nothing) == []


def test_every_pair_is_found_that_comparing_one_by_one_finds(tmp_path):
    rng = np.random.default_rng(3)
    clips = []
    for n in range(150):
        kinds = {
            kind: print_of(rng.integers(40), rng.integers(60)) if rng.random() < 0.8 else None
            for kind in ("picture", "sound")
        }
        clips.append(clip(f"{rng.choice(list('rrrvt'))}{n:03d}", **kinds))

    def near(one, other):
        bits = [
            int.from_bytes(one[kind]) ^ int.from_bytes(other[kind])
            for kind in ("picture_print", "sound_print")
            if one[kind] and other[kind]
        ]
        return any(each.bit_count() < 0.1 * PRINT_BITS for each in bits)

    rank = schemas.SPLITS.index
    expected = {
        one["video_id"]
        for one in clips
        if any(rank(one["split"]) < rank(other["split"]) and near(one, other) for other in clips)
    }
    assert 20 < len(expected) < 120
    assert {row["video_id"] for row in find(tmp_path, clips)} == expected


def test_the_table_is_the_same_bytes_for_the_same_clips_in_any_order(tmp_path):
    clips = [clip(f"{split}{n}", picture=print_of(n), sound=print_of(n, 3)) for n in range(5) for split in "rvt"]
    find(tmp_path / "one", clips)
    find(tmp_path / "other", clips[::-1])
    one, other = ((tmp_path / name / "duplicates.parquet").read_bytes() for name in ("one", "other"))
    assert one == other


def test_more_videos_never_bring_a_clip_back(tmp_path):
    rng = np.random.default_rng(5)
    clips = [
        clip(f"{rng.choice(list('rrrvt'))}{n:03d}", picture=print_of(rng.integers(60), rng.integers(50)))
        for n in range(200)
    ]
    few, many = ({row["video_id"] for row in find(tmp_path / str(n), clips[:n])} for n in (100, 200))
    assert few
    assert few < many
    # And those that come to be left out resemble one that came with the others.
    new = {row["video_id"]: row["of_video_id"] for row in find(tmp_path / "200", clips)}
    came = {each["video_id"] for each in clips[100:]}
    assert all({video_id, new[video_id]} & came for video_id in many - few)


def test_a_stale_folder_is_refused(tmp_path):
    find(tmp_path, [])
    with pytest.raises(DataContractError, match=r"holds drum, which params.yaml does not name"):
        find_duplicates(tmp_path / "videos", tmp_path / "out.parquet", params=PARAMS, labels=["bell"])


def test_ten_thousand_clips_take_seconds(tmp_path):
    rng = np.random.default_rng(0)
    prints = [rng.bytes(PRINT_BITS // 8) for _ in range(10_000)]
    clips = [clip(f"{'rrrt'[n % 4]}{n:05d}", picture=print, sound=print[::-1]) for n, print in enumerate(prints)]
    started = time.process_time()
    assert find(tmp_path, clips) == []
    assert time.process_time() - started < 10
