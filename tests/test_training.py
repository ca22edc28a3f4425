"""The training loop and the model files that all trainings share."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from soundback import training
from soundback.errors import ModelError
from soundback.params import Training

PARAMS = Training(steps=300, max_minutes=5.0, batch_size=16, learning_rate=0.05, seed=0)


def squared_error(model, batch, _training):
    inputs, targets = batch
    return tf.reduce_mean((model(inputs) - targets) ** 2, axis=1)


def linear_problem():
    """y = x A exactly, so that least squares has loss 0."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(256, 3)).astype(np.float32)
    targets = inputs @ np.array([[1.0], [-2.0], [0.5]], np.float32)
    batches = tf.data.Dataset.from_tensor_slices((inputs, targets)).repeat().batch(16)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    return model, batches, lambda each: float(np.mean((each(inputs).numpy() - targets) ** 2))


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_linear_problem_is_solved_and_the_best_weights_are_left_in_the_model(ema_decay):
    model, batches, validate = linear_problem()
    recipe = training.Recipe(validate_every=50, clip_norm=1.0, ema_decay=ema_decay)
    fit = training.fit(model, squared_error, batches, validate, params=PARAMS, recipe=recipe)
    assert fit.best_value < 1e-4
    assert validate(model) == pytest.approx(fit.best_value, abs=1e-7)
    assert fit.best_value == min(row["validation"] for row in fit.curve)
    assert [row["step"] for row in fit.curve] == [50, 100, 150, 200, 250, 300]


def test_weights_that_validate_worse_later_are_not_kept():
    model, batches, _ = linear_problem()
    values = iter([1.0, 0.5, 0.9])
    seen = []

    def validate(each):
        seen.append(each.get_weights()[0].copy())
        return next(values)

    params = PARAMS.model_copy(update={"steps": 30})
    training.fit(model, squared_error, batches, validate, params=params, recipe=training.Recipe(validate_every=10))
    np.testing.assert_array_equal(model.get_weights()[0], seen[1])


def test_the_minutes_cap_stops_the_training_and_is_said():
    model, batches, validate = linear_problem()
    params = PARAMS.model_copy(update={"max_minutes": 1e-9})
    recipe = training.Recipe(validate_every=50)
    fit = training.fit(model, squared_error, batches, validate, params=params, recipe=recipe)
    assert fit.budget() == {"steps_done": 1, "stopped_by": "max_minutes"}


def test_a_loss_that_is_no_number_stops_with_a_sentence():
    model, batches, validate = linear_problem()
    with pytest.raises(ModelError, match=r"diverged at step 1.*learning_rate"):
        training.fit(
            model,
            lambda *each: squared_error(*each) * np.nan,
            batches,
            validate,
            params=PARAMS,
            recipe=training.Recipe(validate_every=50),
        )


def test_a_saved_model_comes_back_with_its_card_and_the_same_answers(tmp_path):
    model, _, _ = linear_problem()
    training.save_model(model, tmp_path / "m.keras", {"kind": "judge", "categories": ["Drum", "Bell"]})
    loaded, card = training.load_model(tmp_path / "m.keras", "judge")
    inputs = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    assert card == {"kind": "judge", "categories": ["Drum", "Bell"]}
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


def test_a_model_file_holds_no_clock_time(tmp_path):
    model, _, _ = linear_problem()
    training.save_model(model, tmp_path / "m.keras", {})
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert b"date_saved" not in archive.read("metadata.json")


def test_what_is_not_our_model_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="There is no model"):
        training.load_model(tmp_path / "none.keras", "judge")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ModelError, match="not a model that Soundback wrote"):
        training.load_model(tmp_path / "text.keras", "judge")
