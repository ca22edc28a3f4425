"""Things that sound as long as they move: rain, a waterfall, an engine. Their force is seen and heard."""

import numpy as np

from soundback.sources.demo.drawing import (
    Canvas,
    Patch,
    Signal,
    box,
    cloth,
    cover,
    direction,
    ellipse,
    level_at,
    rod,
    wander,
)
from soundback.sources.demo.sounds import buzz, shaped_noise
from soundback.sources.demo.surroundings import MARGIN, Shot

RANGE_DB = 18.0
"""Between the weakest and the strongest moment of a flowing thing."""
PACE_S = (0.7, 1.5)
"""Seconds in which its force goes from one level to another."""
GRID_RATE = 200
"""Per second; between these points the force is interpolated linearly."""


class Force:
    """How strongly a thing flows over time: 0 at its weakest, 1 at its strongest."""

    def __init__(self, random: np.random.Generator, duration_s: float) -> None:
        self._times = np.arange(int(duration_s * GRID_RATE) + 2) / GRID_RATE
        self._levels = level_at(wander(random, duration_s, PACE_S), self._times)
        self._amplitudes = np.round(10 ** ((self._levels - 1) * RANGE_DB / 20), 9)
        # What has gone by so far, for things that move faster under more force.
        self._travels = np.cumsum(self._levels) / GRID_RATE

    def level(self, time_s: float) -> float:
        """From 0 to 1."""
        return float(np.interp(time_s, self._times, self._levels))

    def amplitude(self, time_s: float) -> float:
        """What the sound's amplitude is multiplied with: 1 at the strongest, `RANGE_DB` less at the weakest."""
        return float(np.interp(time_s, self._times, self._amplitudes))

    def travel(self, time_s: float) -> float:
        """The integral of `level` since the start, in seconds."""
        return float(np.interp(time_s, self._times, self._travels))

    def over(self, n_samples: int, sample_rate: int) -> tuple[Signal, Signal]:
        """Level and amplitude at each sample, float64 [n_samples] both."""
        times = np.arange(n_samples) / sample_rate
        return np.interp(times, self._times, self._levels), np.interp(times, self._times, self._amplitudes)


class Rain:
    """Drops falling through the whole picture; the more of them, the louder."""

    N_DROPS = 340

    def __init__(self, shot: Shot) -> None:
        random = shot.chance("thing")
        self.x = shot.width * random.random()
        self._force = Force(random, shot.duration_s)
        self._speed = shot.height * random.uniform(1.3, 2.6) * random.uniform(0.8, 1.2, self.N_DROPS)
        self._starts = shot.height * 2 * random.random(self.N_DROPS)
        self._places = random.integers(-40, shot.width + 40, 4096)
        self._slant = random.uniform(-0.3, 0.3)
        self._length = int(shot.height * random.uniform(0.07, 0.13))
        self._tone = shot.tone(random, (55, 95))
        self._opacity = random.uniform(0.5, 1.0, self.N_DROPS).astype(np.float32)
        self._ground = int(shot.height * random.uniform(0.75, 0.9))
        self._brightness = random.uniform(2000, 6000)

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        n_drops = round(self.N_DROPS * self._force.amplitude(time_s))
        height, width = canvas.shape
        span = height + self._length
        fallen = self._starts[:n_drops] + self._speed[:n_drops] * time_s
        laps = (fallen / span).astype(np.int64)
        heads = fallen - laps * span
        places = self._places[(np.arange(n_drops) * 17 + laps * 131) % len(self._places)]
        along = np.arange(-self._length, 0)
        rows = (heads[:, None] + along).astype(np.int64)
        columns = (places[:, None] + self._slant * rows).astype(np.int64)
        seen = (heads[:, None] + along >= 0) & (rows < height) & (columns >= 0) & (columns < width - 1)
        opacity = np.broadcast_to(self._opacity[:n_drops, None], rows.shape)[seen]
        rows, columns = rows[seen], columns[seen]
        for step in (0, 1):
            canvas[rows, columns + step] += opacity * (self._tone - canvas[rows, columns + step])
        self._draw_splashes(canvas, n_drops // 2, int(time_s * 20))

    def _draw_splashes(self, canvas: Canvas, n_splashes: int, moment: int) -> None:
        height, width = canvas.shape
        numbers = np.arange(n_splashes) * 2 + moment * 977
        columns = self._places[numbers % len(self._places)] % (width - 5)
        rows = self._ground + self._places[(numbers + 1) % len(self._places)] % (height - 2 - self._ground)
        for across, down in ((0, 0), (1, 1), (2, 1), (3, 1), (4, 0)):
            canvas[rows + down, columns + across] = self._tone

    def sound(self, random: np.random.Generator, n_samples: int, sample_rate: int) -> Signal:
        """What it sounds like: float64 [n_samples]."""
        noise = shaped_noise(random, n_samples, sample_rate, self._response)
        return noise * self._force.over(n_samples, sample_rate)[1]

    def _response(self, frequencies: Signal) -> Signal:
        high_pass = 1 / (1 + (1600 / np.maximum(frequencies, 1)) ** 4)
        return high_pass / (1 + (frequencies / self._brightness) ** 2)


class Waterfall:
    """Water falling in a band between rocks; the wider, faster and brighter, the louder."""

    def __init__(self, shot: Shot) -> None:
        random = shot.chance("thing")
        self._half = shot.width * random.uniform(0.11, 0.2)
        self.x = MARGIN + self._half * 1.3 + (shot.width - 2 * (MARGIN + self._half * 1.3)) * random.random()
        self._top = int(shot.height * random.uniform(0.0, 0.25))
        self._bottom = int(shot.height * random.uniform(0.78, 0.95))
        self._force = Force(random, shot.duration_s)
        height, width = self._bottom - self._top, int(self._half * 3)
        self._water = cloth(random, (2 * height, width), (random.uniform(14, 30), random.uniform(2.0, 3.5)))
        ragged = cloth(random, (height, 2), (26, 1.0)) + 0.3 * cloth(random, (height, 2), (7, 1.0))
        self._edges = (ragged - np.float32(0.65)) * np.float32(0.22 * self._half)
        self._speed = shot.height * random.uniform(0.5, 0.9)
        bright = 1 if random.random() < 0.85 else -1
        self._tone = min(max(shot.backdrop + bright * random.uniform(25, 60), 45), 210)
        self._contrast = random.uniform(80, 120)
        self._foam = random.uniform(-1, 1, (997, 2))
        self._corner = 420 - 200 * height / shot.height

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        level, height = self._force.level(time_s), self._bottom - self._top
        patch = Patch(canvas, self.x, self._top + height / 2, (self._half * 1.4, height / 2 - 2))
        rows, columns = patch.view.shape
        start = int(height - (self._speed * (0.4 * time_s + 1.2 * self._force.travel(time_s))) % height)
        water = self._water[start : start + rows, :columns]
        half = self._half * (0.45 + 0.55 * level)
        inside = cover(np.abs(patch.x + self._edges[:rows, :1]) - half + self._edges[:rows, 1:])
        patch.paint(inside, self._tone + (water - 0.5) * (self._contrast * (0.4 + 0.6 * level)))
        self._draw_foam(canvas, half, level, int(time_s * 15))

    def _draw_foam(self, canvas: Canvas, half: float, level: float, moment: int) -> None:
        n_flakes = 8 + round(16 * level)
        for flake in range(n_flakes):
            across, down = self._foam[(moment * 31 + flake) % len(self._foam)].tolist()
            centre = (self.x + 1.3 * half * across, self._bottom - 4 + 8 * down)
            ellipse(canvas, centre, (5 + 7 * level, 4 + 4 * level), self._tone + self._contrast * 0.4 * down)

    def sound(self, random: np.random.Generator, n_samples: int, sample_rate: int) -> Signal:
        """What it sounds like: float64 [n_samples]."""
        noise = shaped_noise(random, n_samples, sample_rate, self._response)
        return noise * self._force.over(n_samples, sample_rate)[1]

    def _response(self, frequencies: Signal) -> Signal:
        return (frequencies > 60) / (1 + (frequencies / self._corner) ** 2)


class Engine:
    """A block with fins, a flywheel, a rod and exhaust; the faster it turns and shakes, the louder."""

    N_SPOKES = 5

    def __init__(self, shot: Shot) -> None:
        random = shot.chance("thing")
        self._size = random.uniform(0.14, 0.23)
        self._radius = shot.height * self._size
        self._side = 1 if random.random() < 0.5 else -1
        reach = 2.3 * self._radius
        self.x = MARGIN + reach + (shot.width - 2 * MARGIN - 2 * reach) * random.random()
        self._y = shot.height * random.uniform(0.5, 0.72)
        self._force = Force(random, shot.duration_s)
        self._turn = random.random() * 6
        self._body, self._wheel = shot.tone(random, (35, 75)), shot.tone(random, (45, 85))
        self._fin = self._body + random.uniform(40, 65) * (1 if self._body < shot.backdrop else -1)
        self._smoke = shot.tone(random, (20, 40))
        self._shakes = random.uniform(-1, 1, (997, 2))
        self._levels: list[float] = (random.uniform(0.4, 1, 14) / np.arange(1, 15) ** 0.7).tolist()

    def draw(self, canvas: Canvas, time_s: float) -> None:
        """Paints it as it is at `time_s`."""
        level = self._force.level(time_s)
        across, down = self._shakes[int(time_s * 60) % len(self._shakes)].tolist()
        shake = 0.2 + 0.04 * self._radius * level * level
        x, y, radius = self.x + shake * across, self._y + shake * down, self._radius
        self._draw_exhaust(canvas, x + self._side * radius * 1.2, y - radius * 1.25, level, time_s)
        block = (x + self._side * radius * 0.9, y - radius * 0.1)
        box(canvas, block, (radius * 1.1, radius * 0.85), self._body)
        for fin in range(6):
            centre = (block[0] + self._side * radius * 0.35, block[1] + radius * (fin * 0.28 - 0.7))
            box(canvas, centre, (radius * 0.85, max(radius * 0.05, 1.3)), self._fin)
        self._draw_wheel(canvas, x - self._side * radius * 0.8, y, time_s)

    def _draw_exhaust(self, canvas: Canvas, x: float, y: float, level: float, time_s: float) -> None:
        rod(canvas, (x, y), (x, y + self._radius * 0.5), self._radius * 0.12, self._fin)
        for puff in range(5):
            way = (self._force.travel(time_s) * 0.9 + time_s * 0.3 + puff / 5) % 1
            size = self._radius * (0.1 + 0.3 * way) * (0.4 + 0.6 * level)
            centre = (x + self._side * self._radius * 0.5 * way, y - self._radius * 1.5 * way)
            patch = Patch(canvas, *centre, (size, size))
            inside = cover(np.sqrt(patch.x * patch.x + patch.y * patch.y) - size)
            patch.paint(inside * (0.8 * (1 - way)), self._smoke)

    def _draw_wheel(self, canvas: Canvas, x: float, y: float, time_s: float) -> None:
        turns = self._turn + 0.3 * time_s + 1.5 * self._force.travel(time_s)
        patch, radius = Patch(canvas, x, y, (self._radius, self._radius)), self._radius
        distance = np.sqrt(patch.x * patch.x + patch.y * patch.y)
        patch.paint(cover(np.abs(distance - radius * 0.88) - radius * 0.12), self._wheel)
        patch.paint(cover(distance - radius * 0.2), self._wheel)
        for spoke in range(self.N_SPOKES):
            cosine, sine = direction(6.283185 * (turns + spoke / self.N_SPOKES))
            tip = (x + 0.85 * radius * cosine, y + 0.85 * radius * sine)
            rod(canvas, (x, y), tip, radius * 0.07, self._wheel)
        cosine, sine = direction(6.283185 * turns)
        pin = (x + 0.6 * radius * cosine, y + 0.6 * radius * sine)
        piston = (x + self._side * radius * (2.0 + 0.3 * cosine), y - radius * 0.1)
        rod(canvas, pin, piston, radius * 0.08, self._fin)

    def sound(self, random: np.random.Generator, n_samples: int, sample_rate: int) -> Signal:
        """What it sounds like: float64 [n_samples]."""
        level, amplitude = self._force.over(n_samples, sample_rate)
        pitch = 105 - 43 * (self._size - 0.14) / 0.09
        tone = buzz(pitch * (0.75 + 0.5 * level), self._levels, sample_rate)
        hiss = shaped_noise(random, n_samples, sample_rate, lambda frequencies: 1 / (1 + (frequencies / 1500) ** 2))
        return (tone + 0.12 * hiss) * amplitude
