"""The network: what it sees, what it does not, and how it starts."""

import keras
import librosa
import numpy as np
import pytest

from soundback.media.audio import mu_law_decode, mu_law_encode
from soundback.params import load_params
from soundback.sounding.sampler import Sampler
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


def learn(model, params, classes, *, n_steps, learning_rate, n_frames=6, batch_size=4):
    """Takes some steps of Keras' own training on crops of one sound that no cue tells of; returns the losses."""
    window = Window.of(params, hop=HOP, n_frames=n_frames)
    generator = np.random.default_rng(0)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, n_steps), clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    cues = np.zeros((batch_size, window.n_cue_frames, N_CUES), np.float32)
    losses = []
    for _ in range(n_steps):
        starts = generator.integers(0, len(classes) - window.n_inputs, batch_size)
        crops = np.stack([classes[start : start + window.n_inputs + 1] for start in starts])
        # Without noise on what it hears, it drifts away as soon as it hears itself.
        noise = np.rint(generator.normal(0, 2, (batch_size, window.n_inputs)))
        heard = np.clip(crops[:, :-1] + noise, 0, 255).astype(np.int32)
        losses.append(float(model.train_on_batch([heard, cues], crops[:, -window.n_outputs :])))
    return losses


def chord(n_samples, *, sample_rate=2000, tones=(131, 197, 317), seed=0):
    """Tones of equal power in a little noise, float64 [time]."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(n_samples) / sample_rate
    waves = [0.2 * np.sin(2 * np.pi * (hz * time_s + generator.random())) for hz in tones]
    return np.sum(waves, axis=0) + 0.005 * generator.normal(size=n_samples)


def trained_network(params):
    """Weights after some steps of training on a tone."""
    keras.utils.set_random_seed(0)
    model = build_wavenet(params, N_CUES, HOP)
    classes = mu_law_encode(chord(4000, tones=(131,)))
    start_at_histogram(model, np.bincount(classes, minlength=256))
    losses = learn(model, params, classes, n_steps=60, learning_rate=0.03)
    assert np.mean(losses[-5:]) < losses[0] - 1
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


def test_the_receptive_field_is_the_arithmetic_of_the_paper():
    # 2016: "1, 2, 4, ..., 512" sees 1024 samples; three such blocks see 3 * 1023 + 1. Kernel 3: powers of three.
    for layers, cycles, kernel_size, expected in ((10, 1, 2, 1024), (30, 3, 2, 3070), (5, 1, 3, 243), (10, 2, 3, 485)):
        params = settings({"layers": layers, "cycles": cycles, "kernel_size": kernel_size})
        assert params.receptive_field == expected


def test_the_classes_are_the_nearest_of_a_table_of_256_levels():
    # librosa has the curve of its own; the table's levels lie evenly on it, from -1 to 1.
    curve = np.linspace(-1, 1, 256)
    table = librosa.mu_expand(curve, mu=255, quantize=False)
    np.testing.assert_allclose(mu_law_decode(np.arange(256)), table, atol=1e-7)
    waveform = np.random.default_rng(0).uniform(-1, 1, 5000)
    companded = librosa.mu_compress(waveform, mu=255, quantize=False)
    distances = np.abs(companded[:, None] - curve)
    np.testing.assert_array_equal(mu_law_encode(waveform), distances.argmin(axis=1))


def test_a_network_that_learns_a_chord_by_heart_sounds_it():
    tones, rate = (131, 197, 317), 2000
    params = settings({"layers": 7, "cycles": 1, "kernel_size": 2}).model_copy(
        update={"residual_channels": 16, "gate_channels": 16, "skip_channels": 32}
    )
    keras.utils.set_random_seed(0)
    model = build_wavenet(params, N_CUES, HOP)
    classes = mu_law_encode(chord(2 * rate, sample_rate=rate, tones=tones))
    start_at_histogram(model, np.bincount(classes, minlength=256))
    losses = learn(model, params, classes, n_steps=250, learning_rate=0.01)
    assert np.mean(losses[-20:]) < 0.5 * losses[0]
    sampler = Sampler.from_model(model)
    silent = sampler.project(np.zeros((rate // HOP, N_CUES), np.float32))
    state = sampler.start()
    sampler.logits(classes[: 20 * HOP], silent[:20], state)  # It hears the chord, and goes on with it.
    made = sampler.sample(state, silent, np.random.default_rng(1).random(rate), 0.9)
    power = np.abs(np.fft.rfft(mu_law_decode(made) * np.hanning(rate))) ** 2
    at = [power[hz - 3 : hz + 4].sum() for hz in tones]
    assert sum(at) > 0.9 * power.sum()
    assert min(at) > 0.5 * max(at)
