"""How many bits per sample much simpler predictors need: what a WaveNet has to beat.

All are fitted on training clips and measured on the same validation samples as the network. Each gives every one of the
256 classes a probability, given the samples before; its figure is the mean of -log2 of the true class's.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from soundback.media.audio import mu_law_decode
from soundback.sounding.clips import CuedClip
from soundback.sounding.sampler import SILENCE
from soundback.sounding.wavenet import N_CLASSES

PAIR_PRIOR = 16.0
"""The histogram counts as much as this many occurrences of the last class."""

ORDER = 32
"""Samples of the past that the linear prediction sees."""

ERROR_MEMORY = 32
"""Samples over which the size of its errors is averaged, exponentially."""

SMALLEST_SCALE = 1e-4
HISTOGRAM_SHARE = 0.01
"""Of the histogram in the linear prediction, so that a surprise costs bits and not infinity."""


@dataclass(frozen=True)
class Baselines:
    """What the training clips say.

    Attributes:
      counts: int64 [256, 256], how often the second class follows the first.
      coefficients: float64 [ORDER], of the linear prediction, oldest sample first.
    """

    counts: np.ndarray
    coefficients: np.ndarray

    @classmethod
    def fit(cls, clips: Iterable[CuedClip]) -> "Baselines":
        """Counts pairs of classes, and solves for the linear prediction with the least squared error."""
        counts = np.zeros(N_CLASSES * N_CLASSES, np.int64)
        moments = np.zeros((ORDER + 1, ORDER + 1))
        for clip in clips:
            classes = _after_silence(clip, clip.n_frames)
            pairs = classes[ORDER - 1 : -1] * N_CLASSES + classes[ORDER:]
            counts += np.bincount(pairs, minlength=len(counts))
            rows = np.lib.stride_tricks.sliding_window_view(mu_law_decode(classes), ORDER + 1)
            moments += rows.T @ rows
        # A touch of ridge: a training set of pure tones has no single best predictor.
        ridge = np.eye(ORDER) * 1e-6 * moments[-1, -1]
        coefficients = np.linalg.solve(moments[:-1, :-1] + ridge, moments[:-1, -1])
        return cls(counts.reshape(N_CLASSES, N_CLASSES), coefficients)

    @property
    def histogram(self) -> np.ndarray:
        """Probability of each class, float64 [256], one count added to each."""
        occurrences = self.counts.sum(axis=0) + 1
        return occurrences / occurrences.sum()

    def measure(self, clips: Iterable[CuedClip], frames_per_window: int) -> dict[str, float]:
        """Bits per sample of three predictors.

        * histogram_bits: how often each class occurs.
        * previous_sample_bits: how often each class follows the last one, mixed with the histogram.
        * linear_prediction_bits: the next sample is Laplace distributed around a linear prediction from the last 32,
          with a scale that follows its recent errors; integrated over each class, mixed with 1 % of the histogram.

        Args:
          clips: to measure on.
          frames_per_window: only whole windows of so many frames count, those that the network is measured on.
        """
        names = ("histogram_bits", "previous_sample_bits", "linear_prediction_bits")
        sums, n_samples = np.zeros(len(names)), 0
        for clip in clips:
            classes = _after_silence(clip, clip.n_frames - clip.n_frames % frames_per_window)
            chances = (
                self.histogram[classes[ORDER:]],
                self._after_previous(classes),
                self._after_linear_prediction(classes),
            )
            sums += [-np.log2(chance).sum() for chance in chances]
            n_samples += len(classes) - ORDER
        return dict(zip(names, (sums / n_samples).tolist(), strict=True))

    def _after_previous(self, classes: np.ndarray) -> np.ndarray:
        """Probability of each class after ORDER ones, given the class before."""
        before, after = classes[ORDER - 1 : -1], classes[ORDER:]
        seen = self.counts.sum(axis=1)[before]
        return (self.counts[before, after] + PAIR_PRIOR * self.histogram[after]) / (seen + PAIR_PRIOR)

    def _after_linear_prediction(self, classes: np.ndarray) -> np.ndarray:
        """Probability of each class after ORDER ones, given the ORDER samples before."""
        waveform = mu_law_decode(classes)
        rows = np.lib.stride_tricks.sliding_window_view(waveform, ORDER + 1)
        predicted = rows[:, :-1] @ self.coefficients
        errors = np.abs(rows[:, -1] - predicted)
        keep = 1 - 1 / ERROR_MEMORY
        # One sample late: the scale must not know the error it is there to measure.
        scale = lfilter([0, 1 - keep], [1, -keep], errors) + SMALLEST_SCALE
        borders = np.concatenate([[-np.inf], mu_law_decode(np.arange(N_CLASSES - 1) + 0.5), [np.inf]])
        actual = classes[ORDER:]
        low, high = ((borders[actual + side] - predicted) / scale for side in (0, 1))
        # By symmetry, differences are taken in the left tail, where they lose no digits.
        right = low > 0
        low, high = np.where(right, -high, low), np.where(right, -low, high)
        chance = _laplace_below(high) - _laplace_below(low)
        return (1 - HISTOGRAM_SHARE) * chance + HISTOGRAM_SHARE * self.histogram[actual]


def _laplace_below(x: np.ndarray) -> np.ndarray:
    """Probability that a standard Laplace variable lies below x."""
    tail = 0.5 * np.exp(-np.abs(x))
    return np.where(x < 0, tail, 1 - tail)


def _after_silence(clip: CuedClip, n_frames: int) -> np.ndarray:
    """A clip's classes behind ORDER samples of silence, int32."""
    return np.pad(clip.read_classes(0, n_frames * clip.hop), (ORDER, 0), constant_values=SILENCE)
