"""What each thing that the spotter sees is worth: the same task with less to see, measured on the test split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.ndimage import uniform_filter1d
from sklearn.linear_model import LinearRegression

from soundback import cues, dataset, training
from soundback.cues import Hearing
from soundback.dataset import FrameShards
from soundback.errors import ParamsError
from soundback.media.shards import read_row_group
from soundback.params import Frames
from soundback.params import Spotter as SpotterParams
from soundback.progress import Progress, no_progress
from soundback.watching import frames
from soundback.watching.spotter import Spotter
from soundback.watching.spotter_teaching import choose_threshold, hear, measure, train_spotter

FITTED = ("mean", "energy")
TRAINED = {"appearance": 0.25, "change": 1.0, "both": 1.0}
"""What `params.Spotter.sees` may say, and the share of the learning rate with which it is taught. At the whole rate of
the demo, pictures alone leave 7 of a frame's 96 features alive, and the network says one loudness for all clips; that
would show what the rate is worth, not the pictures. At a quarter it learns."""

MAX_CLIPS = 400
"""So many clips are enough to fit a line to."""

LEAST_ENERGY = 0.01
"""Gray levels; a picture that stands still has no logarithm."""

Curves = tuple[np.ndarray, np.ndarray]
"""Loudness in dB and hits, float32 [n_frames] each."""

Watch = Callable[[frames.FrameClip], Curves]


def ablate(
    variant: str,
    shards: FrameShards,
    sounds: Sequence[dataset.Clip],
    *,
    params: SpotterParams,
    hearing: Hearing,
    stored: Frames,
    logbook: training.Logbook | None = None,
    progress: Progress = no_progress,
) -> list[dict[str, Any]]:
    """Makes one variant of the spotter and measures it on every test clip.

    Args:
      variant: of FITTED or TRAINED.
      shards: the frames of all labels.
      sounds: the clips of all labels with usable sound.
      params: network and budget; `sees` and the learning rate are then those of the variant.
      hearing: how the truth is measured.
      stored: how the frames are stored.
      logbook: what the training writes while under way.
      progress: called after every step.

    Returns:
      of each test clip: label, video_id, clip_index, and what `spotter_teaching.measure` says of it.

    Raises:
      ParamsError: when there is no such variant.
    """
    if variant not in (*FITTED, *TRAINED):
        raise ParamsError(f"The spotter has no variant {variant!r}; there are {', '.join((*FITTED, *TRAINED))}.")
    # Before a training of minutes, so that a dataset without test clips is found at once.
    test = hear(frames.list_clips(shards, "test"), sounds, hearing)
    if variant in TRAINED:
        trained = train_spotter(
            shards,
            sounds,
            params=params.model_copy(
                update={"sees": variant, "learning_rate": TRAINED[variant] * params.learning_rate}
            ),
            hearing=hearing,
            stored=stored,
            logbook=logbook,
            progress=progress,
        )
        spotter = Spotter(trained.model, trained.card)
        return _score(test, lambda clip: spotter.predict(map(read_row_group, clip.groups)), hearing)
    train = hear(frames.list_clips(shards, "train"), sounds, hearing)
    if variant == "mean":
        return _score(test, say_mean(train), hearing)
    validation = hear(frames.list_clips(shards, "validation"), sounds, hearing)
    pictures = frames.Pictures(stored.size, params.picture_size)
    motion = Motion.fit(_some(train), _some(validation), pictures, hearing)
    return _score(test, lambda clip: motion.predict(pictures.read_clip(clip)), hearing)


def _some(clips: Sequence[frames.HeardClip]) -> Sequence[frames.HeardClip]:
    """Every n-th of too many, so that all labels stay: the clips are sorted by id, not by label."""
    return clips[:: -(-len(clips) // MAX_CLIPS)]


def _score(clips: Sequence[frames.HeardClip], watch: Watch, hearing: Hearing) -> list[dict[str, Any]]:
    rows = []
    for clip in clips:
        loudness_db, hit = watch(clip.frames)
        video_id, clip_index = clip.frames.key
        told = {"label": clip.frames.label, "video_id": video_id, "clip_index": clip_index}
        rows.append(told | measure([clip], [(loudness_db[: clip.n_frames], hit[: clip.n_frames])], hearing.frame_rate))
    return rows


def say_mean(train: Sequence[frames.HeardClip]) -> Watch:
    """The mean loudness of these clips at every frame, and no hits: what can be said without looking."""
    mean_db = float(np.concatenate([clip.loudness_db for clip in train]).mean())
    return lambda clip: (np.full(clip.n_frames, mean_db, np.float32), np.zeros(clip.n_frames, np.float32))


def motion_energy(pictures: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each picture to the last one.

    Args:
      pictures: uint8 [n_frames, p, p].

    Returns:
      float64 [n_frames], gray levels; the first, before which nothing is known, has that of the second.
    """
    changes = np.abs(np.diff(pictures.astype(np.int16), axis=0)).mean(axis=(1, 2))
    return np.concatenate([changes[:1] if len(changes) else np.zeros(len(pictures)), changes])


@dataclass(frozen=True, eq=False)
class Motion:
    """Loudness and hits read off one number per frame, its motion energy.

    Attributes:
      line: of the energy's logarithm to loudness in dB.
      loudness_range_db: the quietest and the loudest of training, as for the spotter.
      window_frames: the energy is averaged over so many frames, as loudness is measured.
      hit_scale: energy that counts as a hit of 1: a quantile, as of the onset strength.
      hit_threshold: weaker peaks are no hits.
    """

    line: LinearRegression
    loudness_range_db: tuple[float, float]
    window_frames: int
    hit_scale: float
    hit_threshold: float

    @classmethod
    def fit(
        cls,
        train: Sequence[frames.HeardClip],
        validation: Sequence[frames.HeardClip],
        pictures: frames.Pictures,
        hearing: Hearing,
    ) -> Self:
        """Fits the line to training clips, and chooses the threshold on validation clips."""
        window_frames = max(1, round(hearing.cues.loudness_window_s * hearing.frame_rate))
        energies = [motion_energy(pictures.read_clip(clip.frames)) for clip in train]
        averaged = [
            _log_average(energy, window_frames)[: clip.n_frames] for energy, clip in zip(energies, train, strict=True)
        ]
        loudness_db = np.concatenate([clip.loudness_db[: clip.n_frames] for clip in train])
        hit_scale = max(float(np.quantile(np.concatenate(energies), hearing.cues.hit_quantile)), LEAST_ENERGY)
        strengths = [motion_energy(pictures.read_clip(clip.frames))[: clip.n_frames] / hit_scale for clip in validation]
        return cls(
            line=LinearRegression().fit(np.concatenate(averaged)[:, None], loudness_db),
            loudness_range_db=(float(loudness_db.min()), float(loudness_db.max())),
            window_frames=window_frames,
            hit_scale=hit_scale,
            hit_threshold=choose_threshold([clip.hit[: clip.n_frames] for clip in validation], strengths, hearing),
        )

    def predict(self, pictures: np.ndarray) -> Curves:
        """Says when it sounds and how loud, of uint8 [n_frames, p, p]."""
        energy = motion_energy(pictures)
        loudness_db = self.line.predict(_log_average(energy, self.window_frames)[:, None])
        hit = cues.pick_hits(energy / self.hit_scale, self.hit_threshold)
        return np.clip(loudness_db, *self.loudness_range_db).astype(np.float32), hit


def _log_average(energy: np.ndarray, window_frames: int) -> np.ndarray:
    # A change lies between two pictures: an even number of them has the picture itself in the middle.
    averaged = uniform_filter1d(energy, window_frames, mode="nearest", origin=window_frames % 2 - 1)
    return np.log(np.maximum(averaged, LEAST_ENERGY))
