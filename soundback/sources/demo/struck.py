"""Things that sound when they are struck: a basketball, a drum, a bell. How they move, look and sound."""

from bisect import bisect_right

import numpy as np

from soundback.sources.demo.drawing import (
    Canvas,
    Patch,
    Signal,
    cover,
    direction,
    ellipse,
    ellipse_distance,
    rod,
    smooth,
)
from soundback.sources.demo.sounds import Partial, add_at, burst, struck
from soundback.sources.demo.surroundings import MARGIN, Shot

SHORT_GAP_S, LONG_GAP_S = (0.34, 0.52), (0.6, 1.0)
"""Seconds between blows: one kind or the other by chance, so that no rhythm can be guessed."""


class Blows:
    """When a thing is struck, and how hard.

    Attributes:
      times_s: seconds, ascending; some lie before and after the video, so that motion and sound are under way there.
      strengths: 0.3 to 1 each.
    """

    def __init__(self, random: np.random.Generator, duration_s: float) -> None:
        n_blows = 4 + int((duration_s + 4) / SHORT_GAP_S[0])
        gaps = np.where(
            random.random(n_blows) < 0.45, random.uniform(*SHORT_GAP_S, n_blows), random.uniform(*LONG_GAP_S, n_blows)
        )
        times = np.cumsum(gaps) - 2.0
        n_needed = int(np.searchsorted(times, duration_s + 1.0)) + 1
        self.gaps_s: list[float] = gaps[:n_needed].tolist()
        self.times_s: list[float] = times[:n_needed].tolist()
        self.strengths: list[float] = random.uniform(0.3, 1.0, n_needed).tolist()

    def around(self, time_s: float) -> tuple[int, float]:
        """The number of the last blow, and how much (0 to 1) of the way to the next has passed."""
        last = min(max(bisect_right(self.times_s, time_s) - 1, 0), len(self.times_s) - 2)
        return last, (time_s - self.times_s[last]) / self.gaps_s[last + 1]

    def seen_in(self, duration_s: float) -> Signal:
        """The times within the video, float64 [n] in seconds."""
        return np.array([time for time in self.times_s if 0 <= time < duration_s])


class Basketball:
    """A ball with seams that bounces on the ground; the higher the fall, the louder."""

    CONTACT_S = 0.05

    def __init__(self, shot: Shot) -> None:
        random = shot.chance("thing")
        self._size = random.uniform(0.1, 0.16)
        self._radius = shot.height * self._size
        self._ground = shot.height * random.uniform(0.78, 0.95)
        # Height of a flight of a second; shorter ones follow by gravity.
        self._height = (self._ground - 2.4 * self._radius) * random.uniform(0.75, 1.0)
        self.blows = Blows(random, shot.duration_s)
        self.blows.strengths = [gap / LONG_GAP_S[1] for gap in self.blows.gaps_s]
        edge = MARGIN + 1.3 * self._radius
        steps = np.cumsum(random.uniform(-0.16, 0.16, len(self.blows.times_s))) + random.random()
        # Folded at the edges of the picture, so that the ball turns back there.
        self._places: list[float] = (edge + (shot.width - 2 * edge) * np.abs((steps % 2) - 1)).tolist()
        self.x = self._places[len(self._places) // 2]
        self._spins: list[float] = np.cumsum(random.uniform(-2, 2, len(self.blows.times_s))).tolist()
        self._tone = shot.tone(random, (40, 85))
        self._seam = self._tone + random.uniform(50, 80) * (-1 if self._tone > shot.backdrop else 1)
        self._shadow = shot.backdrop - random.uniform(15, 40)

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        last, way = self.blows.around(time_s)
        gap = self.blows.gaps_s[last + 1]
        touching = min((time_s - self.blows.times_s[last]) / self.CONTACT_S, 1.0)
        squash = 0.9 * self.blows.strengths[last] * touching * (1 - touching)
        flight = max(time_s - self.blows.times_s[last] - self.CONTACT_S, 0) / (gap - self.CONTACT_S)
        height = 4 * self._height * gap * gap * flight * (1 - flight)
        x = self._places[last] + way * (self._places[last + 1] - self._places[last])
        radii = (self._radius * (1 + squash / 2), self._radius * (1 - squash))
        near = 1 / (1 + height / self._radius)
        ellipse(canvas, (x, self._ground), (self._radius * (0.5 + 0.6 * near), self._radius * 0.16), self._shadow)
        spin = self._spins[last] + way * (self._spins[last + 1] - self._spins[last])
        self._draw_ball(Patch(canvas, x, self._ground - radii[1] - height, radii), radii, spin)

    def _draw_ball(self, patch: Patch, radii: tuple[float, float], spin: float) -> None:
        cosine, sine = direction(spin)
        x, y = patch.x / radii[0], patch.y / radii[1]
        u, v = x * cosine + y * sine, y * cosine - x * sine
        seams = np.minimum(np.abs(u), np.abs(v))
        for side in (-1.3, 1.3):
            bow = np.sqrt((u - side) * (u - side) + v * v)
            seams = np.minimum(seams, np.abs(bow - 0.88))
        shade = self._tone * (1 - 0.18 * (x * 0.5 + y))
        inside = cover(ellipse_distance(patch, radii))
        patch.paint(inside, shade)
        patch.paint(inside * cover((seams - 0.065) * self._radius), self._seam)

    def sound(self, random: np.random.Generator, n_samples: int, sample_rate: int) -> Signal:
        """What it sounds like: float64 [n_samples]."""
        pitch = 200 * (0.1 / self._size) ** 1.9
        waveform = np.zeros(n_samples)
        partials = (Partial(pitch, 1, 0.07), Partial(pitch * 1.9, 0.35, 0.045), Partial(pitch * 3.1, 0.15, 0.03))
        thud = struck(partials, sample_rate=sample_rate, glide=0.6)
        for time_s, strength in zip(self.blows.times_s, self.blows.strengths, strict=True):
            slap = burst(random, sample_rate=sample_rate, decay_s=0.006, smoothing=12)
            add_at(waveform, 0.6 * strength * thud, time_s, sample_rate)
            add_at(waveform, 0.22 * strength * slap, time_s, sample_rate)
        return waveform


class Drum:
    """A laced drum beaten with one stick or two; the higher a stick is lifted, the louder."""

    def __init__(self, shot: Shot) -> None:
        random = shot.chance("thing")
        self._size = random.uniform(0.16, 0.3)
        self._half = shot.height * self._size
        self._depth = self._half * random.uniform(0.9, 1.6)
        self._head = self._half * random.uniform(0.26, 0.4)
        self.x = MARGIN + self._half + (shot.width - 2 * MARGIN - 2 * self._half) * random.random()
        lowest = shot.height - MARGIN - self._depth - self._head
        self._y = min(shot.height * random.uniform(0.42, 0.62), lowest)
        self._n_sticks = int(random.integers(1, 3))
        self._stick = shot.height * random.uniform(0.3, 0.42)
        self.blows = Blows(random, shot.duration_s)
        self._body = shot.tone(random, (35, 75))
        away = 1 if self._body > shot.backdrop else -1
        self._skin = self._body + away * random.uniform(20, 40) * (1 if random.random() < 0.5 else -2.5)
        self._lace = self._body - away * random.uniform(45, 70)
        self._wood = shot.tone(random, (60, 100))

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        self._draw_body(canvas)
        last, way = self.blows.around(time_s)
        ringing = max(1 - (time_s - self.blows.times_s[last]) / 0.16, 0) * self.blows.strengths[last]
        patch = Patch(canvas, self.x, self._y, (self._half, self._head))
        distance = ellipse_distance(patch, (self._half, self._head))
        patch.paint(cover(distance), self._skin)
        # The skin trembles: a ring runs outwards and fades.
        ring = np.abs(distance + self._head * (0.25 + 0.75 * ringing)) - 1.5
        patch.paint(cover(ring) * min(2 * ringing, 1.0), self._lace)
        patch.paint(cover(np.abs(distance) - 1.6), self._lace)
        for stick in range(self._n_sticks):
            self._draw_stick(canvas, stick, last, way)

    def _draw_body(self, canvas: Canvas) -> None:
        patch = Patch(canvas, self.x, self._y + self._depth / 2, (self._half, self._depth / 2 + self._head))
        u = patch.x / self._half
        # Top and bottom of the barrel bulge as the rims do.
        rim = self._head * np.sqrt(np.maximum(1 - u * u, 0))
        inside = np.maximum(np.abs(patch.x) - self._half, patch.y - self._depth / 2 - rim)
        inside = cover(np.maximum(inside, -patch.y - self._depth / 2))
        patch.paint(inside, self._body * (1 - 0.2 * u))
        zigzag = np.abs((u * 2.5 + 20) % 1 - 0.5) * 2
        along = (patch.y + self._depth / 2 - rim) / self._depth
        patch.paint(inside * cover((np.abs(along - zigzag) - 0.06) * self._half * 0.4), self._lace)
        patch.paint(inside * cover(np.abs(along - 0.97) * self._depth - 1.6), self._lace)

    def _draw_stick(self, canvas: Canvas, stick: int, last: int, way: float) -> None:
        side = -1 if stick == 0 else 1
        beats = (last + 1) % self._n_sticks == stick
        # Lifted slowly, brought down fast; a stick whose turn it is not hovers.
        lift = smooth(way / 0.6) if way < 0.6 else 1 - ((way - 0.6) / 0.4) ** 2
        lift = lift * self.blows.strengths[last + 1] if beats else 0.12 * smooth(way * 2)
        tip = (self.x + side * self._half * 0.3, self._y - 3 - lift * self._stick * 0.9)
        hand = (tip[0] + side * self._stick * 0.85, tip[1] - self._stick * (0.35 - 0.3 * lift))
        rod(canvas, tip, hand, 2.2, self._wood)
        ellipse(canvas, tip, (5.0, 4.2), self._wood)

    def sound(self, random: np.random.Generator, n_samples: int, sample_rate: int) -> Signal:
        """What it sounds like: float64 [n_samples]."""
        pitch = 400 * (0.16 / self._size) ** 1.5
        levels = ((1, 1, 0.16), (1.59, 0.6, 0.12), (2.14, 0.45, 0.09), (2.65, 0.3, 0.07), (3.16, 0.2, 0.05))
        partials = [Partial(pitch * ratio, level, decay) for ratio, level, decay in levels]
        boom = struck(partials, sample_rate=sample_rate, glide=0.08)
        waveform = np.zeros(n_samples)
        for time_s, strength in zip(self.blows.times_s, self.blows.strengths, strict=True):
            rattle = burst(random, sample_rate=sample_rate, decay_s=0.03, smoothing=8)
            add_at(waveform, 0.35 * strength * boom, time_s, sample_rate)
            add_at(waveform, 0.2 * strength * rattle, time_s, sample_rate)
        return waveform


class Bell:
    """A bell that swings; where it turns back, the clapper hits the rim. The wider it swings, the louder."""

    def __init__(self, shot: Shot) -> None:
        random = shot.chance("thing")
        self._size = shot.height * random.uniform(0.36, 0.62)
        self._height = shot.height
        reach = 0.75 * self._size
        self.x = MARGIN + reach + (shot.width - 2 * MARGIN - 2 * reach) * random.random()
        self._y = shot.height * random.uniform(0.06, 0.9 - self._size * 1.2 / shot.height)
        self.blows = Blows(random, shot.duration_s)
        self._swing = random.uniform(0.5, 0.75)
        self._tone = shot.tone(random, (40, 85))
        away = 1 if self._tone > shot.backdrop else -1
        self._band = self._tone - away * random.uniform(40, 65)
        self._beam = shot.tone(random, (40, 80))

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        last, way = self.blows.around(time_s)
        side = 1 if last % 2 else -1
        # From rest at one end, ever faster, to a sudden stop at the other: the blow.
        start, end = side * self.blows.strengths[last], -side * self.blows.strengths[last + 1]
        tilt = self._swing * (start + (end - start) * way * way)
        loose = side * (1 - 2 * smooth((way - 0.55) / 0.45))
        rod(canvas, (self.x - self._size * 0.4, self._y), (self.x + self._size * 0.4, self._y), 4.0, self._beam)
        cosine, sine = direction(tilt)
        self._draw_clapper(canvas, direction(tilt + 0.3 * loose))
        reach = self._size * 1.25
        patch = Patch(canvas, self.x, self._y, (reach, reach))
        u = (patch.x * cosine - patch.y * sine) / self._size
        v = (patch.x * sine + patch.y * cosine) / self._size
        self._draw_bell(patch, u, v)

    def _draw_clapper(self, canvas: Canvas, towards: tuple[float, float]) -> None:
        end = (self.x + self._size * 1.12 * towards[1], self._y + self._size * 1.12 * towards[0])
        rod(canvas, (self.x, self._y), end, 2.0, self._band)
        ellipse(canvas, end, (self._size * 0.085, self._size * 0.085), self._band)

    def _draw_bell(self, patch: Patch, u: Canvas, v: Canvas) -> None:
        # The profile: a dome, a waist, a flaring lip.
        fall = np.minimum(np.maximum(v - 0.08, 0), 1)
        dome = np.sqrt(np.minimum(fall * 4, 1))
        flare = fall * fall * fall
        profile = dome * (0.24 + 0.1 * fall + 0.2 * flare * fall)
        inside = cover(np.maximum(np.abs(u) - profile, np.maximum(0.06 - v, v - 1.02)) * self._size)
        patch.paint(inside, self._tone * (1 - 0.5 * u))
        for height, thickness in ((0.3, 0.015), (0.8, 0.02), (0.99, 0.035)):
            patch.paint(inside * cover((np.abs(v - height) - thickness) * self._size), self._band)

    def sound(self, random: np.random.Generator, n_samples: int, sample_rate: int) -> Signal:
        """What it sounds like: float64 [n_samples]."""
        pitch = 1500 * (0.36 * self._height / self._size) ** 1.6
        levels = (
            (0.5, 0.25, 0.4),
            (1, 1, 0.34),
            (1.19, 0.5, 0.26),
            (1.506, 0.3, 0.2),
            (2, 0.4, 0.15),
            (2.63, 0.2, 0.1),
        )
        partials = [Partial(pitch * ratio, level, decay) for ratio, level, decay in levels]
        tone = struck(partials, sample_rate=sample_rate)
        waveform = np.zeros(n_samples)
        for time_s, strength in zip(self.blows.times_s, self.blows.strengths, strict=True):
            add_at(waveform, 0.3 * strength * tone, time_s, sample_rate)
        return waveform
