"""Shards of frames as endless batches for training: whole row groups, shuffled in numpy, never row by row."""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from soundback.dataset import FrameShards
from soundback.errors import DataContractError, ParamsError
from soundback.media.shards import RowGroup, list_row_groups, open_image, read_images
from soundback.params import Spotter

log = logging.getLogger(__name__)

ClipKey = tuple[str, int]
"""video_id and clip_index."""

PICTURES_KEPT_BYTES = 256 * 2**20
"""Decoded pictures that stay in memory; the demo's all do, and a large dataset's do not."""

FRAMES_PER_VISIT = 8
SHOWINGS = 4
"""How often a decoded frame is shown, each time varied anew: reading is then a quarter of the work. Neighbouring frames
of a clip are hardly less alike (Choi et al., Faster Neural Network Training with Data Echoing, 2019)."""

GROUPS_PER_BLOCK = 64
IN_PARALLEL = 4
"""Row groups that are read at once, and batches that are varied at once; all keep their order."""

BRIGHTNESS_JITTER = 24.0
CONTRAST_JITTER = 0.25
NEGATIVE_SHARE = 0.5
ZOOM = 0.2
"""Share of the picture's height and width that is cut off at most in training."""

EXPOSURE_RANGE = 0.35
EXPOSURE_KNOTS = 5
"""Gains of the exposure, drawn from 1 - range to 1 + range at so many times of an example."""


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
      uint8 [n, picture_size, picture_size], the mean of each block of pixels, within a grey level.
    """
    factor = frames.shape[1] // picture_size
    if factor == 1 or len(frames) == 0:
        return frames[:, :picture_size, :picture_size]
    return _reduced([Image.fromarray(frame) for frame in frames], factor)


def _reduced(frames: Sequence[Image.Image], factor: int) -> np.ndarray:
    # Pillow does this four times as fast as numpy can.
    return np.stack([np.asarray(frame.reduce(factor) if factor > 1 else frame) for frame in frames])


def check_sizes(size: int, picture_size: int) -> None:
    """Refuses a picture size that does not divide the frame size.

    Raises:
      ParamsError: naming both.
    """
    if size % picture_size:
        raise ParamsError(f"picture_size ({picture_size}) must divide frames.size ({size}). Change it in params.yaml.")


class Pictures:
    """Reads pictures out of shards, and keeps as many of them decoded as a fixed amount of memory holds.

    What came first stays: in passes of random order, throwing out the oldest would throw out what comes again as soon
    as the rest.
    """

    def __init__(self, size: int, picture_size: int, kept_bytes: int = PICTURES_KEPT_BYTES) -> None:
        check_sizes(size, picture_size)
        self._size = size
        self.picture_size = picture_size
        self._room = kept_bytes // picture_size**2
        self._kept: dict[RowGroup, np.ndarray] = {}

    def read(self, group: RowGroup, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Pictures start to stop of a row group: uint8 [stop - start, picture_size, picture_size]."""
        start, stop, _ = slice(start, stop).indices(group.n_frames)
        if group not in self._kept:
            if group.n_frames > self._room:
                return self.decode(group, np.arange(start, stop))
            self._room -= group.n_frames
            self._kept[group] = self.decode(group, np.arange(group.n_frames))
        return self._kept[group][start:stop]

    def read_clip(self, clip: FrameClip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Pictures start to stop of a clip: uint8 [stop - start, picture_size, picture_size]."""
        stop = clip.n_frames if stop is None else stop
        parts = [
            self.read(group, max(0, start - group.first_frame), stop - group.first_frame)
            for group in clip.groups
            if group.first_frame < stop and start < group.first_frame + group.n_frames
        ]
        return np.concatenate(parts)

    def decode(self, group: RowGroup, rows: np.ndarray) -> np.ndarray:
        """Decodes some pictures of a row group, past what is kept: uint8 [len(rows), picture_size, picture_size]."""
        frames = [open_image(image) for image in read_images(group, rows)]
        if wrong := next((frame for frame in frames if frame.size != (self._size, self._size)), None):
            raise DataContractError(
                f"{group.path} holds frames of {wrong.width}x{wrong.height} pixels where params.yaml says "
                f"{self._size}x{self._size}. Rebuild it with `dvc repro`."
            )
        return _reduced(frames, self._size // self.picture_size)


def vary(pictures: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors, zooms into, shifts, changes brightness and contrast, and inverts half, each example as a whole.

    Args:
      pictures: uint8 or float32 [batch, time, p, p].
      seed: int [2], decides all.

    Returns:
      float32 [batch, time, p, p], in [0, 255].
    """
    batch = tf.shape(pictures)[0]
    chances = tf.unstack(tf.random.stateless_uniform((7, batch), seed))
    share = 1 - ZOOM * chances[0]
    top, left = (1 - share) * chances[1], (1 - share) * chances[2]
    mirrored = chances[3] < 0.5
    begin, end = tf.where(mirrored, left + share, left), tf.where(mirrored, left, left + share)
    gain = 1 + CONTRAST_JITTER * (2 * chances[4] - 1)
    shift = 127.5 + BRIGHTNESS_JITTER * (2 * chances[5] - 1) - 127.5 * gain
    # A shape is the same thing dark before light and light before dark; with few scenes this has to be shown.
    negative = chances[6] < NEGATIVE_SHARE
    gain, shift = tf.where(negative, -gain, gain), tf.where(negative, 255.0 - shift, shift)
    # All pictures of an example move alike: two matrices do that three times as fast as tf.image.crop_and_resize.
    p = pictures.shape[2]
    down, across = gain[:, None, None] * _interpolation(top, top + share, p), _interpolation(begin, end, p)
    moved = tf.matmul(tf.matmul(down[:, None], tf.cast(pictures, tf.float32)), across[:, None], transpose_b=True)
    return tf.clip_by_value(moved + shift[:, None, None, None], 0.0, 255.0)


def expose(pictures: tf.Tensor, share: float, seed: tf.Tensor) -> tf.Tensor:
    """Changes the exposure of a share of the examples while they last: in half of these smoothly, else in steps.

    Args:
      pictures: uint8 [batch, time, p, p].
      share: of the examples, 0 to 1.
      seed: int [2], decides all.

    Returns:
      float32 [batch, time, p, p], in [0, 255].
    """
    batch, time = tf.shape(pictures)[0], pictures.shape[1]
    gains = EXPOSURE_RANGE * tf.random.stateless_uniform((batch, EXPOSURE_KNOTS), seed, -1.0, 1.0)
    smooth, changed = tf.unstack(tf.random.stateless_uniform((2, batch, 1), seed + 1))
    places = np.linspace(0, EXPOSURE_KNOTS - 1, time)[None]
    between = np.maximum(0, 1 - np.abs(places - np.arange(EXPOSURE_KNOTS)[:, None])).astype(np.float32)
    nearest = (np.round(places) == np.arange(EXPOSURE_KNOTS)[:, None]).astype(np.float32)
    curve = tf.where(smooth < 0.5, tf.matmul(gains, between), tf.matmul(gains, nearest))
    gain = 1 + tf.where(changed < share, curve, 0.0)
    return tf.clip_by_value(tf.cast(pictures, tf.float32) * gain[:, :, None, None], 0.0, 255.0)


def _interpolation(begin: tf.Tensor, end: tf.Tensor, n: int) -> tf.Tensor:
    """Weights that read n values between two places of a line of n, linearly interpolated.

    Args:
      begin: float32 [batch], shares of the line; the first place.
      end: float32 [batch], the last place; before `begin`, the line comes out mirrored.
      n: length of the line.

    Returns:
      float32 [batch, n, n].
    """
    places = (n - 1) * (begin[:, None] + (end - begin)[:, None] * tf.linspace(0.0, 1.0, n))
    return tf.maximum(0.0, 1 - tf.abs(places[..., None] - tf.range(n, dtype=tf.float32)))


def frame_batches(
    clips: Sequence[FrameClip],
    categories: Sequence[str],
    pictures: Pictures,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
) -> tf.data.Dataset:
    """Endless batches of single frames, each batch from many clips.

    A pass visits every row group once, in blocks whose frames are mixed, each of them `SHOWINGS` times. What is visited
    when, and which frames are taken there, hangs on the seed and the number of pass and block alone, so that batch
    `start` is found at once.

    Returns:
      a dataset of (varied pictures float32 [batch, p, p], category int32 [batch]), from batch number `start` on.
    """
    groups = [(group, categories.index(clip.label)) for clip in clips for group in clip.groups]

    def generate() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rest = np.zeros((0, pictures.picture_size, pictures.picture_size), np.uint8), np.zeros(0, np.int32)
        with ThreadPoolExecutor(IN_PARALLEL) as readers:
            for images, category in _mixed_blocks(groups, pictures, readers, seed, start * batch_size):
                rest = np.concatenate([rest[0], images]), np.concatenate([rest[1], category])
                n_batches = len(rest[1]) // batch_size
                for whole in range(0, n_batches * batch_size, batch_size):
                    yield rest[0][whole : whole + batch_size], rest[1][whole : whole + batch_size]
                rest = rest[0][n_batches * batch_size :], rest[1][n_batches * batch_size :]

    p = pictures.picture_size
    signature = (tf.TensorSpec((batch_size, p, p), tf.uint8), tf.TensorSpec((batch_size,), tf.int32))
    varied = _numbered(generate, signature, seed, start).map(
        lambda seed, images, category: (vary(images[:, None], seed)[:, 0], category), num_parallel_calls=IN_PARALLEL
    )
    return varied.prefetch(4)


def _mixed_blocks(
    groups: Sequence[tuple[RowGroup, int]], pictures: Pictures, readers: Executor, seed: int, start: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless blocks of frames and their categories, from frame number `start` on, each read while the last is used."""
    n_visited = np.array([min(FRAMES_PER_VISIT, group.n_frames) for group, _ in groups])
    first_pass, skipped = divmod(start, SHOWINGS * int(n_visited.sum()))
    ahead: deque[tuple[list[Future[np.ndarray]], np.ndarray, np.ndarray]] = deque()
    for number in count(first_pass):
        order = np.random.default_rng([seed, number]).permutation(len(groups))
        for block, first in enumerate(range(0, len(order), GROUPS_PER_BLOCK)):
            visited = order[first : first + GROUPS_PER_BLOCK]
            n_frames = int(n_visited[visited].sum())
            if skipped >= SHOWINGS * n_frames:
                skipped -= SHOWINGS * n_frames
                continue
            rng = np.random.default_rng([seed, number, 1 + block])
            rows = [rng.choice(groups[i][0].n_frames, n_visited[i], replace=False) for i in visited]
            # Neither reading nor decoding holds Python's lock: one reader decodes while another waits for the disk.
            reading = [
                readers.submit(pictures.decode, groups[i][0], each) for i, each in zip(visited, rows, strict=True)
            ]
            categories = np.repeat(np.array([groups[i][1] for i in visited], np.int32), n_visited[visited])
            ahead.append((reading, categories, rng.permutation(SHOWINGS * n_frames)[skipped:] % n_frames))
            skipped = 0
            if len(ahead) > 1:
                reading, categories, mixed = ahead.popleft()
                yield np.concatenate([each.result() for each in reading])[mixed], categories[mixed]


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
    clips: Sequence[HeardClip],
    pictures: Pictures,
    params: Spotter,
    *,
    start: int = 0,
) -> tf.data.Dataset:
    """Endless batches of random crops of consecutive frames, each from one clip; a pass visits every clip once.

    Clips shorter than a crop are left out. Of some crops only every second frame is shown, so that things go twice as
    fast; in some the exposure changes, which is nothing to hear.

    Returns:
      a dataset of (varied pictures float32 [batch, crop_frames, p, p], loudness dB float32 [batch, crop_frames],
      hit float32 [batch, crop_frames]), from batch number `start` on.

    Raises:
      DataContractError: when no clip is long enough.
    """
    crop_frames, batch_size, seed = params.crop_frames, params.batch_size, params.seed
    long_enough = [clip for clip in clips if clip.n_frames >= crop_frames]
    if not long_enough:
        raise DataContractError(
            f"None of the {len(clips)} training clips has {crop_frames} frames. "
            "Lower spotter.crop_frames or raise download.clip_s."
        )
    if len(long_enough) < len(clips):
        log.info("%d of %d clips are shorter than a crop and left out.", len(clips) - len(long_enough), len(clips))

    def generate() -> Iterator[tuple[np.ndarray, ...]]:
        order = _Order(len(long_enough), seed)
        for number in count(start):
            rng = np.random.default_rng([seed, number, 1])
            places = range(number * batch_size, (number + 1) * batch_size)
            crops = [_random_crop(long_enough[order.at(place)], pictures, params, rng) for place in places]
            images, loudness_db, hit = (np.stack(parts) for parts in zip(*crops, strict=True))
            yield images, loudness_db, hit

    p = pictures.picture_size
    curve = tf.TensorSpec((batch_size, crop_frames), tf.float32)
    signature = (tf.TensorSpec((batch_size, crop_frames, p, p), tf.uint8), curve, curve)
    varied = _numbered(generate, signature, seed, start).map(
        lambda seed, images, loudness_db, hit: (
            vary(expose(images, params.exposure, seed + 1), seed),
            loudness_db,
            hit,
        ),
        num_parallel_calls=IN_PARALLEL,
    )
    return varied.prefetch(4)


def _random_crop(
    clip: HeardClip, pictures: Pictures, params: Spotter, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pace = 2 if clip.n_frames >= 2 * params.crop_frames and rng.random() < params.double_speed else 1
    n_frames = pace * params.crop_frames
    start = int(rng.integers(clip.n_frames - n_frames + 1))
    crop = slice(start, start + n_frames)
    hit = clip.hit[crop].reshape(-1, pace).max(axis=1)
    return pictures.read_clip(clip.frames, crop.start, crop.stop)[::pace], clip.loudness_db[crop][::pace], hit


class _Order:
    """Endless passes over n things, each pass in an order of its own."""

    def __init__(self, n: int, seed: int) -> None:
        self._n = n
        self._seed = seed
        self._number, self._pass = -1, np.zeros(0, np.int64)

    def at(self, place: int) -> int:
        """Which thing comes at this place, counted through all passes."""
        number, within = divmod(place, self._n)
        if number != self._number:
            self._number, self._pass = number, np.random.default_rng([self._seed, number]).permutation(self._n)
        return int(self._pass[within])


def _numbered(
    generate: Callable[[], Iterator[Any]], signature: tuple[tf.TensorSpec, ...], seed: int, start: int
) -> tf.data.Dataset:
    """What is generated, and before it a seed int64 [2] that no other batch has."""
    batches = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return batches.enumerate(start).map(lambda number, batch: (tf.stack([tf.cast(seed, tf.int64), number]), *batch))
