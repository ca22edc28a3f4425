"""When it sounds and how loud: consecutive frames to loudness and hits. No labels are needed, and none are known."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from scipy.ndimage import maximum_filter1d
from scipy.special import expit

from soundback import cues, model_files
from soundback.errors import ModelError
from soundback.params import Spotter as SpotterParams
from soundback.watching import frames

log = logging.getLogger(__name__)

KIND = "spotter"
FRAMES_AT_ONCE = 256

KERNEL = 3
CHANGE_GAIN = 4.0

RISE_DB_PER_S = 40.0
FRAMES_AROUND_HIT = 2


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

    Pictures [batch, time, p, p] in [0, 255] become [batch, time, p, p, n_channels], the picture in [-1, 1].

    Args:
      sees: "both", or one of "appearance" (the picture alone) and "change" (the two changes alone).
    """

    def __init__(self, sees: str = "both", **given: Any) -> None:
        super().__init__(**given)
        self.sees = sees

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "sees": self.sees}

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The channels come last."""
        return (*input_shape, {"appearance": 1, "change": 2, "both": 3}[self.sees])

    def call(self, inputs: Any) -> Any:
        """Before the first and after the last frame nothing changes."""
        pictures = inputs / 127.5 - 1.0
        if self.sees == "appearance":
            return pictures[..., None]
        change = CHANGE_GAIN * (pictures[:, 1:] - pictures[:, :-1])
        since = keras.ops.pad(change, ((0, 0), (1, 0), (0, 0), (0, 0)))
        until = keras.ops.pad(change, ((0, 0), (0, 1), (0, 0), (0, 0)))
        return keras.ops.stack([since, until] if self.sees == "change" else [pictures, since, until], axis=-1)


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
    # In 16 bits a small change between bright pictures would be rounded away.
    changes = Change(params.sees, dtype="float32")(pictures)
    x = PerFrame(_frame_encoder(params, changes.shape[-1]))(changes)
    for dilation in dilations(round(params.context_s * frame_rate)):
        y = keras.layers.Conv1D(params.hidden, KERNEL, padding="same", dilation_rate=dilation, activation="relu")(x)
        x = keras.layers.Add()([x, keras.layers.Dense(params.hidden)(y)])
    x = keras.layers.Dense(params.hidden, activation="relu")(x)
    return keras.Model(pictures, keras.layers.Dense(2, name="loudness_and_hit")(x), name="spotter")


def _frame_encoder(params: SpotterParams, n_channels: int) -> keras.Model:
    """What one frame and its change look like: [p, p, n_channels] to [hidden]."""
    frame = x = keras.Input((params.picture_size, params.picture_size, n_channels))
    means = []
    for width in params.channels:
        x = keras.layers.Conv2D(width, 3, 2, padding="same", activation="relu")(x)
        # What flows is known by how much of it there is, wherever it is.
        means.append(keras.layers.GlobalAveragePooling2D()(x))
    places = keras.layers.Flatten()(x)
    described = keras.layers.Dense(params.hidden, activation="relu")(keras.layers.Concatenate()([places, *means]))
    return keras.Model(frame, described, name="frame_encoder")


def compile_answer(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
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


class Spotter:
    """A trained spotter.

    Attributes:
      frame_rate: frames per second that it takes.
      size: their pixels.
      fit: how a picture is brought to that size, see `params.Frames`.
      reach: frames on each side that can move an answer.
    """

    def __init__(self, model: keras.Model, card: dict[str, Any]) -> None:
        if model.input_shape[-1] != card["params"]["picture_size"]:
            raise ModelError(
                f"The spotter takes pictures of {model.input_shape[-1]} pixels, but its card says "
                f"{card['params']['picture_size']}: they do not belong together. Train it again with "
                "`dvc repro train_spotter`."
            )
        self._answer = compile_answer(model)
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
        return cls(*model_files.load_model(path, KIND))

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
        rows = itertools.chain.from_iterable(self.watch(batches))
        # One array that grows: many small ones would keep what lies between them from being given back.
        return finish(np.fromiter(rows, np.dtype((np.float32, 2))), self._card)

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
