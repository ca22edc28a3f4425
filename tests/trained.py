"""Small models that are really trained, on the world of tests/watched.py: what moves is loud, a flash is a hit."""

from pathlib import Path

import ffmpeg as graphs
import numpy as np

from soundback.media import ffmpeg
from soundback.params import Classifier, Params, Spotter, load_params
from stages.train_classifier import train_classifier
from stages.train_spotter import train_spotter
from stages.train_wavenet import train_wavenet
from tests import watched

FLASH, LEVEL = 50, 60


def small_params() -> Params:
    """Of what `train_models` trains."""
    whole = load_params()
    spotter = Spotter(
        picture_size=32, channels=(8, 16, 16), hidden=32, context_s=1.0, sees="both", crop_frames=48, double_speed=0.2,
        exposure=0.4, steps=200, max_minutes=5, batch_size=4, learning_rate=0.003, patience=99, seed=0,
    )  # fmt: skip
    classifier = Classifier(
        architecture="residual", picture_size=32, channels=(8, 16), unsure_below=0.5, odd_share=0.005,
        steps=200, max_minutes=5, batch_size=16, learning_rate=0.004, patience=99, seed=0,
    )  # fmt: skip
    small = {"layers": 8, "cycles": 1, "residual_channels": 16, "gate_channels": 16, "skip_channels": 32}
    budget = {"cue_channels": 16, "crop_frames": 4, "steps": 200, "batch_size": 4, "ema_decay": 0.95}
    wavenet = whole.wavenet.model_copy(update=small | budget | {"learning_rate": 0.008})
    return whole.model_copy(
        update={
            "labels": dict(watched.LABELS),
            "audio": whole.audio.model_copy(update={"sample_rate": watched.SAMPLE_RATE}),
            "frames": whole.frames.model_copy(update={"size": watched.SIZE, "frame_rate": watched.FRAME_RATE}),
            "spotter": spotter,
            "classifier": classifier,
            "wavenet": wavenet,
        }
    )


def train_models(root: Path) -> Path:
    """Makes a dataset, trains, and returns the folder of the models."""
    params = small_params()
    watched.write_dataset(root, n_train=10, n_validation=4)
    models, duplicates = root / "models", root / "duplicates.parquet"
    train_spotter(
        root / "frames", root / "audio", duplicates, models / "spotter.keras", root / "spotter.json", root / "s",
        params=params.spotter, stored=params.frames, sound=params.audio, cues=params.cues, labels=params.labels,
    )  # fmt: skip
    train_classifier(
        root / "frames", duplicates, models / "classifier.keras", root / "classifier.json", root / "c",
        params=params.classifier, stored=params.frames, labels=params.labels,
    )  # fmt: skip
    train_wavenet(
        root / "audio", duplicates, models / "wavenet.keras", root / "wavenet.json", root / "w",
        params=params.wavenet, sound=params.audio, stored=params.frames, cues=params.cues, labels=list(params.labels),
    )  # fmt: skip
    return models


def write_flashing_disc(path: Path, flashes_s: list[float], *, duration_s: float, rate: tuple[int, int]) -> Path:
    """A disc that stays where it is, in a picture that flashes; without sound.

    Args:
      path: .mp4 to write.
      flashes_s: when, in seconds; a flash lasts a fifteenth of a second.
      duration_s: seconds.
      rate: pictures per second, as a fraction.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: watched.SIZE, : watched.SIZE] + 0.5 - watched.SIZE / 2
    disc = np.where(x**2 + y**2 < 64, 200, LEVEL)
    grain = [rng.normal(0, 3, disc.shape) for _ in range(16)]

    def pictures():
        for k in range(round(duration_s * rate[0] / rate[1])):
            time_s = k * rate[1] / rate[0]
            lit = any(-1e-3 <= time_s - flash_s < 1 / 15 - 1e-3 for flash_s in flashes_s)
            yield np.clip(disc + FLASH * lit + grain[k % 16], 0, 255).astype(np.uint8).tobytes()

    picture = graphs.input(
        "pipe:", format="rawvideo", pix_fmt="gray", s=f"{watched.SIZE}x{watched.SIZE}", framerate=f"{rate[0]}/{rate[1]}"
    )
    options = {"c:v": "libx264", "preset": "ultrafast", "qp": 10, "pix_fmt": "yuv420p", "g": 250}
    ffmpeg.run(picture.output(f"file:{path}", **options), feed=pictures())
    return path


def ring(times_s: list[float], *, duration_s: float) -> np.ndarray:
    """The sound that such flashes have in that world: float32 [time]."""
    waveform = np.zeros(round(duration_s * watched.SAMPLE_RATE), np.float32)
    burst = np.exp(-np.arange(4 * watched.HOP) / 150) * np.sin(np.arange(4 * watched.HOP) * 0.8) * 0.7
    for time_s in times_s:
        start = round(time_s * watched.SAMPLE_RATE)
        waveform[start : start + len(burst)] += burst[: len(waveform) - start]
    noise = np.random.default_rng(1).normal(0, watched.QUIET, len(waveform))
    return (waveform + noise).astype(np.float32)
