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

import numpy as np

from soundback.sounding.kernels import convolve, dense, generate, pack

SILENCE = 128
"""The class of silence: what `mu_law_encode` makes of 0."""

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
            time; what that costs in bits per sample, the training says.
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
            [_weights_of(model, f"dilated_{layer}")[0] for layer in range(n_layers)],
            list(np.concatenate([skips, residual], axis=2)),
            skip_bias,
            residual_bias,
            head,
            head_bias,
            logits,
            logits_bias,
            np.array([model.get_layer(f"delay_{layer}_1").delay for layer in range(n_layers)]),
        )
        cue_weights = [weight for name in ("cues_0", "cues_1", "condition") for weight in _weights_of(model, name)]
        return cls(layers, cue_weights, hop=model.get_layer("gate_0").hop, weights=weights)

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
        smooth = convolve(convolve(padded, first, first_bias), second, second_bias)
        both = np.concatenate([cues, smooth], axis=1)
        projected = dense(both, condition, condition_bias)
        return projected.reshape(len(cues), len(self._layers.dilations), self._layers.dilated[0].shape[1])

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
            np.stack([parts[i].state.rings for i in order], axis=1),
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
            state.rings[:], state.previous = streams.rings[:, place], int(streams.previous[place])
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
        generate(tuple(self._network), tuple(streams), self.hop, float(temperature), float(top_p), classes, logits)


class Streams(NamedTuple):
    """What streams sound next, side by side, the longest first."""

    rings: np.ndarray  # float32 [slots, streams, residual]: what one time needs of all streams lies together
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
