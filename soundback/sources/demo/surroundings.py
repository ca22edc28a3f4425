"""Where a sounding thing is filmed: backdrop, light, camera, and what moves beside it without a sound."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from soundback.sources.demo.drawing import Canvas, box, chance, cloth, direction, ellipse, level_at, rod, wander

MARGIN = 6
"""Pixels painted around the picture, so that a shaking camera finds something there."""


@dataclass(frozen=True)
class Shot:
    """What is filmed: the random numbers' key, and the canvas (picture and margin) in pixels and seconds."""

    key: str
    width: int
    height: int
    duration_s: float
    backdrop: float
    """gray level, 0 to 255"""

    def chance(self, part: str) -> np.random.Generator:
        """The random numbers of one part of this shot; other parts do not change them."""
        return chance(self.key, part)

    def tone(self, random: np.random.Generator, contrast: tuple[float, float]) -> float:
        """A gray level lighter or darker than the backdrop, by chance, and `contrast` gray levels from it."""
        step = random.uniform(*contrast) * (1 if random.random() < 0.5 else -1)
        return self.backdrop + step if 8 <= self.backdrop + step <= 247 else self.backdrop - step


class Mover(Protocol):
    """Something that moves and makes no sound."""

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""


class Balloon:
    """A plain disc that bobs in the air and touches nothing."""

    def __init__(self, shot: Shot, random: np.random.Generator, x: float) -> None:
        self._radius = shot.height * random.uniform(0.06, 0.14)
        self._x, self._sway = x, shot.width * random.uniform(0.03, 0.12)
        self._top, self._drop = shot.height * random.uniform(0.12, 0.3), shot.height * random.uniform(0.1, 0.45)
        self._across, self._down = (wander(random, shot.duration_s, (0.4, 1.2)) for _ in range(2))
        self._tone = shot.tone(random, (35, 80))

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        x = self._x + self._sway * (_level(self._across, time_s) - 0.5)
        y = self._top + self._drop * _level(self._down, time_s)
        ellipse(canvas, (x, y), (self._radius, self._radius * 1.12), self._tone)


class Walker:
    """Somebody who strolls through the picture and back."""

    def __init__(self, shot: Shot, random: np.random.Generator, x: float) -> None:
        self._size, self._ground = shot.height * random.uniform(0.3, 0.55), shot.height * random.uniform(0.8, 0.98)
        self._x, self._reach = x, shot.width * random.uniform(0.2, 0.6)
        self._path = wander(random, shot.duration_s, (0.9, 2.0))
        self._tone = shot.tone(random, (35, 80))

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        way = self._reach * (_level(self._path, time_s) - 0.5)
        x, hip, size = self._x + way, self._ground - self._size * 0.45, self._size
        stride = size * 0.18 * (abs(way / size * 2 % 2 - 1) * 2 - 1)
        for foot in (-stride, stride):
            rod(canvas, (x, hip), (x + foot, self._ground), size * 0.05, self._tone)
        rod(canvas, (x, hip), (x, hip - size * 0.28), size * 0.1, self._tone)
        ellipse(canvas, (x, hip - size * 0.47), (size * 0.08, size * 0.09), self._tone)


class Reeds:
    """A row of stalks in the wind."""

    def __init__(self, shot: Shot, random: np.random.Generator, x: float) -> None:
        self._x = x + shot.width * np.linspace(-0.2, 0.2, 9) + random.uniform(-4, 4, 9)
        self._length = shot.height * random.uniform(0.35, 0.75, 9)
        self._ground, self._radius = float(shot.height), shot.height * random.uniform(0.008, 0.02)
        self._wind = wander(random, shot.duration_s, (0.2, 0.6))
        self._tone = shot.tone(random, (35, 80))

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        for x, length in zip(self._x.tolist(), self._length.tolist(), strict=True):
            lean = length * 0.7 * (_level(self._wind, time_s - x / 1500) - 0.5)
            rod(canvas, (x, self._ground), (x + lean, self._ground - length), self._radius, self._tone)


class Banner:
    """A patterned sheet that is pulled to and fro."""

    def __init__(self, shot: Shot, random: np.random.Generator, x: float) -> None:
        height, width = int(shot.height * random.uniform(0.4, 0.9)), int(shot.width * random.uniform(0.2, 0.4))
        cell = random.uniform(4, 9)
        pattern = cloth(random, (height, width), (cell, cell * random.uniform(0.6, 2)))
        self._sheet = shot.tone(random, (15, 40)) + (pattern - 0.5) * random.uniform(80, 160)
        self._x, self._y = x - width / 2, shot.height * random.uniform(0.02, 0.3)
        self._reach = random.uniform(30, 110)
        self._across, self._down = (wander(random, shot.duration_s, (0.25, 0.8)) for _ in range(2))

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        x = int(self._x + self._reach * (_level(self._across, time_s) - 0.5))
        y = int(self._y + self._reach * 0.5 * _level(self._down, time_s))
        left, right = max(x, 0), min(x + self._sheet.shape[1], canvas.shape[1])
        bottom = min(y + self._sheet.shape[0], canvas.shape[0])
        if left < right:
            canvas[y:bottom, left:right] = self._sheet[: bottom - y, left - x : right - x]


class Pendulum:
    """A weight on a rod."""

    def __init__(self, shot: Shot, random: np.random.Generator, x: float) -> None:
        self._x, self._length = x, shot.height * random.uniform(0.3, 0.7)
        self._period_s, self._swing = random.uniform(0.9, 2.2), random.uniform(0.2, 0.7)
        self._phase = random.random()
        self._tone, self._size = shot.tone(random, (35, 80)), shot.height * random.uniform(0.03, 0.07)

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        angle = self._swing * direction(6.2832 * (time_s / self._period_s + self._phase))[1]
        down, aside = direction(angle)
        end = (self._x + self._length * aside, self._length * down)
        rod(canvas, (self._x, 0.0), end, 1.5, self._tone)
        box(canvas, end, (self._size, self._size), self._tone)


def _level(path: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], time_s: float) -> float:
    return float(level_at(path, np.array([time_s]))[0])


MOVERS = (Balloon, Walker, Reeds, Banner, Pendulum)


class Backdrop:
    """What stands still behind everything: light, texture, ground and a few plain objects."""

    def __init__(self, shot: Shot) -> None:
        random = shot.chance("backdrop")
        shape = (shot.height, shot.width)
        coarse = cloth(random, shape, (random.uniform(40, 120), random.uniform(40, 120)))
        fine = cloth(random, shape, (random.uniform(2, 14), random.uniform(2, 14)))
        self.picture = np.float32(shot.backdrop) + (coarse - 0.5) * np.float32(random.uniform(10, 70))
        self.picture += (fine - 0.5) * np.float32(random.choice([0, 12, 30, 55]))
        if random.random() < 0.6:
            ground = int(shot.height * random.uniform(0.7, 0.95))
            self.picture[ground:] += np.float32(random.uniform(-35, 35))
        for _ in range(random.integers(0, 5)):
            self._add_object(shot, random)

    def _add_object(self, shot: Shot, random: np.random.Generator) -> None:
        x, y = shot.width * random.random(), shot.height * random.random()
        half = (shot.width * random.uniform(0.02, 0.12), shot.height * random.uniform(0.03, 0.2))
        tone = shot.tone(random, (15, 60))
        shape = random.choice(3)
        if shape == 0:
            box(self.picture, (x, y), half, tone)
        elif shape == 1:
            ellipse(self.picture, (x, y), half, tone)
        else:
            rod(self.picture, (x - half[0], y - half[1]), (x + half[0], y + half[1]), random.uniform(1, 5), tone)


class Camera:
    """Shakes, breathes and adds noise."""

    def __init__(self, shot: Shot) -> None:
        random = shot.chance("camera")
        self._shake = MARGIN * random.choice([0.0, 0.3, 1.0], p=[0.4, 0.3, 0.3])
        self._across, self._down, self._light = (wander(random, shot.duration_s, (0.15, 0.7)) for _ in range(3))
        self._breath = random.choice([0.0, 0.1])
        grain = random.integers(-16, 17, (3, 1 << 18), dtype=np.int16).sum(axis=0, dtype=np.int16)
        self._grain = grain.astype(np.float32) * np.float32(random.uniform(0.02, 0.25))
        self._grain_starts = random.integers(0, len(grain), 4096)

    def expose(self, canvas: Canvas, time_s: float, index: int) -> npt.NDArray[np.uint8]:
        """Takes the picture out of the canvas as frame `index` at `time_s`: uint8 [height, width]."""
        left, top = (
            MARGIN + round(self._shake * (2 * _level(path, time_s) - 1)) for path in (self._across, self._down)
        )
        height, width = canvas.shape[0] - 2 * MARGIN, canvas.shape[1] - 2 * MARGIN
        picture = canvas[top : top + height, left : left + width]
        picture = picture * np.float32(1 + self._breath * (_level(self._light, time_s) - 0.5))
        start = self._grain_starts[index % len(self._grain_starts)] % (len(self._grain) - picture.size)
        picture += self._grain[start : start + picture.size].reshape(picture.shape)
        return np.minimum(np.maximum(picture + np.float32(0.5), 0), 255).astype(np.uint8)
