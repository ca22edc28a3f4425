"""Products of a few vectors with a matrix whose weights are read once, in a row, as 32-bit or 16-bit numbers.

A sampler at its limit does nothing but fetch weights. Numba's own loops keep their sums in memory and widen 16-bit
numbers one by one; here LLVM is told which sums stay in registers. Every output is summed up in one order, with fused
multiply-adds, whatever the processor and however many vectors: so the results are the same to the last bit.
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

FLOAT, INT, LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR, WORDS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT, LANES)


@numba.njit(cache=True)
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


@numba.njit(nogil=True, cache=True)
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
