import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score

from soundback import model_files
from soundback.errors import DataContractError, ModelError, ParamsError
from soundback.media.shards import RowGroup
from soundback.params import Classifier as ClassifierParams
from soundback.watching import classifier, classifier_teaching, frames, oddness

PARAMS = ClassifierParams(
    architecture="residual", picture_size=16, channels=(4, 8), unsure_below=0.5, odd_share=0.02,
    steps=10, max_minutes=1, batch_size=4, learning_rate=0.01, patience=99, seed=0,
)  # fmt: skip
NAMES = ["Bell", "Drum", "Rain"]


def untrained(architecture: str = "residual", **card: object) -> tuple[keras.Model, dict]:
    keras.utils.set_random_seed(0)
    params = PARAMS.model_copy(update={"architecture": architecture})
    plain_model = classifier.build_classifier(params, len(NAMES), 32)
    rng = np.random.default_rng(9)
    shown = rng.integers(0, 256, (60, 16, 16), np.uint8)
    model = oddness.add_oddness(plain_model, shown[:50], np.arange(50) % len(NAMES), shown[50:])
    plain = {
        "kind": "classifier",
        "categories": NAMES,
        "size": 32,
        "fit": "pad",
        "temperature": 2.0,
        "odd_above": 2.0,
        "params": params.model_dump(),
    }
    return model, plain | card


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32), np.uint8)


@pytest.mark.parametrize("architecture", ["residual", "paper"])
def test_prediction_is_the_tempered_softmax_of_the_network_on_the_shrunk_frames(architecture, pixels):
    model, card = untrained(architecture)
    blocks = pixels.reshape(7, 16, 2, 16, 2).mean(axis=(2, 4))
    logits, odd = (np.asarray(output) for output in model(np.floor(blocks + 0.5)))
    expected = softmax(logits / 2.0, axis=1)
    found, known = classifier.Classifier(model, card).recognise(pixels)
    np.testing.assert_array_equal(known, odd <= 2.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found.shape, found.dtype) == ((7, 3), np.float32)


def test_a_frame_gets_the_same_answer_alone_and_in_company(pixels):
    whole = classifier.Classifier(*untrained())
    many = np.concatenate([pixels] * 40)
    alone = np.concatenate([whole.recognise(frame[None])[0] for frame in pixels])
    np.testing.assert_allclose(whole.recognise(many)[0], np.tile(alone, (40, 1)), atol=1e-5)
    assert [part.shape for part in whole.recognise(pixels[:0])] == [(0, 3), (0,)]


def test_the_paper_architecture_is_3x3_convolutions_flatten_and_one_dense():
    model = classifier.build_classifier(PARAMS.model_copy(update={"architecture": "paper"}), 3, 32)
    layers = [layer for layer in model.layers if layer.weights]
    assert [type(layer).__name__ for layer in layers] == ["Conv2D", "Conv2D", "Dense"]
    assert [layer.kernel_size for layer in layers[:2]] == [(3, 3), (3, 3)]
    assert any(isinstance(layer, keras.layers.Flatten) for layer in model.layers)


def test_a_saved_classifier_says_the_same(tmp_path, pixels):
    model, card = untrained()
    model_files.save_model(model, tmp_path / "c.keras", card)
    loaded = classifier.Classifier.load(tmp_path / "c.keras")
    assert (loaded.categories, loaded.unsure_below) == (tuple(NAMES), 0.5)
    assert (loaded.size, loaded.fit) == (32, "pad")
    for found, expected in zip(
        loaded.recognise(pixels), classifier.Classifier(model, card).recognise(pixels), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_does_not_fit_is_refused(tmp_path, pixels):
    model, card = untrained()
    model_files.save_model(model, tmp_path / "s.keras", card | {"kind": "spotter"})
    with pytest.raises(ModelError, match="holds a spotter, not a classifier"):
        classifier.Classifier.load(tmp_path / "s.keras")
    with pytest.raises(ModelError, match=r"tells 3 categories apart, but its card says 16 pixels and 2 categories"):
        classifier.Classifier(*untrained(categories=["Bell", "Drum"]))
    with pytest.raises(ModelError, match="trained on frames of 32x32 pixels and was given 16x16"):
        classifier.Classifier(model, card).recognise(pixels[:, :16, :16])
    with pytest.raises(ParamsError, match=r"picture_size \(16\) must divide frames.size \(33\)"):
        classifier.build_classifier(PARAMS, 3, 33)


def test_the_temperature_that_was_hidden_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 6, (4000, 4))
    truth = np.array([rng.choice(4, p=row) for row in softmax(logits / 3, axis=1)])
    assert classifier_teaching.fit_temperature(logits, truth) == pytest.approx(3, rel=0.1)


def test_the_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    actual, predicted = rng.integers(0, 4, (2, 200))
    found = classifier_teaching.measure(actual, predicted, majority=2)
    assert found["accuracy"] == pytest.approx(accuracy_score(actual, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(actual, predicted, average="macro"))
    assert found["majority_accuracy"] == pytest.approx((actual == 2).mean())


def test_each_category_weighs_the_same_however_many_clips_it_has(tmp_path):
    def clips(label: str, n: int) -> list[frames.FrameClip]:
        groups = [RowGroup(tmp_path, 0, f"{label}{i}", 0, label, "train", 0, 64) for i in range(n)]
        return [frames.FrameClip((group.video_id, 0), label, (group,)) for group in groups]

    loss = classifier_teaching._weighted_loss(clips("Bell", 1) + clips("Drum", 2) + clips("Rain", 5), NAMES)
    category = np.repeat([0, 1, 2], [1, 2, 5]).astype(np.int32)
    each = np.asarray(loss(lambda pictures, training: np.zeros((8, 3), np.float32), (None, category), True))
    np.testing.assert_allclose([each[category == k].sum() for k in range(3)], 8 / 3 * np.log(3), rtol=1e-5)
    with pytest.raises(DataContractError, match="train split holds no clip of Rain"):
        classifier_teaching._weighted_loss(clips("Bell", 1) + clips("Drum", 2), NAMES)
