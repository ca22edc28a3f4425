"""The training loop that all trainings share."""

import itertools
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from soundback import model_files, training
from soundback.checkpoints import Checkpoint, State
from soundback.errors import ModelError
from soundback.params import Training
from soundback.training import Logbook

PARAMS = Training(steps=300, max_minutes=5.0, batch_size=16, learning_rate=0.05, patience=99, seed=0)
RECIPE, RECIPE_EACH = training.Recipe(validate_every=50), training.Recipe(validate_every=1)


def squared_error(model, batch, training):
    inputs, targets = batch
    return tf.reduce_mean((model(inputs, training=training) - targets) ** 2, axis=1)


def examples(n):
    """y = x A exactly, so that least squares has loss 0."""
    inputs = np.random.default_rng(n).normal(size=(16, 3)).astype(np.float32)
    return inputs, inputs @ np.array([[1.0], [-2.0], [0.5]], np.float32)


def batches(start):
    shapes = tf.TensorSpec((16, 3), tf.float32), tf.TensorSpec((16, 1), tf.float32)
    return tf.data.Dataset.from_generator(lambda: map(examples, itertools.count(start)), output_signature=shapes)


def build():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


def validate(model):
    inputs, targets = examples(10**6)
    return float(np.mean((model(inputs).numpy() - targets) ** 2))


def fit(*, build=build, loss=squared_error, validate=validate, recipe=RECIPE, logbook=None, **params):
    params = PARAMS.model_copy(update=params)
    return training.fit(build, loss, batches, validate, params=params, recipe=recipe, logbook=logbook)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_linear_problem_is_solved_and_the_best_weights_are_kept(ema_decay):
    done = fit(recipe=training.Recipe(validate_every=50, clip_norm=1.0, ema_decay=ema_decay))
    assert done.best_value < 1e-4
    assert validate(done.model) == pytest.approx(done.best_value, abs=1e-7)
    assert done.best_value == min(row["validation"] for row in done.curve)
    assert [row["step"] for row in done.curve] == [50, 100, 150, 200, 250, 300]


def test_the_steps_are_those_of_keras_own_loop():
    """Adam, clipping by the global norm and the mean over the batch: `Model.fit` is the other implementation."""
    done = fit(recipe=training.Recipe(validate_every=10, clip_norm=0.5, beta_2=0.99), steps=40)
    keras.utils.set_random_seed(0)
    peer = build()
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 40, alpha=0.01, warmup_target=0.05, warmup_steps=2)
    peer.compile(keras.optimizers.Adam(schedule, beta_2=0.99, global_clipnorm=0.5), "mse")
    peer.fit(batches(0), steps_per_epoch=40, verbose=0)
    for ours, theirs in zip(done.model.get_weights(), peer.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert done.curve[-1]["learning_rate"] == pytest.approx(float(schedule(39)))


def test_averaged_weights_are_what_is_validated():
    seen = []
    recipe = training.Recipe(validate_every=1, ema_decay=0.5)
    fit(recipe=recipe, steps=6, validate=lambda model: seen.append(model.get_weights()[0].copy()) or 0.0)
    raw = []
    fit(recipe=RECIPE_EACH, steps=6, validate=lambda model: raw.append(model.get_weights()[0].copy()) or 0.0)
    keras.utils.set_random_seed(0)
    average = build().get_weights()[0]
    for done, (weight, found) in enumerate(zip(raw, seen, strict=True), start=1):
        decay = min(0.5, (1 + done) / (10 + done))
        average = decay * average + (1 - decay) * weight
        np.testing.assert_allclose(found, average, rtol=1e-5)


def test_weights_that_validate_worse_later_are_not_kept():
    values = iter([1.0, 0.5, 0.9])
    seen = []

    def told(model):
        seen.append(model.get_weights()[0].copy())
        return next(values)

    done = fit(recipe=training.Recipe(validate_every=10), validate=told, steps=30)
    np.testing.assert_array_equal(done.model.get_weights()[0], seen[1])


def test_a_training_that_gets_no_better_stops_and_says_so(caplog):
    values = iter([1.0, 0.5, 0.6, 0.4, 0.4, 0.5, 0.45])
    done = fit(recipe=training.Recipe(validate_every=10), validate=lambda _: next(values), patience=3)
    assert done.budget() == {"steps_done": 70, "stopped_by": "patience"}
    assert "Stopped after 70 of 300 steps: patience (3) was reached" in caplog.text


def test_the_minutes_cap_stops_the_training_and_is_said(caplog):
    assert fit(max_minutes=1e-9).budget() == {"steps_done": 1, "stopped_by": "max_minutes"}
    assert "max_minutes (1e-09) was reached" in caplog.text


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """That of a training which was cut off after 20 of 30 steps."""

    def cut(model):
        seen.append(model)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return validate(model)

    seen = []
    monkeypatch.setenv("SOUNDBACK_CHECKPOINT_S", "0")
    place = Checkpoint(tmp_path / "judge-1")
    with pytest.raises(KeyboardInterrupt):
        fit(validate=cut, logbook=Logbook(place), **SHORT)
    assert place.read().course["done"] == 29
    return place


SHORT = {"steps": 30, "recipe": training.Recipe(validate_every=10)}


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(checkpoint):
    drawn = []
    done = fit(logbook=Logbook(checkpoint, lambda rows: drawn.append(len(rows))), **SHORT)
    whole = fit(**SHORT)
    assert drawn == [2, 3]
    assert done.curve == whole.curve
    np.testing.assert_array_equal(done.model.get_weights()[0], whole.model.get_weights()[0])


def test_the_minutes_and_the_patience_of_earlier_attempts_count(checkpoint):
    found = checkpoint.read()
    checkpoint.write(State(found.arrays, found.course | {"spent_s": 61.0}))
    assert fit(logbook=Logbook(checkpoint), **SHORT, max_minutes=1.0).stopped_by == "steps"
    checkpoint.write(State(found.arrays, found.course | {"spent_s": 61.0, "done": 20}))
    assert fit(logbook=Logbook(checkpoint), **SHORT, max_minutes=1.0).budget()["steps_done"] == 21
    checkpoint.write(State(found.arrays, found.course | {"without_better": 1, "best_value": 0.0}))
    assert fit(logbook=Logbook(checkpoint), **SHORT | {"steps": 50}, patience=2).budget()["steps_done"] == 30


def test_a_damaged_state_and_one_of_another_model_are_said_and_the_training_starts_anew(checkpoint, caplog):
    path = checkpoint.folder / "state.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"?" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    whole = fit(**SHORT)
    assert fit(logbook=Logbook(checkpoint), **SHORT).curve == whole.curve
    assert "is damaged" in caplog.text
    found = checkpoint.read()
    checkpoint.write(State(found.arrays | {"best": [np.zeros(3)]}, found.course))
    assert fit(logbook=Logbook(checkpoint), **SHORT).curve == whole.curve
    assert "does not fit this model" in caplog.text


def test_a_new_training_removes_what_another_of_its_kind_left(checkpoint):
    place = Checkpoint(checkpoint.folder.with_name("judge-2"))
    fit(logbook=Logbook(place), **SHORT)
    assert [path.name for path in place.folder.parent.iterdir()] == ["judge-2"]


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_leaves_a_model_that_knows_nothing_of_it(precision, monkeypatch, tmp_path):
    computed = set()

    def build():
        hidden = keras.layers.Dense(8, activation="relu")
        computed.add(hidden.compute_dtype)
        return keras.Sequential([keras.Input((3,)), hidden, keras.layers.BatchNormalization(), keras.layers.Dense(1)])

    def loss(model, batch, training):
        value = squared_error(model, batch, training)
        assert value.dtype == tf.float32
        return value

    monkeypatch.setenv("SOUNDBACK_PRECISION", precision)
    # Float16 begins with losses scaled too high, and skips the first steps.
    done = fit(build=build, loss=loss, recipe=training.Recipe(validate_every=50, clip_norm=10.0), learning_rate=0.02)
    monkeypatch.delenv("SOUNDBACK_PRECISION")
    assert computed == {precision.removeprefix("mixed_"), "float32"}
    assert done.best_value < 0.2 * 5.25  # the variance of the targets
    assert {layer.dtype_policy.name for layer in done.model.layers} == {"float32"}
    model_files.save_model(done.model, tmp_path / "m.keras", {"kind": "judge"})
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert b"mixed" not in archive.read("config.json")
    loaded, _ = model_files.load_model(tmp_path / "m.keras", "judge")
    np.testing.assert_array_equal(loaded(examples(0)[0]), done.model(examples(0)[0]))
    assert keras.config.dtype_policy().name == "float32"


def test_a_loss_that_is_no_number_stops_with_a_sentence():
    with pytest.raises(ModelError, match=r"diverged at step 1.*learning_rate"):
        fit(loss=lambda *each: squared_error(*each) * np.nan)
