"""The fast sampler is held to the Keras model, and to itself however it is cut."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from soundback.media.audio import mu_law_encode
from soundback.sounding.sampler import SILENCE, Sampler
from soundback.sounding.wavenet import CUE_CONTEXT, Window, build_wavenet, start_at_histogram
from tests.test_wavenet import HOP, N_CUES, SHAPES, random_network, settings

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def network():
    return random_network(settings(SHAPES[2]))


@pytest.fixture(scope="module")
def sampler(network):
    return Sampler.from_model(network)


def random_cues(n_frames, seed=0):
    return np.random.default_rng(seed).normal(size=(n_frames, N_CUES)).astype(np.float32)


def random_chances(n_frames, seed=0):
    return np.random.default_rng(seed).random(n_frames * HOP)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_logits_are_those_of_the_keras_forward_pass(shape):
    params = settings(shape)
    model = random_network(params)
    window = Window.of(params, hop=HOP, n_frames=12)
    assert window.n_outputs > params.receptive_field
    generator = np.random.default_rng(2)
    classes = generator.integers(0, 256, window.n_inputs + 1).astype(np.int32)
    cues = random_cues(window.n_cue_frames)
    expected = model((classes[None, :-1], cues[None])).numpy()[0]
    sampler = Sampler.from_model(model)
    state = sampler.start()
    state.previous = int(classes[0])
    projected = sampler.project(cues)[CUE_CONTEXT:-CUE_CONTEXT]
    found = sampler.logits(classes[1:], projected, state)[window.history_frames * HOP :]
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    assert sampler.receptive_field == params.receptive_field


def test_it_starts_as_the_network_is_after_silence_without_cues(network, sampler):
    params = settings(SHAPES[2])
    window = Window.of(params, hop=HOP, n_frames=8)
    classes = np.random.default_rng(3).integers(0, 256, window.n_outputs).astype(np.int32)
    previous = np.concatenate([np.full(window.history_frames * HOP + 1, SILENCE), classes[:-1]]).astype(np.int32)
    told = random_cues(4)
    # Silent cues in front and behind; their context lies within the silence that `start` stands for.
    cues = np.pad(told, ((window.n_cue_frames - 4 - CUE_CONTEXT - 2, CUE_CONTEXT + 2), (0, 0)))
    expected = network((previous[None], cues[None])).numpy()[0]
    projected = sampler.project(cues[CUE_CONTEXT + window.history_frames :])[:-CUE_CONTEXT]
    np.testing.assert_allclose(sampler.logits(classes, projected), expected, atol=TOLERANCE, rtol=0)


def test_silence_is_what_mu_law_makes_of_zero():
    assert mu_law_encode(np.zeros(1)).item() == SILENCE


def test_sound_made_in_chunks_is_the_sound_made_in_one_go(sampler):
    projected, chances = sampler.project(random_cues(20)), random_chances(20)
    whole = sampler.sample(sampler.start(), projected, chances, 0.9)
    state, pieces = sampler.start(), []
    for first, last in ((0, 1), (1, 1), (1, 8), (8, 20)):
        pieces.append(sampler.sample(state, projected[first:last], chances[first * HOP : last * HOP], 0.9))
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_copied_state_goes_on_as_the_first_would_have(sampler):
    projected, chances = sampler.project(random_cues(10)), random_chances(10)
    state = sampler.start()
    sampler.sample(state, projected, chances, 1.0)
    other = state.copy()
    np.testing.assert_array_equal(
        sampler.sample(state, projected, chances, 1.0), sampler.sample(other, projected, chances, 1.0)
    )


def test_cues_projected_in_parts_are_the_whole_to_the_last_bit(sampler):
    cues = random_cues(30)
    part = sampler.project(cues[10 - CUE_CONTEXT : 20 + CUE_CONTEXT])[CUE_CONTEXT:-CUE_CONTEXT]
    np.testing.assert_array_equal(part, sampler.project(cues)[10:20])


def test_logits_do_not_see_the_future(sampler):
    projected = sampler.project(random_cues(10))
    classes = np.random.default_rng(4).integers(0, 256, 10 * HOP)
    other = classes.copy()
    other[90] = (other[90] + 100) % 256
    same = np.all(sampler.logits(classes, projected) == sampler.logits(other, projected), axis=1)
    assert same[:91].all()
    assert not same[91]


def test_chances_decide_the_classes_and_threads_do_not(sampler):
    projected = sampler.project(random_cues(20))

    def sound(seed):
        return sampler.sample(sampler.start(), projected, random_chances(20, seed), 1.0)

    alone = [sound(seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as executor:
        together = list(executor.map(sound, range(6)))
    np.testing.assert_array_equal(alone, together)
    assert not np.array_equal(alone[0], alone[1])


def test_each_class_is_chosen_as_often_as_the_network_says():
    model = build_wavenet(settings(SHAPES[0]), N_CUES, HOP)
    counts = np.zeros(256, np.int64)
    counts[[20, 128, 250]] = 100_000, 700_000, 200_000
    start_at_histogram(model, counts)
    sampler = Sampler.from_model(model)
    projected = sampler.project(random_cues(1000))
    share = np.bincount(sampler.sample(sampler.start(), projected, random_chances(1000), 1.0), minlength=256) / 20_000
    # Four standard deviations of a share of 0.7 among 20,000.
    np.testing.assert_allclose(share[[20, 128, 250]], [0.1, 0.7, 0.2], atol=0.013)
    cold = np.bincount(sampler.sample(sampler.start(), projected, random_chances(1000), 0.5), minlength=256) / 20_000
    np.testing.assert_allclose(cold[[20, 128, 250]], np.array([0.01, 0.49, 0.04]) / 0.54, atol=0.013)


@pytest.mark.parametrize("chance", [0.0, np.nextafter(1.0, 0.0)])
def test_the_ends_of_the_unit_interval_choose_a_possible_class(chance):
    model = build_wavenet(settings(SHAPES[0]), N_CUES, HOP)
    start_at_histogram(model, np.bincount([100, 140], minlength=256) * 10**6)
    bias = model.get_layer("logits").bias
    bias.assign(np.where(bias.numpy() < -5, -np.inf, bias.numpy()))
    sampler = Sampler.from_model(model)
    classes = sampler.sample(sampler.start(), sampler.project(random_cues(1)), np.full(HOP, chance), 1.0)
    assert set(classes.tolist()) == {100 if chance == 0 else 140}


def test_too_few_chances_are_refused_with_both_counts(sampler):
    with pytest.raises(ValueError, match="2 frames take 40 uniforms, found 39"):
        sampler.sample(sampler.start(), sampler.project(random_cues(2)), np.zeros(39), 1.0)
