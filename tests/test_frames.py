from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from soundback.dataset import FrameShards
from soundback.errors import DataContractError, ParamsError
from soundback.params import Spotter, load_params
from soundback.watching import frames
from tests import watched


def numbered(clip: int, n_frames: int) -> np.ndarray:
    """Frames that tell by their grey which clip and which frame they are: 40 frames apart per clip."""
    grey = 40 * clip + np.arange(n_frames)
    return np.broadcast_to(grey[:, None, None], (n_frames, 8, 8)).astype(np.uint8)


@pytest.fixture
def shards(tmp_path) -> FrameShards:
    """Six clips of two labels; the last one is of the validation split, and groups are shorter than clips."""
    clips = [
        (f"v{i}", "Disc" if i % 2 else "Square", "train" if i < 5 else "validation", numbered(i, 30 + i))
        for i in range(6)
    ]
    watched.write_frames(clips[:3], tmp_path / "a", group_frames=16)
    watched.write_frames(clips[3:], tmp_path / "b", group_frames=16)
    paths = (tmp_path / "a" / "part-00000.parquet", tmp_path / "b" / "part-00000.parquet")
    return FrameShards(paths, ("Disc", "Square"), frozenset())


@pytest.fixture
def plain(monkeypatch):
    """No chance in the pictures, so that they can be known again."""
    monkeypatch.setattr(frames, "vary", lambda pictures, rng, exposure=0.0: pictures)


def heard(clip: frames.FrameClip) -> frames.HeardClip:
    """Loudness and hit say the number of the frame, beyond doubt."""
    start = 40 * int(clip.key[0][1:])
    grey = np.arange(start, start + clip.n_frames, dtype=np.float32)
    return frames.HeardClip(clip, grey, grey / 1000)


@pytest.mark.parametrize("picture_size", [24, 12, 8, 4, 2])
def test_shrinking_is_the_mean_of_each_block_within_a_grey_level(picture_size):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24), np.uint8)
    factor = 24 // picture_size
    expected = [
        [
            [
                pixels[n, factor * y : factor * (y + 1), factor * x : factor * (x + 1)].mean()
                for x in range(picture_size)
            ]
            for y in range(picture_size)
        ]
        for n in range(3)
    ]
    assert np.abs(frames.shrink(pixels, picture_size) - np.array(expected)).max() < 1


@pytest.mark.parametrize("factor", [15, 16, 17, 32])
def test_white_stays_white_however_much_is_averaged(factor):
    assert (frames.shrink(np.full((2, 2 * factor, 2 * factor), 255, np.uint8), 2) == 255).all()


def test_a_picture_size_that_does_not_divide_is_refused():
    with pytest.raises(ParamsError, match=r"picture_size \(50\) must divide frames.size \(224\)"):
        frames.Pictures(224, 50)


def test_clips_are_listed_by_split_with_all_their_groups_in_order(shards):
    train = frames.list_clips(shards, "train")
    assert [clip.key for clip in train] == [(f"v{i}", 0) for i in range(5)]
    assert [clip.n_frames for clip in train] == [30, 31, 32, 33, 34]
    assert [clip.key for clip in frames.list_clips(shards, "validation")] == [("v5", 0)]


def test_what_is_to_be_left_out_is_not_listed_and_an_empty_split_is_refused(shards):
    without = FrameShards(shards.paths, shards.categories, frozenset({"v1", "v5"}))
    assert [clip.key[0] for clip in frames.list_clips(without, "train")] == ["v0", "v2", "v3", "v4"]
    with pytest.raises(DataContractError, match="no clip of the validation split"):
        frames.list_clips(without, "validation")


def test_pictures_are_the_same_however_little_is_kept_and_no_more_is_kept(shards):
    clips = frames.list_clips(shards, "train")
    much, little = frames.Pictures(8, 4), frames.Pictures(8, 4, kept_bytes=40 * 16)
    for clip in clips * 2:
        start, stop = 7, clip.n_frames - 3
        expected = frames.shrink(numbered(int(clip.key[0][1:]), clip.n_frames), 4)[start:stop]
        np.testing.assert_array_equal(much.read_clip(clip, start, stop), expected)
        np.testing.assert_array_equal(little.read_clip(clip, start, stop), expected)
        assert 0 < sum(len(kept) for kept in little._kept.values()) <= 40
        assert len(much.read_clip(clip)) == clip.n_frames
    assert sum(len(kept) for kept in much._kept.values()) == sum(clip.n_frames for clip in clips)


def test_frames_of_another_size_than_params_says_are_refused(shards):
    with pytest.raises(DataContractError, match=r"8x8 pixels where params\.yaml says 16x16"):
        frames.Pictures(16, 8).read_clip(frames.list_clips(shards, "train")[0])


def test_a_batch_mixes_clips_and_every_frame_keeps_its_label(shards, plain):
    clips = frames.list_clips(shards, "train")
    dataset = frames.frame_batches(clips, shards.categories, frames.Pictures(8, 8), batch_size=16, seed=0)
    seen = set()
    for pictures, category in dataset.take(400).as_numpy_iterator():
        grey = pictures[:, 0, 0].astype(int)
        assert (pictures == grey[:, None, None]).all()
        np.testing.assert_array_equal(category, 1 - grey // 40 % 2)  # even clips are squares, category 1
        assert len(set(grey // 40)) >= 3
        seen.update(grey)
    assert seen == {40 * i + k for i in range(5) for k in range(30 + i)}


def crops_of(crop_frames: int, **given: object) -> Spotter:
    plain = {"crop_frames": crop_frames, "batch_size": 2, "seed": 0, "double_speed": 0.0, "exposure": 0.0}
    return load_params().spotter.model_copy(update=plain | given)


def test_a_crop_is_consecutive_frames_of_one_clip_with_their_own_curves(shards, plain):
    clips = [heard(clip) for clip in frames.list_clips(shards, "train")]
    dataset = frames.crop_batches(clips, frames.Pictures(8, 8), crops_of(20, batch_size=4))
    starts = set()
    for pictures, loudness_db, hit in dataset.take(50).as_numpy_iterator():
        np.testing.assert_array_equal(pictures[..., 0, 0], loudness_db)
        np.testing.assert_allclose(hit, loudness_db / 1000)
        np.testing.assert_array_equal(np.diff(loudness_db, axis=1), 1)
        np.testing.assert_array_equal(loudness_db[:, 0] // 40, loudness_db[:, -1] // 40)
        starts.update(loudness_db[:, 0])
    assert len(starts) > 40  # of 65 places


def test_some_crops_go_twice_as_fast_and_keep_every_hit(shards, plain):
    clips = [heard(clip) for clip in frames.list_clips(shards, "train")]
    dataset = frames.crop_batches(clips, frames.Pictures(8, 8), crops_of(15, batch_size=4, double_speed=0.5))
    paces = []
    for pictures, loudness_db, hit in dataset.take(50).as_numpy_iterator():
        np.testing.assert_array_equal(pictures[..., 0, 0], loudness_db)
        pace = np.unique(np.diff(loudness_db, axis=1), axis=1)
        assert pace.shape == (4, 1)
        # `heard` lets hits grow with time, so the stronger of two is the later one.
        np.testing.assert_allclose(hit * 1000, loudness_db + pace - 1, atol=1e-3)
        paces += pace[:, 0].tolist()
    assert set(paces) == {1, 2}
    assert 0.35 < np.mean(np.array(paces) == 2) < 0.65


def test_clips_shorter_than_a_crop_are_left_out_and_none_left_is_refused(shards):
    clips = [heard(clip) for clip in frames.list_clips(shards, "train")]
    pictures = frames.Pictures(8, 8)
    dataset = frames.crop_batches(clips, pictures, crops_of(33))
    assert {int(v // 40) for _, loudness, _ in dataset.take(10).as_numpy_iterator() for v in loudness[:, 0]} == {3, 4}
    with pytest.raises(DataContractError, match="None of the 5 training clips has 35 frames"):
        frames.crop_batches(clips, pictures, crops_of(35))


def test_the_same_seed_gives_the_same_batches(shards):
    clips = frames.list_clips(shards, "train")

    def first(seed: int) -> list[np.ndarray]:
        data = frames.frame_batches(clips, shards.categories, frames.Pictures(8, 4), batch_size=8, seed=seed)
        return [pictures for pictures, _ in data.take(3).as_numpy_iterator()]

    np.testing.assert_array_equal(first(1), first(1))
    assert not np.array_equal(first(1), first(2))


def assert_batches_are_the_same_from_any_number_on(from_number: Callable[[int], tf.data.Dataset], n: int) -> None:
    """Batch n is the same whether one starts there or comes there."""
    whole = list(from_number(0).take(n + 2).as_numpy_iterator())
    for start in (1, n):
        for ours, theirs in zip(from_number(start).take(2).as_numpy_iterator(), whole[start:], strict=False):
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("batch_size", [7, 64])
def test_batches_of_frames_are_the_same_from_any_number_on(shards, batch_size, monkeypatch):
    monkeypatch.setattr(frames, "VISITS_PER_BLOCK", 3)
    clips, pictures = frames.list_clips(shards, "train"), frames.Pictures(8, 4)
    assert_batches_are_the_same_from_any_number_on(
        lambda start: frames.frame_batches(
            clips, shards.categories, pictures, batch_size=batch_size, seed=3, start=start
        ),
        23,
    )


def test_batches_of_crops_are_the_same_from_any_number_on(shards):
    clips, pictures = [heard(clip) for clip in frames.list_clips(shards, "train")], frames.Pictures(8, 4)
    assert_batches_are_the_same_from_any_number_on(
        lambda start: frames.crop_batches(
            clips, pictures, crops_of(20, batch_size=3, seed=3, double_speed=0.5), start=start
        ),
        23,
    )


def test_a_late_batch_is_found_as_fast_as_the_first(shards):
    clips, pictures = frames.list_clips(shards, "train"), frames.Pictures(8, 4)
    late = frames.frame_batches(clips, shards.categories, pictures, batch_size=4, seed=0, start=10**12)
    crops = frames.crop_batches([heard(clip) for clip in clips], pictures, crops_of(20), start=10**12)
    assert len(list(late.take(1))) == len(list(crops.take(1))) == 1


def test_a_pass_visits_every_row_group_once_and_shows_as_many_frames_of_each_equally_often(shards, plain):
    clips = frames.list_clips(shards, "train")
    groups = {(int(clip.key[0][1:]), group.first_frame): group.n_frames for clip in clips for group in clip.groups}
    per_group = {place: min(frames.FRAMES_PER_VISIT, n) for place, n in groups.items()}
    per_pass = frames.FRAME_SHOWINGS * sum(per_group.values())
    batches = frames.frame_batches(clips, shards.categories, frames.Pictures(8, 8), batch_size=per_pass, seed=0)
    for pictures, _ in batches.take(3).as_numpy_iterator():
        seen, times = np.unique(pictures[:, 0, 0].astype(int), return_counts=True)
        assert set(times) == {frames.FRAME_SHOWINGS}
        assert Counter((grey // 40, grey % 40 // 16 * 16) for grey in seen.tolist()) == per_group


def test_a_pass_shows_as_many_crops_of_every_clip_as_its_stretch_is_long_and_none_from_elsewhere(shards, plain):
    clips = [heard(clip) for clip in frames.list_clips(shards, "train")]
    n_crops = (
        frames.CROP_SHOWINGS * 30 // 15
    )  # A stretch is two crops long, here 30 frames; the shortest clip has no more.
    batches = frames.crop_batches(clips, frames.Pictures(8, 8), crops_of(15, batch_size=n_crops * len(clips)))
    firsts = set()
    for _, loudness_db, _ in batches.take(4).as_numpy_iterator():
        for i in range(len(clips)):
            crops = loudness_db[loudness_db[:, 0] // 40 == i]
            assert len(crops) == n_crops
            assert crops.max() - crops.min() < 30
            firsts.add((i, crops.min()))
    assert len(firsts) > len(clips)
