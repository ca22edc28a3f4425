"""The compiled loops of the sampler, and the products of a few vectors with a matrix that they spend their time on.

A sampler at its limit does nothing but fetch weights: they are read once, in a row, as 32-bit or 16-bit numbers.
Numba's own loops keep their sums in memory and widen 16-bit numbers one by one; here LLVM is told which sums stay in
registers. Every output is summed up in one order, with fused multiply-adds, whatever the processor and however many
vectors: so the results are the same to the last bit.

All that is compiled stands in this file: the files in which Numba keeps it are made anew when this one changes, and
only then.
"""

from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

PANEL = 32
"""Outputs whose weights lie side by side; matrices are filled up with zeros to whole panels."""

LANES = PANEL // 2
"""Numbers in a register, or in several smaller ones."""

_WIDE = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
TOGETHER = 8 if _WIDE else 2
"""Vectors that meet a weight while it is in a register. With more, the sums would not all find place in some."""

_PANELS_ALONE = 4 if _WIDE else 2
"""Panels at a time for a single vector: fewer sums, and each would wait for the one before."""

TANH_CLAMP = 9.0
"""Beyond this, tanh differs from 1 by less than float32 can tell."""

EXP_FLOOR = -60.0
"""What is less likely than e to this times the likeliest is impossible."""

EXP_SQUARINGS = 6
"""exp(x) is the 64th power of exp(x / 64), which a short polynomial gives."""

NUCLEUS_STEPS = 16
"""Bisections that look for the least chance which top-p leaves."""

# With Python's errors, every division asks first whether it may, and a loop with one is not put into vectors.
_compiled = numba.njit(nogil=True, cache=True, error_model="numpy")

FLOAT, INT, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR, WORDS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)


@_compiled
def padded(n_outputs: int) -> int:
    """The next whole number of panels, in outputs."""
    return -(-n_outputs // PANEL) * PANEL


def pack(kernel: np.ndarray, *, halved: bool) -> np.ndarray:
    """Puts a matrix into the order in which it is read: panel by panel, input by input.

    Args:
      kernel: float32 [n_in, n_out].
      halved: whether each weight is rounded to bfloat16, the nearest one, ties to even.

    Returns:
      float32 [n_in * padded(n_out)]; or as many uint16, of each panel's outputs the first, the 17th, the second, the
      18th and so on, so that a 32-bit word holds two that go to different registers.
    """
    n_in, n_out = kernel.shape
    wide = np.zeros((n_in, padded(n_out)), np.float32)
    wide[:, :n_out] = kernel
    panels = np.ascontiguousarray(wide.reshape(n_in, -1, PANEL).swapaxes(0, 1))
    if not halved:
        return panels.ravel()
    words = panels.view(np.uint32)
    rounded = (words + 0x7FFF + (words >> 16 & 1)) >> 16
    return rounded.astype(np.uint16).reshape(-1, 2, LANES).swapaxes(1, 2).ravel()


def _product(n_vectors: int, n_panels: int) -> Callable:
    """Code that adds products of `n_vectors` vectors with `n_panels` panels to their outputs.

    Its arguments: outputs, the first one's place, and the distance to the next vector's; inputs, the same; weights and
    the first one's place; number of inputs.
    """

    @intrinsic
    def product(typing_context, out, out_at, out_step, inputs, in_at, in_step, weights, at, n_in):  # type: ignore[no-untyped-def]
        halved = weights.dtype == types.uint16

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            def start(array: int) -> Any:
                made = context.make_array(signature.args[array])(context, builder, arguments[array])
                return builder.gep(made.data, [arguments[array + 1]])

            def load(address: Any, kind: ir.Type) -> Any:
                loaded = builder.load(builder.bitcast(address, kind.as_pointer()))
                loaded.align = 4
                return loaded

            def outputs() -> Iterator[tuple[tuple[int, int], Any]]:
                for vector in range(n_vectors):
                    for half in range(2 * n_panels):
                        offset = builder.add(builder.mul(LONG(vector), arguments[2]), LONG(half * LANES))
                        yield (vector, half), builder.gep(first_output, [offset])

            first_output, first_input, first_weight, n_in = start(0), start(3), start(6), arguments[8]
            kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
            fused = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
            # LLVM keeps in registers what is stored and loaded here.
            sums = {which: cgutils.alloca_once_value(builder, load(place, VECTOR)) for which, place in outputs()}
            with cgutils.for_range(builder, n_in) as loop:
                row = []
                for panel in range(n_panels):
                    number = builder.add(builder.mul(LONG(panel), n_in), loop.index)
                    place = builder.gep(first_weight, [builder.mul(number, LONG(PANEL))])
                    if halved:
                        words = load(place, WORDS)
                        row.append(builder.bitcast(builder.shl(words, WORDS([16] * LANES)), VECTOR))
                        row.append(builder.bitcast(builder.and_(words, WORDS([0xFFFF0000] * LANES)), VECTOR))
                    else:
                        row += [load(builder.gep(place, [LONG(half * LANES)]), VECTOR) for half in range(2)]
                for vector in range(n_vectors):
                    offset = builder.add(builder.mul(LONG(vector), arguments[5]), loop.index)
                    number = builder.load(builder.gep(first_input, [offset]))
                    alone = builder.insert_element(VECTOR(ir.Undefined), number, INT(0))
                    spread = builder.shuffle_vector(alone, VECTOR(ir.Undefined), WORDS([0] * LANES))
                    for half, weight in enumerate(row):
                        total = sums[vector, half]
                        builder.store(builder.call(fused, [spread, weight, builder.load(total)]), total)
            for which, place in outputs():
                builder.store(builder.load(sums[which]), builder.bitcast(place, VECTOR.as_pointer())).align = 4
            return context.get_dummy_value()

        place = types.intp
        return types.void(out, place, place, inputs, place, place, weights, place, place), generate

    return product


_alone, _alone_on_one, _together = _product(1, _PANELS_ALONE), _product(1, 1), _product(TOGETHER, 1)


@_compiled
def add_products(
    out: np.ndarray, inputs: np.ndarray, n_vectors: int, weights: np.ndarray, start: int, n_in: int, n_out: int
) -> None:
    """Adds the products of some vectors with a matrix to their outputs.

    Args:
      out: float32 [>= n_vectors, >= n_out], changed in place.
      inputs: float32 [>= n_vectors, >= n_in].
      n_vectors: how many of them.
      weights: from `pack`, of one or more matrices.
      start: where in `weights` this matrix begins.
      n_in: inputs.
      n_out: outputs, a multiple of PANEL.
    """
    out_step, in_step = out.shape[1], inputs.shape[1]
    n_panels = n_out // PANEL
    vector = 0
    while n_vectors - vector >= TOGETHER:
        for panel in range(n_panels):
            place = start + panel * n_in * PANEL
            _together(
                out,
                vector * out_step + panel * PANEL,
                out_step,
                inputs,
                vector * in_step,
                in_step,
                weights,
                place,
                n_in,
            )
        vector += TOGETHER
    while vector < n_vectors:
        panel = 0
        while panel < n_panels:
            place = start + panel * n_in * PANEL
            out_at, in_at = vector * out_step + panel * PANEL, vector * in_step
            if n_panels - panel >= _PANELS_ALONE:
                _alone(out, out_at, out_step, inputs, in_at, in_step, weights, place, n_in)
                panel += _PANELS_ALONE
            else:
                _alone_on_one(out, out_at, out_step, inputs, in_at, in_step, weights, place, n_in)
                panel += 1
        vector += 1


@_compiled
def convolve(frames: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
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


@_compiled
def dense(frames: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A dense layer, frame by frame in one order of summation."""
    out = np.empty((len(frames), len(bias)), np.float32)
    for frame in range(len(frames)):
        out[frame] = bias
        for i in range(frames.shape[1]):
            for j in range(len(bias)):
                out[frame, j] += frames[frame, i] * kernel[i, j]
    return out


@_compiled
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


@_compiled
def _gate(signal: np.float32, gate: np.float32) -> np.float32:
    """tanh(signal) * sigmoid(gate), with one division, which takes as long as all the rest."""
    p, q = _tanh(signal)
    r, s = _tanh(np.float32(0.5) * gate)
    return np.float32(0.5) * p * (s + r) / (q * s)


@_compiled
def _exp(x: np.float32) -> np.float32:
    """Within 1e-4 of exp for x from EXP_FLOOR to 0, relatively, and unlike it, quick in vectors."""
    y = max(x, np.float32(EXP_FLOOR)) / np.float32(2**EXP_SQUARINGS)
    power = np.float32(1)
    for n in range(8, 0, -1):
        power = np.float32(1) + power * y / np.float32(n)
    for _ in range(EXP_SQUARINGS):
        power *= power
    return power if x >= np.float32(EXP_FLOOR) else np.float32(0)


@_compiled
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


@_compiled
def _leave_nucleus(chances: np.ndarray, top_p: float) -> None:
    """Takes all chance from the least likely classes, as long as the others have `top_p` of it together."""
    total = 0.0
    for c in range(len(chances)):
        total += chances[c]
    cut, too_far = np.float32(0), np.float32(1)  # Chances are shares of the likeliest's, which is 1.
    for _ in range(NUCLEUS_STEPS):
        middle = np.float32(0.5) * (cut + too_far)
        if _above(chances, middle) >= top_p * total:
            cut = middle
        else:
            too_far = middle
    while True:  # What lies too close together for that, one by one.
        least = np.float32(1)
        for c in range(len(chances)):
            if chances[c] > cut:
                least = min(least, chances[c])
        if _above(chances, least) < top_p * total:
            break
        cut = least
    for c in range(len(chances)):
        if chances[c] <= cut:
            chances[c] = 0


@_compiled
def _above(chances: np.ndarray, cut: np.float32) -> float:
    """What the chances that are greater sum up to."""
    total = 0.0
    for c in range(len(chances)):
        if chances[c] > cut:
            total += chances[c]
    return total


@_compiled
def generate(network, streams, hop, temperature, top_p, classes, logits):  # type: ignore[no-untyped-def]
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
                    slot = now + tap * dilation
                    slot = first_slot + (slot if slot < length else slot - length)
                    for j in range(n_residual):
                        inputs[s, tap * n_residual + j] = rings[slot, s, j]
                for j in range(n_residual):
                    hidden = mixed[s, n_skip + j]
                    inputs[s, n_inputs - n_residual + j] = hidden
                    rings[first_slot + now, s, j] = hidden
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
