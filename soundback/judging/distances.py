"""Distances of sets of sounds in an embedding, for many weightings of their videos at once: what a bootstrap needs.

Embeddings are one float [n_windows, n_dimensions] array per video, so that windows of one video are never taken for
independent. `counts`, float [n_resamples, n_videos], says how often each estimated video counts; the distance of the
set as it is, is that of ones, as `metrics` has it. Every function gives float64 [n_resamples], nan where it cannot be
told.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Embeddings = Sequence[Array]

WINDOWS_PER_DIMENSION = 10
"""Of fewer no covariance is worth anything, and no distance is told."""


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


def frechet_distances(reference: Embeddings, estimated: Embeddings, counts: Array) -> Array:
    """Of two Gaussians fitted to the windows, see `metrics.frechet_distance`."""
    validate_embeddings(reference, estimated)
    if not reference or not _enough(reference):
        return np.full(len(counts), np.nan)
    whole = np.concatenate(reference).astype(np.float64)
    mean, covariance = _moments([whole], np.ones((1, 1)))
    means, covariances = _moments(estimated, counts)
    values, vectors = np.linalg.eigh(covariance[0])
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    # The trace of the root of a product, by way of a symmetric matrix with the same eigenvalues.
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances @ root).clip(0)).sum(axis=1)
    traces = np.trace(covariance[0]) + np.trace(covariances, axis1=1, axis2=2)
    distances = ((means - mean[0]) ** 2).sum(axis=1) + traces - 2 * cross
    return np.where(_enough(estimated, counts), distances.clip(0), np.nan)


def kernel_distances(reference: Embeddings, estimated: Embeddings, counts: Array) -> Array:
    """Squared maximum mean discrepancy, see `metrics.kernel_distance`.

    A video drawn twice makes no pair with itself: its two copies would look like perfect agreement.
    """
    validate_embeddings(reference, estimated)
    if len(reference) < 2 or not _enough(reference):
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
    return np.where(_enough(estimated, counts), first + second - 2 * across, np.nan)


def diversities(estimated: Embeddings, categories: Sequence[str], counts: Array) -> Array:
    """Mean distance of two videos of one category, see `metrics.diversity`.

    Args:
      estimated: one array per video.
      categories: of each video.
      counts: as for all of this module.
    """
    if len(estimated) != len(categories):
        raise ValueError(f"expected one category per video, found {len(categories)} for {len(estimated)}")
    validate_embeddings(estimated, estimated)
    middles = np.stack([video.mean(axis=0) for video in estimated])
    distances = np.sqrt(_squared_distances(middles, middles))
    within = []
    for category in sorted(set(categories)):
        own = [index for index, name in enumerate(categories) if name == category]
        # Weighted by videos, not by windows: a long video is no more diverse than a short one.
        within.append(_pair_mean(distances[np.ix_(own, own)], counts[:, own], np.ones(len(own))))
    known = np.isfinite(within)
    n_known = known.sum(axis=0)
    return np.where(n_known > 0, np.where(known, within, 0).sum(axis=0) / n_known.clip(1), np.nan)


def _enough(videos: Embeddings, counts: Array | None = None) -> NDArray[np.bool_]:
    """Whether there are windows enough, for each weighting of the videos."""
    n_windows = np.array([len(video) for video in videos])
    least = WINDOWS_PER_DIMENSION * videos[0].shape[1]
    return (np.ones((1, len(videos))) if counts is None else counts) @ n_windows >= least


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
