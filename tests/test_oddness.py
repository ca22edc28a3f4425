"""What the classifier has no name for: pictures unlike all training pictures."""

import keras
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from soundback import model_files
from soundback.params import load_params
from soundback.watching import classifier, oddness
from tests.watched import film

SIZE = 32


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    params = load_params().classifier.model_copy(update={"picture_size": SIZE, "channels": (8, 16)})
    return classifier.build_classifier(params, 2, SIZE)


def pictures_of(seed: int, n_films: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    films = [film(label, rng)[0][::10] for label in ("Disc", "Square") * n_films]
    return np.concatenate(films), np.repeat(np.arange(2 * n_films) % 2, [len(each) for each in films])


@pytest.fixture(scope="module")
def whole(network) -> keras.Model:
    return oddness.add_oddness(network, *pictures_of(0), pictures_of(1)[0])


def test_what_is_like_the_training_has_mean_zero_and_what_is_not_lies_far_above(whole):
    rng = np.random.default_rng(5)
    like = oddness.run(whole, pictures_of(2)[0])[1]
    y, x = np.mgrid[:SIZE, :SIZE]
    unlike = {
        "noise": rng.integers(0, 256, (20, SIZE, SIZE)),
        "flat": np.full((20, SIZE, SIZE), 130) + rng.integers(0, 2, (20, 1, 1)),
        "stripes": np.stack([127 + 120 * np.sign(np.sin(x * rng.uniform(0.3, 1.5) + y * k / 9)) for k in range(20)]),
        "ramps": np.stack([(x * rng.uniform(2, 7) + y * rng.uniform(0, 1)) for _ in range(20)]),
    }
    assert abs(like.mean()) < 1
    limit = np.quantile(like, 0.98)
    for name, pictures in unlike.items():
        odd = oddness.run(whole, np.clip(pictures, 0, 255).astype(np.uint8))[1]
        assert (odd > limit).mean() > 0.9, name


def test_the_distance_is_that_of_mahalanobis_in_numpy(network, whole):
    pictures, categories = pictures_of(0)
    shown = pictures_of(3)[0]
    validation = pictures_of(1)[0]
    standardised = []
    for name in (oddness.FIRST, oddness.LAST):
        layer = keras.Model(network.input, network.get_layer(name).output)

        def describe(some, layer=layer, unit=name == oddness.LAST):
            seen = np.asarray(layer(some.astype(np.float32)), np.float64)
            described = np.concatenate([seen.mean((1, 2)), seen.max((1, 2)), seen.std((1, 2))], axis=1)
            return described / np.linalg.norm(described, axis=1, keepdims=True) if unit else described

        known = describe(pictures)
        means = np.stack([known[categories == k].mean(axis=0) for k in (0, 1)])
        scale = (known - means[categories]).std(axis=0)
        scale = scale + 1e-3 * scale.mean() + 1e-6
        precision = LedoitWolf(assume_centered=True).fit((known - means[categories]) / scale).precision_

        def log_distance(some, describe=describe, means=means, scale=scale, precision=precision):
            named = np.asarray(network(some.astype(np.float32))).argmax(axis=1)
            away = (describe(some) - means[named]) / scale
            return np.log(np.sqrt(np.einsum("ni,ij,nj->n", away, precision, away)))

        on_validation = log_distance(validation)
        standardised.append((log_distance(shown) - on_validation.mean()) / on_validation.std())
    np.testing.assert_allclose(oddness.run(whole, shown)[1], np.mean(standardised, axis=0), atol=0.02)


def test_the_names_stay_what_they_were(network, whole):
    shown = pictures_of(4)[0]
    np.testing.assert_allclose(oddness.run(whole, shown)[0], oddness.run(network, shown), atol=1e-6)


def test_a_saved_classifier_is_as_sure_as_before(tmp_path, whole):
    model_files.save_model(whole, tmp_path / "c.keras", {"kind": "classifier"})
    loaded, _ = model_files.load_model(tmp_path / "c.keras", "classifier")
    shown = pictures_of(4)[0]
    for before, after in zip(oddness.run(whole, shown), oddness.run(loaded, shown), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_nothing_is_run_on_nothing_and_many_pictures_are_as_good_as_few(whole):
    shown = pictures_of(4)[0]
    logits, odd = oddness.run(whole, shown[:0])
    assert (logits.shape, odd.shape) == ((0, 2), (0,))
    together = oddness.run(whole, np.concatenate([shown] * 3))
    alone = [oddness.run(whole, shown[k : k + 1]) for k in range(len(shown))]
    for place in (0, 1):
        expected = np.tile(np.concatenate([each[place] for each in alone]).T, 3).T
        np.testing.assert_allclose(together[place], expected, atol=1e-4)
