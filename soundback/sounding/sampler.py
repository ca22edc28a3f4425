"""Runs the WaveNet one sample at a time, with every layer's past kept in a ring buffer.

The network is described in wavenet.py only: weights, dilations and kernel sizes are read off the Keras model by layer
name, and the tests hold the logits to its forward pass. The inner loops are compiled by Numba and release the GIL;
a `Sampler` is never written to, so several threads may share one, each with its own `State`.

Source: Paine et al., Fast WaveNet generation algorithm (2016), for the cached activations.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numba
import numpy as np

SILENCE = 128
"""The class of silence: what `mu_law_encode` makes of 0."""

TANH_CLAMP = 9.0
"""Beyond this, tanh differs from 1 by less than float32 can tell."""


class _Weights(NamedTuple):
    """What the compiled loops read: float32, inputs before outputs, so that inner loops run over outputs."""

    embedding: np.ndarray  # [256, residual]
    dilated: np.ndarray  # [layers, kernel * residual, 2 * gate], oldest input first
    mixed: np.ndarray  # [layers, gate, skip + residual]: both uses of a layer's gate in one product
    mixed_bias: np.ndarray  # [layers, skip + residual]
    head: np.ndarray  # [skip, skip]
    head_bias: np.ndarray  # [skip]
    logits: np.ndarray  # [skip, 256]
    logits_bias: np.ndarray  # [256]
    dilations: np.ndarray  # int64 [layers]


@dataclass
class State:
    """All that the next sample depends on besides its cues.

    Attributes:
      rings: float32 [slots, residual], the layers' past inputs; layer l owns (kernel - 1) * dilations[l] slots.
      position: samples made so far.
      previous: class of the last sample.
    """

    rings: np.ndarray
    position: int
    previous: int

    def copy(self) -> Self:
        """A state that goes its own way from here."""
        return type(self)(self.rings.copy(), self.position, self.previous)


class Sampler:
    """A trained WaveNet, ready to sound."""

    def __init__(self, weights: _Weights, cue_weights: list[np.ndarray], *, kernel_size: int, hop: int) -> None:
        self._weights = weights
        self._cue_weights = cue_weights
        self.kernel_size = kernel_size
        self.hop = hop

    @classmethod
    def from_model(cls, model: Any) -> Self:
        """Takes the weights that a Keras model from `build_wavenet` has now."""
        layers = sum(layer.name.startswith("dilated_") for layer in model.layers)
        dilated = np.stack([_weights_of(model, f"dilated_{layer}")[0] for layer in range(layers)])
        mixed, mixed_bias = _mix(model, layers)
        (embedding,) = _weights_of(model, "classes")
        head, head_bias = _weights_of(model, "head")
        logits, logits_bias = _weights_of(model, "logits")
        weights = _Weights(
            embedding=embedding,
            dilated=np.ascontiguousarray(dilated.reshape(layers, -1, dilated.shape[-1])),
            mixed=mixed,
            mixed_bias=mixed_bias,
            head=head,
            head_bias=head_bias,
            logits=logits,
            logits_bias=logits_bias,
            dilations=np.array([model.get_layer(f"dilated_{layer}").dilation_rate[0] for layer in range(layers)]),
        )
        cue_weights = [weight for name in ("cues_0", "cues_1", "condition") for weight in _weights_of(model, name)]
        hop = model.get_layer("frames_0").target_shape[1]
        return cls(weights, cue_weights, kernel_size=dilated.shape[1], hop=hop)

    @property
    def receptive_field(self) -> int:
        """Past samples that a sample depends on."""
        return (self.kernel_size - 1) * int(self._weights.dilations.sum()) + 1

    def project(self, cues: np.ndarray) -> np.ndarray:
        """What the cues add inside each layer's gate.

        The two small convolutions see neighbouring frames; beyond both ends they see zeros, as in training beyond a
        clip's ends. For part of a longer stretch, pass `wavenet.CUE_CONTEXT` frames more on each side and drop them
        from the result: each frame is computed alone, so the values are the same to the last bit.

        Args:
          cues: float32 [n_frames, n_cues], see `cues.conditioning`.

        Returns:
          float32 [n_frames, layers, 2 * gate channels].
        """
        first, first_bias, second, second_bias, condition, condition_bias = self._cue_weights
        contexts = (first.shape[0] // 2, second.shape[0] // 2)
        cues = np.asarray(cues, np.float32)
        padded = np.pad(cues, ((sum(contexts),) * 2, (0, 0)))
        smooth = _convolve(_convolve(padded, first, first_bias), second, second_bias)
        both = np.concatenate([cues, smooth], axis=1)
        projected = _dense(both, condition, condition_bias)
        return projected.reshape(len(cues), len(self._weights.dilations), -1)

    def start(self) -> State:
        """The state after endless silence of which no cue says anything."""
        weights = self._weights
        (silence,) = self.project(np.zeros((1, self._cue_weights[0].shape[1]), np.float32))
        hidden = weights.embedding[SILENCE]
        rings = []
        for layer, dilation in enumerate(weights.dilations):
            # Endless silence: all inputs of a layer are the same.
            rings.append(np.tile(hidden, ((self.kernel_size - 1) * dilation, 1)))
            signal, gate = np.split(np.tile(hidden, self.kernel_size) @ weights.dilated[layer] + silence[layer], 2)
            mixed = (np.tanh(signal) / (1 + np.exp(-gate))) @ weights.mixed[layer] + weights.mixed_bias[layer]
            hidden = hidden + mixed[len(weights.head) :]
        return State(np.concatenate(rings).astype(np.float32), 0, SILENCE)

    def sample(self, state: State, projected: np.ndarray, uniforms: np.ndarray, temperature: float) -> np.ndarray:
        """Makes sound for some frames and moves the state on; chunk by chunk gives the same bits as in one go.

        Args:
          state: from `start`, or as an earlier call left it. Changed in place.
          projected: float32 [n_frames, layers, 2 * gate channels], from `project`.
          uniforms: float64 [n_frames * hop] in [0, 1): the chance of each sample. The same numbers, the same sound.
          temperature: 1 samples what the network says; less is cleaner, and duller.

        Returns:
          int32 [n_frames * hop], classes.
        """
        expected = len(projected) * self.hop
        if len(uniforms) != expected:
            raise ValueError(f"{len(projected)} frames take {expected} uniforms, found {len(uniforms)}.")
        classes, _ = self._run(state, projected, np.asarray(uniforms, np.float64), temperature, teacher=None)
        return classes

    def logits(self, classes: np.ndarray, projected: np.ndarray, state: State | None = None) -> np.ndarray:
        """What the network says before each sample of a given sound, by the same compiled loop as `sample`.

        Args:
          classes: int [n_frames * hop].
          projected: float32 [n_frames, layers, 2 * gate channels].
          state: goes on from here and is changed in place; without it, from silence.

        Returns:
          float32 [n_frames * hop, 256]; row t has seen the classes before t only.
        """
        teacher = np.asarray(classes, np.int32)
        _, logits = self._run(state or self.start(), projected, np.zeros(len(teacher)), 1.0, teacher=teacher)
        return logits

    def _run(
        self,
        state: State,
        projected: np.ndarray,
        uniforms: np.ndarray,
        temperature: float,
        *,
        teacher: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        logits = np.empty((0 if teacher is None else len(uniforms), len(self._weights.logits_bias)), np.float32)
        given = np.empty(0, np.int32) if teacher is None else teacher
        projected = np.ascontiguousarray(projected, np.float32)
        classes = _generate(
            self._weights, state.rings, state.position, state.previous, projected, uniforms, temperature, given, logits
        )
        if len(classes):
            state.position += len(classes)
            state.previous = int(classes[-1])
        return classes, logits


def _weights_of(model: Any, layer: str) -> list[np.ndarray]:
    return [np.asarray(weight, np.float32) for weight in model.get_layer(layer).get_weights()]


def _mix(model: Any, layers: int) -> tuple[np.ndarray, np.ndarray]:
    """Each layer's skip and residual kernels side by side, [layers, gate, skip + residual], and their biases."""
    skip, skip_bias = _weights_of(model, "skip")
    n_skip = len(skip_bias)
    n_residual = _weights_of(model, "classes")[0].shape[1]
    parts = skip.reshape(layers, -1, n_skip)
    mixed = np.zeros((*parts.shape[:2], n_skip + n_residual), np.float32)
    bias = np.zeros((layers, n_skip + n_residual), np.float32)
    mixed[:, :, :n_skip] = parts
    bias[0, :n_skip] = skip_bias
    # Nothing hears the last layer's residual: the model has none, and here it stays zero.
    for layer in range(layers - 1):
        mixed[layer, :, n_skip:], bias[layer, n_skip:] = _weights_of(model, f"residual_{layer}")
    return mixed, bias


@numba.njit(nogil=True)
def _convolve(frames: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """ReLU of a convolution without padding, frame by frame in one order of summation."""
    width, n_in, n_out = kernel.shape
    out = np.empty((len(frames) - width + 1, n_out), np.float32)
    for frame in range(len(out)):
        out[frame] = bias
        for tap in range(width):
            for i in range(n_in):
                for j in range(n_out):
                    out[frame, j] += frames[frame + tap, i] * kernel[tap, i, j]
        for j in range(n_out):
            out[frame, j] = max(out[frame, j], np.float32(0))
    return out


@numba.njit(nogil=True)
def _dense(frames: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A dense layer, frame by frame in one order of summation."""
    out = np.empty((len(frames), len(bias)), np.float32)
    for frame in range(len(frames)):
        out[frame] = bias
        for i in range(frames.shape[1]):
            for j in range(len(bias)):
                out[frame, j] += frames[frame, i] * kernel[i, j]
    return out


@numba.njit(nogil=True, fastmath=True, inline="always")
def _add_product(out: np.ndarray, inputs: np.ndarray, kernel: np.ndarray, first: int) -> None:
    """Adds inputs @ kernel[first : first + len(inputs)] to out, four inputs in each pass over the outputs."""
    n_in = len(inputs)
    n_out = len(out)
    whole = n_in - n_in % 4
    for i in range(0, whole, 4):
        a, b, c, d = inputs[i], inputs[i + 1], inputs[i + 2], inputs[i + 3]
        row = first + i
        for j in range(n_out):
            out[j] += a * kernel[row, j] + b * kernel[row + 1, j] + c * kernel[row + 2, j] + d * kernel[row + 3, j]
    for i in range(whole, n_in):
        a = inputs[i]
        for j in range(n_out):
            out[j] += a * kernel[first + i, j]


@numba.njit(nogil=True, fastmath=True, inline="always")
def _tanh(x: np.float32) -> np.float32:
    """Within 4e-7 of tanh, and unlike it, quick in vectors.

    Lambert's continued fraction x / (1 + x^2 / (3 + x^2 / (5 + ...))), cut after six terms, gives p / q = tanh(x / 2);
    then tanh(x) = 2 tanh(x / 2) / (1 + tanh(x / 2)^2), which squares the error that the cut leaves.
    """
    half = np.float32(0.5) * min(max(x, np.float32(-TANH_CLAMP)), np.float32(TANH_CLAMP))
    s = half * half
    p = half * (np.float32(10395) + s * (np.float32(1260) + s * np.float32(21)))
    q = np.float32(10395) + s * (np.float32(4725) + s * (np.float32(210) + s))
    return np.float32(2) * p * q / (q * q + p * p)


@numba.njit(nogil=True)
def _choose(logits: np.ndarray, temperature: float, uniform: float, cumulative: np.ndarray) -> int:
    """The class at which the cumulative probability passes a uniform number; never one of probability 0."""
    top = logits.max()
    total = 0.0
    for c in range(len(logits)):
        total += np.exp(np.float32((logits[c] - top) / temperature))
        cumulative[c] = total
    for c in range(len(logits)):
        # The second case: rounding took uniform * total up to total itself.
        if cumulative[c] > uniform * total or cumulative[c] >= total:
            return c
    return len(logits) - 1


@numba.njit(nogil=True, fastmath=True)
def _generate(weights, rings, position, previous, projected, uniforms, temperature, given, logits):  # type: ignore[no-untyped-def]
    """The loop over samples; with `given` classes it follows them and fills `logits`, else it chooses.

    All of it works for one stream on one core; scratch is local, so that threads do not meet.
    """
    n_layers, n_taps_in, n_gates = weights.dilated.shape
    n_residual = weights.embedding.shape[1]
    n_taps = n_taps_in // n_residual
    n_gate = n_gates // 2
    n_skip = len(weights.head_bias)
    n_samples = len(uniforms)
    classes = np.empty(n_samples, np.int32)
    hidden = np.empty(n_residual, np.float32)
    gates = np.empty(n_gates, np.float32)
    gated = np.empty(n_gate, np.float32)
    mixed = np.empty(n_skip + n_residual, np.float32)
    skip = np.empty(n_skip, np.float32)
    head = np.empty(n_skip, np.float32)
    output = np.empty(len(weights.logits_bias), np.float32)
    cumulative = np.empty(len(weights.logits_bias), np.float64)
    for t in range(n_samples):
        frame = t * len(projected) // n_samples
        hidden[:] = weights.embedding[previous]
        skip[:] = np.float32(0)
        first_slot = 0
        for layer in range(n_layers):
            dilation = weights.dilations[layer]
            length = (n_taps - 1) * dilation
            now = (position + t) % length
            gates[:] = projected[frame, layer]
            for tap in range(n_taps - 1):
                # The oldest input lies where this sample's will be written.
                slot = first_slot + (now + tap * dilation) % length
                _add_product(gates, rings[slot], weights.dilated[layer], tap * n_residual)
            _add_product(gates, hidden, weights.dilated[layer], (n_taps - 1) * n_residual)
            rings[first_slot + now] = hidden
            for j in range(n_gate):
                gated[j] = _tanh(gates[j]) * (
                    np.float32(0.5) + np.float32(0.5) * _tanh(np.float32(0.5) * gates[n_gate + j])
                )
            mixed[:] = weights.mixed_bias[layer]
            _add_product(mixed, gated, weights.mixed[layer], 0)
            for j in range(n_skip):
                skip[j] += mixed[j]
            for j in range(n_residual):
                hidden[j] += mixed[n_skip + j]
            first_slot += length
        for j in range(n_skip):
            skip[j] = max(skip[j], np.float32(0))
        head[:] = weights.head_bias
        _add_product(head, skip, weights.head, 0)
        for j in range(n_skip):
            head[j] = max(head[j], np.float32(0))
        output[:] = weights.logits_bias
        _add_product(output, head, weights.logits, 0)
        if len(given) > 0:
            previous = given[t]
            logits[t] = output
        else:
            previous = _choose(output, temperature, uniforms[t], cumulative)
        classes[t] = previous
    return classes
