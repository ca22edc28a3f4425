"""Shards of frames as endless batches for training: whole row groups, shuffled in numpy, never row by row."""

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from soundback.dataset import FrameShards
from soundback.errors import DataContractError, ParamsError
from soundback.media.shards import RowGroup, decode_image, list_row_groups, read_images

log = logging.getLogger(__name__)

ClipKey = tuple[str, int]
"""video_id and clip_index."""

PICTURES_KEPT_BYTES = 256 * 2**20
"""Decoded pictures that stay in memory; the demo's all do, and a large dataset's do not."""

FRAMES_PER_VISIT = 8
GROUPS_PER_BLOCK = 64
IN_PARALLEL = 4
"""Row groups that are read at once, and batches that are varied at once; all keep their order."""

BRIGHTNESS_JITTER = 24.0
CONTRAST_JITTER = 0.25
NEGATIVE_SHARE = 0.5
ZOOM = 0.2
"""Share of the picture's height and width that is cut off at most in training."""


@dataclass(frozen=True)
class FrameClip:
    """Where the frames of one clip are.

    Attributes:
      key: video_id and clip_index.
      label: display name.
      groups: its row groups, in order of time.
    """

    key: ClipKey
    label: str
    groups: tuple[RowGroup, ...]

    @property
    def n_frames(self) -> int:
        """How many frames the clip has."""
        return sum(group.n_frames for group in self.groups)


def list_clips(shards: FrameShards, split: str) -> list[FrameClip]:
    """Lists the clips of a split, without the videos that are left out, in a fixed order.

    Raises:
      DataContractError: when the split is empty.
    """
    groups: defaultdict[tuple[ClipKey, str], list[RowGroup]] = defaultdict(list)
    for group in list_row_groups(shards.paths):
        if group.split == split and group.video_id not in shards.left_out:
            groups[(group.video_id, group.clip_index), group.label].append(group)
    if not groups:
        raise DataContractError(
            f"The frames hold no clip of the {split} split. Raise dataset.videos_per_label, or the share of that split."
        )
    return [
        FrameClip(key, label, tuple(sorted(found, key=lambda group: group.first_frame)))
        for (key, label), found in sorted(groups.items())
    ]


def shrink(frames: np.ndarray, picture_size: int) -> np.ndarray:
    """Averages frames down to what the networks see; training and prediction both go through here.

    Args:
      frames: uint8 [n, size, size].
      picture_size: pixels, divides size.

    Returns:
      uint8 [n, picture_size, picture_size], the mean of each block of pixels, rounded half up.
    """
    factor = frames.shape[1] // picture_size
    if factor == 1:
        return frames
    # Adding slices is ten times faster than a mean over two axes of a reshaped array, narrow numbers twice as fast.
    wide = np.uint16 if 255 * factor**2 + factor**2 // 2 <= np.iinfo(np.uint16).max else np.uint32
    tall = sum((frames[:, k::factor] for k in range(1, factor)), frames[:, ::factor].astype(wide))
    blocks = sum((tall[..., k::factor] for k in range(1, factor)), tall[..., ::factor])
    return ((blocks + factor**2 // 2) // factor**2).astype(np.uint8)


def check_sizes(size: int, picture_size: int) -> None:
    """Refuses a picture size that does not divide the frame size.

    Raises:
      ParamsError: naming both.
    """
    if size % picture_size:
        raise ParamsError(f"picture_size ({picture_size}) must divide frames.size ({size}). Change it in params.yaml.")


class Pictures:
    """Reads pictures out of shards, and keeps the last ones decoded within a fixed amount of memory."""

    def __init__(self, size: int, picture_size: int, kept_bytes: int = PICTURES_KEPT_BYTES) -> None:
        check_sizes(size, picture_size)
        self._size = size
        self.picture_size = picture_size
        self._n_kept = kept_bytes // picture_size**2
        self._kept: OrderedDict[RowGroup, np.ndarray] = OrderedDict()

    def read(self, group: RowGroup) -> np.ndarray:
        """All pictures of a row group: uint8 [n_frames, picture_size, picture_size]."""
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        self._kept[group] = pictures = self.decode(group, np.arange(group.n_frames))
        while sum(kept.n_frames for kept in self._kept) > self._n_kept and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return pictures

    def read_clip(self, clip: FrameClip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Pictures start to stop of a clip: uint8 [stop - start, picture_size, picture_size]."""
        stop = clip.n_frames if stop is None else stop
        parts = [
            self.read(group)[max(0, start - group.first_frame) : stop - group.first_frame]
            for group in clip.groups
            if group.first_frame < stop and start < group.first_frame + group.n_frames
        ]
        return np.concatenate(parts)

    def decode(self, group: RowGroup, rows: np.ndarray) -> np.ndarray:
        """Decodes some pictures of a row group, past what is kept: uint8 [len(rows), picture_size, picture_size]."""
        frames = [decode_image(image) for image in read_images(group, rows)]
        if wrong := next((frame.shape for frame in frames if frame.shape != (self._size, self._size)), None):
            raise DataContractError(
                f"{group.path} holds frames of {wrong[1]}x{wrong[0]} pixels where params.yaml says "
                f"{self._size}x{self._size}. Rebuild it with `dvc repro`."
            )
        return shrink(np.stack(frames), self.picture_size)


def vary(pictures: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors, zooms into, shifts, changes brightness and contrast, and inverts half, each example as a whole.

    Args:
      pictures: uint8 [batch, time, p, p].
      seed: int [2], decides all.

    Returns:
      float32 [batch, time, p, p], in [0, 255].
    """
    batch, time, p = tf.shape(pictures)[0], tf.shape(pictures)[1], pictures.shape[2]
    chances = tf.unstack(tf.random.stateless_uniform((7, batch), seed))
    share = 1 - ZOOM * chances[0]
    top, left = (1 - share) * chances[1], (1 - share) * chances[2]
    # A box whose left side is right of its right side comes out mirrored.
    mirrored = chances[3] < 0.5
    sides = tf.where(mirrored, left + share, left), tf.where(mirrored, left, left + share)
    boxes = tf.repeat(tf.stack([top, sides[0], top + share, sides[1]], axis=1), time, axis=0)
    flat = tf.reshape(pictures, (batch * time, p, p, 1))
    moved = tf.reshape(tf.image.crop_and_resize(flat, boxes, tf.range(batch * time), (p, p)), (batch, time, p, p))
    gain = 1 + CONTRAST_JITTER * (2 * chances[4] - 1)
    shift = 127.5 + BRIGHTNESS_JITTER * (2 * chances[5] - 1) - 127.5 * gain
    # A shape is the same thing dark before light and light before dark; with few scenes this has to be shown.
    negative = chances[6] < NEGATIVE_SHARE
    gain, shift = tf.where(negative, -gain, gain), tf.where(negative, 255.0 - shift, shift)
    return tf.clip_by_value(moved * gain[:, None, None, None] + shift[:, None, None, None], 0.0, 255.0)


def frame_batches(
    clips: Sequence[FrameClip], categories: Sequence[str], pictures: Pictures, *, batch_size: int, seed: int
) -> tf.data.Dataset:
    """Endless batches of single frames, each batch from many clips.

    Returns:
      a dataset of (varied pictures float32 [batch, p, p], category int32 [batch]).
    """
    groups = [(group, categories.index(clip.label)) for clip in clips for group in clip.groups]

    def generate() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(seed)
        rest: tuple[np.ndarray, np.ndarray] | None = None
        with ThreadPoolExecutor(IN_PARALLEL) as readers:
            while True:
                order = rng.permutation(len(groups))
                for start in range(0, len(order), GROUPS_PER_BLOCK):
                    visited = [groups[i] for i in order[start : start + GROUPS_PER_BLOCK]]
                    block = _random_frames(visited, pictures, rng, readers)
                    if rest is not None:
                        block = (np.concatenate([rest[0], block[0]]), np.concatenate([rest[1], block[1]]))
                    n_whole = len(block[1]) // batch_size * batch_size
                    shuffled = rng.permutation(len(block[1]))
                    for chosen in shuffled[:n_whole].reshape(-1, batch_size):
                        yield block[0][chosen], block[1][chosen]
                    rest = (block[0][shuffled[n_whole:]], block[1][shuffled[n_whole:]])

    p = pictures.picture_size
    signature = (tf.TensorSpec((batch_size, p, p), tf.uint8), tf.TensorSpec((batch_size,), tf.int32))
    batches = _endless(generate, signature, seed)
    varied = batches.map(
        lambda seed, images, category: (vary(images[:, None], seed)[:, 0], category), num_parallel_calls=IN_PARALLEL
    )
    return varied.prefetch(4)


def _random_frames(
    groups: Sequence[tuple[RowGroup, int]], pictures: Pictures, rng: np.random.Generator, readers: Executor
) -> tuple[np.ndarray, np.ndarray]:
    """A few frames of each row group, and their categories."""
    rows = [rng.choice(group.n_frames, min(FRAMES_PER_VISIT, group.n_frames), replace=False) for group, _ in groups]
    # Neither reading nor decoding holds Python's lock: one reader decodes while another waits for the disk.
    images = readers.map(pictures.decode, [group for group, _ in groups], rows)
    categories = np.repeat(np.array([category for _, category in groups], np.int32), [len(each) for each in rows])
    return np.concatenate(list(images)), categories


@dataclass(frozen=True, eq=False)
class HeardClip:
    """A clip with what was measured on its sound.

    Attributes:
      frames: where its frames are.
      loudness_db: float32 [n_frames], dBFS.
      hit: float32 [n_frames], 0 to 1.
    """

    frames: FrameClip
    loudness_db: np.ndarray
    hit: np.ndarray

    @property
    def n_frames(self) -> int:
        """Frames that have both picture and sound."""
        return min(self.frames.n_frames, len(self.loudness_db))


def crop_batches(
    clips: Sequence[HeardClip], pictures: Pictures, *, crop_frames: int, batch_size: int, seed: int
) -> tf.data.Dataset:
    """Endless batches of random crops of consecutive frames, each from one clip.

    Clips shorter than a crop are left out.

    Returns:
      a dataset of (varied pictures float32 [batch, crop_frames, p, p], loudness dB float32 [batch, crop_frames],
      hit float32 [batch, crop_frames]).

    Raises:
      DataContractError: when no clip is long enough.
    """
    long_enough = [clip for clip in clips if clip.n_frames >= crop_frames]
    if not long_enough:
        raise DataContractError(
            f"None of the {len(clips)} training clips has {crop_frames} frames. "
            "Lower spotter.crop_frames or raise download.clip_s."
        )
    if len(long_enough) < len(clips):
        log.info("%d of %d clips are shorter than a crop and left out.", len(clips) - len(long_enough), len(clips))

    def generate() -> Iterator[tuple[np.ndarray, ...]]:
        rng = np.random.default_rng(seed)
        order: list[int] = []
        while True:
            while len(order) < batch_size:
                order.extend(rng.permutation(len(long_enough)))
            crops = [_random_crop(long_enough[order.pop(0)], pictures, crop_frames, rng) for _ in range(batch_size)]
            images, loudness_db, hit = (np.stack(parts) for parts in zip(*crops, strict=True))
            yield images, loudness_db, hit

    p = pictures.picture_size
    curve = tf.TensorSpec((batch_size, crop_frames), tf.float32)
    batches = _endless(generate, (tf.TensorSpec((batch_size, crop_frames, p, p), tf.uint8), curve, curve), seed)
    varied = batches.map(
        lambda seed, images, loudness_db, hit: (vary(images, seed), loudness_db, hit), num_parallel_calls=IN_PARALLEL
    )
    return varied.prefetch(4)


def _random_crop(
    clip: HeardClip, pictures: Pictures, crop_frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    start = int(rng.integers(clip.n_frames - crop_frames + 1))
    crop = slice(start, start + crop_frames)
    return pictures.read_clip(clip.frames, crop.start, crop.stop), clip.loudness_db[crop], clip.hit[crop]


def _endless(generate: Callable[[], Iterator[Any]], signature: tuple[tf.TensorSpec, ...], seed: int) -> tf.data.Dataset:
    """What is generated, and before it a seed int64 [2] that no other batch has."""
    batches = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return batches.enumerate().map(lambda number, batch: (tf.stack([tf.cast(seed, tf.int64), number]), *batch))
