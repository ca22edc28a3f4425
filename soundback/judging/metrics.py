"""How near a sound comes to the real one, in numbers. One function per metric, `evaluate` for one clip.

Conventions, as in mir_eval: `reference_*` is the truth, `estimated_*` is what is judged. Onsets are float [n], seconds,
in rising order. Loudness curves are float [n_frames], dB, on the same frame times. Embeddings are one float
[n_windows, n_dimensions] array per video, so that windows of one video are never taken for independent.

A metric that cannot be told (a constant curve has no correlation) is None, never 0: it is left out of means, and the n
beside each mean says how many remained. No metric here is worth reading without its control rows.
"""

from collections.abc import Sequence

import mir_eval
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

Array = NDArray[np.floating]
Embeddings = Sequence[Array]

ONSET_WINDOWS_MS = (50, 100, 300)
MIN_REFERENCE_ONSETS = 3
"""With fewer, one lucky or unlucky onset decides the clip."""

SILENCE_DB, SILENCE_MARGIN = -60.0, 5
"""dBFS, and frames: an early or late sound, and the window over which loudness is measured, reach no further."""

CONSTANT_DB = 1e-3
"""A curve whose standard deviation is below this is constant."""


def validate_onsets(reference_s: Array, estimated_s: Array) -> None:
    """Checks that both are one-dimensional, finite, not negative and in rising order.

    Raises:
      ValueError: otherwise, with what was found.
    """
    for name, onsets in (("reference", reference_s), ("estimated", estimated_s)):
        if onsets.ndim != 1:
            raise ValueError(f"{name} onsets must be one-dimensional, found shape {onsets.shape}")
        if onsets.size and not (np.isfinite(onsets).all() and onsets[0] >= 0 and (np.diff(onsets) >= 0).all()):
            raise ValueError(f"{name} onsets must be finite seconds from 0 on, in rising order, found {onsets}")


def validate_curves(reference_db: Array, estimated_db: Array) -> None:
    """Checks that both are finite, one-dimensional and equally long.

    Raises:
      ValueError: otherwise, with what was found.
    """
    if reference_db.ndim != 1 or reference_db.shape != estimated_db.shape:
        raise ValueError(f"curves must share one shape [n_frames], found {reference_db.shape} and {estimated_db.shape}")
    if not (np.isfinite(reference_db).all() and np.isfinite(estimated_db).all()):
        raise ValueError("curves must be finite; put a floor under silence")


def validate_embeddings(reference: Embeddings, estimated: Embeddings) -> None:
    """Checks that all arrays are finite [n_windows, n_dimensions] with the same number of dimensions.

    Raises:
      ValueError: otherwise, with what was found.
    """
    shapes = {video.shape[1:] for video in [*reference, *estimated]}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"embeddings must share one shape [n_windows, n_dimensions], found window shapes {shapes}")
    if not all(np.isfinite(video).all() for video in [*reference, *estimated]):
        raise ValueError("embeddings must be finite")


def onset_scores(reference_s: Array, estimated_s: Array, window_s: float) -> tuple[float, float, float]:
    """Precision, recall and F1 of onsets, each in [0, 1], 1 is perfect.

    An estimate is right when it lies within `window_s` of a reference onset; each reference onset takes at most one
    estimate, by maximum matching, so neither missing onsets nor a shower of them pays. 0 where either is empty.

    It cannot tell a loud onset from a faint one, nor what sounds; and a shower of onsets gains by chance as the window
    grows, so look at the narrow window first.

    Source: mir_eval.onset (Raffel et al. 2014), after Böck et al. 2012.
    """
    validate_onsets(reference_s, estimated_s)
    if not reference_s.size or not estimated_s.size:
        return 0.0, 0.0, 0.0
    f1, precision, recall = mir_eval.onset.f_measure(reference_s, estimated_s, window=window_s)
    return float(precision), float(recall), float(f1)


def loudness_correlation(reference_db: Array, estimated_db: Array) -> float | None:
    """Pearson correlation of two loudness curves in [-1, 1], 1 is perfect; None where either is constant or empty.

    It cannot tell a level that is wrong throughout (see `loudness_error_db`), nor a range that is too small.

    Source: Owens et al., Visually Indicated Sounds (2016), section 6, there of other curves.
    """
    validate_curves(reference_db, estimated_db)
    if reference_db.size < 2 or min(reference_db.std(), estimated_db.std()) < CONSTANT_DB:
        return None
    return float(np.corrcoef(reference_db.astype(np.float64), estimated_db.astype(np.float64))[0, 1])


def loudness_error_db(reference_db: Array, estimated_db: Array) -> float | None:
    """Mean absolute difference of two loudness curves in dB, 0 is perfect; None where empty.

    It cannot tell a wrong level from wrong timing, and rewards a cautious, flat curve.

    Source: the L1 distance of envelopes of T-Foley (Chung et al. 2024), here in dB.
    """
    validate_curves(reference_db, estimated_db)
    return float(np.abs(reference_db - estimated_db).mean()) if reference_db.size else None


def noise_floor_db(reference_db: Array, estimated_db: Array) -> float | None:
    """Level of what sounds where the reference is silent, dBFS, the lower the better; None where it never is.

    Only frames count that have nothing but silence `SILENCE_MARGIN` frames around them, so that a sound that is a
    little early or late is not taken for noise. It cannot tell less than the floor of the curves, hiss from a sound
    that should not be there, or anything of the noise under sound.

    Source: the mean square of ITU-R BS.1770, without its weighting.
    """
    validate_curves(reference_db, estimated_db)
    near = binary_dilation(reference_db > SILENCE_DB, iterations=SILENCE_MARGIN)
    if near.all():
        return None
    return float(10 * np.log10(np.mean(10 ** (estimated_db[~near].astype(np.float64) / 10))))


def category_accuracy(reference: Sequence[str], estimated: Sequence[str]) -> float | None:
    """Share of sounds heard as the category they should be, in [0, 1]; None where there are none.

    It cannot tell timing, and is worth no more than the judge: read it beside the judge's accuracy on real sound.

    Source: fit to category, DCASE 2023 task 7 (Choi et al. 2023).
    """
    if len(reference) != len(estimated):
        raise ValueError(f"expected one estimate per reference, found {len(reference)} and {len(estimated)}")
    return float(np.mean([a == b for a, b in zip(reference, estimated, strict=True)])) if reference else None


def frechet_distance(reference: Embeddings, estimated: Embeddings) -> float | None:
    """Fréchet distance of two Gaussians fitted to the windows of two sets, 0 or more, 0 is perfect.

    None when a set has fewer than two windows. It grows as the sets shrink, so compare only rows with the same n; it
    knows this judge's embedding alone, so compare with no published FAD; it cannot tell timing, nor which video is
    which.

    Source: Dowson and Landau 1982; as FAD Kilgour et al. 2019.
    """
    value = frechet_distances(reference, estimated, np.ones((1, len(estimated))))[0]
    return float(value) if np.isfinite(value) else None


def kernel_distance(reference: Embeddings, estimated: Embeddings) -> float | None:
    """Squared maximum mean discrepancy of two sets: about 0, also slightly below, for the same distribution; at most 2.

    Unbiased: pairs of windows of one video are left out, so it does not depend on how many videos there are. The kernel
    is Gaussian, as wide as the median distance of two reference windows (1 when all are equal). None when a set has
    fewer than two videos. It knows this judge's embedding alone, and cannot tell timing, nor which video is which.

    Source: Gretton et al. 2012, equation 3; as KAD (times 100 there) Chung et al. 2025.
    """
    value = kernel_distances(reference, estimated, np.ones((1, len(estimated))))[0]
    return float(value) if np.isfinite(value) else None


def frechet_distances(reference: Embeddings, estimated: Embeddings, counts: Array) -> Array:
    """`frechet_distance` for many weightings of the estimated videos at once.

    Args:
      reference: one array per video.
      estimated: one array per video.
      counts: float [n_resamples, n_estimated], how often each estimated video counts.

    Returns:
      float64 [n_resamples], nan where it cannot be told.
    """
    validate_embeddings(reference, estimated)
    whole = np.concatenate(reference).astype(np.float64)
    mean, covariance = _moments([whole], np.ones((1, 1)))
    means, covariances = _moments(estimated, counts)
    values, vectors = np.linalg.eigh(covariance[0])
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # The trace of the root of a product, by way of a symmetric matrix with the same eigenvalues.
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances @ root).clip(0)).sum(axis=1)
    traces = np.trace(covariance[0]) + np.trace(covariances, axis1=1, axis2=2)
    distances = ((means - mean[0]) ** 2).sum(axis=1) + traces - 2 * cross
    n_windows = counts @ np.array([len(video) for video in estimated])
    return np.where((n_windows < 2) | (len(whole) < 2), np.nan, distances.clip(0))


def kernel_distances(reference: Embeddings, estimated: Embeddings, counts: Array) -> Array:
    """`kernel_distance` for many weightings of the estimated videos at once; arguments as `frechet_distances`.

    A video drawn twice makes no pair with itself: its two copies would look like perfect agreement.
    """
    validate_embeddings(reference, estimated)
    if len(reference) < 2:
        return np.full(len(counts), np.nan)
    width = _median_distance(np.concatenate(reference))
    within_reference = _block_means(reference, reference, width)
    weights = np.ones((1, len(reference)))
    first = _pair_mean(within_reference, weights, np.array([len(video) for video in reference]))[0]
    n_windows = np.array([len(video) for video in estimated])
    second = _pair_mean(_block_means(estimated, estimated, width), counts, n_windows)
    sizes = np.array([len(video) for video in reference])
    between = _block_means(reference, estimated, width) * sizes[:, None]
    shares = counts * n_windows
    across = shares @ (between.sum(axis=0) / sizes.sum()) / shares.sum(axis=1)
    return first + second - 2 * across


def evaluate(
    reference_onsets_s: Array, estimated_onsets_s: Array, reference_db: Array, estimated_db: Array
) -> dict[str, float | None]:
    """All metrics of one clip that need nothing but its onsets and loudness, by the names of the table's columns.

    The onset metrics are None where there are fewer than three reference onsets.
    """
    scores: dict[str, float | None] = {}
    enough = reference_onsets_s.size >= MIN_REFERENCE_ONSETS
    for window_ms in ONSET_WINDOWS_MS:
        found = onset_scores(reference_onsets_s, estimated_onsets_s, window_ms / 1000)
        for name, value in zip(("precision", "recall", "f1"), found, strict=True):
            scores[f"onset_{name}_{window_ms}ms"] = value if enough else None
    scores["loudness_correlation"] = loudness_correlation(reference_db, estimated_db)
    scores["loudness_error_db"] = loudness_error_db(reference_db, estimated_db)
    scores["noise_floor_db"] = noise_floor_db(reference_db, estimated_db)
    return scores


def _moments(videos: Embeddings, counts: Array) -> tuple[Array, Array]:
    """Mean [n, d] and covariance [n, d, d] of all windows, for each weighting of the videos."""
    # Around a common centre, or large means would swallow small variances.
    centre = np.concatenate(videos).astype(np.float64).mean(axis=0)
    centred = [video - centre for video in videos]
    sums = counts @ np.stack([video.sum(axis=0) for video in centred])
    squares = np.tensordot(counts, np.stack([video.T @ video for video in centred]), axes=1)
    n_windows = (counts @ np.array([len(video) for video in videos]))[:, None]
    means = sums / n_windows.clip(1)
    covariances = (squares - n_windows[:, :, None] * means[:, :, None] * means[:, None, :]) / (
        n_windows[:, :, None] - 1
    ).clip(1)
    return means + centre, covariances


def _median_distance(windows: Array) -> float:
    distances = np.sqrt(_squared_distances(windows, windows)[np.triu_indices(len(windows), 1)])
    return float(np.median(distances)) or 1.0


def _block_means(first: Embeddings, second: Embeddings, width: float) -> Array:
    """Mean kernel value between each video of one set and each of the other, [n_first, n_second]."""
    kernel = np.exp(-_squared_distances(np.concatenate(first), np.concatenate(second)) / (2 * width**2))
    rows = np.cumsum([0, *(len(video) for video in first)])[:-1]
    columns = np.cumsum([0, *(len(video) for video in second)])[:-1]
    sums = np.add.reduceat(np.add.reduceat(kernel, rows, axis=0), columns, axis=1)
    return sums / np.outer([len(video) for video in first], [len(video) for video in second])


def _pair_mean(means: Array, counts: Array, n_windows: Array) -> Array:
    """Mean over all pairs of windows of two different videos, for each weighting of the videos."""
    shares = counts * n_windows
    np.fill_diagonal(means, 0.0)
    total = np.einsum("ri,ij,rj->r", shares, means, shares, optimize=True)
    pairs = shares.sum(axis=1) ** 2 - (shares**2).sum(axis=1)
    return np.where(pairs > 0, total / np.where(pairs > 0, pairs, 1), np.nan)


def _squared_distances(first: Array, second: Array) -> Array:
    first, second = first.astype(np.float64), second.astype(np.float64)
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    return squares.clip(0)
