"""When it sounds and how loud: consecutive frames to loudness and hits. No labels are needed, and none are known."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import keras
import mir_eval
import numpy as np
import tensorflow as tf
from scipy.ndimage import maximum_filter1d
from scipy.special import expit

from soundback import cues, dataset, training
from soundback.cues import Hearing
from soundback.dataset import FrameShards
from soundback.errors import DataContractError, ModelError
from soundback.media.audio import read_wav
from soundback.params import Frames
from soundback.params import Spotter as SpotterParams
from soundback.progress import Progress, no_progress
from soundback.watching import frames

log = logging.getLogger(__name__)

KIND = "spotter"
VALIDATE_EVERY = 100
MAX_VALIDATION_CLIPS = 200
FRAMES_AT_ONCE = 256

KERNEL = 3
CHANGE_GAIN = 4.0
HIT_WEIGHT = 6.0
HIT_BLUR = 0.5
LOUDNESS_WEIGHT = 4.0
CLIP_NORM = 1.0

HIT_WINDOW_S = 0.1
MIN_REFERENCE_HITS = 3
RISE_DB_PER_S = 40.0
FRAMES_AROUND_HIT = 2
THRESHOLDS = np.arange(0.04, 0.9, 0.03)
CONSTANT_BELOW_DB = 0.1


@keras.saving.register_keras_serializable("soundback")
class PerFrame(keras.layers.Wrapper):
    """Applies a layer to every frame of [batch, time, ...] in one go."""

    def build(self, input_shape: Any) -> None:
        """Builds the wrapped layer for one frame."""
        self.layer.build((None, *input_shape[2:]))
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> Any:
        """[batch, time] stay."""
        return (*input_shape[:2], *self.layer.compute_output_shape((None, *input_shape[2:]))[1:])

    def call(self, inputs: Any) -> Any:
        """Merges batch and time, applies the layer, and parts them again."""
        batch, time = keras.ops.shape(inputs)[:2]
        outputs = self.layer(keras.ops.reshape(inputs, (-1, *inputs.shape[2:])))
        return keras.ops.reshape(outputs, (batch, time, *outputs.shape[1:]))


@keras.saving.register_keras_serializable("soundback")
class Change(keras.layers.Layer):
    """A picture and its change from the last one and to the next one.

    Pictures [batch, time, p, p] in [0, 255] become [batch, time, p, p, 3], the picture in [-1, 1].
    """

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Three channels more."""
        return (*input_shape, 3)

    def call(self, inputs: Any) -> Any:
        """Before the first and after the last frame nothing changes."""
        pictures = inputs / 127.5 - 1.0
        change = CHANGE_GAIN * (pictures[:, 1:] - pictures[:, :-1])
        since = keras.ops.pad(change, ((0, 0), (1, 0), (0, 0), (0, 0)))
        until = keras.ops.pad(change, ((0, 0), (0, 1), (0, 0), (0, 0)))
        return keras.ops.stack([pictures, since, until], axis=-1)


def dilations(context_frames: int) -> tuple[int, ...]:
    """Dilations of the temporal convolutions: powers of two, the last one cut so that they see exactly the context."""
    found: list[int] = []
    while sum(found) < context_frames:
        found.append(min(2 ** len(found), context_frames - sum(found)))
    return tuple(found)


def reach(context_s: float, frame_rate: int) -> int:
    """Frames on each side that can move an answer: the context, and one more for the change of its outermost frame."""
    return round(context_s * frame_rate) + 1


def build_spotter(params: SpotterParams, frame_rate: int, size: int) -> keras.Model:
    """Builds the network: pictures [batch, time, p, p] in [0, 255] to [batch, time, 2]: scaled loudness, hit logit.

    Strided convolutions and a dense layer describe each frame and its change; dilated convolutions over time, not
    causal, then look `context_s` to both sides.

    Args:
      params: channels, width, context, and p, the picture size.
      frame_rate: per second.
      size: pixels of the stored frames, a multiple of p.
    """
    frames.check_sizes(size, params.picture_size)
    p = params.picture_size
    pictures = keras.Input((None, p, p), name="pictures")
    x = PerFrame(_frame_encoder(params))(Change()(pictures))
    for dilation in dilations(round(params.context_s * frame_rate)):
        y = keras.layers.Conv1D(params.hidden, KERNEL, padding="same", dilation_rate=dilation, activation="relu")(x)
        x = keras.layers.Add()([x, keras.layers.Dense(params.hidden)(y)])
    x = keras.layers.Dense(params.hidden, activation="relu")(x)
    return keras.Model(pictures, keras.layers.Dense(2, name="loudness_and_hit")(x), name="spotter")


def _frame_encoder(params: SpotterParams) -> keras.Model:
    """What one frame and its change look like: [p, p, 3] to [hidden]."""
    frame = x = keras.Input((params.picture_size, params.picture_size, 3))
    means = []
    for width in params.channels:
        x = keras.layers.Conv2D(width, 3, 2, padding="same", activation="relu")(x)
        # What flows is known by how much of it there is, wherever it is.
        means.append(keras.layers.GlobalAveragePooling2D()(x))
    places = keras.layers.Flatten()(x)
    described = keras.layers.Dense(params.hidden, activation="relu")(keras.layers.Concatenate()([places, *means]))
    return keras.Model(frame, described, name="frame_encoder")


@dataclass(frozen=True, eq=False)
class TrainedSpotter:
    """What a training gives.

    Attributes:
      model: with its best weights.
      card: what belongs to the model, for `training.save_model`.
      fit: how the training went.
      metrics: on validation clips.
      curves: measured and predicted loudness of a few validation clips.
    """

    model: keras.Model
    card: dict[str, Any]
    fit: training.Fit
    metrics: dict[str, Any]
    curves: tuple["LoudnessCurves", ...]


@dataclass(frozen=True, eq=False)
class LoudnessCurves:
    """What was heard and what was seen, in one validation clip.

    Attributes:
      label: display name.
      video_id: of the source.
      measured_db: float32 [n_frames], on the real sound.
      predicted_db: float32 [n_frames], from the frames.
    """

    label: str
    video_id: str
    measured_db: np.ndarray
    predicted_db: np.ndarray


def train_spotter(
    shards: FrameShards,
    sounds: Sequence[dataset.Clip],
    *,
    params: SpotterParams,
    hearing: Hearing,
    stored: Frames,
    progress: Progress = no_progress,
) -> TrainedSpotter:
    """Trains on the train split and keeps the weights that do best on the validation split.

    Args:
      shards: the frames of all labels.
      sounds: the clips of all labels with usable sound.
      params: network and budget.
      hearing: how the truth is measured.
      stored: how the frames are stored.
      progress: called after every step.
    """
    keras.utils.set_random_seed(params.seed)
    train = _hear(frames.list_clips(shards, "train"), sounds, hearing)
    seen = frames.list_clips(shards, "validation")
    # Every n-th of too many, so that all labels stay: the clips are sorted by id, not by label.
    validation = _hear(seen[:: -(-len(seen) // MAX_VALIDATION_CLIPS)], sounds, hearing)
    pictures = frames.Pictures(stored.size, params.picture_size)
    model = build_spotter(params, hearing.frame_rate, stored.size)
    answer = _compiled(model)

    def validate(_: keras.Model) -> float:
        return float(np.mean([_clip_loss(answer(pictures.read_clip(c.frames)), c) for c in validation]))

    fit = training.fit(
        model,
        _batch_loss,
        frames.crop_batches(
            train, pictures, crop_frames=params.crop_frames, batch_size=params.batch_size, seed=params.seed
        ),
        validate,
        params=params,
        recipe=training.Recipe(validate_every=min(VALIDATE_EVERY, params.steps), clip_norm=CLIP_NORM),
        progress=progress,
    )
    answers = [answer(pictures.read_clip(clip.frames))[: clip.n_frames] for clip in validation]
    card = {
        "kind": KIND,
        "frame_rate": hearing.frame_rate,
        "size": stored.size,
        "fit": stored.fit,
        "loudness_low_db": float(min(clip.loudness_db.min() for clip in train)),
        "loudness_high_db": float(max(clip.loudness_db.max() for clip in train)),
        "hit_scale": hearing.hit_scale,
        "hit_threshold": choose_threshold(
            [clip.hit for clip in validation], [hit_probability(a) for a in answers], hearing
        ),
        "cues": hearing.cues.model_dump(mode="json"),
        "params": params.model_dump(mode="json"),
    }
    predictions = [finish(a, card) for a in answers]
    metrics = measure(validation, predictions, hearing.frame_rate) | {"n_clips": len(validation), **fit.budget()}
    return TrainedSpotter(model, card, fit, metrics, _examples(validation, predictions))


def _hear(
    clips: Sequence[frames.FrameClip], sounds: Sequence[dataset.Clip], hearing: Hearing
) -> list[frames.HeardClip]:
    """The clips that have both frames and usable sound, with what is measured on it."""
    of_key = {(sound.video_id, sound.clip_index): sound for sound in sounds}
    heard = [
        frames.HeardClip(clip, *hearing.measure(read_wav(of_key[clip.key].path)))
        for clip in clips
        if clip.key in of_key
    ]
    if not heard:
        raise DataContractError(
            f"None of {len(clips)} clips with frames has usable sound. "
            "Rebuild data/audio and data/frames with `dvc repro`."
        )
    return heard


def _losses(answer: tf.Tensor, loudness_db: tf.Tensor, hit: tf.Tensor) -> tf.Tensor:
    """Loss of each example.

    Args:
      answer: float [batch, time, 2], of the network.
      loudness_db: float [batch, time], measured.
      hit: float [batch, time], measured, sparse.

    Returns:
      float [batch].
    """
    scaled = (loudness_db - cues.LOUDNESS_MIDDLE_DB) / cues.LOUDNESS_RANGE_DB
    beside = tf.maximum(tf.pad(hit[:, 1:], [[0, 0], [0, 1]]), tf.pad(hit[:, :-1], [[0, 0], [1, 0]]))
    # The neighbours of a hit are half right: onsets are measured to about a frame.
    target = tf.maximum(hit, HIT_BLUR * beside)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(target, answer[..., 1]) * (1.0 + HIT_WEIGHT * target)
    return tf.reduce_mean(LOUDNESS_WEIGHT * tf.abs(answer[..., 0] - scaled) + entropy, axis=1)


def _batch_loss(model: keras.Model, batch: Any, is_training: bool) -> tf.Tensor:
    pictures, loudness_db, hit = batch
    return _losses(model(pictures, training=is_training), loudness_db, hit)


def _clip_loss(answer: np.ndarray, clip: frames.HeardClip) -> float:
    n = clip.n_frames
    return float(_losses(answer[None, :n], clip.loudness_db[None, :n], clip.hit[None, :n])[0])


def _compiled(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The network as a function of pictures uint8 [time, p, p] to float32 [time, 2]."""
    signature = [tf.TensorSpec((None, *model.input_shape[2:]), tf.uint8)]
    run = tf.function(lambda pictures: model(tf.cast(pictures, tf.float32)[None], training=False)[0], signature)
    return lambda pictures: run(pictures).numpy()


def hit_probability(answer: np.ndarray) -> np.ndarray:
    """Hit strength at every frame, before any is picked: float32 [time], from [time, 2]."""
    return expit(answer[:, 1])


def finish(answer: np.ndarray, card: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """What the network says, as curves of a cue sheet.

    Args:
      answer: float32 [n_frames, 2], of the network.
      card: loudness range of training, threshold of hits.

    Returns:
      loudness_db: float32 [n_frames], within the range of training.
      hit: float32 [n_frames], 0 to 1, sparse.
    """
    loudness_db = answer[:, 0] * cues.LOUDNESS_RANGE_DB + cues.LOUDNESS_MIDDLE_DB
    loudness_db = np.clip(loudness_db, card["loudness_low_db"], card["loudness_high_db"]).astype(np.float32)
    hit = cues.pick_hits(hit_probability(answer), card["hit_threshold"])
    return slow_rises(loudness_db, hit, card["frame_rate"]), hit


def slow_rises(loudness_db: np.ndarray, hit: np.ndarray, frame_rate: int) -> np.ndarray:
    """Lets loudness jump up at hits only: elsewhere a jump is a doubt of the network, and would sound like a hit.

    Args:
      loudness_db: float32 [n_frames].
      hit: float32 [n_frames].
      frame_rate: per second.

    Returns:
      float32 [n_frames], nowhere louder than it was.
    """
    slowed = loudness_db.copy()
    jumps = maximum_filter1d(hit, 2 * FRAMES_AROUND_HIT + 1) > 0
    for frame in np.flatnonzero(~jumps[1:]) + 1:
        slowed[frame] = min(slowed[frame], slowed[frame - 1] + RISE_DB_PER_S / frame_rate)
    return slowed


def choose_threshold(true_hits: Sequence[np.ndarray], probabilities: Sequence[np.ndarray], hearing: Hearing) -> float:
    """The threshold that gives the best F1 on these clips; the one for real sound where none has enough hits."""

    def score(threshold: float) -> float:
        picked = [cues.pick_hits(probability, threshold) for probability in probabilities]
        return hit_f1(true_hits, picked, hearing.frame_rate) or 0.0

    scores = [score(threshold) for threshold in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(scores))]) if max(scores) > 0 else hearing.cues.hit_threshold


def hit_f1(true_hits: Sequence[np.ndarray], hits: Sequence[np.ndarray], frame_rate: int) -> float | None:
    """Mean onset F1 at 100 ms over the clips with at least three true hits; None where there are no such clips."""
    scores = [
        _onset_f1(np.flatnonzero(true) / frame_rate, np.flatnonzero(hit) / frame_rate)
        for true, hit in zip(true_hits, hits, strict=True)
        if np.count_nonzero(true) >= MIN_REFERENCE_HITS
    ]
    return float(np.mean(scores)) if scores else None


def _onset_f1(reference_s: np.ndarray, found_s: np.ndarray) -> float:
    """F1 of one clip; mir_eval warns where nothing was found, and says 0 too."""
    return float(mir_eval.onset.f_measure(reference_s, found_s, HIT_WINDOW_S)[0]) if len(found_s) else 0.0


def measure(
    clips: Sequence[frames.HeardClip], predictions: Sequence[tuple[np.ndarray, np.ndarray]], frame_rate: int
) -> dict[str, Any]:
    """Predicted against measured curves; a correlation only where neither curve is constant."""
    pairs = [(clip.loudness_db[: clip.n_frames], pair[0]) for clip, pair in zip(clips, predictions, strict=True)]
    correlations = [
        np.corrcoef(true, seen)[0, 1] for true, seen in pairs if min(true.std(), seen.std()) > CONSTANT_BELOW_DB
    ]
    true_hits = [clip.hit[: clip.n_frames] for clip in clips]
    return {
        "loudness_correlation": float(np.mean(correlations)) if correlations else None,
        "loudness_error_db": float(np.mean([np.abs(true - seen).mean() for true, seen in pairs])),
        "hit_f1_100ms": hit_f1(true_hits, [hit for _, hit in predictions], frame_rate),
    }


def _examples(
    clips: Sequence[frames.HeardClip], predictions: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[LoudnessCurves, ...]:
    """One clip of each label."""
    first = {
        clip.frames.label: (clip, seen) for clip, (seen, _) in reversed(list(zip(clips, predictions, strict=True)))
    }
    return tuple(
        LoudnessCurves(label, clip.frames.key[0], clip.loudness_db[: clip.n_frames], seen)
        for label, (clip, seen) in sorted(first.items())
    )


class Spotter:
    """A trained spotter.

    Attributes:
      frame_rate: frames per second that it takes.
      size: their pixels.
      fit: how a picture is brought to that size, see `params.Frames`.
      reach: frames on each side that can move an answer.
    """

    def __init__(self, model: keras.Model, card: dict[str, Any]) -> None:
        self._answer = _compiled(model)
        self._card = card
        self._picture_size: int = card["params"]["picture_size"]
        self.size: int = card["size"]
        self.fit: str = card["fit"]
        self.frame_rate: int = card["frame_rate"]
        self.reach = reach(card["params"]["context_s"], self.frame_rate)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a model file.

        Raises:
          ModelError: when it is missing, damaged, or no spotter.
        """
        return cls(*training.load_model(path, KIND))

    @property
    def loudness_range_db(self) -> tuple[float, float]:
        """The quietest and the loudest it has heard, and will say."""
        return self._card["loudness_low_db"], self._card["loudness_high_db"]

    def predict(self, batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Says when it sounds and how loud, in memory that does not grow with the pictures.

        Args:
          batches: uint8 [any, size, size] each, consecutive frames at `frame_rate`.

        Returns:
          loudness_db: float32 [n_frames], within `loudness_range_db`.
          hit: float32 [n_frames], 0 to 1, sparse.
        """
        answers = list(self.watch(batches))
        return finish(np.concatenate([np.zeros((0, 2), np.float32), *answers]), self._card)

    def watch(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Runs the network over windows that overlap by all it can see, so that no frame sees where they were cut.

        Yields:
          float32 [FRAMES_AT_ONCE, 2], the last one shorter: scaled loudness and hit logit.
        """
        held = np.zeros((0, self._picture_size, self._picture_size), np.uint8)
        answered = 0  # The first pictures held are there only to be seen.
        for batch in batches:
            held = np.concatenate([held, self._shrink(batch)])
            while len(held) >= answered + FRAMES_AT_ONCE + self.reach:
                end = answered + FRAMES_AT_ONCE
                yield self._answer(held[: end + self.reach])[answered:end]
                start = max(0, end - self.reach)
                held, answered = held[start:], end - start
        if len(held) > answered:
            yield self._answer(held)[answered:]

    def _shrink(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[1:] != (self.size, self.size):
            raise ModelError(
                f"The spotter was trained on frames of {self.size}x{self.size} pixels and was given "
                f"{pixels.shape[2]}x{pixels.shape[1]}. Set frames.size to {self.size}, or train it again."
            )
        return frames.shrink(pixels, self._picture_size)
