"""Both samplers are held to the Keras model, and to themselves however the sound is cut and whatever is beside it."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import tensorflow as tf

from soundback.media.audio import mu_law_decode, mu_law_encode
from soundback.model_files import load_model
from soundback.sounding.sampler import SILENCE, Part, Sampler
from soundback.sounding.wavenet import CUE_CONTEXT, Window, build_wavenet, start_at_histogram
from soundback.sounding.xla_sampler import FRAMES_AT_A_TIME, XlaSampler, open_sampler
from tests import test_train_wavenet as tones
from tests.test_wavenet import HOP, N_CUES, SHAPES, random_network, settings, trained_network

TOLERANCE = 1e-4
N_CLASSES = 256
BITS_LOST = 0.02
"""Bits per sample that 16-bit weights may cost."""


@pytest.fixture(scope="module", params=[Sampler, XlaSampler], ids=["numba", "xla"])
def sampler_kind(request):
    return request.param


@pytest.fixture(scope="module")
def network():
    return random_network(settings(SHAPES[2]))


@pytest.fixture(scope="module")
def sampler(network, sampler_kind):
    return sampler_kind.from_model(network)


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """A network that has learned two tones by the stage, each told by its category."""
    root = tmp_path_factory.mktemp("tones")
    tones.write_tones(root / "audio")
    tones.run_stage(root)
    return load_model(root / "models" / "wavenet.keras", "wavenet")[0]


def random_cues(n_frames, seed=0):
    return np.random.default_rng(seed).normal(size=(n_frames, N_CUES)).astype(np.float32)


def random_chances(n_frames, seed=0):
    return np.random.default_rng(seed).random(n_frames * HOP)


def random_classes(n_frames, seed=0):
    return np.random.default_rng(seed).integers(0, N_CLASSES, n_frames * HOP).astype(np.int32)


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def in_nucleus(chances, top_p, slack=0.0):
    """Which classes are left: of the likeliest in order, as few as have `top_p` together; bool [..., classes]."""
    order = np.argsort(-chances, axis=-1, kind="stable")
    ordered = np.take_along_axis(chances, order, axis=-1)
    before = np.cumsum(ordered, axis=-1) - ordered
    left = np.zeros(chances.shape, bool)
    np.put_along_axis(left, order, before < top_p + slack, axis=-1)
    return left


@cache
def combined(kernel_size, cycles, weights):
    params = settings({"layers": 6, "cycles": cycles, "kernel_size": kernel_size})
    return params, {"random": random_network, "trained": trained_network}[weights](params)


@pytest.mark.parametrize("told", [True, False], ids=["cues", "no cues"])
@pytest.mark.parametrize("weights", ["random", "trained"])
@pytest.mark.parametrize("cycles", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_the_logits_are_those_of_the_keras_forward_pass(sampler_kind, kernel_size, cycles, weights, told):
    params, model = combined(kernel_size, cycles, weights)
    window = Window.of(params, hop=HOP, n_frames=params.receptive_field // HOP + 2)
    assert window.n_outputs > params.receptive_field
    generator = np.random.default_rng(2)
    classes = generator.integers(0, N_CLASSES, window.n_inputs + 1).astype(np.int32)
    cues = random_cues(window.n_cue_frames) * told
    expected = model((classes[None, :-1], cues[None])).numpy()[0]
    sampler = sampler_kind.from_model(model)
    state = sampler.start()
    state.previous = int(classes[0])
    projected = sampler.project(cues)[CUE_CONTEXT:-CUE_CONTEXT]
    found = sampler.logits(classes[1:], projected, state)[window.history_frames * HOP :]
    assert np.ptp(expected, axis=0).max() > 5000 * TOLERANCE  # What it hears shows.
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    assert sampler.receptive_field == params.receptive_field


def test_it_starts_as_the_network_is_after_silence_without_cues(network, sampler):
    params = settings(SHAPES[2])
    window = Window.of(params, hop=HOP, n_frames=8)
    classes = random_classes(8, seed=3)
    previous = np.concatenate([np.full(window.history_frames * HOP + 1, SILENCE), classes[:-1]]).astype(np.int32)
    told = random_cues(4)
    # Silent cues in front and behind; their context lies within the silence that `start` stands for.
    cues = np.pad(told, ((window.n_cue_frames - 4 - CUE_CONTEXT - 2, CUE_CONTEXT + 2), (0, 0)))
    expected = network((previous[None], cues[None])).numpy()[0]
    projected = sampler.project(cues[CUE_CONTEXT + window.history_frames :])[:-CUE_CONTEXT]
    np.testing.assert_allclose(sampler.logits(classes, projected), expected, atol=TOLERANCE, rtol=0)


def test_silence_is_what_mu_law_makes_of_zero():
    assert mu_law_encode(np.zeros(1)).item() == SILENCE


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8)])
def test_both_samplers_choose_the_same_classes_by_the_same_chances(network, temperature, top_p):
    one, other = Sampler.from_model(network), XlaSampler.from_model(network)
    projected, chances = one.project(random_cues(20)), random_chances(20)
    state, n_same = one.start(), 0
    for frame in range(20):
        # From one state each time: where a chance lies at a border, what follows is another sound.
        cues, drawn, copy = projected[frame : frame + 1], chances[frame * HOP : (frame + 1) * HOP], state.copy()
        found = other.sample(state.copy(), cues, drawn, temperature, top_p)
        classes = one.sample(state, cues, drawn, temperature, top_p)
        differ = np.flatnonzero(found != classes)
        n_same += differ[0] if len(differ) else HOP
        if len(differ):
            said = softmax(one.logits(classes, cues, copy)[differ[0]] / temperature)
            left = said * in_nucleus(said, top_p)
            # Top-p by bisection may leave a class that is as likely as the last one, but for a 65,536th of the first.
            assert np.abs(np.cumsum(left / left.sum()) - drawn[differ[0]]).min() < (1e-3 if top_p == 1 else 1e-2)
    assert n_same > 0.97 * len(chances)


def test_sound_made_in_chunks_is_the_sound_made_in_one_go(sampler):
    projected, chances = sampler.project(random_cues(20)), random_chances(20)
    assert FRAMES_AT_A_TIME < 12
    first_state = sampler.start()
    whole = sampler.sample(first_state, projected, chances, 0.9)
    state, pieces = sampler.start(), []
    for first, last in ((0, 1), (1, 1), (1, 8), (8, 20)):
        pieces.append(sampler.sample(state, projected[first:last], chances[first * HOP : last * HOP], 0.9))
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(state.rings, first_state.rings)
    assert (state.position, state.previous) == (first_state.position, first_state.previous)


def test_a_copied_state_goes_on_as_the_first_would_have(sampler):
    projected, chances = sampler.project(random_cues(10)), random_chances(10)
    state = sampler.start()
    sampler.sample(state, projected, chances, 1.0)
    other = state.copy()
    np.testing.assert_array_equal(
        sampler.sample(state, projected, chances, 1.0), sampler.sample(other, projected, chances, 1.0)
    )


def test_a_stored_state_goes_on_as_if_never_interrupted(sampler, tmp_path):
    projected, chances = sampler.project(random_cues(10)), random_chances(10)
    whole = sampler.sample(sampler.start(), projected, chances, 1.0)
    state = sampler.start()
    sampler.sample(state, projected[:3], chances[: 3 * HOP], 1.0)
    np.savez(tmp_path / "state.npz", rings=state.rings, position=state.position, previous=state.previous)
    stored = np.load(tmp_path / "state.npz")
    restored = type(state)(stored["rings"], stored["position"].item(), stored["previous"].item())
    rest = sampler.sample(restored, projected[3:], chances[3 * HOP :], 1.0)
    np.testing.assert_array_equal(rest, whole[3 * HOP :])


def streams_of(sampler, n_streams):
    """Streams of different lengths that begin at different positions; and classes for each."""
    parts, given = [], []
    for number in range(n_streams):
        state = sampler.start()
        n_before, n_frames = 1 + number % 3, 1 + (5 * number + 3) % 14
        before = random_chances(n_before, 50 + number)
        sampler.sample(state, sampler.project(random_cues(n_before, 50 + number)), before, 1.0)
        parts.append(Part(state, sampler.project(random_cues(n_frames, number)), random_chances(n_frames, number)))
        given.append(random_classes(n_frames, number))
    return parts, given


@pytest.mark.parametrize("n_streams", [1, 3, 9, 16])
def test_a_stream_among_others_of_other_lengths_is_the_stream_alone_bit_for_bit(network, n_streams):
    sampler = Sampler.from_model(network)
    parts, given = streams_of(sampler, n_streams)
    followed, _ = streams_of(sampler, n_streams)
    alone = [Part(part.state.copy(), part.projected, part.uniforms) for part in parts]
    _, logits = sampler._run(followed, 1.0, 1.0, given=given)
    for part, copy, classes, said, asked in zip(
        parts, alone, sampler.sample_together(parts, 0.9, 0.95), logits, given, strict=True
    ):
        np.testing.assert_array_equal(said, sampler.logits(asked, copy.projected, copy.state.copy()))
        np.testing.assert_array_equal(classes, sampler.sample(copy.state, copy.projected, copy.uniforms, 0.9, 0.95))
        np.testing.assert_array_equal(part.state.rings, copy.state.rings)
        assert (part.state.position, part.state.previous) == (copy.state.position, copy.state.previous)
        assert len(classes) == len(part.uniforms)


@pytest.mark.parametrize("n_streams", [3, 9])
def test_among_others_xla_says_of_the_same_history_the_same_within_rounding(network, n_streams):
    sampler = XlaSampler.from_model(network)
    parts, given = streams_of(sampler, n_streams)
    alone = [part.state.copy() for part in parts]
    followed, logits = sampler._run(parts, 1.0, 1.0, given=given)
    for part, state, classes, said, asked in zip(parts, alone, followed, logits, given, strict=True):
        np.testing.assert_array_equal(classes, asked)
        np.testing.assert_allclose(said, sampler.logits(asked, part.projected, state), atol=1e-5, rtol=0)
        np.testing.assert_allclose(part.state.rings, state.rings, atol=1e-5, rtol=0)
        assert (part.state.position, part.state.previous) == (state.position, state.previous)


def test_the_samplers_take_turns_on_one_state(network):
    one, other = Sampler.from_model(network), XlaSampler.from_model(network)
    classes, projected = random_classes(9), one.project(random_cues(9))
    whole = one.logits(classes, projected)
    state = one.start()
    for first, sampler in ((0, one), (3, other), (6, one)):
        part = slice(first * HOP, (first + 3) * HOP)
        found = sampler.logits(classes[part], projected[first : first + 3], state)
        np.testing.assert_allclose(found, whole[part], atol=TOLERANCE, rtol=0)


def test_cues_projected_in_parts_are_the_whole_to_the_last_bit(sampler):
    cues = random_cues(30)
    part = sampler.project(cues[10 - CUE_CONTEXT : 20 + CUE_CONTEXT])[CUE_CONTEXT:-CUE_CONTEXT]
    np.testing.assert_array_equal(part, sampler.project(cues)[10:20])


def test_logits_do_not_see_the_future(sampler):
    projected = sampler.project(random_cues(10))
    classes = random_classes(10, seed=4)
    other = classes.copy()
    other[90] = (other[90] + 100) % N_CLASSES
    same = np.all(sampler.logits(classes, projected) == sampler.logits(other, projected), axis=1)
    assert same[:91].all()
    assert not same[91]


def test_a_period_longer_than_the_receptive_field_comes_back_and_nothing_shorter_does(sampler):
    period = sampler.receptive_field + 11
    assert period % HOP  # No frame border may help.
    projected = np.repeat(sampler.project(random_cues(1)), 3 * period // HOP, axis=0)
    classes = np.resize(np.random.default_rng(5).integers(0, N_CLASSES, period), len(projected) * HOP)
    logits = sampler.logits(classes, projected)
    heard_all = slice(sampler.receptive_field, period)
    np.testing.assert_array_equal(logits[heard_all], logits[heard_all.start + period : heard_all.stop + period])
    # A sample earlier, the last of the silence in front is still heard.
    assert (logits[: heard_all.start] != logits[period : period + heard_all.start]).any(axis=1).all()
    for shift in range(1, period):
        assert np.abs(logits[period] - logits[period + shift]).max() > 1e-3


def test_the_weights_are_those_of_the_moment_when_the_sampler_is_made(sampler_kind):
    params = settings(SHAPES[1])
    model = random_network(params)
    window = Window.of(params, hop=HOP, n_frames=4)
    classes = random_classes(window.n_inputs // HOP, seed=6)
    cues = random_cues(window.n_cue_frames)
    previous = np.concatenate([[SILENCE], classes[:-1]]).astype(np.int32)

    def keras_says():
        return model((previous[None], cues[None])).numpy()[0]

    def says(sampler):
        projected = sampler.project(cues)[CUE_CONTEXT:-CUE_CONTEXT]
        return sampler.logits(classes, projected)[window.history_frames * HOP :]

    first, first_said = sampler_kind.from_model(model), keras_says()
    model.set_weights(random_network(params, seed=1).get_weights())
    second, second_said = sampler_kind.from_model(model), keras_says()
    np.testing.assert_allclose(says(first), first_said, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(says(second), second_said, atol=TOLERANCE, rtol=0)
    assert np.abs(first_said - second_said).max() > 1


def test_chances_decide_the_classes_and_threads_do_not(sampler):
    projected = sampler.project(random_cues(20))

    def sound(seed):
        return sampler.sample(sampler.start(), projected, random_chances(20, seed), 1.0)

    alone = [sound(seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as executor:
        together = list(executor.map(sound, range(6)))
    np.testing.assert_array_equal(alone, together)
    assert not np.array_equal(alone[0], alone[1])


@pytest.fixture(scope="module")
def histogram():
    """A network that says the same of every sample: three classes, or nearly."""
    model = build_wavenet(settings(SHAPES[0]), N_CUES, HOP)
    counts = np.zeros(N_CLASSES, np.int64)
    counts[[20, 128, 250]] = 100_000, 700_000, 200_000
    start_at_histogram(model, counts)
    return model


def shares(sampler, temperature, top_p=1.0):
    """Of each class among 20,000 samples; a share of one half has a standard deviation of 0.0035."""
    projected = sampler.project(random_cues(1000))
    classes = sampler.sample(sampler.start(), projected, random_chances(1000), temperature, top_p)
    return np.bincount(classes, minlength=N_CLASSES) / len(classes)


def test_each_class_is_chosen_as_often_as_the_network_says(sampler_kind, histogram):
    sampler = sampler_kind.from_model(histogram)
    np.testing.assert_allclose(shares(sampler, 1.0)[[20, 128, 250]], [0.1, 0.7, 0.2], atol=0.014)
    cold = np.array([0.01, 0.49, 0.04]) / 0.54
    np.testing.assert_allclose(shares(sampler, 0.5)[[20, 128, 250]], cold, atol=0.014)


@pytest.mark.parametrize("top_p", [0.5, 0.8, 0.95])
def test_top_p_leaves_the_likeliest_classes_and_their_shares(sampler_kind, histogram, top_p):
    chances = np.zeros(N_CLASSES)
    chances[[20, 128, 250]] = 0.1, 0.7, 0.2
    left = chances * in_nucleus(chances, top_p)
    assert np.count_nonzero(left) == {0.5: 1, 0.8: 2, 0.95: 3}[top_p]
    found = shares(sampler_kind.from_model(histogram), 1.0, top_p)
    assert not found[left == 0].any()
    np.testing.assert_allclose(found, left / left.sum(), atol=0.014)


@pytest.mark.parametrize("top_p", [0.3, 0.9])
def test_no_class_outside_the_nucleus_is_ever_chosen(sampler, top_p):
    projected = sampler.project(random_cues(40))
    state = sampler.start()
    classes = sampler.sample(state.copy(), projected, random_chances(40), 1.0, top_p)
    chances = softmax(sampler.logits(classes, projected, state))
    samples = np.arange(len(classes))
    # The compiled loops' chances are within 1e-4 of the true ones.
    assert in_nucleus(chances, top_p, slack=2e-4)[samples, classes].all()
    free = sampler.sample(sampler.start(), projected, random_chances(40), 1.0)
    assert not in_nucleus(softmax(sampler.logits(free, projected)), top_p)[samples, free].all()


def test_top_p_of_one_is_the_plain_choice(sampler):
    projected, chances = sampler.project(random_cues(20)), random_chances(20)
    classes = sampler.sample(sampler.start(), projected, chances, 0.8, 1.0)
    passed = np.cumsum(softmax(sampler.logits(classes, projected) / 0.8), axis=1)
    expected = (passed <= chances[:, None]).sum(axis=1)
    # By so little may a chance miss the border between two classes.
    near = np.abs(passed - chances[:, None]).min(axis=1) < 1e-4
    np.testing.assert_array_equal(classes[~near], expected[~near])
    assert near.mean() < 0.05


@pytest.mark.parametrize("chance", [0.0, np.nextafter(1.0, 0.0)])
def test_the_ends_of_the_unit_interval_choose_a_possible_class(sampler_kind, chance):
    model = build_wavenet(settings(SHAPES[0]), N_CUES, HOP)
    start_at_histogram(model, np.bincount([100, 140], minlength=N_CLASSES) * 10**6)
    bias = model.get_layer("logits").bias
    bias.assign(np.where(bias.numpy() < -5, -np.inf, bias.numpy()))
    sampler = sampler_kind.from_model(model)
    for top_p in (1.0, 0.9):
        classes = sampler.sample(sampler.start(), sampler.project(random_cues(1)), np.full(HOP, chance), 1.0, top_p)
        assert set(classes.tolist()) == {100 if chance == 0 else 140}


def test_too_few_chances_are_refused_with_both_counts(sampler):
    with pytest.raises(ValueError, match="2 frames take 40 uniforms, found 39"):
        sampler.sample(sampler.start(), sampler.project(random_cues(2)), np.zeros(39), 1.0)


def with_rounded_weights(model):
    """The network whose weights, where every sample reads them, are the nearest 16-bit numbers."""
    copy = build_wavenet(settings(SHAPES[2]), N_CUES, HOP)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if layer.name.startswith(("dilated_", "residual_")) or layer.name in ("skip", "head", "logits"):
            kernel, *bias = layer.get_weights()
            layer.set_weights([tf.cast(tf.cast(kernel, tf.bfloat16), tf.float32).numpy(), *bias])
    return copy


def test_16_bit_weights_say_what_keras_says_with_rounded_weights(network, sampler_kind):
    classes, cues = random_classes(12), random_cues(12)
    exact = sampler_kind.from_model(network)
    narrow = sampler_kind.from_model(network, "bfloat16")
    expected = sampler_kind.from_model(with_rounded_weights(network))
    projected = exact.project(cues)
    found = narrow.logits(classes, projected)
    np.testing.assert_allclose(found, expected.logits(classes, projected), atol=TOLERANCE, rtol=0)
    difference = np.abs(found - exact.logits(classes, projected))
    # Each weight is off by at most 1/256 of itself, and a logit is the end of ten products in a row.
    assert 1e-3 < difference.max() < 10 / 256 * np.ptp(found)


def bits_of(sampler, classes, cues):
    logits = sampler.logits(classes, sampler.project(cues))
    chances = softmax(logits[sampler.receptive_field :])
    return -np.log2(chances[np.arange(len(chances)), classes[sampler.receptive_field :]]).mean()


@pytest.mark.parametrize("category", sorted(tones.TONES))
def test_16_bit_weights_cost_next_to_nothing_in_bits_per_sample(heard, sampler_kind, category):
    n_frames = 2 * tones.FRAME_RATE
    time_s = np.arange(n_frames * tones.HOP) / tones.SAMPLE_RATE
    noise = np.random.default_rng(9).normal(size=len(time_s))
    classes = mu_law_encode(0.4 * np.sin(2 * np.pi * tones.TONES[category] * time_s) + 0.01 * noise)
    cues = tones.cues_of(category, n_frames)
    bits = bits_of(sampler_kind.from_model(heard), classes, cues)
    assert bits < 6
    assert abs(bits_of(sampler_kind.from_model(heard, "bfloat16"), classes, cues) - bits) < BITS_LOST


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
@pytest.mark.parametrize("category", sorted(tones.TONES))
def test_it_does_not_stay_stuck_in_silence(heard, sampler_kind, category, weights):
    sampler = sampler_kind.from_model(heard, weights)
    n_frames = tones.FRAME_RATE
    chances = np.random.default_rng(1).random(n_frames * tones.HOP)
    projected = sampler.project(tones.cues_of(category, n_frames))
    waveform = mu_law_decode(sampler.sample(sampler.start(), projected, chances, 0.9))
    power = np.square(waveform.reshape(5, -1)).mean(axis=1)
    # The tones of the training have a power of 0.08; after a fifth of a second, it sounds like them.
    assert (power[1:] > 0.02).all()


def test_a_gpu_is_used_where_there_is_one_and_nobody_asks_for_the_processor(network, monkeypatch):
    monkeypatch.delenv("SOUNDBACK_DEVICES", raising=False)
    assert type(open_sampler(network)) is (XlaSampler if tf.config.list_physical_devices("GPU") else Sampler)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [kind])
    found = open_sampler(network, "bfloat16")
    assert type(found) is XlaSampler
    monkeypatch.setenv("SOUNDBACK_DEVICES", "CPU:0")
    assert type(open_sampler(network)) is Sampler
