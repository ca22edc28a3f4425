"""When it sounds and how loud: consecutive frames to loudness and hits. No labels are needed, and none are known."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import keras
import mir_eval
import numpy as np
import tensorflow as tf

from soundback import cues, dataset, training
from soundback.errors import DataContractError, ModelError
from soundback.media.audio import read_wav
from soundback.params import Cues, Params
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
HIT_LOSS_SHARE = 1.0
CLIP_NORM = 1.0

HIT_WINDOW_S = 0.1
MIN_REFERENCE_HITS = 3
THRESHOLDS = np.arange(0.1, 0.91, 0.05)
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
    """Pictures [batch, time, p, p] in [0, 255] to [batch, time, p, p, 3]: the picture, and its change from and to its neighbours."""

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
    strided = [keras.layers.Conv2D(width, 3, 2, padding="same", activation="relu") for width in params.channels]
    dense = [keras.layers.Flatten(), keras.layers.Dense(params.hidden, activation="relu")]
    x = PerFrame(keras.Sequential([keras.Input((p, p, 3)), *strided, *dense]))(Change()(pictures))
    for dilation in dilations(round(params.context_s * frame_rate)):
        y = keras.layers.Conv1D(params.hidden, KERNEL, padding="same", dilation_rate=dilation, activation="relu")(x)
        x = keras.layers.Add()([x, keras.layers.Dense(params.hidden)(y)])
    x = keras.layers.Dense(params.hidden, activation="relu")(x)
    return keras.Model(pictures, keras.layers.Dense(2, name="loudness_and_hit")(x), name="spotter")


def hear(
    clips: Sequence[frames.FrameClip], sounds: Sequence[dataset.Clip], *, params: Params, hit_scale: float
) -> list[frames.HeardClip]:
    """Measures the true curves of the clips that have both frames and usable sound."""
    of_key = {(sound.video_id, sound.clip_index): sound for sound in sounds}
    return [
        frames.HeardClip(clip, *_measure(of_key[clip.key], params, hit_scale)) for clip in clips if clip.key in of_key
    ]


def _measure(sound: dataset.Clip, params: Params, hit_scale: float) -> tuple[np.ndarray, np.ndarray]:
    return cues.measure_curves(
        read_wav(sound.path), sample_rate=params.audio.sample_rate, hop=params.hop, params=params.cues, hit_scale=hit_scale
    )
