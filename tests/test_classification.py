"""Naming of categories against scikit-learn, and calibration against a simulated classifier that is calibrated."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from soundback.judging import classification
from soundback.judging.intervals import Bootstrap

CATEGORIES = ("Bell", "Drum", "Engine", "Rain")


def draw(seed, n=40):
    """What is true and what was named, by chance; some are unsure, and one category never occurs."""
    rng = np.random.default_rng(seed)
    reference = rng.choice(CATEGORIES[:3], n).tolist()
    named = [rng.choice([truth, truth, "Rain", "Bell", None]) for truth in reference]
    return reference, named


def one_each(reference, named):
    """Every clip a video of its own."""
    pairs = zip(reference, named, strict=True)
    return np.stack([classification.count_confusions([a], [b], CATEGORIES) for a, b in pairs])


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_scikit_learns(seed):
    reference, named = draw(seed)
    expected = f1_score(
        reference, [name or "unsure" for name in named], labels=sorted(set(reference)), average="macro", zero_division=0
    )
    found = classification.macro_f1s(one_each(reference, named), np.ones((1, len(reference))))
    assert found[0] == pytest.approx(expected)


def test_a_video_that_counts_twice_is_a_video_that_is_there_twice():
    reference, named = draw(7, 12)
    counts = np.random.default_rng(0).integers(0, 3, (6, 12))
    for row, found in zip(counts, classification.macro_f1s(one_each(reference, named), counts), strict=True):
        repeated = np.repeat(np.arange(12), row)
        expected = f1_score(
            [reference[i] for i in repeated],
            [named[i] or "unsure" for i in repeated],
            labels=sorted({reference[i] for i in repeated}),
            average="macro",
            zero_division=0,
        )
        assert found == pytest.approx(expected)


def test_confusions_are_scikit_learns_and_unsure_is_the_last_column():
    reference, named = draw(3)
    expected = confusion_matrix(reference, [name or "unsure" for name in named], labels=[*CATEGORIES, "unsure"])
    np.testing.assert_array_equal(classification.count_confusions(reference, named, CATEGORIES), expected[:-1])


def test_always_naming_one_category_has_a_low_macro_f1_however_common_it_is():
    reference = ["Bell"] * 30 + ["Drum"] * 2
    found = classification.macro_f1s(one_each(reference, ["Bell"] * 32), np.ones((1, 32)))
    assert found[0] == pytest.approx(60 / 62 / 2)
    assert np.isnan(classification.macro_f1s(one_each(["Bell"], ["Bell"]), np.zeros((1, 1)))[0])


def test_a_calibrated_classifier_lies_on_the_diagonal_within_sampling_error():
    rng = np.random.default_rng(1)
    confidence = rng.beta(4, 2, 40_000)
    found = classification.reliability(confidence, rng.random(40_000) < confidence)
    assert found.n_frames.sum() == 40_000
    known = found.n_frames > 0
    three_deviations = 3 * np.sqrt(0.25 / found.n_frames[known])
    assert (np.abs(found.accuracy - found.confidence)[known] <= three_deviations).all()
    assert found.error < 0.01


def test_a_boastful_classifier_lies_below_the_diagonal_by_as_much_as_it_boasts():
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.5, 0.8, 40_000)
    found = classification.reliability(truth + 0.2, rng.random(40_000) < truth)
    assert found.error == pytest.approx(0.2, abs=0.01)
    assert (found.accuracy < found.confidence)[found.n_frames > 500].all()


def test_bins_hold_their_ends_and_the_certain_are_in_the_last():
    found = classification.reliability(np.array([0.0, 0.05, 0.95, 1.0]), np.array([False, False, True, True]))
    assert found.n_frames.tolist() == [2, *[0] * 8, 2]
    assert (found.accuracy[0], found.accuracy[-1]) == (0, 1)
    assert found.error == pytest.approx((0.05 + 0.05) / 4)


def test_the_calibration_error_of_many_weightings_is_that_of_the_repeated_videos():
    rng = np.random.default_rng(4)
    videos = [(rng.random(n), rng.random(n) < 0.6) for n in (20, 35, 11)]
    sums = np.stack([classification.bin_sums(*video) for video in videos])
    counts = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0]])
    for row, found in zip(counts, classification.calibration_errors(sums, counts), strict=True):
        drawn = [video for video, n in zip(videos, row, strict=True) for _ in range(n)]
        whole = classification.reliability(*(np.concatenate(part) for part in zip(*drawn, strict=True)))
        assert found == pytest.approx(whole.error)
    interval = Bootstrap(200, 0).statistic(3, lambda counts: classification.calibration_errors(sums, counts))
    assert interval.low <= interval.mean <= interval.high
