"""Pictures shown to a training, each time a little different: what is to be learnt does not hang on it."""

import numba
import numpy as np

BRIGHTNESS_JITTER = 24.0
CONTRAST_JITTER = 0.25
NEGATIVE_SHARE = 0.5
ZOOM = 0.2
"""Share of the picture's height and width that is cut off at most."""

EXPOSURE_RANGE = 0.35
EXPOSURE_KNOTS = 5
"""Gains of the exposure, drawn from 1 - range to 1 + range at so many times of an example."""


def vary(pictures: np.ndarray, rng: np.random.Generator, *, exposure: float = 0.0) -> np.ndarray:
    """Mirrors, zooms into, shifts, changes brightness and contrast, and inverts half, each example as a whole.

    Args:
      pictures: uint8 [batch, time, p, p].
      rng: draws.
      exposure: share of the examples whose exposure changes while they last, 0 to 1.

    Returns:
      uint8 [batch, time, p, p].
    """
    n_examples, n_times, p = pictures.shape[:3]
    chances = rng.random((7, n_examples), np.float32)
    share = 1 - ZOOM * chances[0]
    top, left = (1 - share) * chances[1], (1 - share) * chances[2]
    gain = 1 + CONTRAST_JITTER * (2 * chances[4] - 1)
    shift = 127.5 + BRIGHTNESS_JITTER * (2 * chances[5] - 1) - 127.5 * gain
    # A shape is the same thing dark before light and light before dark; with few scenes this has to be shown.
    negative = chances[6] < NEGATIVE_SHARE
    gain, shift = (np.where(negative, *each).astype(np.float32) for each in ((-gain, gain), (255 - shift, shift)))
    line = np.linspace(0, 1, p, dtype=np.float32)
    down = top[:, None] + share[:, None] * line
    across = left[:, None] + share[:, None] * np.where(chances[3, :, None] < 0.5, line[::-1], line)
    gains = exposures(n_examples, n_times, exposure, rng)
    varied = np.empty_like(pictures)
    _move(pictures, gains, (p - 1) * down, (p - 1) * across, gain, shift, varied)
    return varied


def exposures(n_examples: int, n_times: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Gains of the light over time: those of a share of the examples change, in half of these smoothly, else in steps.

    Returns:
      float32 [n_examples, n_times], 1 where nothing changes.
    """
    knots = EXPOSURE_RANGE * rng.uniform(-1, 1, (n_examples, EXPOSURE_KNOTS))
    in_steps, changed = rng.random((2, n_examples, 1)) < np.array([0.5, share])[:, None, None]
    places = np.linspace(0, EXPOSURE_KNOTS - 1, n_times)
    smooth = np.stack([np.interp(places, np.arange(EXPOSURE_KNOTS), each) for each in knots])
    curve = np.where(in_steps, knots[:, np.round(places).astype(int)], smooth)
    return (1 + np.where(changed, curve, 0)).astype(np.float32)


@numba.njit(nogil=True, cache=True)
def _move(
    pictures: np.ndarray,
    gains: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    contrast: np.ndarray,
    shift: np.ndarray,
    moved: np.ndarray,
) -> None:
    """Reads pictures, as they are exposed, at other places than their pixels': linearly interpolated; changes greys.

    scipy's and Pillow's transforms take one picture at a time, and five times as long.

    Args:
      pictures: uint8 [batch, time, p, p].
      gains: float32 [batch, time]; what is exposed to more than 255 is 255.
      down: float32 [batch, p], rows to read.
      across: float32 [batch, p], columns to read.
      contrast: float32 [batch], what greys are multiplied by.
      shift: float32 [batch], what is then added.
      moved: uint8 [batch, time, p, p], to fill, rounded.
    """
    n_examples, n_times, p, _ = pictures.shape
    half = np.float32(0.5)  # Cut off below it, a number is rounded.
    line = np.empty(p, np.float32)
    columns = np.empty(p, np.int64)
    for example in range(n_examples):
        for x in range(p):
            columns[x] = min(int(across[example, x]), p - 2)
        for time in range(n_times):
            gain = gains[example, time]
            for y in range(p):
                row = min(int(down[example, y]), p - 2)
                part = down[example, y] - np.float32(row)
                for x in range(p):
                    upper = min(gain * np.float32(pictures[example, time, row, x]), np.float32(255))
                    lower = min(gain * np.float32(pictures[example, time, row + 1, x]), np.float32(255))
                    line[x] = upper + part * (lower - upper)
                for x in range(p):
                    left = line[columns[x]]
                    part = across[example, x] - np.float32(columns[x])
                    grey = contrast[example] * (left + part * (line[columns[x] + 1] - left)) + shift[example]
                    moved[example, time, y, x] = np.uint8(min(max(grey, np.float32(0)), np.float32(255)) + half)
