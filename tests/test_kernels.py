"""Products with packed weights are those of float64 NumPy, and the same bits for one vector as among many."""

import numpy as np
import pytest
import tensorflow as tf

from soundback.sounding.kernels import LANES, PANEL, TOGETHER, add_products, pack, padded

N_INPUTS, N_OUTPUTS = (1, 2, 3, 17, 64), (1, 31, 32, 33, 65, 97, 160)
N_VECTORS = (1, 2, TOGETHER - 1, TOGETHER, TOGETHER + 1, 2 * TOGETHER + 3)


def matrix(n_in, n_out, seed=0):
    return np.random.default_rng(seed).normal(size=(n_in, n_out)).astype(np.float32)


def rounded(kernel):
    """The nearest bfloat16 numbers, as TensorFlow has them."""
    return tf.cast(tf.cast(kernel, tf.bfloat16), tf.float32).numpy()


def unpack(packed, n_in, n_out):
    """The matrix that the loops read, float32 [n_in, n_out], and what fills its last panel."""
    if packed.dtype == np.uint16:
        halves = packed.reshape(-1, LANES, 2).swapaxes(1, 2).ravel()
        packed = (halves.astype(np.uint32) << 16).view(np.float32)
    wide = packed.reshape(-1, n_in, PANEL).swapaxes(0, 1).reshape(n_in, -1)
    return wide[:, :n_out], wide[:, n_out:]


@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("n_out", N_OUTPUTS)
@pytest.mark.parametrize("n_in", N_INPUTS)
def test_a_packed_matrix_holds_every_weight_and_zeros(n_in, n_out, halved):
    kernel = matrix(n_in, n_out)
    packed = pack(kernel, halved=halved)
    assert packed.nbytes == n_in * padded(n_out) * (2 if halved else 4)
    found, filled = unpack(packed, n_in, n_out)
    np.testing.assert_array_equal(found, rounded(kernel) if halved else kernel)
    assert found.shape == kernel.shape
    assert not filled.any()
    assert n_out <= padded(n_out) < n_out + PANEL
    assert padded(n_out) % PANEL == 0


def test_weights_are_rounded_as_tensorflow_rounds_them_bit_for_bit():
    generator = np.random.default_rng(1)
    anything = generator.integers(0, 2**32, 2**16, dtype=np.uint32)
    halfway = (anything & 0xFFFF0000) | 0x8000
    ends = np.array([0, 2**31, 0x7F7FFFFF, 0xFF7FFFFF, 0x00800000], np.uint32)
    # One bit to either side of halfway decides; the smallest numbers of all are left out, some processors drop them.
    words = np.concatenate([anything, halfway, halfway - 1, halfway + 1, ends])
    numbers = words.view(np.float32)
    normal = np.isfinite(numbers) & ((np.abs(numbers) >= np.finfo(np.float32).tiny) | (numbers == 0))
    numbers = numbers[normal][None]
    assert numbers.size > 2**17
    found, _ = unpack(pack(numbers, halved=True), 1, numbers.size)
    np.testing.assert_array_equal(found.view(np.uint32), rounded(numbers).view(np.uint32))


@pytest.mark.parametrize("halved", [False, True])
@pytest.mark.parametrize("n_out", N_OUTPUTS)
@pytest.mark.parametrize("n_in", N_INPUTS)
def test_products_are_those_of_float64(n_in, n_out, halved):
    kernel = matrix(n_in, n_out)
    weights = np.concatenate([np.full(7, 99, np.uint16 if halved else np.float32), pack(kernel, halved=halved)])
    exact = (rounded(kernel) if halved else kernel).astype(np.float64)
    for n_vectors in N_VECTORS:
        generator = np.random.default_rng(n_vectors)
        inputs = generator.normal(size=(n_vectors + 1, n_in + 5)).astype(np.float32)
        before = generator.normal(size=(n_vectors + 1, padded(n_out) + 3)).astype(np.float32)
        out = before.copy()
        add_products(out, inputs, n_vectors, weights, 7, n_in, padded(n_out))
        heard = inputs[:n_vectors, :n_in].astype(np.float64)
        expected = before[:n_vectors, :n_out] + heard @ exact
        # Each of n_in additions rounds by at most half a unit in the last place of what has come together.
        size = np.abs(before[:n_vectors, :n_out]) + np.abs(heard) @ np.abs(exact)
        assert (np.abs(out[:n_vectors, :n_out] - expected) <= n_in * np.finfo(np.float32).eps * size).all()
        # The rest of the last panel has zeros for weights; what lies behind, and the next vector, are not its business.
        np.testing.assert_array_equal(out[:n_vectors, n_out:], before[:n_vectors, n_out:])
        np.testing.assert_array_equal(out[n_vectors:], before[n_vectors:])


@pytest.mark.parametrize("halved", [False, True])
def test_a_vector_among_others_has_the_bits_that_it_has_alone(halved):
    n_in, n_out = 77, 5 * PANEL
    weights = pack(matrix(n_in, n_out), halved=halved)
    inputs = matrix(2 * TOGETHER + 3, n_in, seed=1)
    alone = np.zeros((len(inputs), n_out), np.float32)
    for vector in range(len(inputs)):
        add_products(alone[vector : vector + 1], inputs[vector : vector + 1], 1, weights, 0, n_in, n_out)
    for n_vectors in range(1, len(inputs) + 1):
        together = np.zeros((n_vectors, n_out), np.float32)
        add_products(together, inputs, n_vectors, weights, 0, n_in, n_out)
        np.testing.assert_array_equal(together, alone[:n_vectors])
