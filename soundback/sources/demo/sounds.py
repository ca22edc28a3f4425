"""How things sound: decaying partials for what is struck, shaped noise and harmonics for what flows.

Everything is float64 and gets rounded to 16 bits at the end, so that the last bits, in which processors differ, vanish.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from soundback.sources.demo.drawing import Signal


@dataclass(frozen=True)
class Partial:
    """One vibration of a struck thing: frequency in Hz, level relative to the others, seconds to fall to 1/e."""

    frequency: float
    level: float
    decay_s: float


def struck(partials: Sequence[Partial], *, sample_rate: int, glide: float = 0.0) -> Signal:
    """The ring after one blow of strength 1, until it is 60 dB down: modal synthesis.

    Args:
      partials: what vibrates.
      sample_rate: in Hz.
      glide: how much higher than its pitch it starts, as a share; it settles within 20 ms, as a skin does.

    Returns:
      float64 [time].
    """
    times = np.arange(int(sample_rate * 7 * max(partial.decay_s for partial in partials))) / sample_rate
    bent = times + glide * 0.02 * (1 - np.exp(-times / 0.02))
    waveform = np.zeros(len(times))
    for partial in partials:
        waveform += partial.level * np.sin(2 * np.pi * partial.frequency * bent) * np.exp(-times / partial.decay_s)
    # A millisecond of attack keeps the start of the sine from clicking at random.
    return waveform * np.minimum(times / 0.001, 1)


def burst(random: np.random.Generator, *, sample_rate: int, decay_s: float, smoothing: int) -> Signal:
    """A short decaying noise, as of two things touching; more `smoothing` (samples) makes it duller."""
    times = np.arange(int(sample_rate * 7 * decay_s)) / sample_rate
    sums = np.cumsum(random.uniform(-1, 1, len(times) + smoothing))
    return (sums[smoothing:] - sums[:-smoothing]) / np.sqrt(smoothing) * np.exp(-times / decay_s)


def add_at(waveform: Signal, sound: Signal, time_s: float, sample_rate: int) -> None:
    """Mixes `sound` into `waveform` from `time_s` on; what lies outside is cut off."""
    start = round(time_s * sample_rate)
    first, last = max(start, 0), min(start + len(sound), len(waveform))
    if first < last:
        waveform[first:last] += sound[first - start : last - start]


def shaped_noise(
    random: np.random.Generator, n_samples: int, sample_rate: int, response: Callable[[Signal], Signal]
) -> Signal:
    """Noise of RMS 1 whose spectrum follows `response(frequencies in Hz)`: float64 [n_samples]."""
    # A length that is a product of small primes, or the transform takes seconds.
    length = -(-n_samples // 4800) * 4800
    spectrum = np.fft.rfft(random.uniform(-1, 1, length))
    waveform = np.fft.irfft(spectrum * response(np.fft.rfftfreq(length, 1 / sample_rate)), length)
    return waveform[:n_samples] / np.sqrt(np.mean(waveform * waveform))


def buzz(frequency: Signal, levels: Sequence[float], sample_rate: int) -> Signal:
    """A harmonic tone of RMS 1 with a moving fundamental.

    Args:
      frequency: float64 [time], Hz.
      levels: of the fundamental and the harmonics above it.
      sample_rate: in Hz.

    Returns:
      float64 [time].
    """
    turns = np.arange(8192) / 8192
    period = np.zeros(len(turns))
    for number, level in enumerate(levels, start=1):
        # Phases spread as in a Schroeder sweep, or all harmonics would peak at once.
        period += level * np.sin(2 * np.pi * (number * turns + number * number / (2 * len(levels))))
    phase = np.cumsum(frequency / sample_rate)
    return period[(phase * len(turns)).astype(np.int64) % len(turns)] / np.sqrt(np.mean(period * period))
