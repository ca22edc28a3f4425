"""Metrics against identities, closed forms, scipy and mir_eval."""

import mir_eval
import numpy as np
import pytest
from scipy import linalg, stats

from soundback.judging import metrics
from soundback.judging.intervals import Bootstrap

TRUTH_S = np.arange(8) * 0.5 + 0.3


def videos(generator, n_videos, n_windows=6, n_dimensions=4, shift=0.0):
    """Windows of one video resemble each other, as in life."""
    centres = generator.normal(shift, 1, (n_videos, 1, n_dimensions))
    return list(centres + generator.normal(0, 0.5, (n_videos, n_windows, n_dimensions)))


def test_the_same_sound_scores_perfectly():
    curve = np.sin(np.arange(100) / 5) * 10 - 30
    scores = metrics.evaluate(TRUTH_S, TRUTH_S, curve, curve)
    assert scores.pop("loudness_error_db") == 0
    assert scores.pop("noise_floor_db") is None  # it is never silent
    assert list(scores.values()) == pytest.approx([1.0] * 10)


def test_one_right_onset_in_eight_does_not_score_high():
    precision, recall, f1 = metrics.onset_scores(TRUTH_S, TRUTH_S[:1], 0.05)
    assert (precision, recall) == (1.0, 0.125)
    assert f1 == pytest.approx(2 / 9)


def test_a_shower_of_onsets_does_not_score_high():
    _, recall, f1 = metrics.onset_scores(TRUTH_S, np.arange(0, 5, 0.02), 0.05)
    assert recall == 1.0
    assert f1 < 0.1


def test_two_onsets_cannot_share_one_reference():
    precision, recall, _ = metrics.onset_scores(np.array([1.0]), np.array([0.99, 1.01]), 0.05)
    assert (precision, recall) == (0.5, 1.0)


@pytest.mark.parametrize("window_s", [0.05, 0.1, 0.3])
def test_onset_scores_equal_those_of_mir_eval(window_s):
    generator = np.random.default_rng(0)
    for _ in range(20):
        reference, estimated = np.sort(generator.uniform(0, 5, 9)), np.sort(generator.uniform(0, 5, 12))
        f1, precision, recall = mir_eval.onset.f_measure(reference, estimated, window=window_s)
        assert metrics.onset_scores(reference, estimated, window_s) == pytest.approx((precision, recall, f1))


def test_silence_has_no_onsets_right_and_no_correlation():
    curve = np.linspace(-40, -20, 50)
    scores = metrics.evaluate(TRUTH_S, np.zeros(0), curve, np.full(50, -60.0))
    assert scores["onset_f1_100ms"] == 0
    assert scores["loudness_correlation"] is None
    assert scores["loudness_error_db"] == pytest.approx(30)


def test_a_clip_with_two_reference_onsets_does_not_count_for_onsets():
    curve = np.linspace(-40, -20, 50)
    scores = metrics.evaluate(TRUTH_S[:2], TRUTH_S[:2], curve, curve)
    assert scores["onset_f1_50ms"] is None
    assert scores["loudness_correlation"] == pytest.approx(1)


def test_loudness_correlation_equals_that_of_scipy_and_ignores_the_level():
    generator = np.random.default_rng(1)
    first, second = generator.normal(-30, 5, (2, 200))
    assert metrics.loudness_correlation(first, second) == pytest.approx(stats.pearsonr(first, second).statistic)
    assert metrics.loudness_correlation(first, first + 12) == pytest.approx(1)
    assert metrics.loudness_error_db(first, first + 12) == pytest.approx(12)


def test_empty_inputs_are_defined():
    nothing = np.zeros(0)
    assert metrics.onset_scores(nothing, nothing, 0.05) == (0, 0, 0)
    assert metrics.loudness_correlation(nothing, nothing) is None
    assert metrics.loudness_error_db(nothing, nothing) is None
    assert metrics.category_accuracy([], []) is None


def test_category_accuracy_is_the_share_of_matches():
    assert metrics.category_accuracy(["Bell", "Drum", "Rain", "Bell"], ["Bell", "Rain", "Rain", "Bell"]) == 0.75


def test_frechet_distance_of_two_gaussians_equals_scipys_matrix_root():
    generator = np.random.default_rng(2)
    first = generator.normal(size=(4000, 5)) @ generator.normal(size=(5, 5)) + 1
    second = generator.normal(size=(3000, 5)) @ generator.normal(size=(5, 5))
    covariances = [np.cov(windows, rowvar=False) for windows in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(sum(covariances) - 2 * root)
    assert metrics.frechet_distance([first], [second[:1000], second[1000:]]) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero_and_a_shift_counts_squared():
    windows = np.random.default_rng(3).normal(size=(500, 6))
    assert metrics.frechet_distance([windows], [windows]) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance([windows], [windows + 2]) == pytest.approx(6 * 4)


def test_kernel_distance_equals_the_plain_double_loop():
    generator = np.random.default_rng(4)
    first, second = videos(generator, 5, 3), videos(generator, 4, 2, shift=1)
    flat = np.concatenate(first)
    width = np.median([np.linalg.norm(a - b) for i, a in enumerate(flat) for b in flat[:i]])

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * width**2))

    def within(sets):
        pairs = [(i, j) for i in range(len(sets)) for j in range(len(sets)) if i != j]
        return np.mean([kernel(a, b) for i, j in pairs for a in sets[i] for b in sets[j]])

    across = np.mean([kernel(a, b) for x in first for y in second for a in x for b in y])
    assert metrics.kernel_distance(first, second) == pytest.approx(within(first) + within(second) - 2 * across)


def test_kernel_distance_is_unbiased_where_frechet_distance_is_not():
    generator = np.random.default_rng(5)
    pairs = [(videos(generator, 12), videos(generator, 12)) for _ in range(60)]
    kernel = [metrics.kernel_distance(*pair) for pair in pairs]
    assert abs(np.mean(kernel)) < 3 * np.std(kernel) / np.sqrt(len(kernel))
    assert np.mean([metrics.frechet_distance(*pair) for pair in pairs]) > 0.5


def test_distances_order_near_and_far_sets():
    generator = np.random.default_rng(6)
    reference, near, far = videos(generator, 40), videos(generator, 20, shift=0.5), videos(generator, 20, shift=2)
    for distance in (metrics.kernel_distance, metrics.frechet_distance):
        assert distance(reference, videos(generator, 20)) < distance(reference, near) < distance(reference, far)


def test_distances_of_sets_too_small_or_constant_are_defined():
    one, constant = [np.zeros((1, 3))], [np.zeros((4, 3)), np.zeros((4, 3))]
    assert metrics.frechet_distance(constant, one) is None
    assert metrics.kernel_distance(constant, one) is None
    assert metrics.kernel_distance(one, constant) is None
    assert metrics.frechet_distance(constant, constant) == 0
    assert metrics.kernel_distance(constant, constant) == pytest.approx(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.onset_scores(np.array([2.0, 1.0]), np.zeros(0), 0.05), "rising order"),
        (lambda: metrics.onset_scores(np.zeros((2, 2)), np.zeros(0), 0.05), "one-dimensional"),
        (lambda: metrics.loudness_correlation(np.zeros(3), np.zeros(4)), "share one shape"),
        (lambda: metrics.loudness_error_db(np.array([-np.inf]), np.zeros(1)), "floor"),
        (lambda: metrics.frechet_distance([np.zeros((2, 3))], [np.zeros((2, 4))]), "share one shape"),
        (lambda: metrics.kernel_distance([np.full((2, 3), np.nan)], [np.zeros((2, 3))]), "finite"),
        (lambda: metrics.category_accuracy(["Bell"], []), "one estimate per reference"),
    ],
)
def test_wrong_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bootstrap_intervals_cover_the_true_mean_about_as_often_as_they_say():
    generator = np.random.default_rng(7)
    bootstrap = Bootstrap(n_resamples=400, seed=0)
    hits = 0
    for _ in range(300):
        interval = bootstrap.mean(list(generator.gamma(2.0, 1.0, 40)))
        hits += interval.low <= 2.0 <= interval.high
    assert 0.88 < hits / 300 < 0.98


def test_paired_intervals_are_narrow_where_videos_differ_more_than_rows():
    generator = np.random.default_rng(8)
    difficulty = generator.normal(0, 1, 48)
    first = {str(i): float(value) for i, value in enumerate(difficulty + 0.2)}
    second = {str(i): float(value) for i, value in enumerate(difficulty + generator.normal(0, 0.1, 48))}
    bootstrap = Bootstrap(n_resamples=500, seed=0)
    apart = bootstrap.paired(first, second)
    assert apart.low > 0.1
    assert bootstrap.mean(list(first.values())).low < 0
    assert bootstrap.paired(first, second) == apart


def test_videos_without_a_value_leave_the_mean_and_its_n():
    bootstrap = Bootstrap(n_resamples=100, seed=0)
    interval = bootstrap.mean([1.0, None, 3.0])
    assert (interval.mean, interval.n) == (2.0, 2)
    assert bootstrap.mean([None]).cell() == {"mean": None, "low": None, "high": None, "n": 0}
    assert bootstrap.paired({"a": 1.0, "b": None, "c": 2.0}, {"a": 0.0, "b": 1.0}).n == 1


def test_interval_of_a_distance_holds_the_distance_itself():
    generator = np.random.default_rng(9)
    reference, estimated = videos(generator, 40), videos(generator, 20, shift=0.5)
    bootstrap = Bootstrap(n_resamples=300, seed=0)
    for distances, distance in (
        (metrics.frechet_distances, metrics.frechet_distance),
        (metrics.kernel_distances, metrics.kernel_distance),
    ):
        interval = bootstrap.statistic(20, lambda counts, of=distances: of(reference, estimated, counts))
        assert interval.mean == pytest.approx(distance(reference, estimated))
        assert interval.low < interval.mean < interval.high


def test_the_noise_floor_is_the_mean_power_where_the_reference_is_silent_and_its_margins_do_not_count():
    reference = np.full(60, -60.0)
    reference[20:23] = -10.0
    heard = np.where(np.arange(60) % 2, -50.0, -60.0)
    heard[15:28] = -5.0  # a sound that is early and late, within the margin
    silent = np.r_[0:15, 28:60]
    expected = 10 * np.log10((10 ** (heard[silent] / 10)).mean())
    assert metrics.noise_floor_db(reference, heard) == pytest.approx(expected)
    heard[40] = 0.0
    assert metrics.noise_floor_db(reference, heard) > expected + 10


def test_where_the_reference_is_never_silent_for_long_enough_there_is_no_noise_floor():
    reference = np.full(60, -60.0)
    reference[::8] = -20.0
    assert metrics.noise_floor_db(reference, reference) is None
    assert metrics.noise_floor_db(np.zeros(0), np.zeros(0)) is None
