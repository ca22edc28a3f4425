"""Runs the WaveNet one sample at a time, every layer's past kept in a ring buffer, for one stream or for many at once.

The network is described in wavenet.py only: weights, dilations and kernel sizes are read off the Keras model by layer
name when a `Sampler` is made, and the tests hold the logits to its forward pass. The loops are compiled by Numba, once
for this machine, and release the GIL; a `Sampler` is never written to, so several threads may share one, each with its
own streams. A stream sounds the same alone and among others, in one go and in pieces, to the last bit.

Source: Paine et al., Fast WaveNet generation algorithm (2016), for the cached activations; Holtzman et al., The curious
case of neural text degeneration (2020), for the nucleus that top-p leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numba
import numpy as np

from soundback.sounding.kernels import add_products, pack, padded

SILENCE = 128
"""The class of silence: what `mu_law_encode` makes of 0."""

TANH_CLAMP = 9.0
"""Beyond this, tanh differs from 1 by less than float32 can tell."""

EXP_FLOOR = -60.0
"""What is less likely than e to this times the likeliest is impossible."""

EXP_SQUARINGS = 6
"""exp(x) is the 64th power of exp(x / 64), which a short polynomial gives."""

NUCLEUS_STEPS = 16
"""Bisections that find the least chance which top-p leaves, to 1/65536 of the greatest."""

WeightKind = Literal["float32", "bfloat16"]


class Layers(NamedTuple):
    """A network's weights, float32, inputs before outputs."""

    embedding: np.ndarray  # [256, residual]
    dilated: list[np.ndarray]  # [kernel * residual, 2 * gate] of each layer, oldest tap first
    mixed: list[np.ndarray]  # [gate, skip + residual] of each layer: two uses of its gate in one product
    skip_bias: np.ndarray  # [skip]
    residual_bias: np.ndarray  # [layers, residual]
    head: np.ndarray  # [skip, skip]
    head_bias: np.ndarray  # [skip]
    logits: np.ndarray  # [skip, 256]
    logits_bias: np.ndarray  # [256]
    dilations: np.ndarray  # int64 [layers]

    @property
    def n_taps(self) -> int:
        """Samples that each layer's convolution sees."""
        return len(self.dilated[0]) // self.embedding.shape[1]

    @property
    def ring_lengths(self) -> list[int]:
        """Past inputs that each layer needs."""
        return [(self.n_taps - 1) * int(dilation) for dilation in self.dilations]


class _Network(NamedTuple):
    """What the compiled loops read; matrices lie in the order in which a sample needs them."""

    weights: np.ndarray  # as `kernels.pack` puts them: float32 or uint16
    embedding: np.ndarray
    skip_bias: np.ndarray
    residual_bias: np.ndarray
    head_bias: np.ndarray
    logits_bias: np.ndarray
    dilations: np.ndarray
    n_taps: int
    n_gate: int


@dataclass
class State:
    """All that the next sample depends on besides its cues: an array and two numbers, to be stored as one likes.

    Attributes:
      rings: float32 [slots, residual], the layers' past inputs; layer l owns (kernel - 1) * dilations[l] slots.
      position: samples made so far, those of the silence in front included.
      previous: class of the last sample.
    """

    rings: np.ndarray
    position: int
    previous: int

    def copy(self) -> Self:
        """A state that goes its own way from here."""
        return type(self)(self.rings.copy(), self.position, self.previous)


@dataclass(frozen=True, eq=False)
class Part:
    """What a stream is to sound next.

    Attributes:
      state: from `Sampler.start`, or as an earlier call left it. Changed in place.
      projected: float32 [n_frames, layers, 2 * gate channels], from `Sampler.project`.
      uniforms: float64 [n_frames * hop] in [0, 1): the chance of each sample. The same numbers, the same sound.
    """

    state: State
    projected: np.ndarray
    uniforms: np.ndarray


class Sampler:
    """A trained WaveNet, ready to sound."""

    def __init__(
        self, layers: Layers, cue_weights: list[np.ndarray], *, hop: int, weights: WeightKind = "float32"
    ) -> None:
        self._layers = layers
        self._cue_weights = cue_weights
        self.hop = hop
        halved = weights == "bfloat16"
        by_layer = (each for pair in zip(layers.dilated, layers.mixed, strict=True) for each in pair)
        self._network = _Network(
            np.concatenate([pack(each, halved=halved) for each in (*by_layer, layers.head, layers.logits)]),
            layers.embedding,
            layers.skip_bias,
            layers.residual_bias,
            layers.head_bias,
            layers.logits_bias,
            layers.dilations,
            layers.n_taps,
            len(layers.mixed[0]),
        )
        self._silence = self._after_silence()

    @classmethod
    def from_model(cls, model: Any, weights: WeightKind = "float32") -> Self:
        """Takes the weights that a Keras model from `build_wavenet` has now.

        Args:
          model: the network.
          weights: how those that every sample reads are kept. Half the bytes are read in little more than half the
            time; what that costs in bits per sample, the evaluation says.
        """
        n_layers = sum(layer.name.startswith("dilated_") for layer in model.layers)
        (embedding,) = _weights_of(model, "classes")
        skip, skip_bias = _weights_of(model, "skip")
        head, head_bias = _weights_of(model, "head")
        logits, logits_bias = _weights_of(model, "logits")
        skips = skip.reshape(n_layers, -1, len(skip_bias))
        # Nothing hears the last layer's residual: the model has none, and here it is zero.
        residual = np.zeros((n_layers, skips.shape[1], embedding.shape[1]), np.float32)
        residual_bias = np.zeros((n_layers, embedding.shape[1]), np.float32)
        for layer in range(n_layers - 1):
            residual[layer], residual_bias[layer] = _weights_of(model, f"residual_{layer}")
        layers = Layers(
            embedding,
            [_weights_of(model, f"dilated_{layer}")[0].reshape(-1, 2 * skips.shape[1]) for layer in range(n_layers)],
            list(np.concatenate([skips, residual], axis=2)),
            skip_bias,
            residual_bias,
            head,
            head_bias,
            logits,
            logits_bias,
            np.array([model.get_layer(f"dilated_{layer}").dilation_rate[0] for layer in range(n_layers)]),
        )
        cue_weights = [weight for name in ("cues_0", "cues_1", "condition") for weight in _weights_of(model, name)]
        return cls(layers, cue_weights, hop=model.get_layer("frames_0").target_shape[1], weights=weights)

    @property
    def n_weights(self) -> int:
        """Numbers that every sample reads."""
        return len(self._network.weights)

    @property
    def receptive_field(self) -> int:
        """Samples of the past, the newest included, that one sample depends on."""
        return sum(self._layers.ring_lengths) + 1

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
        return projected.reshape(len(cues), len(self._layers.dilations), -1)

    def start(self) -> State:
        """The state after endless silence of which no cue says anything."""
        return self._silence.copy()

    def sample(
        self, state: State, projected: np.ndarray, uniforms: np.ndarray, temperature: float, top_p: float = 1.0
    ) -> np.ndarray:
        """Makes sound for some frames and moves the state on; chunk by chunk gives the same bits as in one go.

        Args:
          state: see `Part`, as the next two.
          projected: float32 [n_frames, layers, 2 * gate channels].
          uniforms: float64 [n_frames * hop].
          temperature: 1 samples what the network says; less is cleaner, and duller.
          top_p: only the likeliest classes that are so likely together are chosen from; 1 leaves all.

        Returns:
          int32 [n_frames * hop], classes.
        """
        (classes,) = self.sample_together([Part(state, projected, uniforms)], temperature, top_p)
        return classes

    def sample_together(self, parts: Sequence[Part], temperature: float, top_p: float = 1.0) -> list[np.ndarray]:
        """Makes sound for many streams in the time in which fewer would be made one by one.

        Each weight is read once for all of them. Their lengths may differ.

        Args:
          parts: one for each stream.
          temperature: as for `sample`.
          top_p: as for `sample`.

        Returns:
          Of each stream, in their order, int32 [n_frames * hop], classes.
        """
        for part in parts:
            if len(part.uniforms) != (expected := len(part.projected) * self.hop):
                raise ValueError(f"{len(part.projected)} frames take {expected} uniforms, found {len(part.uniforms)}.")
        classes, _ = self._run(parts, temperature, top_p)
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
        part = Part(state or self.start(), projected, np.zeros(len(classes)))
        _, (logits,) = self._run([part], 1.0, 1.0, given=[classes])
        return logits

    def _after_silence(self) -> State:
        layers = self._layers
        rings = np.zeros((sum(layers.ring_lengths), layers.embedding.shape[1]), np.float32)
        state = State(rings, 0, SILENCE)
        # As many samples as the network looks back: then nothing of the empty rings is left.
        n_frames = -(-self.receptive_field // self.hop)
        silence = self.project(np.zeros((1, self._cue_weights[0].shape[1]), np.float32))
        self.logits(np.full(n_frames * self.hop, SILENCE), np.repeat(silence, n_frames, axis=0), state)
        return state

    def _run(
        self, parts: Sequence[Part], temperature: float, top_p: float, given: Sequence[np.ndarray] = ()
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Runs streams side by side; with `given` classes it follows them and returns the logits too."""
        n_classes = len(self._layers.logits_bias)
        # The longest first: those that still sound are then always the first ones.
        order = sorted(range(len(parts)), key=lambda i: -len(parts[i].uniforms))
        streams = Streams(
            np.stack([parts[i].state.rings for i in order]),
            np.array([parts[i].state.position for i in order]),
            np.array([parts[i].state.previous for i in order]),
            np.array([len(parts[i].uniforms) for i in order]),
            _side_by_side([np.asarray(parts[i].projected, np.float32) for i in order]),
            _side_by_side([np.asarray(parts[i].uniforms, np.float64) for i in order]),
            _side_by_side([np.asarray(given[i], np.int32) for i in order]) if given else np.zeros((0, 0), np.int32),
        )
        classes = np.zeros(streams.uniforms.shape, np.int32)
        logits = np.zeros((*streams.given.shape, n_classes), np.float32)
        self._advance(streams, temperature, top_p, classes, logits)
        made, said = [np.zeros(0, np.int32)] * len(parts), [np.zeros((0, n_classes), np.float32)] * len(parts)
        for place, i in enumerate(order):
            state, length = parts[i].state, int(streams.lengths[place])
            state.rings[:], state.previous = streams.rings[place], int(streams.previous[place])
            state.position += length
            made[i] = classes[place, :length]
            if given:
                said[i] = logits[place, :length]
        return made, said

    def _advance(
        self, streams: "Streams", temperature: float, top_p: float, classes: np.ndarray, logits: np.ndarray
    ) -> None:
        """Fills classes [streams, time] and, of given classes, logits [streams, time, 256]; moves the streams on."""
        # As plain tuples: Numba's files of compiled code would name these classes, and break where a name changes.
        _generate(tuple(self._network), tuple(streams), self.hop, float(temperature), float(top_p), classes, logits)


class Streams(NamedTuple):
    """What streams sound next, side by side, the longest first."""

    rings: np.ndarray  # float32 [streams, slots, residual]
    positions: np.ndarray  # int64 [streams]
    previous: np.ndarray  # int64 [streams]
    lengths: np.ndarray  # int64 [streams], in samples
    projected: np.ndarray  # float32 [streams, frames, layers, 2 * gate]
    uniforms: np.ndarray  # float64 [streams, time]
    given: np.ndarray  # int32 [streams, time], or [0, 0] where nothing is given


def _side_by_side(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of different lengths as one, filled up with zeros; the first is the longest."""
    whole = np.zeros((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for row, array in zip(whole, arrays, strict=True):
        row[: len(array)] = array
    return whole


def _weights_of(model: Any, layer: str) -> list[np.ndarray]:
    return [np.asarray(weight, np.float32) for weight in model.get_layer(layer).get_weights()]


@numba.njit(nogil=True, cache=True)
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


@numba.njit(nogil=True, cache=True)
def _dense(frames: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A dense layer, frame by frame in one order of summation."""
    out = np.empty((len(frames), len(bias)), np.float32)
    for frame in range(len(frames)):
        out[frame] = bias
        for i in range(frames.shape[1]):
            for j in range(len(bias)):
                out[frame, j] += frames[frame, i] * kernel[i, j]
    return out


@numba.njit(nogil=True, cache=True)
def _tanh(x: np.float32) -> tuple[np.float32, np.float32]:
    """Numerator and denominator of what is within 4e-7 of tanh, and unlike it, quick in vectors.

    Lambert's continued fraction x / (1 + x^2 / (3 + x^2 / (5 + ...))), cut after six terms, gives p / q = tanh(x / 2);
    then tanh(x) = 2 tanh(x / 2) / (1 + tanh(x / 2)^2), which squares the error that the cut leaves.
    """
    half = np.float32(0.5) * min(max(x, np.float32(-TANH_CLAMP)), np.float32(TANH_CLAMP))
    s = half * half
    p = half * (np.float32(10395) + s * (np.float32(1260) + s * np.float32(21)))
    q = np.float32(10395) + s * (np.float32(4725) + s * (np.float32(210) + s))
    return np.float32(2) * p * q, q * q + p * p


@numba.njit(nogil=True, cache=True)
def _gate(signal: np.float32, gate: np.float32) -> np.float32:
    """tanh(signal) * sigmoid(gate), with one division, which takes as long as all the rest."""
    p, q = _tanh(signal)
    r, s = _tanh(np.float32(0.5) * gate)
    return np.float32(0.5) * p * (s + r) / (q * s)


@numba.njit(nogil=True, cache=True)
def _exp(x: np.float32) -> np.float32:
    """Within 1e-4 of exp for x from EXP_FLOOR to 0, relatively, and unlike it, quick in vectors."""
    y = max(x, np.float32(EXP_FLOOR)) / np.float32(2**EXP_SQUARINGS)
    power = np.float32(1)
    for n in range(8, 0, -1):
        power = np.float32(1) + power * y / np.float32(n)
    for _ in range(EXP_SQUARINGS):
        power *= power
    return power if x >= np.float32(EXP_FLOOR) else np.float32(0)


@numba.njit(nogil=True, cache=True)
def _choose(logits: np.ndarray, temperature: float, top_p: float, uniform: float, chances: np.ndarray) -> int:
    """The class at which the cumulative chance passes a uniform number; never one that top-p leaves out."""
    top = logits.max()
    scale = np.float32(1 / temperature)
    for c in range(len(logits)):
        chances[c] = _exp((logits[c] - top) * scale)
    if top_p < 1:
        _leave_nucleus(chances, top_p)
    total = 0.0
    for c in range(len(chances)):
        total += chances[c]
    passed, last = 0.0, 0
    for c in range(len(chances)):
        passed += chances[c]
        if chances[c] > 0:
            last = c
            if passed > uniform * total:
                break
    return last


@numba.njit(nogil=True, cache=True)
def _leave_nucleus(chances: np.ndarray, top_p: float) -> None:
    """Takes all chance from the least likely classes, as long as the others have `top_p` of it together."""
    total = 0.0
    for c in range(len(chances)):
        total += chances[c]
    enough, too_few = np.float32(0), np.float32(1)  # Chances are shares of the likeliest's, which is 1.
    for _ in range(NUCLEUS_STEPS):
        least = np.float32(0.5) * (enough + too_few)
        left = 0.0
        for c in range(len(chances)):
            if chances[c] >= least:
                left += chances[c]
        if left >= top_p * total:
            enough = least
        else:
            too_few = least
    for c in range(len(chances)):
        if chances[c] < enough:
            chances[c] = 0


@numba.njit(nogil=True, cache=True)
def _generate(network, streams, hop, temperature, top_p, classes, logits):  # type: ignore[no-untyped-def]
    """The loop over samples; with given classes it follows them and fills `logits`, else it chooses.

    All of it works on one core; scratch is local, so that threads do not meet.
    """
    weights, embedding, skip_bias, residual_bias, head_bias, logits_bias, dilations, n_taps, n_gate = network
    rings, positions, previous, lengths, projected, uniforms, given = streams
    n_layers, n_residual = residual_bias.shape
    n_skip, n_classes = len(skip_bias), len(logits_bias)
    n_inputs = n_taps * n_residual
    n_gates, n_mixed, n_head, n_logits = (
        padded(2 * n_gate),
        padded(n_skip + n_residual),
        padded(n_skip),
        padded(n_classes),
    )
    n_streams = len(lengths)
    inputs = np.zeros((n_streams, n_inputs), np.float32)
    gates = np.zeros((n_streams, n_gates), np.float32)
    gated = np.zeros((n_streams, n_gate), np.float32)
    mixed = np.zeros((n_streams, n_mixed), np.float32)  # the sum of the skips, then what goes on to the next layer
    head = np.zeros((n_streams, n_head), np.float32)
    output = np.zeros((n_streams, n_logits), np.float32)
    chances = np.zeros(n_classes, np.float32)
    for t in range(lengths[0]):
        while lengths[n_streams - 1] <= t:
            n_streams -= 1
        for s in range(n_streams):
            mixed[s, :n_skip] = skip_bias
            mixed[s, n_skip : n_skip + n_residual] = embedding[previous[s]]
        frame = t // hop
        first_slot = 0
        start = 0
        for layer in range(n_layers):
            dilation = dilations[layer]
            length = (n_taps - 1) * dilation
            for s in range(n_streams):
                now = (positions[s] + t) % length
                for tap in range(n_taps - 1):
                    # The oldest input lies where this sample's will be written.
                    slot = first_slot + (now + tap * dilation) % length
                    for j in range(n_residual):
                        inputs[s, tap * n_residual + j] = rings[s, slot, j]
                for j in range(n_residual):
                    hidden = mixed[s, n_skip + j]
                    inputs[s, n_inputs - n_residual + j] = hidden
                    rings[s, first_slot + now, j] = hidden
                for j in range(2 * n_gate):
                    gates[s, j] = projected[s, frame, layer, j]
            first_slot += length
            add_products(gates, inputs, n_streams, weights, start, n_inputs, n_gates)
            start += n_inputs * n_gates
            for s in range(n_streams):
                for j in range(n_gate):
                    gated[s, j] = _gate(gates[s, j], gates[s, n_gate + j])
                for j in range(n_residual):
                    mixed[s, n_skip + j] += residual_bias[layer, j]
            add_products(mixed, gated, n_streams, weights, start, n_gate, n_mixed)
            start += n_gate * n_mixed
        for s in range(n_streams):
            for j in range(n_skip):
                mixed[s, j] = max(mixed[s, j], np.float32(0))
            head[s, :n_skip] = head_bias
            output[s, :n_classes] = logits_bias
        add_products(head, mixed, n_streams, weights, start, n_skip, n_head)
        for s in range(n_streams):
            for j in range(n_skip):
                head[s, j] = max(head[s, j], np.float32(0))
        add_products(output, head, n_streams, weights, start + n_skip * n_head, n_skip, n_logits)
        for s in range(n_streams):
            if len(given) > 0:
                previous[s] = given[s, t]
                logits[s, t] = output[s, :n_classes]
            else:
                previous[s] = _choose(output[s, :n_classes], temperature, top_p, uniforms[s, t], chances)
            classes[s, t] = previous[s]
