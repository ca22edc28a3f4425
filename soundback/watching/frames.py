"""Shards of frames as endless batches for training: whole row groups, shuffled in numpy, never row by row."""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from threading import Lock

import joblib
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

Example = tuple[np.ndarray | np.generic, ...]
"""What training sees at once: a picture and its category, or a crop and its curves."""

PICTURES_KEPT_BYTES = 256 * 2**20
"""Decoded pictures that stay in memory; the demo's all do, and a large dataset's do not."""

FRAMES_PER_VISIT = 8
STRETCH_CROPS = 2
SHOWINGS = 6
"""How often a decoded frame is shown, each time varied anew: reading is then a sixth of the work. Neighbouring frames
of a clip are hardly less alike (Choi et al., Faster Neural Network Training with Data Echoing, 2019)."""

VISITS_PER_BLOCK = 64
IN_PARALLEL = 4
"""Visits and batches that are made at once; all keep their order."""

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
        self._lock = Lock()
        self._kept: dict[RowGroup, np.ndarray] = {}

    def read(self, group: RowGroup, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Pictures start to stop of a row group: uint8 [stop - start, picture_size, picture_size]."""
        start, stop, _ = slice(start, stop).indices(group.n_frames)
        if group not in self._kept:
            # Two threads that want the same group at once both take room for it: less is kept then, never more.
            with self._lock:
                fits = group.n_frames <= self._room
                self._room -= group.n_frames if fits else 0
            if not fits:
                return self.decode(group, np.arange(start, stop))
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

    A pass visits every row group, takes `FRAMES_PER_VISIT` of its frames and shows them `SHOWINGS` times.

    Returns:
      a dataset of (varied pictures float32 [batch, p, p], category int32 [batch]), from batch number `start` on.
    """
    groups = [(group, np.int32(categories.index(clip.label))) for clip in clips for group in clip.groups]
    n_visited = [min(FRAMES_PER_VISIT, group.n_frames) for group, _ in groups]

    def visit(i: int, rng: np.random.Generator) -> list[Example]:
        group, category = groups[i]
        decoded = pictures.decode(group, rng.choice(group.n_frames, n_visited[i], replace=False))
        return [(picture, category) for picture in decoded for _ in range(SHOWINGS)]

    p = pictures.picture_size
    drawn = _batches(
        _Visits(visit, SHOWINGS * np.array(n_visited), seed),
        (tf.TensorSpec((batch_size, p, p), tf.uint8), tf.TensorSpec((batch_size,), tf.int32)),
        start,
    )
    varied = drawn.map(
        lambda seed, images, category: (vary(images[:, None], seed)[:, 0], category), num_parallel_calls=IN_PARALLEL
    )
    return varied.prefetch(4)


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
    """Endless batches of random crops of consecutive frames, each from one clip.

    A pass visits every clip, takes a stretch of up to `STRETCH_CROPS` crops' length of it, and as many random crops
    of that as show each of its frames `SHOWINGS` times on the average. Clips shorter than a crop are left out. Of some
    crops only every second frame is shown, so that things go twice as fast; in some the exposure changes, which is
    nothing to hear.

    Returns:
      a dataset of (varied pictures float32 [batch, crop_frames, p, p], loudness dB float32 [batch, crop_frames],
      hit float32 [batch, crop_frames]), from batch number `start` on.

    Raises:
      DataContractError: when no clip is long enough.
    """
    crop_frames, batch_size = params.crop_frames, params.batch_size
    long_enough = [clip for clip in clips if clip.n_frames >= crop_frames]
    if not long_enough:
        raise DataContractError(
            f"None of the {len(clips)} training clips has {crop_frames} frames. "
            "Lower spotter.crop_frames or raise download.clip_s."
        )
    if len(long_enough) < len(clips):
        log.info("%d of %d clips are shorter than a crop and left out.", len(clips) - len(long_enough), len(clips))
    lengths = [min(clip.n_frames, STRETCH_CROPS * crop_frames) for clip in long_enough]
    n_crops = np.array([SHOWINGS * length // crop_frames for length in lengths])

    def visit(i: int, rng: np.random.Generator) -> list[Example]:
        clip = long_enough[i]
        first = int(rng.integers(clip.n_frames - lengths[i] + 1))
        stretch = slice(first, first + lengths[i])
        images = pictures.read_clip(clip.frames, stretch.start, stretch.stop)
        return [
            _random_crop(images, clip.loudness_db[stretch], clip.hit[stretch], params, rng) for _ in range(n_crops[i])
        ]

    p = pictures.picture_size
    curve = tf.TensorSpec((batch_size, crop_frames), tf.float32)
    drawn = _batches(
        _Visits(visit, n_crops, params.seed),
        (tf.TensorSpec((batch_size, crop_frames, p, p), tf.uint8), curve, curve),
        start,
    )
    varied = drawn.map(
        lambda seed, images, loudness_db, hit: (
            vary(expose(images, params.exposure, seed + 1), seed),
            loudness_db,
            hit,
        ),
        num_parallel_calls=IN_PARALLEL,
    )
    return varied.prefetch(4)


def _random_crop(
    images: np.ndarray, loudness_db: np.ndarray, hit: np.ndarray, params: Spotter, rng: np.random.Generator
) -> Example:
    pace = 2 if len(images) >= 2 * params.crop_frames and rng.random() < params.double_speed else 1
    n_frames = pace * params.crop_frames
    start = int(rng.integers(len(images) - n_frames + 1))
    crop = slice(start, start + n_frames)
    return images[crop][::pace], loudness_db[crop][::pace], hit[crop].reshape(-1, pace).max(axis=1)


@dataclass(frozen=True)
class _Visits:
    """Endless examples from things that are visited in passes of random order.

    A pass visits everything once, in blocks whose examples are mixed. What is visited when, and what is taken there,
    hangs on the seed and the numbers of pass and thing alone, so that any example is found at once.

    Attributes:
      visit: from the number of a thing and a generator of its own to the examples that it gives.
      n_examples: int [n_things], how many each gives.
      seed: decides all.
    """

    visit: Callable[[int, np.random.Generator], list[Example]]
    n_examples: np.ndarray
    seed: int

    def examples(self, start: int) -> Iterator[Example]:
        """From example number `start` on; each block is read while the last one is used."""
        first_pass, skipped = divmod(start, int(self.n_examples.sum()))
        ahead: deque[tuple[list[Future[list[Example]]], np.ndarray]] = deque()
        with ThreadPoolExecutor(IN_PARALLEL) as readers:
            for number in count(first_pass):
                rng = np.random.default_rng([self.seed, number])
                order = rng.permutation(len(self.n_examples))
                for first in range(0, len(order), VISITS_PER_BLOCK):
                    visited = order[first : first + VISITS_PER_BLOCK]
                    mixed = rng.permutation(int(self.n_examples[visited].sum()))
                    if skipped >= len(mixed):
                        skipped -= len(mixed)
                        continue
                    # Neither reading nor decoding holds Python's lock: one reader decodes while another waits.
                    reading = [
                        readers.submit(self.visit, i, np.random.default_rng([self.seed, number, 1 + i]))
                        for i in visited
                    ]
                    ahead.append((reading, mixed[skipped:]))
                    skipped = 0
                    if len(ahead) > 1:
                        reading, mixed = ahead.popleft()
                        examples = [example for each in reading for example in each.result()]
                        yield from (examples[i] for i in mixed)


def _batches(visits: _Visits, signature: tuple[tf.TensorSpec, ...], start: int) -> tf.data.Dataset:
    """Batches of examples from batch number `start` on, and before each a seed int64 [2] that no other batch has."""
    batch_size = signature[0].shape[0]

    def generate() -> Iterator[tuple[np.ndarray, ...]]:
        examples = visits.examples(start * batch_size)
        while batch := list(islice(examples, batch_size)):
            yield tuple(np.stack(parts) for parts in zip(*batch, strict=True))

    options = tf.data.Options()
    # Threads of its own: where pictures were varied on those of the training, each step would wait for them.
    options.threading.private_threadpool_size = min(IN_PARALLEL, joblib.cpu_count())
    options.threading.max_intra_op_parallelism = 1
    batches = tf.data.Dataset.from_generator(generate, output_signature=signature).with_options(options)
    return batches.enumerate(start).map(
        lambda number, batch: (tf.stack([tf.cast(visits.seed, tf.int64), number]), *batch)
    )
