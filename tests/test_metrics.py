"""Metrics against identities, closed forms, scipy and mir_eval."""

import mir_eval
import numpy as np
import pytest
from scipy import linalg, signal, stats

from soundback.judging import distances, metrics
from soundback.judging.intervals import Bootstrap

TRUTH_S = np.arange(8) * 0.5 + 0.3


def videos(generator, n_videos, n_windows=6, n_dimensions=4, shift=0.0):
    """Windows of one video resemble each other, as in life."""
    centres = generator.normal(shift, 1, (n_videos, 1, n_dimensions))
    return list(centres + generator.normal(0, 0.5, (n_videos, n_windows, n_dimensions)))


def test_the_same_sound_scores_perfectly():
    curve = np.sin(np.arange(100) / 5) * 10 - 30
    scores = metrics.evaluate(TRUTH_S, TRUTH_S, curve, curve, frame_rate=25, motion_s=TRUTH_S)
    assert scores.pop("loudness_error_db") == 0
    assert scores.pop("loudness_lag_ms") == pytest.approx(0)
    assert scores.pop("noise_floor_db") is None  # it is never silent
    assert list(scores.values()) == pytest.approx([1.0] * 11)


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
    scores = metrics.evaluate(TRUTH_S, np.zeros(0), curve, np.full(50, -60.0), frame_rate=25)
    assert scores["onset_f1_100ms"] == 0
    assert scores["loudness_correlation"] is None
    assert scores["loudness_error_db"] == pytest.approx(30)


def test_a_clip_with_two_reference_onsets_does_not_count_for_onsets():
    curve = np.linspace(-40, -20, 50)
    scores = metrics.evaluate(TRUTH_S[:2], TRUTH_S[:2], curve, curve, frame_rate=25)
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
    assert metrics.loudness_lag_ms(nothing, nothing, 25) is None
    assert metrics.category_accuracy([], []) is None
    assert metrics.category_divergence(nothing, nothing) is None
    assert metrics.av_align(nothing, nothing) is None
    assert metrics.find_motion_peaks(np.zeros((0, 8, 8), np.uint8), 25).size == 0
    assert metrics.bits_per_sample(np.zeros((0, 256)), np.zeros(0, int)) is None
    assert metrics.seam_discontinuity_db(nothing, nothing, 8000) is None
    assert metrics.diversity([], []) is None


@pytest.mark.parametrize("n_frames", [-7, -1, 0, 3, 12])
def test_a_known_shift_gives_its_lag(n_frames):
    curve = np.random.default_rng(10).normal(-30, 8, 200)
    late = curve[50 - n_frames : 150 - n_frames]
    assert metrics.loudness_lag_ms(curve[50:150], late, 25) == pytest.approx(n_frames * 40, abs=8)


def test_a_shift_by_half_a_frame_is_told_and_a_louder_curve_is_not_late():
    times_s = np.arange(200) / 25
    curve, late = (np.sin(2 * np.pi * 0.7 * (times_s - lag_s)) * 10 - 30 for lag_s in (0, 0.06))
    assert metrics.loudness_lag_ms(curve, late + 6, 25) == pytest.approx(60, abs=2)


def test_what_is_later_than_the_longest_lag_is_not_found_there():
    curve = np.random.default_rng(11).normal(-30, 8, 300)
    assert abs(metrics.loudness_lag_ms(curve[100:200], curve[80:180], 25)) < 520


def test_lag_agrees_with_scipys_correlation_lags():
    generator = np.random.default_rng(12)
    for lag in (-9, -2, 4, 11):
        curve = generator.normal(0, 8, 400)
        first, second = curve[100:300], curve[100 - lag : 300 - lag]
        found = signal.correlate(second - second.mean(), first - first.mean())
        expected = signal.correlation_lags(200, 200)[found.argmax()]
        assert metrics.loudness_lag_ms(first, second, 25) == pytest.approx(expected * 40, abs=8)


def test_what_never_changes_is_neither_late_nor_early():
    curve = np.random.default_rng(13).normal(-30, 8, 100)
    assert metrics.loudness_lag_ms(curve, np.full(100, -30.0), 25) is None
    assert metrics.loudness_lag_ms(curve[:20], curve[:20], 25) is None


def test_category_divergence_equals_that_of_scipy_and_grows_with_certain_error():
    generator = np.random.default_rng(14)
    first, second = generator.dirichlet(np.ones(6), 2)
    assert metrics.category_divergence(first, second) == pytest.approx(stats.entropy(first, second))
    assert metrics.category_divergence(first, first) == pytest.approx(0)
    sure, unsure, wrong = np.eye(3)[0], np.full(3, 1 / 3), np.eye(3)[1]
    told = [metrics.category_divergence(sure, heard) for heard in (sure, unsure, wrong)]
    assert told == sorted(told)
    assert np.isfinite(told).all()


def test_motion_and_onsets_align_by_intersection_over_union():
    assert metrics.av_align(TRUTH_S, TRUTH_S + 0.09) == 1
    assert metrics.av_align(TRUTH_S, TRUTH_S[:2]) == 2 / 8
    assert metrics.av_align(TRUTH_S, TRUTH_S + 0.25) == 0
    assert metrics.av_align(TRUTH_S, np.zeros(0)) == 0
    # Two onsets cannot share one motion: 1 pair of 2 + 1 - 1.
    assert metrics.av_align(np.array([1.0]), np.array([0.95, 1.05])) == 0.5


def test_peaks_of_motion_are_where_the_picture_jumps():
    frames = np.full((100, 16, 16), 90, np.uint8)
    frames += np.random.default_rng(15).integers(0, 3, frames.shape, np.uint8)
    for frame in (20, 55, 80):
        frames[frame:, :, :8] ^= 64
    assert metrics.find_motion_peaks(frames, 25) == pytest.approx(np.array([20, 55, 80]) / 25)
    assert metrics.find_motion_peaks(np.zeros((50, 8, 8), np.uint8), 25).size == 0


def test_bits_of_knowing_nothing_and_of_certainty():
    classes = np.random.default_rng(16).integers(0, 256, 50)
    assert metrics.bits_per_sample(np.full((50, 256), -np.log(256)), classes) == pytest.approx(8)
    certain = np.where(np.arange(256) == classes[:, None], 0.0, -np.inf)
    assert metrics.bits_per_sample(certain, classes) == 0


def test_a_hard_seam_is_heard_and_a_sound_that_goes_on_has_none():
    times_s = np.arange(40000) / 8000
    seams_s = np.arange(1, 5) * 1.0037
    steady = np.sin(2 * np.pi * 440 * times_s)
    other = np.sin(2 * np.pi * 1330 * times_s)
    stretch = np.searchsorted(seams_s, times_s, side="right")
    assert metrics.seam_discontinuity_db(steady, seams_s, 8000) == pytest.approx(0, abs=1)
    assert metrics.seam_discontinuity_db(np.where(stretch % 2, other, steady), seams_s, 8000) > 10
    noise = np.random.default_rng(17).normal(0, 0.1, 400000)
    assert metrics.seam_discontinuity_db(noise, np.arange(1, 50) * 0.93, 8000) == pytest.approx(0, abs=0.5)
    assert metrics.seam_discontinuity_db(noise, np.zeros(0), 8000) is None


def test_diversity_is_the_mean_distance_within_categories_and_none_for_copies():
    generator = np.random.default_rng(18)
    sounds, names = videos(generator, 7), ["Bell"] * 4 + ["Drum"] * 3
    middles = [video.mean(axis=0) for video in sounds]
    pairs = {
        name: [
            np.linalg.norm(a - b)
            for i, a in enumerate(middles)
            for j, b in enumerate(middles)
            if i < j and names[i] == names[j] == name
        ]
        for name in ("Bell", "Drum")
    }
    assert metrics.diversity(sounds, names) == pytest.approx(np.mean([np.mean(found) for found in pairs.values()]))
    assert metrics.diversity([sounds[0]] * 4, ["Bell"] * 4) == 0
    assert metrics.diversity(sounds[:2], ["Bell", "Drum"]) is None


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
    first, second = videos(generator, 14, 3), videos(generator, 20, 2, shift=1)
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
    one, constant = [np.zeros((40, 3))], [np.zeros((15, 3)), np.zeros((15, 3))]
    few = [np.zeros((15, 3)), np.zeros((14, 3))]
    for distance in (metrics.frechet_distance, metrics.kernel_distance):
        assert distance(constant, few) is None
        assert distance(few, constant) is None
    assert metrics.frechet_distance(constant, one) == 0
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
        (lambda: metrics.category_divergence(np.array([0.5, 0.2]), np.array([0.5, 0.5])), "add up to 1"),
        (lambda: metrics.category_divergence(np.ones(1), np.full(2, 0.5)), "share one shape"),
        (lambda: metrics.av_align(np.array([2.0, 1.0]), np.zeros(0)), "rising order"),
        (lambda: metrics.bits_per_sample(np.zeros((3, 256)), np.zeros(2, int)), "n_samples, n_classes"),
        (lambda: metrics.diversity([np.zeros((2, 3))], []), "one category per video"),
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
    for of_many, of_one in (
        (distances.frechet_distances, metrics.frechet_distance),
        (distances.kernel_distances, metrics.kernel_distance),
    ):
        interval = bootstrap.statistic(20, lambda counts, of=of_many: of(reference, estimated, counts))
        assert interval.mean == pytest.approx(of_one(reference, estimated))
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
