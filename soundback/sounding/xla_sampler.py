"""The sampler for a GPU: the network and the streams of sampler.py, in one loop over samples that XLA compiles.

A step costs a GPU hardly more for a hundred streams than for one, so it gains with many streams only. On a processor
the loops of sampler.py are faster; there this one serves the tests, which hold both to the Keras model.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from soundback.settings import load_settings
from soundback.sounding.kernels import EXP_FLOOR
from soundback.sounding.sampler import Layers, Sampler, Streams, WeightKind

FRAMES_AT_A_TIME = 8
"""Frames that go to the device at once; what they become comes back at once, too."""


def open_sampler(model: Any, weights: WeightKind = "float32") -> Sampler:
    """Makes the sampler for this machine: on a GPU, if there is one and SOUNDBACK_DEVICES does not name processors.

    Args:
      model: as for `Sampler.from_model`, like the next one.
      weights: how those that every sample reads are kept.
    """
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    on_processor = any(name.startswith("CPU") for name in load_settings().devices)
    return (XlaSampler if has_gpu and not on_processor else Sampler).from_model(model, weights)


class XlaSampler(Sampler):
    """A trained WaveNet, ready to sound on the device that TensorFlow uses.

    A stream in chunks has the bits of one in one go; among others it is the same within rounding only, since for each
    number of streams XLA compiles anew and may sum up in another order. 16-bit weights are rounded like those of
    `Sampler`, and computed with in 32 bits.
    """

    def __init__(
        self, layers: Layers, cue_weights: list[np.ndarray], *, hop: int, weights: WeightKind = "float32"
    ) -> None:
        read = _rounded if weights == "bfloat16" else tf.constant
        self._on_device = Layers(
            tf.constant(layers.embedding),
            [read(kernel) for kernel in layers.dilated],
            [read(kernel) for kernel in layers.mixed],
            tf.constant(layers.skip_bias),
            tf.constant(layers.residual_bias),
            read(layers.head),
            tf.constant(layers.head_bias),
            read(layers.logits),
            tf.constant(layers.logits_bias),
            layers.dilations,
        )
        super().__init__(layers, cue_weights, hop=hop, weights=weights)

    def _advance(
        self, streams: Streams, temperature: float, top_p: float, classes: np.ndarray, logits: np.ndarray
    ) -> None:
        slots, columns = self._slots(streams.positions), np.arange(len(streams.positions))
        rings = [tf.constant(streams.rings[each, columns]) for each in slots]
        previous = tf.constant(streams.previous, tf.int32)
        lengths = tf.constant(streams.lengths, tf.int32)
        follows = len(streams.given) > 0
        n_at_once = FRAMES_AT_A_TIME * self.hop
        for first in range(0, int(streams.lengths[0]), n_at_once):
            now, first_frame = slice(first, first + n_at_once), first // self.hop
            rings, previous, made, said = _sound(
                self._on_device,
                rings,
                previous,
                lengths,
                tf.constant(first),
                _by_time(streams.projected[:, first_frame : first_frame + FRAMES_AT_A_TIME], FRAMES_AT_A_TIME),
                _by_time(streams.uniforms[:, now], n_at_once),
                _by_time(streams.given[:, now], n_at_once) if follows else None,
                tf.constant(1 / temperature, tf.float32),
                tf.constant(top_p, tf.float64) if top_p < 1 else None,
            )
            n_made = classes[:, now].shape[1]
            classes[:, now] = made.numpy()[:n_made].T
            if follows:
                logits[:, now] = said.numpy()[:n_made].swapaxes(0, 1)
        streams.previous[:] = previous.numpy()
        for each, ring in zip(slots, rings, strict=True):
            streams.rings[each, columns] = ring.numpy()

    def _slots(self, positions: np.ndarray) -> list[np.ndarray]:
        """Where in a state's rings each layer's are, from the one that is written next; int64 [length, streams] each.

        Streams that have come differently far have their turns at different slots; so turned, all have them at one.
        """
        slots, first = [], 0
        for length in self._layers.ring_lengths:
            slots.append(first + (positions + np.arange(length)[:, None]) % length)
            first += length
        return slots


def _rounded(kernel: np.ndarray) -> tf.Tensor:
    return tf.cast(tf.cast(kernel, tf.bfloat16), tf.float32)


def _by_time(array: np.ndarray, n_times: int) -> tf.Tensor:
    """[streams, up to n_times, ...] as [n_times, streams, ...], filled up with zeros."""
    whole = np.zeros((n_times, len(array), *array.shape[2:]), array.dtype)
    whole[: array.shape[1]] = array.swapaxes(0, 1)
    return tf.constant(whole)


@tf.function(jit_compile=True)
def _sound(
    layers: Layers,
    rings: list[tf.Tensor],
    previous: tf.Tensor,
    lengths: tf.Tensor,
    first: tf.Tensor,
    projected: tf.Tensor,
    uniforms: tf.Tensor,
    given: tf.Tensor | None,
    scale: tf.Tensor,
    top_p: tf.Tensor | None,
) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor | None]:
    """Makes samples from number `first` on, of each stream as many as it still has, and follows given ones likewise.

    Args:
      layers: weights.
      rings: float32 [length, streams, residual] of each layer; sample t is written at t modulo length.
      previous: int32 [streams], classes.
      lengths: int32 [streams]; what has ended stays as it is.
      first: int32.
      projected: float32 [frames, streams, layers, 2 * gate].
      uniforms: float64 [time, streams].
      given: int32 [time, streams], or None where classes are chosen.
      scale: float32, one by the temperature.
      top_p: float64, or None where nothing is left out.

    Returns:
      Rings, previous, classes int32 [time, streams], and logits float32 [time, streams, 256] where classes are given.
    """
    n_times, hop = uniforms.shape[0], uniforms.shape[0] // projected.shape[0]
    n_skip, n_residual = layers.skip_bias.shape[0], layers.embedding.shape[1]
    n_past = layers.dilated[0].shape[0] // n_residual - 1
    lengths_of_rings = [ring.shape[0] for ring in rings]
    last = tf.minimum(first + n_times, tf.reduce_max(lengths))

    def read(ring: tf.TensorArray, length: int, t: tf.Tensor) -> tf.Tensor:
        """The taps before the newest, the oldest first: it lies where sample t will be written."""
        slots = [(t + tap * length // n_past) % length for tap in range(n_past)]
        return tf.concat([ring.read(slot) for slot in slots], axis=1)

    def step(
        t: tf.Tensor,
        rings: list[tf.TensorArray],
        pasts: list[tf.Tensor],
        previous: tf.Tensor,
        classes: tf.TensorArray,
        said: tf.TensorArray,
    ) -> tuple[Any, ...]:
        sounds = (t < lengths)[:, None]
        cues = tf.gather(projected, (t - first) // hop)
        hidden = tf.gather(layers.embedding, previous)
        skip = layers.skip_bias
        moved, next_pasts = [], []
        for layer, length in enumerate(lengths_of_rings):
            past = pasts[layer]
            gates = tf.matmul(tf.concat([past, hidden], axis=1), layers.dilated[layer]) + cues[:, layer]
            ring = rings[layer].write(t % length, tf.where(sounds, hidden, past[:, :n_residual]))
            # Read for the next sample at once: if the next step read before it wrote, XLA would copy the whole ring.
            next_pasts.append(read(ring, length, t + 1))
            moved.append(ring)
            signal, gate = tf.split(gates, 2, axis=1)
            mixed = tf.matmul(tf.tanh(signal) * tf.sigmoid(gate), layers.mixed[layer])
            skip += mixed[:, :n_skip]
            hidden += mixed[:, n_skip:] + layers.residual_bias[layer]
        head = tf.nn.relu(tf.matmul(tf.nn.relu(skip), layers.head) + layers.head_bias)
        logits = tf.matmul(head, layers.logits) + layers.logits_bias
        if given is None:
            now = _choose(logits, tf.gather(uniforms, t - first)[:, None], scale, top_p)
        else:
            now = tf.gather(given, t - first)
            said = said.write(t - first, logits)
        previous = tf.where(sounds[:, 0], now, previous)
        return t + 1, moved, next_pasts, previous, classes.write(t - first, now), said

    arrays = [
        tf.TensorArray(ring.dtype, ring.shape[0], element_shape=ring.shape[1:], clear_after_read=False).unstack(ring)
        for ring in rings
    ]
    pasts = [read(array, length, first) for array, length in zip(arrays, lengths_of_rings, strict=True)]
    classes = tf.TensorArray(tf.int32, n_times, element_shape=previous.shape)
    said = tf.TensorArray(
        tf.float32, n_times if given is not None else 0, element_shape=(*previous.shape, layers.logits.shape[1])
    )
    _, arrays, _, previous, classes, said = tf.while_loop(
        lambda t, *_: t < last, step, (first, arrays, pasts, previous, classes, said), parallel_iterations=1
    )
    logits = said.stack() if given is not None else None
    return [array.stack() for array in arrays], previous, classes.stack(), logits


def _choose(logits: tf.Tensor, uniforms: tf.Tensor, scale: tf.Tensor, top_p: tf.Tensor | None) -> tf.Tensor:
    """As sampler.py: the class at which the cumulative chance passes a uniform number, float64 [streams, 1]."""
    n_classes = logits.shape[1]
    powers = (logits - tf.reduce_max(logits, axis=1, keepdims=True)) * scale
    chances = tf.cast(tf.where(powers >= EXP_FLOOR, tf.exp(powers), 0.0), tf.float64)
    if top_p is not None:
        chances = _leave_nucleus(chances, top_p)
    passed = tf.cumsum(chances, axis=1)
    numbers = tf.range(n_classes)
    possible = chances > 0
    reached = possible & (passed > uniforms * passed[:, -1:])
    found = tf.reduce_min(tf.where(reached, numbers, n_classes), axis=1)
    # Where rounding lets none pass, it is the last one that is possible.
    return tf.minimum(found, tf.reduce_max(tf.where(possible, numbers, 0), axis=1))


def _leave_nucleus(chances: tf.Tensor, top_p: tf.Tensor) -> tf.Tensor:
    """Takes all chance from the least likely classes, as long as the others have `top_p` of it together."""
    ordered = tf.sort(chances, axis=1, direction="DESCENDING")
    passed = tf.cumsum(ordered, axis=1)
    left = passed - ordered < top_p * passed[:, -1:]
    least = tf.reduce_min(tf.where(left, ordered, ordered[:, :1]), axis=1, keepdims=True)
    return tf.where(chances >= least, chances, tf.zeros_like(chances))
