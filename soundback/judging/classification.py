"""How well categories are named, and how well the naming knows itself. Weighed by video, so that each has an interval.

Conventions as in `metrics`. What was named is the column, what it truly is the row; the last column is "unsure", for a
name that was not given. scikit-learn's `f1_score` and `confusion_matrix` take one weighting at a time and would need
seconds for two thousand resamples; the tests hold this module to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

N_BINS = 10


def count_confusions(reference: Sequence[str], estimated: Sequence[str | None], categories: Sequence[str]) -> Array:
    """How often each category was named each, float64 [n_categories, n_categories + 1]; None counts as unsure.

    Args:
      reference: what is true, [n], of `categories`.
      estimated: what was named, [n].
      categories: in the order of rows and columns.
    """
    place: dict[str | None, int] = {category: index for index, category in enumerate([*categories, None])}
    counts = np.zeros((len(categories), len(categories) + 1))
    np.add.at(counts, ([place[name] for name in reference], [place[name] for name in estimated]), 1)
    return counts


def macro_f1s(confusions: Array, counts: Array) -> Array:
    """F1 of each category that occurs, averaged with the same weight for each, in [0, 1], 1 is perfect.

    It cannot tell one confusion from another, and swings with every clip of a rare category.

    Args:
      confusions: [n_videos, n_categories, n_categories + 1], of each video, as counted by `count_confusions`.
      counts: [n_resamples, n_videos], how often each video counts.

    Returns:
      float64 [n_resamples], nan where no category occurs.

    Source: Sokolova and Lapalme 2009, the macro average; unsure takes from recall alone.
    """
    summed = np.tensordot(counts, confusions, axes=1)
    right = np.diagonal(summed, axis1=1, axis2=2)
    actual, named = summed.sum(axis=2), summed.sum(axis=1)[:, :-1]
    occurs = actual > 0
    scores = np.where(occurs, 2 * right / np.where(occurs, actual + named, 1), 0)
    n_occur = occurs.sum(axis=1)
    return np.where(n_occur > 0, scores.sum(axis=1) / n_occur.clip(1), np.nan)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Of all frames whose likeliest category had about one probability: how often it was right.

    Attributes:
      confidence: float64 [N_BINS], mean probability of the likeliest category; nan where there is no frame.
      accuracy: float64 [N_BINS], share of them where it was right; nan where there is no frame.
      n_frames: int64 [N_BINS].
    """

    confidence: Array
    accuracy: Array
    n_frames: NDArray[np.integer]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two over all frames, 0 is perfect (Guo et al. 2017)."""
        gaps = np.nan_to_num(np.abs(self.confidence - self.accuracy))
        return float((gaps * self.n_frames).sum() / max(1, self.n_frames.sum()))


def reliability(confidence: Array, right: NDArray[np.bool_]) -> Reliability:
    """Sorts frames into bins of equal width.

    It cannot tell whether the probabilities say anything: always naming the share of one category is well calibrated.

    Args:
      confidence: [n], in [0, 1], probability of the likeliest category.
      right: [n], whether that is what it is.
    """
    sums = bin_sums(confidence, right)
    with np.errstate(invalid="ignore"):
        return Reliability(sums[1] / sums[0], sums[2] / sums[0], sums[0].astype(np.int64))


def bin_sums(confidence: Array, right: NDArray[np.bool_]) -> Array:
    """Frames, confidence and right ones summed in each bin: float64 [3, N_BINS]; arguments as `reliability`."""
    bins = np.minimum((np.asarray(confidence) * N_BINS).astype(int), N_BINS - 1)
    return np.stack([np.bincount(bins, weights, N_BINS) for weights in (np.ones(len(bins)), confidence, right)])


def calibration_errors(sums: Array, counts: Array) -> Array:
    """The expected calibration error for many weightings of the videos at once.

    Args:
      sums: [n_videos, 3, N_BINS], of each video, by `bin_sums`.
      counts: [n_resamples, n_videos], how often each video counts.

    Returns:
      float64 [n_resamples], nan where there is no frame.
    """
    n_frames, confidence, right = np.moveaxis(np.tensordot(counts, sums, axes=1), 1, 0)
    total = n_frames.sum(axis=1)
    return np.where(total > 0, np.abs(confidence - right).sum(axis=1) / np.where(total > 0, total, 1), np.nan)
