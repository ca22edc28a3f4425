"""What pictures mean to a spotter that learnt in a small world: lamps hum as they shine, a box moves silently."""

import numpy as np
import pytest
import soundfile

from soundback import schemas
from soundback.params import Spotter, load_params
from soundback.watching.spotter import Spotter as Watcher
from stages.train_spotter import train_spotter
from tests import watched

LABELS = {"lamp": "Lamp", "lantern": "Lantern"}
PARAMS = Spotter(
    picture_size=32, channels=(8, 16, 16), hidden=32, context_s=1.0, sees="both", crop_frames=48, double_speed=0.3,
    exposure=0.5, steps=500, max_minutes=5, batch_size=4, learning_rate=0.004, patience=99, seed=0,
)  # fmt: skip
N_FRAMES = 125
SILENT_BOX_SHARE = 0.5


class Lamp:
    """A disc before a textured wall; its brightness is seen and heard. A box may move beside it without a sound."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([91, seed])
        knots = rng.uniform(0, 1, 9)
        self.level = np.interp(np.linspace(0, 8, N_FRAMES), np.arange(9), knots)
        self._wall = rng.uniform(60, 120) + rng.normal(0, 8, (watched.SIZE, watched.SIZE))
        self._place, self._radius = rng.uniform(10, 22, 2), rng.uniform(5, 8)
        self._tone, self._boxed = rng.uniform(40, 160), rng.random() < SILENT_BOX_SHARE
        self._box_height, self._box_speed = rng.uniform(2, 26), rng.choice([-1, 1]) * rng.uniform(0.3, 1.5)
        self._seed = seed

    def frames(self, *, box: bool | None = None) -> np.ndarray:
        """Float [N_FRAMES, SIZE, SIZE] in gray levels; with or without the silent box, or as it was drawn."""
        rng = np.random.default_rng([92, self._seed])
        y, x = np.mgrid[: watched.SIZE, : watched.SIZE] + 0.5
        inside = (x - self._place[0]) ** 2 + (y - self._place[1]) ** 2 < self._radius**2
        frames = []
        for number, level in enumerate(self.level):
            frame = self._wall.copy()
            if self._boxed if box is None else box:
                away = (x - 7 - self._box_speed * number) % watched.SIZE
                frame[(away < 7) & (abs(y - self._box_height) < 4)] = self._tone
            frame[inside] = 40 + 200 * level
            frames.append(frame + rng.normal(0, 2, frame.shape))
        return np.stack(frames)

    def loudness_db(self) -> np.ndarray:
        """What is heard at each frame, in dB above the quietest."""
        return 24 * self.level

    def waveform(self) -> np.ndarray:
        rng = np.random.default_rng([93, self._seed])
        amplitude = np.repeat(0.2 * 10 ** ((self.level - 1) * 24 / 20), watched.HOP)
        return (rng.normal(0, 1, len(amplitude)) * amplitude).clip(-1, 1).astype(np.float32)


def film(frames: np.ndarray) -> np.ndarray:
    return np.clip(frames, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def watcher(tmp_path_factory) -> Watcher:
    root = tmp_path_factory.mktemp("lamps")
    for place, (slug, label) in enumerate(LABELS.items()):
        clips, rows = [], []
        (root / "audio" / slug).mkdir(parents=True)
        for number in range(30):
            lamp = Lamp(100 * place + number)
            video_id, split = f"{slug}{number:03d}", "train" if number < 25 else "validation"
            clips.append((video_id, label, split, film(lamp.frames())))
            waveform = lamp.waveform()
            soundfile.write(root / "audio" / slug / f"{video_id}_00.wav", waveform, watched.SAMPLE_RATE)
            rows.append(watched.audio_row(video_id, label, split, len(waveform)))
        watched.write_frames(clips, root / "frames" / slug)
        schemas.write_table(rows, schemas.AUDIO, root / "audio" / slug / "audio.parquet")
    watched.write_duplicates(root)
    given = load_params()
    train_spotter(
        root / "frames", root / "audio", root / "duplicates.parquet",
        root / "spotter.keras", root / "spotter.json", root / "plots",
        params=PARAMS, stored=given.frames.model_copy(update={"size": watched.SIZE}),
        sound=given.audio.model_copy(update={"sample_rate": watched.SAMPLE_RATE}), cues=given.cues, labels=LABELS,
    )  # fmt: skip
    return Watcher.load(root / "spotter.keras")


STRANGERS = [Lamp(seed) for seed in range(1000, 1012)]


def seen_db(watcher: Watcher, frames: np.ndarray) -> np.ndarray:
    return watcher.predict([film(frames)])[0]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def test_a_brightening_that_carries_sound_is_followed(watcher):
    followed = [correlation(seen_db(watcher, lamp.frames()), lamp.loudness_db()) for lamp in STRANGERS]
    assert np.mean(followed) > 0.9


def test_a_mere_change_of_exposure_is_not(watcher):
    times = np.linspace(0, 1, N_FRAMES)
    gains = {"swing": 1 + 0.25 * np.sin(4 * np.pi * times), "step": np.where(times < 0.5, 0.8, 1.2)}
    for name, gain in gains.items():
        moved, followed = [], []
        for lamp in STRANGERS:
            plain, changed = lamp.frames(), lamp.frames() * gain[:, None, None]
            moved.append(np.abs(seen_db(watcher, changed) - seen_db(watcher, plain)).mean())
            followed.append(correlation(seen_db(watcher, changed), lamp.loudness_db()))
        # The lamps' own range is 24 dB.
        assert np.mean(moved) < 2.5, name
        assert np.mean(followed) > 0.8, name


def test_at_double_speed_loudness_comes_and_goes_twice_as_fast(watcher):
    followed = [correlation(seen_db(watcher, lamp.frames()[::2]), lamp.loudness_db()[::2]) for lamp in STRANGERS]
    assert np.mean(followed) > 0.85


def test_what_moves_without_a_sound_does_not_raise_the_loudness(watcher):
    rises = [
        (seen_db(watcher, lamp.frames(box=True)) - seen_db(watcher, lamp.frames(box=False))).mean()
        for lamp in STRANGERS
    ]
    assert np.mean(rises) < 1.0
