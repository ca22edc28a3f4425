"""The network: what it sees, what it does not, and how it starts."""

import keras
import numpy as np
import pytest

from soundback.params import load_params
from soundback.sounding.wavenet import CUE_CONTEXT, Window, bits_per_sample, build_wavenet, start_at_histogram

HOP, N_CUES = 20, 5
SMALL = {"residual_channels": 6, "gate_channels": 5, "skip_channels": 7, "cue_channels": 4}
SHAPES = [
    {"layers": 3, "cycles": 1, "kernel_size": 2},
    {"layers": 4, "cycles": 2, "kernel_size": 2},
    {"layers": 4, "cycles": 2, "kernel_size": 3},
    {"layers": 5, "cycles": 5, "kernel_size": 2},
]


def settings(shape):
    return load_params().wavenet.model_copy(update=SMALL | shape)


def random_network(params, seed=0):
    """Weights that are large enough for every input to show in the output."""
    model = build_wavenet(params, N_CUES, HOP)
    generator = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 4
        weight.assign(generator.normal(0, 1.5 / np.sqrt(fan_in), weight.shape))
    return model


def random_inputs(window, seed=0):
    generator = np.random.default_rng(seed)
    previous = generator.integers(0, 256, (1, window.n_inputs)).astype(np.int32)
    return previous, generator.normal(size=(1, window.n_cue_frames, N_CUES)).astype(np.float32)


def changed(model, inputs, other):
    """Samples whose logits differ."""
    return np.flatnonzero(np.any(model(inputs).numpy() != model(other).numpy(), axis=-1)[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sample_changes_what_comes_after_it_within_the_receptive_field_and_nothing_else(shape):
    params = settings(shape)
    model = random_network(params)
    window = Window.of(params, hop=HOP, n_frames=6)
    previous, cues = random_inputs(window)
    history = window.history_frames * HOP
    for position in (history + 3, history + 50):
        other = previous.copy()
        other[0, position] = (other[0, position] + 100) % 256
        # Position i of the input is the sample before sample i, so sample i sees it first.
        seen = changed(model, (previous, cues), (other, cues)) + history
        last = min(position + params.receptive_field - 1, window.n_inputs - 1)
        np.testing.assert_array_equal(seen, np.arange(position, last + 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_window_holds_all_the_history_that_counts(shape):
    params = settings(shape)
    model = random_network(params)
    window = Window.of(params, hop=HOP, n_frames=3)
    longer = Window(HOP, window.history_frames + 2, window.n_frames)
    previous, cues = random_inputs(longer)
    exact = model((previous[:, 2 * HOP :], cues[:, 2:])).numpy()
    # The longer window's history comes out as frames of its own; the frames that both have are the same.
    np.testing.assert_allclose(model((previous, cues)).numpy()[:, -window.n_outputs :], exact, atol=1e-5)


def test_a_cue_frame_matters_to_its_context_and_to_what_the_receptive_field_carries_on():
    params = settings(SHAPES[0])
    model = random_network(params)
    window = Window.of(params, hop=HOP, n_frames=10)
    previous, cues = random_inputs(window)
    other = cues.copy()
    frame = 6  # of those with logits
    other[0, CUE_CONTEXT + window.history_frames + frame] += 5
    seen = changed(model, (previous, cues), (previous, other))
    past = params.receptive_field - 1
    assert seen[0] == (frame - CUE_CONTEXT) * HOP
    assert seen[-1] == (frame + CUE_CONTEXT + 1) * HOP - 1 + past - (params.kernel_size - 1) * params.dilations[0]


def test_an_untrained_network_says_the_histogram_whatever_it_hears():
    params = settings(SHAPES[1])
    model = build_wavenet(params, N_CUES, HOP)
    counts = np.random.default_rng(1).integers(0, 1000, 256)
    start_at_histogram(model, counts)
    logits = model(random_inputs(Window.of(params, hop=HOP, n_frames=2))).numpy()
    chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(chances, np.broadcast_to((counts + 1) / (counts.sum() + 256), chances.shape), rtol=1e-4)


def test_bits_per_sample_of_a_uniform_guess_are_eight_times_the_weight():
    params = settings(SHAPES[1])
    window = Window.of(params, hop=HOP, n_frames=2)
    previous, cues = random_inputs(window)
    batch = {"previous": previous, "cues": cues, "targets": np.full((1, window.n_outputs), 9, np.int32)}
    model = build_wavenet(params, N_CUES, HOP)
    for weights, expected in (([[1.0, 1.0]], 8.0), ([[3.0, 1.0]], 16.0)):
        batch["weights"] = np.float32(weights)
        np.testing.assert_allclose(bits_per_sample(model, batch, False), [expected], rtol=1e-5)


def test_a_saved_network_loads_in_safe_mode_and_says_the_same(tmp_path):
    params = settings(SHAPES[2])
    model = random_network(params)
    inputs = random_inputs(Window.of(params, hop=HOP, n_frames=2))
    model.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(loaded(inputs).numpy(), model(inputs).numpy())
