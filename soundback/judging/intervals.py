"""Bootstrap intervals over videos: how far a mean would move, had other videos been drawn."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Cell = dict[str, float | int | None]

LEVEL = 0.95
DIGITS = 6


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval.

    Attributes:
      mean: of the videos; None when there are none.
      low: lower end, 2.5 % of the resamples lie below.
      high: upper end.
      n: how many videos it stands on.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int

    def cell(self) -> Cell:
        """As it is written to JSON."""
        return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Bootstrap:
    """Resampling of videos with replacement; the same seed gives the same intervals.

    Attributes:
      n_resamples: how many sets of videos are drawn.
      seed: of the draw.
    """

    n_resamples: int
    seed: int

    def counts(self, n_videos: int) -> Array:
        """How often each video is drawn in each resample, float [n_resamples, n_videos]; not to be written to."""
        return _draw(self.n_resamples, n_videos, self.seed)

    def mean(self, values: Sequence[float | None]) -> Interval:
        """Interval of a mean over videos; None values are left out.

        The percentile interval of Efron 1979. With few videos (below about 15) it is somewhat too narrow.
        """
        known = np.array([value for value in values if value is not None], dtype=np.float64)
        if not known.size:
            return Interval(None, None, None, 0)
        means = self.counts(known.size) @ known / known.size
        low, high = ends(means)
        return Interval(float(known.mean()), low, high, int(known.size))

    def paired(self, first: Mapping[str, float | None], second: Mapping[str, float | None]) -> Interval:
        """Interval of the mean difference first - second over the videos that have both.

        Pairing takes out what makes a video hard for both, so differences show that intervals of the two means hide.
        """
        pairs = [(first[video], second[video]) for video in sorted(first) if video in second]
        return self.mean([a - b for a, b in pairs if a is not None and b is not None])

    def share(self, first: Mapping[str, float | None], second: Mapping[str, float | None]) -> Interval:
        """Interval of the mean of first over that of second, over the videos that have both; None where that is 0."""
        pairs = [(first[video], second[video]) for video in sorted(first) if video in second]
        known = np.array([(a, b) for a, b in pairs if a is not None and b is not None], np.float64).reshape(-1, 2)

        def of_counts(counts: Array) -> Array:
            sums = counts @ known
            return np.where(sums[:, 1] > 0, sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], 1), np.nan)

        return self.statistic(len(known), of_counts)

    def statistic(self, n_videos: int, of_counts: Callable[[Array], Array], *, least: float = -math.inf) -> Interval:
        """Interval of a statistic of the whole set.

        Args:
          n_videos: size of the set.
          of_counts: float [n, n_videos], how often each video counts, to float [n], the statistic, nan if unknown.
          least: the statistic cannot be below.

        A resample holds fewer different videos than the set, which moves a distance; that shift is taken out.
        """
        if not n_videos:
            return Interval(None, None, None, 0)
        value = float(of_counts(np.ones((1, n_videos)))[0])
        if not np.isfinite(value):
            return Interval(None, None, None, 0)
        resampled = of_counts(self.counts(n_videos))
        resampled = resampled[np.isfinite(resampled)]
        if not resampled.size:
            return Interval(value, None, None, n_videos)
        low, high = ends(resampled - resampled.mean() + value)
        return Interval(value, max(low, least), high, n_videos)


@lru_cache(maxsize=64)
def _draw(n_resamples: int, n_videos: int, seed: int) -> Array:
    """The same for every column: drawing takes longer than all that is done with it."""
    shares = np.full(n_videos, 1 / n_videos)
    drawn = np.random.default_rng(seed).multinomial(n_videos, shares, size=n_resamples).astype(np.float64)
    drawn.setflags(write=False)
    return drawn


def ends(values: Array) -> tuple[float, float]:
    """Where `LEVEL` of the resampled values lie, the same share above as below: float [n_resamples]."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
