"""Shards of frames as endless batches for training: whole row groups, shuffled in numpy, never row by row."""

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import tensorflow as tf
from PIL import Image

from soundback.dataset import FrameShards
from soundback.errors import DataContractError, ParamsError
from soundback.media.shards import RowGroup, list_row_groups, open_image, read_images
from soundback.params import Spotter
from soundback.watching.varying import vary

log = logging.getLogger(__name__)

ClipKey = tuple[str, int]
"""video_id and clip_index."""

Example = tuple[np.ndarray | np.generic, ...]
"""What training sees at once: a picture and its category, or a crop and its curves."""

PICTURES_KEPT_BYTES = 256 * 2**20
"""Decoded pictures that stay in memory; the demo's all do, and a large dataset's do not."""

FRAMES_PER_VISIT, FRAME_SHOWINGS = 8, 4
STRETCH_CROPS, CROP_SHOWINGS = 2, 8
"""How often what was decoded is shown, each time varied anew: reading is then a quarter and an eighth of the work.
Neighbouring frames of a clip are hardly less alike (Choi et al., Faster Neural Network Training with Data Echoing,
2019); a crop begins at another frame each time."""

VISITS_PER_BLOCK = 64
IN_PARALLEL = 4
"""Visits that are made at once; they keep their order."""

ORDERING, VISITING, ALTERING = range(3)
"""Uses of chance, each with random numbers of its own."""


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
        self._lock = threading.Lock()
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

    A pass visits every row group, takes `FRAMES_PER_VISIT` of its frames and shows them `FRAME_SHOWINGS` times.

    Returns:
      a dataset of (varied pictures uint8 [batch, p, p], category int32 [batch]), from batch number `start` on.
    """
    groups = [(group, np.int32(categories.index(clip.label))) for clip in clips for group in clip.groups]
    n_visited = [min(FRAMES_PER_VISIT, group.n_frames) for group, _ in groups]

    def visit(i: int, rng: np.random.Generator) -> list[Example]:
        group, category = groups[i]
        decoded = pictures.decode(group, rng.choice(group.n_frames, n_visited[i], replace=False))
        return [(picture, category) for picture in decoded for _ in range(FRAME_SHOWINGS)]

    p = pictures.picture_size
    signature = tf.TensorSpec((batch_size, p, p), tf.uint8), tf.TensorSpec((batch_size,), tf.int32)
    return _batches(
        _Visits(visit, FRAME_SHOWINGS * np.array(n_visited), seed),
        lambda images, rng: vary(images[:, None], rng)[:, 0],
        signature,
        start,
    )


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
    of that as show each of its frames `CROP_SHOWINGS` times on the average. Clips shorter than a crop are left out. Of
    some crops only every second frame is shown, so that things go twice as fast; in some the exposure changes, which
    is nothing to hear.

    Returns:
      a dataset of (varied pictures uint8 [batch, crop_frames, p, p], loudness dB float32 [batch, crop_frames],
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
    n_crops = np.array([CROP_SHOWINGS * length // crop_frames for length in lengths])

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
    signature = tf.TensorSpec((batch_size, crop_frames, p, p), tf.uint8), curve, curve
    return _batches(
        _Visits(visit, n_crops, params.seed),
        lambda images, rng: vary(images, rng, exposure=params.exposure),
        signature,
        start,
    )


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

    def examples(self, start: int, readers: Executor) -> Iterator[Example]:
        """From example number `start` on; each block is read while the last one is used."""
        first_pass, skipped = divmod(start, int(self.n_examples.sum()))
        ahead: deque[tuple[list[Future[list[Example]]], np.ndarray]] = deque()
        for number in count(first_pass):
            rng = np.random.default_rng([self.seed, ORDERING, number])
            order = rng.permutation(len(self.n_examples))
            for first in range(0, len(order), VISITS_PER_BLOCK):
                visited = order[first : first + VISITS_PER_BLOCK]
                mixed = rng.permutation(int(self.n_examples[visited].sum()))
                if skipped >= len(mixed):
                    skipped -= len(mixed)
                    continue
                # Neither reading nor decoding holds Python's lock: one reader decodes while another waits.
                reading = [
                    readers.submit(self.visit, i, np.random.default_rng([self.seed, VISITING, number, i]))
                    for i in visited
                ]
                ahead.append((reading, mixed[skipped:]))
                skipped = 0
                if len(ahead) > 1:
                    reading, mixed = ahead.popleft()
                    examples = [example for each in reading for example in each.result()]
                    yield from (examples[i] for i in mixed)


def _batches(
    visits: _Visits,
    alter: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    signature: tuple[tf.TensorSpec, ...],
    start: int,
) -> tf.data.Dataset:
    """Batches of examples from batch number `start` on, the first part of each altered by chance."""
    batch_size = signature[0].shape[0]

    def generate() -> Iterator[tuple[np.ndarray, ...]]:
        with ThreadPoolExecutor(IN_PARALLEL) as readers:
            examples = visits.examples(start * batch_size, readers)
            for number in count(start):
                images, *others = (np.stack(parts) for parts in zip(*islice(examples, batch_size), strict=True))
                yield alter(images, np.random.default_rng([visits.seed, ALTERING, number])), *others

    return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(4)
