"""Anti-aliased shapes and textures on a grayscale canvas: float32 [height, width], 0 to 255.

Pixels are computed with additions, products, quotients and square roots alone, which IEEE 754 rounds the same way on
every processor; sines and powers are not, so they only ever set a few rounded numbers per frame.
"""

import hashlib
import math

import numpy as np

Canvas = np.ndarray
"""float32 [height, width], gray levels, or what is laid over them"""
Signal = np.ndarray
"""float64 [time]"""


def chance(*keys: object) -> np.random.Generator:
    """A random generator that is a pure function of `keys`, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def smooth(u: float) -> float:
    """Goes from 0 to 1 as `u` does, at rest at both ends; flat outside."""
    u = min(max(u, 0.0), 1.0)
    return u * u * (3 - 2 * u)


def direction(angle: float) -> tuple[float, float]:
    """Cosine and sine of an angle in radians, rounded so that no processor disagrees."""
    return round(math.cos(angle) * 4096) / 4096, round(math.sin(angle) * 4096) / 4096


def cover(distance: Canvas) -> Canvas:
    """Coverage (0 to 1) of pixels at `distance` pixels from an edge, negative inside."""
    return np.minimum(np.maximum(0.5 - distance, 0), 1)


class Patch:
    """The part of a canvas around a point, and how far its pixels are from that point.

    Attributes:
      view: the pixels, writable; empty when the point is far outside.
      x: float32 [1, width], pixels to the right of the point.
      y: float32 [height, 1], pixels below the point.
    """

    def __init__(self, canvas: Canvas, x: float, y: float, reach: tuple[float, float]) -> None:
        left, right = max(int(x - reach[0]) - 1, 0), max(int(x + reach[0]) + 3, 0)
        top, bottom = max(int(y - reach[1]) - 1, 0), max(int(y + reach[1]) + 3, 0)
        self.view = canvas[top:bottom, left:right]
        height, width = self.view.shape
        self.x = np.arange(left, left + width, dtype=np.float32)[None] - np.float32(x)
        self.y = np.arange(top, top + height, dtype=np.float32)[:, None] - np.float32(y)

    def paint(self, coverage: Canvas, tone: float | Canvas) -> None:
        """Lays `tone` over the pixels as far as `coverage` (0 to 1) says."""
        self.view += coverage * (tone - self.view)


def ellipse(canvas: Canvas, centre: tuple[float, float], radii: tuple[float, float], tone: float) -> None:
    """Paints a filled ellipse; `centre` and `radii` are in pixels."""
    patch = Patch(canvas, *centre, radii)
    patch.paint(cover(ellipse_distance(patch, radii)), tone)


def ellipse_distance(patch: Patch, radii: tuple[float, float]) -> Canvas:
    """Approximate distance in pixels from the edge of an ellipse about the patch's point, negative inside."""
    u, v = patch.x / radii[0], patch.y / radii[1]
    return (np.sqrt(u * u + v * v) - 1) * np.float32(min(radii))


def box(canvas: Canvas, centre: tuple[float, float], half: tuple[float, float], tone: float) -> None:
    """Paints an upright rectangle; `half` is half its width and height in pixels."""
    patch = Patch(canvas, *centre, half)
    patch.paint(cover(np.maximum(np.abs(patch.x) - half[0], np.abs(patch.y) - half[1])), tone)


def rod(canvas: Canvas, start: tuple[float, float], end: tuple[float, float], radius: float, tone: float) -> None:
    """Paints a straight rod with round ends."""
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    along, down = end[0] - start[0], end[1] - start[1]
    patch = Patch(canvas, x, y, (abs(along) / 2 + radius, abs(down) / 2 + radius))
    share = (patch.x * along + patch.y * down) / max(along * along + down * down, 1e-6)
    share = np.minimum(np.maximum(share, -0.5), 0.5)
    aside, below = patch.x - share * along, patch.y - share * down
    patch.paint(cover(np.sqrt(aside * aside + below * below) - radius), tone)


def cloth(random: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float]) -> Canvas:
    """Smooth random texture.

    Args:
      random: where the pattern comes from.
      shape: height and width in pixels.
      cell: height and width in pixels of one light or dark patch.

    Returns:
      float32 [height, width], from 0 to 1.
    """
    grid = random.random((int(shape[0] / cell[0]) + 2, int(shape[1] / cell[1]) + 2), dtype=np.float32)
    down, across = (np.arange(n, dtype=np.float32) / np.float32(c) for n, c in zip(shape, cell, strict=True))
    row, column = down.astype(int), across.astype(int)
    share = (down - row)[:, None]
    rows = grid[row] * (1 - share) + grid[row + 1] * share
    share = (across - column)[None]
    return rows[:, column] * (1 - share) + rows[:, column + 1] * share


def wander(random: np.random.Generator, duration_s: float, pace_s: tuple[float, float]) -> tuple[Signal, Signal]:
    """A path that moves between random levels from 0 to 1 and reaches both ends of that range.

    Args:
      random: where the levels come from.
      duration_s: seconds the path covers.
      pace_s: shortest and longest time between two levels, in seconds.

    Returns:
      Times in seconds and levels, both float64 [n]; see `level_at`.
    """
    times = np.cumsum(random.uniform(*pace_s, 6 + int(duration_s / pace_s[0]))) - pace_s[1]
    levels = random.random(len(times))
    inside = levels[: max(np.searchsorted(times, duration_s), 2)]
    return times, np.minimum(np.maximum((levels - inside.min()) / (inside.max() - inside.min()), 0), 1)


def level_at(path: tuple[Signal, Signal], times_s: Signal) -> Signal:
    """The level of a `wander` path at each time."""
    times, levels = path
    after = np.minimum(np.maximum(np.searchsorted(times, times_s), 1), len(times) - 1)
    share = (times_s - times[after - 1]) / (times[after] - times[after - 1])
    share = np.minimum(np.maximum(share, 0), 1)
    share = share * share * (3 - 2 * share)
    return levels[after - 1] * (1 - share) + levels[after] * share
