"""The judge learns what sounds, whatever its level, and says the same when read back."""

import keras
import numpy as np
import pytest

from soundback import model_files
from soundback.errors import DataContractError, ModelError
from soundback.judging import judge
from soundback.judging.judge import Example, Judge
from soundback.params import Judge as JudgeParams

SAMPLE_RATE = 8000
PARAMS = JudgeParams(
    channels=(8, 16, 16),
    embedding=8,
    window_s=0.5,
    steps=80,
    max_minutes=1.0,
    batch_size=16,
    learning_rate=0.01,
    patience=99,
    seed=0,
)


def knocks(generator, seconds=2.0):
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    starts = generator.uniform(0, 0.3) + np.arange(0, seconds, 0.4)
    hz = generator.uniform(150, 250)
    decay = [np.where(time_s >= s, np.exp(-12 * (time_s - s).clip(0)), 0) for s in starts]
    return (0.5 * np.sum(decay, axis=0) * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def hiss(generator, seconds=2.0):
    return (0.1 * generator.normal(size=round(seconds * SAMPLE_RATE))).astype(np.float32)


def examples(generator, n):
    sounds = [(make(generator), category) for _ in range(n) for category, make in enumerate((knocks, hiss))]
    return [Example(judge.hear(waveform, SAMPLE_RATE), category) for waveform, category in sounds]


@pytest.fixture(scope="module")
def trained():
    generator = np.random.default_rng(0)
    fit = judge.train_judge(examples(generator, 12), examples(generator, 4), 2, params=PARAMS)
    return Judge(fit.model, ["Knocks", "Hiss"], SAMPLE_RATE), fit


def test_judge_tells_two_new_sounds_apart(trained):
    assert trained[1].best_value < 0.3
    assert trained[0].accuracy(examples(np.random.default_rng(1), 8)) == 1.0


def test_level_changes_nothing(trained):
    waveform = knocks(np.random.default_rng(2))
    loud, quiet = trained[0].predict(waveform), trained[0].predict(waveform * 0.01)
    np.testing.assert_allclose(quiet, loud, atol=0.01)


def test_mu_law_hiss_does_not_turn_knocks_into_hiss(trained):
    waveform = knocks(np.random.default_rng(3))
    companded = np.round(127 * np.sign(waveform) * np.log1p(255 * abs(waveform)) / np.log(256)) / 127
    heard = np.sign(companded) * (256 ** abs(companded) - 1) / 255
    assert trained[0].predict(heard.astype(np.float32)).argmax() == 0


def test_probabilities_are_the_mean_over_the_windows(trained):
    waveform = hiss(np.random.default_rng(4), seconds=3.0)
    opinion = trained[0].listen(waveform)
    # 3 s are 151 spectra; windows of 25 start every 12.
    assert opinion.embedding.shape == (11, 8)
    assert opinion.probabilities.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(trained[0].embed(waveform), opinion.embedding)


@pytest.mark.parametrize("n_samples", [1, 400, 3000])
def test_silence_and_very_short_sounds_are_judged_too(trained, n_samples):
    assert np.isfinite(trained[0].predict(np.zeros(n_samples, np.float32))).all()
    assert len(trained[0].embed(hiss(np.random.default_rng(5))[:n_samples])) == 1


def test_silence_is_heard_as_the_floor_and_the_loudest_spot_as_the_top():
    assert (judge.hear(np.zeros(4000, np.float32), SAMPLE_RATE) == -1).all()
    log_mel = judge.hear(knocks(np.random.default_rng(6)), SAMPLE_RATE)
    assert (log_mel.min(), log_mel.max()) == (-1, 1)


def test_windows_hold_consecutive_spectra():
    log_mel = np.arange(60)[:, None] * np.ones(judge.N_MELS)
    starts = judge.cut_windows(log_mel, 20)[:, 0, 0]
    assert starts.tolist() == [0, 10, 20, 30, 40]
    assert judge.cut_windows(log_mel[:5], 20)[0, :, 0].tolist() == [0, 1, 2, 3, 4] + [-1] * 15


def test_a_judge_read_back_says_the_same(trained, tmp_path):
    trained[0].save(tmp_path / "judge.keras")
    again = Judge.load(tmp_path / "judge.keras")
    waveform = knocks(np.random.default_rng(7))
    assert (again.categories, again.sample_rate) == (("Knocks", "Hiss"), SAMPLE_RATE)
    np.testing.assert_allclose(again.predict(waveform), trained[0].predict(waveform), rtol=1e-5)


def test_training_twice_draws_the_same_examples():
    given = examples(np.random.default_rng(8), 3)
    first, second = (next(iter(judge._draw(given, PARAMS, 0))) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert set(first[1]) == {0, 1}


def test_another_kind_of_model_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model_files.save_model(model, tmp_path / "judge.keras", {"kind": "classifier"})
    with pytest.raises(ModelError, match="holds a classifier, not a judge"):
        Judge.load(tmp_path / "judge.keras")


def test_a_card_that_names_other_categories_than_the_model_tells_apart_is_refused():
    with pytest.raises(ModelError, match="tells 2 categories apart but its card names 3"):
        Judge(judge.build_judge(PARAMS, 2), ["Knocks", "Hiss", "Hum"], SAMPLE_RATE)


def test_batches_are_the_same_from_any_number_on():
    heard = examples(np.random.default_rng(0), 3)
    whole = list(judge._batches(heard, PARAMS, 0).take(6).as_numpy_iterator())
    for ours, theirs in zip(judge._batches(heard, PARAMS, 4).take(2).as_numpy_iterator(), whole[4:], strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    assert not np.array_equal(whole[0][0], whole[1][0])


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(DataContractError, match="no usable sound in the training split"):
        judge.train_judge([], [], 2, params=PARAMS)
