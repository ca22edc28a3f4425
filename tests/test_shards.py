"""Frames through Parquet shards and back."""

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundback import schemas
from soundback.errors import DataContractError
from soundback.media import shards
from soundback.media.shards import ClipFrames
from soundback.params import Frames

SIZE = 24
PARAMS = Frames(
    frame_rate=25, size=SIZE, fit="stretch", encoding="png", jpeg_quality=90, shard_bytes=10**7, row_group_frames=64
)


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures: uint8 [n, SIZE, SIZE]."""
    corners = np.random.default_rng(seed).integers(0, 256, (n, 3, 3)).repeat(SIZE // 3, 1).repeat(SIZE // 3, 2)
    return corners.astype(np.uint8)


def clip(video_id: str, frames: np.ndarray, *, split: str = "train", batch: int = 10) -> ClipFrames:
    batches = iter([frames[start : start + batch] for start in range(0, len(frames), batch)])
    return ClipFrames(video_id, 0, "Drum", split, batches)


@given(lengths=st.lists(st.integers(1, 200), max_size=4), batch=st.integers(1, 200), limit=st.integers(20_000, 200_000))
@settings(max_examples=20, deadline=None)
def test_png_frames_come_back_unchanged(tmp_path_factory, lengths, batch, limit):
    folder = tmp_path_factory.mktemp("frames") / "drum"
    videos = {f"v{number}": pictures(n, seed=number) for number, n in enumerate(lengths)}
    params = PARAMS.model_copy(update={"shard_bytes": limit})
    shards.write_shards((clip(name, frames, batch=batch) for name, frames in videos.items()), folder, params=params)
    for name, frames in videos.items():
        np.testing.assert_array_equal(shards.read_clip(folder, name, 0), frames)
    read = {found.video_id: np.concatenate(list(found.frames)) for found in shards.iter_clips(folder)}
    assert list(read) == list(videos)
    assert all(np.array_equal(read[name], videos[name]) for name in videos)
    assert all(path.stat().st_size <= limit for path in shards.shard_paths(folder))


def test_row_groups_hold_consecutive_frames_of_one_clip(tmp_path):
    lengths = {"a": 150, "b": 20, "c": 64}
    shards.write_shards((clip(v, pictures(n)) for v, n in lengths.items()), tmp_path / "drum", params=PARAMS)
    groups = shards.list_row_groups(tmp_path / "drum")
    found = [(group.video_id, group.first_frame, group.n_frames) for group in groups]
    assert found == [("a", 0, 64), ("a", 64, 64), ("a", 128, 22), ("b", 0, 20), ("c", 0, 64)]
    for group in groups:
        rows = pq.ParquetFile(group.path).read_row_group(group.row_group).to_pylist()
        assert {row["video_id"] for row in rows} == {group.video_id}
        assert [row["frame_index"] for row in rows] == list(
            range(group.first_frame, group.first_frame + group.n_frames)
        )
        assert [row["time_s"] for row in rows] == [row["frame_index"] / 25 for row in rows]


def test_shards_follow_the_schema_and_say_their_format(tmp_path):
    shards.write_shards([clip("a", pictures(10))], tmp_path / "drum", params=PARAMS)
    path = tmp_path / "drum" / "part-00000.parquet"
    schemas.read_table(path, schemas.FRAMES)
    assert shards.read_format(path) == shards.ShardFormat(size=SIZE, frame_rate=25, encoding="png")
    image = pq.ParquetFile(path).metadata.row_group(0).column(schemas.FRAMES.names.index("image"))
    assert (image.compression, image.has_dictionary_page, image.encodings) == ("UNCOMPRESSED", False, ("RLE", "PLAIN"))


def test_jpeg_quality_comes_from_params():
    frame = np.random.default_rng(0).integers(0, 256, (224, 224), dtype=np.uint8)
    sizes, errors = [], []
    for quality in (50, 90, 100):
        params = PARAMS.model_copy(update={"encoding": "jpeg", "jpeg_quality": quality})
        image = shards.encode_image(frame, params)
        assert image.startswith(b"\xff\xd8")
        sizes.append(len(image))
        errors.append(np.abs(shards.decode_image(image).astype(int) - frame).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1


def test_clips_of_a_split_are_those_of_that_split(tmp_path):
    splits = {"a": "train", "b": "test", "c": "train"}
    clips = (clip(video, pictures(5), split=split) for video, split in splits.items())
    shards.write_shards(clips, tmp_path / "drum", params=PARAMS)
    assert [found.video_id for found in shards.iter_clips(tmp_path, split="train")] == ["a", "c"]
    assert [found.video_id for found in shards.iter_clips(tmp_path, split="test")] == ["b"]


def test_merging_shards_gives_what_writing_them_together_gives(tmp_path):
    videos = {name: pictures(100, seed=seed) for seed, name in enumerate("abcd")}
    params = PARAMS.model_copy(update={"shard_bytes": 60_000})
    for name, frames in videos.items():
        shards.write_shards([clip(name, frames)], tmp_path / "parts" / name, params=params)
    shards.merge_shards([tmp_path / "parts" / name for name in videos], tmp_path / "merged", params=params)
    shards.write_shards((clip(name, frames) for name, frames in videos.items()), tmp_path / "together", params=params)
    merged, together = (shards.shard_paths(tmp_path / folder) for folder in ("merged", "together"))
    assert len(together) > 1
    assert [path.read_bytes() for path in merged] == [path.read_bytes() for path in together]


def test_frames_are_drawn_one_batch_at_a_time(tmp_path):
    waiting = itertools.count()
    most = 0

    def batches():
        nonlocal most
        for _ in range(30):
            next(waiting)
            yield pictures(10)

    class Watched(shards._ShardWriter):
        def write(self, table):
            nonlocal most
            most = max(most, table.num_rows)
            super().write(table)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_ShardWriter", Watched)
        shards.write_shards([ClipFrames("a", 0, "Drum", "train", batches())], tmp_path / "drum", params=PARAMS)
    assert most == 64


def test_failure_half_way_leaves_the_old_folder_and_nothing_else(tmp_path):
    def breaking():
        yield pictures(100)
        raise RuntimeError("the decoder broke")

    shards.write_shards([clip("a", pictures(5))], tmp_path / "drum", params=PARAMS)
    before = (tmp_path / "drum" / "part-00000.parquet").read_bytes()
    with pytest.raises(RuntimeError, match="the decoder broke"):
        shards.write_shards([ClipFrames("b", 0, "Drum", "train", breaking())], tmp_path / "drum", params=PARAMS)
    assert [path.name for path in tmp_path.iterdir()] == ["drum"]
    assert (tmp_path / "drum" / "part-00000.parquet").read_bytes() == before


def test_writing_again_replaces_every_old_shard(tmp_path):
    small = PARAMS.model_copy(update={"shard_bytes": 40_000})
    shards.write_shards([clip("a", pictures(300))], tmp_path / "drum", params=small)
    assert len(shards.shard_paths(tmp_path / "drum")) > 1
    shards.write_shards([clip("b", pictures(5))], tmp_path / "drum", params=PARAMS)
    assert {group.video_id for group in shards.list_row_groups(tmp_path / "drum")} == {"b"}


def test_foreign_and_missing_shards_are_named(tmp_path):
    foreign, text = tmp_path / "part-00000.parquet", tmp_path / "part-00001.parquet"
    pq.write_table(schemas.CATALOG.empty_table(), foreign)
    text.write_text("no Parquet")
    for path in (foreign, text):
        with pytest.raises(DataContractError, match=path.name):
            shards.list_row_groups([path])
    with pytest.raises(DataContractError, match="no frames of clip 3 of nobody"):
        shards.read_clip([], "nobody", 3)
    with pytest.raises(DataContractError, match="cannot be decoded"):
        shards.decode_image(b"no image")
