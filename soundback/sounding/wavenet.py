"""The WaveNet: causal dilated gated convolutions over mu-law classes, told by cues what sounds when.

The Keras model built here is the only description of the network: sampler.py takes its weights by layer name.

```
classes < t ─ embedding ─► [dilated conv ─► + cues ─► tanh * sigmoid ─┬─► dense ─► + ] x layers
                                                                      └─► skip ─► relu, dense, relu, dense ─► logits
cues ─┬─────────────────────────────────┬─► one dense layer for all layers, at frame rate, held for hop samples
      └─► two non-causal convolutions ──┘
```

Source: van den Oord et al., WaveNet: a generative model for raw audio (2016), sections 2.1 to 2.5.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from soundback.params import WaveNet

log = logging.getLogger(__name__)

N_CLASSES = 256
CUE_KERNELS = (3, 3)
"""Frames seen at once by each non-causal convolution over the cues."""

CUE_CONTEXT = sum(kernel // 2 for kernel in CUE_KERNELS)
"""Frames on each side of a frame whose cues still matter to it."""


@dataclass(frozen=True)
class Window:
    """Which stretch of a clip the network needs in order to say something about `n_frames` of it.

    Attributes:
      hop: audio samples per frame.
      history_frames: whole frames of sound in front, at least the receptive field's past.
      n_frames: frames that get logits.
    """

    hop: int
    history_frames: int
    n_frames: int

    @classmethod
    def of(cls, params: WaveNet, *, hop: int, n_frames: int) -> "Window":
        """The window with as much history as the network needs and no more."""
        return cls(hop, _frames_needed(params, hop)[0], n_frames)

    @property
    def n_inputs(self) -> int:
        """Classes that go in: history and all that gets logits, each one sample late."""
        return (self.history_frames + self.n_frames) * self.hop

    @property
    def n_outputs(self) -> int:
        """Samples that get logits."""
        return self.n_frames * self.hop

    @property
    def n_cue_frames(self) -> int:
        """Frames of cues that go in: those of the sound, and the context of the non-causal convolutions."""
        return self.history_frames + self.n_frames + 2 * CUE_CONTEXT


def build_wavenet(params: WaveNet, n_cues: int, hop: int) -> keras.Model:
    """Builds the network, untrained.

    Its inputs are `previous`, int32 [batch, (history_frames + n_frames) * hop], where position i holds the class of
    sample i - 1, and `cues`, float32 [batch, history_frames + n_frames + 2 * CUE_CONTEXT, n_cues]: frame k of the sound
    is cue frame k + CUE_CONTEXT. Its output is float32 logits [batch, n_frames * hop, 256]. n_frames is free.

    Convolutions are padded in front, but only outputs whose receptive field lies in the window come out: history is
    dropped, whole frames at a time, as soon as no layer above needs it. That way sound and cues stay aligned, and a cue
    frame is added to its samples by broadcasting instead of being copied for each of them.

    Args:
      params: channels, layers and dilations.
      n_cues: cue features per frame.
      hop: audio samples per frame.
    """
    needed = _frames_needed(params, hop)
    previous = keras.Input((None,), dtype="int32", name="previous")
    cues = keras.Input((None, n_cues), name="cues")
    conditions = _conditions(cues, params)
    hidden = keras.layers.Embedding(
        N_CLASSES, params.residual_channels, embeddings_initializer=_waves(params), name="classes"
    )(previous)
    gated = []
    for layer, dilation in enumerate(params.dilations):
        drop = (needed[layer] - needed[layer + 1]) * hop
        # The sampler reads the dilation off the delays, and the hop off the gate.
        taps = [
            Delay(tap * dilation, drop, name=f"delay_{layer}_{tap}")(hidden)
            for tap in reversed(range(params.kernel_size))
        ]
        # Taps side by side, a dilated convolution is one matrix product, and so are its gradients; bias has the gate.
        activation = keras.layers.Dense(2 * params.gate_channels, use_bias=False, name=f"dilated_{layer}")(
            keras.layers.Concatenate()(taps)
        )
        condition = _drop_front(conditions[layer], needed[0] - needed[layer + 1])
        gate = Gate(hop, name=f"gate_{layer}")(activation, condition)
        gated.append(_drop_front(gate, needed[layer + 1] * hop))
        if layer + 1 < params.layers:
            residual = keras.layers.Dense(params.residual_channels, name=f"residual_{layer}")(gate)
            hidden = keras.layers.Add()([_drop_front(hidden, drop), residual])
    model = keras.Model([previous, cues], _head(gated, params), name="wavenet")
    log.info(
        "WaveNet of %d parameters, receptive field %d samples (%d frames of history)",
        model.count_params(),
        params.receptive_field,
        needed[0],
    )
    return model


@keras.saving.register_keras_serializable("soundback")
class Delay(keras.layers.Layer):
    """A sequence some samples late, zeros in front, and then without its first samples.

    Slices and paddings are each other's gradients. That of Keras' Cropping1D takes longer than a convolution does.

    Attributes:
      delay: samples.
      drop: samples.
    """

    def __init__(self, delay: int, drop: int, **options: Any) -> None:
        super().__init__(**options)
        self.delay, self.drop = delay, drop

    def call(self, sequence: tf.Tensor) -> tf.Tensor:
        """Float [batch, time, channels] to [batch, time - drop, channels]."""
        n_zeros = max(0, self.delay - self.drop)
        n_taken = tf.shape(sequence)[1] - self.drop - n_zeros
        taken = tf.slice(sequence, [0, max(0, self.drop - self.delay), 0], [-1, n_taken, -1])
        return tf.pad(taken, [[0, 0], [n_zeros, 0], [0, 0]]) if n_zeros else taken

    def compute_output_shape(self, sequence_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """As many samples fewer as are dropped."""
        n_batch, n_times, n_channels = sequence_shape
        return n_batch, None if n_times is None else n_times - self.drop, n_channels

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "delay": self.delay, "drop": self.drop}


@keras.saving.register_keras_serializable("soundback")
class Gate(keras.layers.Layer):
    """Adds each frame's condition to its samples, then tanh of one half of the channels times sigmoid of the other.

    Attributes:
      hop: samples per frame.
    """

    def __init__(self, hop: int, **options: Any) -> None:
        super().__init__(**options)
        self.hop = hop

    def call(self, activation: tf.Tensor, condition: tf.Tensor) -> tf.Tensor:
        """Float [batch, frames * hop, 2 * channels] and [batch, frames, 2 * channels] to [batch, time, channels]."""
        return _gate(activation, condition, self.hop)

    def compute_output_shape(
        self, activation_shape: tuple[int | None, ...], condition_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Half of the channels."""
        return *activation_shape[:-1], (activation_shape[-1] or 0) // 2

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "hop": self.hop}


# Compiled, it goes over its inputs once, and once more for their gradients; as single operations, a dozen times.
@tf.function(jit_compile=True)
def _gate(activation: tf.Tensor, condition: tf.Tensor, hop: int) -> tf.Tensor:
    n_batch, n_channels = tf.shape(activation)[0], activation.shape[-1]
    by_frame = tf.reshape(activation, (n_batch, -1, hop, n_channels)) + condition[:, :, None]
    signal, gate = tf.split(by_frame, 2, axis=-1)
    return tf.reshape(tf.tanh(signal) * tf.sigmoid(gate), (n_batch, -1, n_channels // 2))


def start_at_histogram(model: keras.Model, counts: np.ndarray) -> None:
    """Makes an untrained network say how often each class occurs, whatever it hears.

    Without it, the first minutes of training go into learning that most samples are near silence.

    Args:
      model: from `build_wavenet`, its output weights still zero.
      counts: int [256], occurrences of each class in the training data.
    """
    output = model.get_layer("logits")
    # One occurrence more than counted, so that no class is impossible.
    output.bias.assign(np.log((counts + 1) / (counts.sum() + N_CLASSES)).astype(np.float32))


@tf.function
def bits_per_sample(model: keras.Model, batch: Any, training: bool) -> tf.Tensor:
    """What it takes to write down the true classes with the model's help.

    Args:
      model: from `build_wavenet`.
      batch: previous, cues, targets and weights, see clips.py.
      training: whether the model trains.

    Returns:
      float32 [batch], bits per sample of each window, each frame's times its weight.
    """
    logits = model([batch["previous"], batch["cues"]], training=training)
    nats = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["targets"], logits)
    weights = batch["weights"]
    by_frame = tf.reshape(nats, (weights.shape[0], weights.shape[1], -1))
    return tf.reduce_mean(weights[..., None] * by_frame, axis=(1, 2)) / math.log(2)


def _frames_needed(params: WaveNet, hop: int) -> list[int]:
    """Frames of history still needed in front of each layer's input; of the last layer's output, 0."""
    pasts = [(params.kernel_size - 1) * sum(params.dilations[layer:]) for layer in range(params.layers + 1)]
    return [-(-past // hop) for past in pasts]


def _waves(params: WaveNet) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=1.0, seed=params.seed)


def _conditions(cues: Any, params: WaveNet) -> list[Any]:
    """What the cues add inside each layer's gate, [batch, frames, 2 * gate_channels] each."""
    smooth = cues
    for index, kernel in enumerate(CUE_KERNELS):
        smooth = keras.layers.Conv1D(params.cue_channels, kernel, activation="relu", name=f"cues_{index}")(smooth)
    raw = keras.layers.Cropping1D(CUE_CONTEXT)(cues)
    both = keras.layers.Concatenate()([raw, smooth])
    together = keras.layers.Dense(params.layers * 2 * params.gate_channels, name="condition")(both)
    return list(keras.ops.split(together, params.layers, axis=-1))


def _head(gated: list[Any], params: WaveNet) -> Any:
    """All layers' skip connections as one matrix product, then two dense layers to the logits."""
    skip = keras.layers.Dense(params.skip_channels, activation="relu", name="skip")(keras.layers.Concatenate()(gated))
    hidden = keras.layers.Dense(params.skip_channels, activation="relu", name="head")(skip)
    return keras.layers.Dense(N_CLASSES, kernel_initializer="zeros", name="logits")(hidden)


def _drop_front(sequence: Any, n: int) -> Any:
    return Delay(0, n)(sequence) if n else sequence
