"""How loud a sound is: EBU R 128 loudness, true peak, silence. Measured in pieces, as long sound fits into no memory.

Gains hang on rounded figures: the last bits of a sine or a sum differ between processors, and reach no sample.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyloudnorm
from scipy.signal import lfilter, resample_poly

from soundback.params import Audio

GATING_BLOCK_S = 0.4  # of EBU R 128; shorter sound has no integrated loudness
STEPS_PER_BLOCK = 4  # gating blocks overlap by three quarters
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0
K_OFFSET_LU = 0.691  # of ITU-R BS.1770: a full-scale sine of 1 kHz then has -3.01 LUFS
GATING_ROUNDS = 20
PEAK_OVERSAMPLING = 4  # as ITU-R BS.1770 asks
PEAK_REACH = 10  # samples to either side that a point between two samples depends on
PEAK_RISE = 2.25 * 0.5 / 32768  # at most, by rounding to 16 bit: half a step, through the oversampling filter
SILENCE_WINDOW_S = 0.1


@dataclass(frozen=True)
class Measured:
    """What was measured of a sound.

    Attributes:
      n_samples: its length.
      block_powers: float64 [n_blocks], K-weighted mean square of each gating block; none in sound shorter than one.
      true_peak_db: the highest point of the curve through the samples, dB of full scale; -inf for digital silence.
      silence_share: of its tenths of a second, those whose RMS is below the limit, in [0, 1]; 1 for no sound at all.
    """

    n_samples: int
    block_powers: np.ndarray
    true_peak_db: float
    silence_share: float

    def loudness_lufs(self, gain_db: float = 0.0) -> float | None:
        """Integrated loudness after a gain; None for sound shorter than a gating block or below the gate throughout.

        Source: EBU R 128; ITU-R BS.1770-4, equations 3 to 7.
        """
        powers = self.block_powers * 10 ** (gain_db / 10)
        heard = powers[powers >= 10 ** ((ABSOLUTE_GATE_LUFS + K_OFFSET_LU) / 10)]
        if not len(heard):
            return None
        loud = heard[heard > heard.mean() * 10 ** (RELATIVE_GATE_LU / 10)]
        return 10 * math.log10(loud.mean()) - K_OFFSET_LU


@dataclass(frozen=True)
class Gain:
    """A linear gain.

    Attributes:
      gain_db: in thousandths.
      limited_by: what decided it: loudness, or peak (the true-peak limit came first, or there is no loudness).
    """

    gain_db: float
    limited_by: str

    def apply(self, waveform: np.ndarray) -> np.ndarray:
        """The waveform, float32 [time], with the gain."""
        return waveform * np.float32(10 ** (self.gain_db / 20))


def measure(pieces: Iterable[np.ndarray], *, sample_rate: int, silence_db: float) -> Measured:
    """Measures a sound; how it is cut into pieces makes no difference.

    Args:
      pieces: float32 [time], one after another.
      sample_rate: Hz.
      silence_db: dB of full scale; a tenth of a second of a lower RMS is silence.
    """
    window = round(SILENCE_WINDOW_S * sample_rate)
    weighting, peak = _Weighting(sample_rate), _TruePeak()
    tenths = _Energies(lambda k: k * window)
    # Cut exactly where pyloudnorm cuts, its rounding included.
    steps = _Energies(lambda k: int(GATING_BLOCK_S * (k / STEPS_PER_BLOCK) * sample_rate))
    for piece in pieces:
        peak.add(piece)
        tenths.add(piece)
        steps.add(weighting.weigh(piece))
    # Less than one window counts as one.
    silent = np.array(tenths.sums or [tenths.rest]) < window * 10 ** (silence_db / 10)
    return Measured(tenths.n_samples, _block_powers(steps, sample_rate), peak.db(), float(np.mean(silent)))


def choose_gain(measured: Measured, params: Audio) -> Gain:
    """The linear gain that brings a sound to the wanted loudness, or to the true-peak limit if that comes first.

    Sound without a loudness goes by its peak; digital silence stays as it is.

    Args:
      measured: of the sound.
      params: loudness_lufs and true_peak_db are used.
    """
    if measured.true_peak_db == -math.inf:
        return Gain(0.0, "peak")
    # Towards quiet and as much further as rounding to 16 bit could lift the peak.
    rise_db = 20 * math.log10(1 + PEAK_RISE / 10 ** (params.true_peak_db / 20))
    most_db = (math.floor((params.true_peak_db - measured.true_peak_db) * 1000) - math.ceil(rise_db * 1000)) / 1000
    wanted_db = _loudness_gain_db(measured, params.loudness_lufs)
    if wanted_db is None or wanted_db > most_db:
        return Gain(most_db, "peak")
    return Gain(wanted_db, "loudness")


def _loudness_gain_db(measured: Measured, target_lufs: float) -> float | None:
    """The gain after which a sound has the wanted loudness; None where it has none.

    Not the plain difference: what the absolute gate kept out of a very quiet sound may pass it after the gain.
    """
    gain_db = 0.0
    for _ in range(GATING_ROUNDS):
        loudness = measured.loudness_lufs(gain_db)
        if loudness is None:
            return None
        missing_db = target_lufs - loudness
        gain_db = round(gain_db + missing_db, 3)
        if abs(missing_db) < 0.001:
            break
    return gain_db


def _block_powers(steps: "_Energies", sample_rate: int) -> np.ndarray:
    """Mean squares of the gating blocks: four steps each. The last may lack half a step, as in pyloudnorm."""
    block = GATING_BLOCK_S * sample_rate
    if steps.n_samples < block:
        return np.zeros(0)
    # In pyloudnorm's own order: at just half a step, the rounding error decides.
    n_blocks = 1 + round((steps.n_samples / sample_rate - GATING_BLOCK_S) / (GATING_BLOCK_S / STEPS_PER_BLOCK))
    sums = np.array([*steps.sums, steps.rest])[: n_blocks + STEPS_PER_BLOCK - 1]
    return np.convolve(sums, np.ones(STEPS_PER_BLOCK), "valid") / block


class _Weighting:
    """The K-weighting filters of pyloudnorm, with their state carried from piece to piece."""

    def __init__(self, sample_rate: int) -> None:
        self._filters = [(each.b, each.a) for each in pyloudnorm.Meter(sample_rate)._filters.values()]
        self._states = [np.zeros(2) for _ in self._filters]

    def weigh(self, piece: np.ndarray) -> np.ndarray:
        for i, (b, a) in enumerate(self._filters):
            piece, self._states[i] = lfilter(b, a, piece, zi=self._states[i])
        return piece


class _TruePeak:
    """The highest point of the curve through the samples.

    Source: ITU-R BS.1770-4, annex 2.
    """

    def __init__(self) -> None:
        self._peak = 0.0
        self._context = np.zeros(2 * PEAK_REACH)

    def add(self, piece: np.ndarray) -> None:
        known = np.concatenate([self._context, piece])
        # Near the ends of what is known, the filter sees silence that is not there.
        edge = PEAK_OVERSAMPLING * PEAK_REACH
        fine = resample_poly(known, PEAK_OVERSAMPLING, 1)[edge:-edge]
        self._peak = max(self._peak, float(np.max(np.abs(fine), initial=0.0)))
        self._context = known[-2 * PEAK_REACH :]

    def db(self) -> float:
        """In dB of full scale; ends the sound."""
        self.add(np.zeros(2 * PEAK_REACH))
        return 20 * math.log10(self._peak) if self._peak > 0 else -math.inf


class _Energies:
    """Sums of squares over stretches of a signal.

    Attributes:
      sums: of each stretch that is complete.
      rest: of the one that is not.
      n_samples: of the signal so far.
    """

    def __init__(self, start_of: Callable[[int], int]) -> None:
        """Takes a function that says where stretch k starts, in samples."""
        self.sums: list[float] = []
        self.rest = 0.0
        self.n_samples = 0
        self._start_of = start_of
        self._pending = np.zeros(0)

    def add(self, piece: np.ndarray) -> None:
        self.n_samples += len(piece)
        pending = np.concatenate([self._pending, np.square(piece, dtype=np.float64)])
        first = start = self.n_samples - len(pending)
        while (end := self._start_of(len(self.sums) + 1)) <= self.n_samples:
            self.sums.append(float(pending[start - first : end - first].sum()))
            start = end
        self._pending = pending[start - first :]
        self.rest = float(self._pending.sum())
