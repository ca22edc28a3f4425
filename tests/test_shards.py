"""Frames through Parquet shards and back."""

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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


@given(
    lengths=st.lists(st.integers(1, 200), max_size=4),
    batches=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    group_frames=st.integers(1, 256),
    limit=st.integers(20_000, 200_000),
)
@settings(max_examples=25, deadline=None)
def test_png_frames_come_back_unchanged_in_shards_that_depend_on_the_frames_alone(
    tmp_path_factory, lengths, batches, group_frames, limit
):
    root = tmp_path_factory.mktemp("frames")
    videos = {f"v{number}": pictures(n, seed=number) for number, n in enumerate(lengths)}
    params = PARAMS.model_copy(update={"shard_bytes": limit, "row_group_frames": group_frames})
    for batch in batches:
        clips = (clip(name, frames, batch=batch) for name, frames in videos.items())
        shards.write_shards(clips, root / f"by {batch}", params=params)
    for name, frames in videos.items():
        shards.write_shards([clip(name, frames)], root / "parts" / name, params=params)
    shards.merge_shards([root / "parts" / name for name in videos], root / "merged", params=params)
    first, *others = (contents(root / folder) for folder in (*(f"by {batch}" for batch in batches), "merged"))
    assert all(other == first for other in others)
    read = {found.video_id: np.concatenate(list(found.frames)) for found in shards.iter_clips(root / "merged")}
    assert list(read) == list(videos)
    assert all(np.array_equal(read[name], frames) for name, frames in videos.items())
    for path in shards.shard_paths(root / "merged"):
        assert path.stat().st_size <= limit or pq.read_metadata(path).num_row_groups == 1


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(seed=st.integers(0, 2**32 - 1), quality=st.integers(1, 100), contrast=st.sampled_from([4, 64, 256]))
@settings(max_examples=50, deadline=None)
def test_jpeg_frames_come_back_within_what_their_quantisation_may_change(seed, quality, contrast):
    frame = np.random.default_rng(seed).integers(0, contrast, (SIZE, SIZE)).astype(np.uint8)
    image = shards.encode_image(frame, PARAMS.model_copy(update={"encoding": "jpeg", "jpeg_quality": quality}))
    steps = np.array(Image.open(io.BytesIO(image)).quantization[0], float)
    # The transform keeps energy: each of a block's 64 numbers is off by half a step at most. Then pixels are rounded.
    error = shards.decode_image(image).astype(float) - frame
    assert np.sqrt((error**2).mean()) <= np.sqrt((steps**2).mean()) / 2 + 1


def test_jpeg_frames_are_stored_as_they_are_encoded(tmp_path):
    params = PARAMS.model_copy(update={"encoding": "jpeg"})
    frames = pictures(150)
    shards.write_shards([clip("a", frames)], tmp_path / "drum", params=params)
    images = [image for group in shards.list_row_groups(tmp_path) for image in shards.read_images(group)]
    assert images == [shards.encode_image(frame, params) for frame in frames]


def test_some_images_of_a_row_group_are_those_of_its_rows(tmp_path):
    shards.write_shards([clip("a", pictures(40))], tmp_path / "drum", params=PARAMS)
    (group,) = shards.list_row_groups(tmp_path / "drum")
    images = shards.read_images(group)
    assert shards.read_images(group, np.array([7, 0, 39])) == [images[7], images[0], images[39]]


ENCODE = """
import hashlib, numpy as np
from tests.test_shards import PARAMS, shards
digest = hashlib.sha256()
for encoding in ("jpeg", "png"):
    for contrast in (4, 64, 256):
        frames = np.random.default_rng(0).integers(0, contrast, (4, 224, 224)).astype(np.uint8)
        for frame in frames:
            image = shards.encode_image(frame, PARAMS.model_copy(update={"encoding": encoding}))
            digest.update(image + shards.decode_image(image).tobytes())
print(digest.hexdigest())
"""


def test_images_are_the_same_bytes_whatever_instructions_the_processor_has():
    # libjpeg-turbo's own switches; the first of them leaves plain C.
    levels: list[dict[str, str]] = [{"JSIMD_FORCENONE": "1"}, {"JSIMD_FORCESSE2": "1"}, {}]
    project = Path(__file__).parents[1]
    found = [
        subprocess.run(
            [sys.executable, "-c", ENCODE], env=os.environ | level, cwd=project, check=True, capture_output=True
        ).stdout
        for level in levels
    ]
    assert len(found[0]) == 65
    assert len(set(found)) == 1


def test_writing_does_not_import_pandas(tmp_path):
    # It takes every worker a third of a second; pyarrow does it unasked where it is given Python's values.
    script = (
        "import sys; from pathlib import Path; from tests.test_shards import PARAMS, clip, pictures, shards\n"
        "before = 'pandas' in sys.modules\n"
        "shards.write_shards([clip('a', pictures(5))], Path(sys.argv[1]) / 'part', params=PARAMS)\n"
        "shards.merge_shards([Path(sys.argv[1]) / 'part'], Path(sys.argv[1]) / 'whole', params=PARAMS)\n"
        "print(before, 'pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


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
