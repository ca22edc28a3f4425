"""The paper's own system: one category, from one frame, for a whole track (Haile et al. 2023; docs/paper.md).

Its WaveNet is ours, told globally: in training the classifier's mean probabilities over the frames of the clip (the
paper's "relevance weights"), the same at every frame; in sounding the category of the first frame. There is no cue
sheet, no fader and no pre-roll. The random noise of the video's length that the paper feeds in are the numbers by which
each sample is chosen: one value per sample of the track.

Beside it stands the workaround that the paper names: short tracks, each of the category of its own first frame,
stitched.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from soundback import params as settings_of
from soundback.cues import LOUDNESS_MIDDLE_DB, N_CURVE_FEATURES, CueSheet, Hearing, Segment
from soundback.dataset import Clip
from soundback.errors import ModelError
from soundback.media import audio
from soundback.media.shards import read_row_group
from soundback.model_files import load_model
from soundback.progress import Progress, no_progress
from soundback.sounding.clips import CuedClip, cue_clips
from soundback.sounding.sampler import Sampler
from soundback.sounding.wavenet import CUE_CONTEXT
from soundback.sounding.xla_sampler import open_sampler
from soundback.watching.classifier import Classifier
from soundback.watching.frames import ClipKey, FrameClip
from soundback.watching.segments import Watched

STRETCH_S = 1.0
"""Seconds of one of the tracks that are stitched. Short enough to follow a picture that changes; long beside the
WaveNet's memory (0.13 s in paper/params.yaml), of which each of them starts without any."""


class Recogniser(Protocol):
    """What says what is seen: `soundback.watching.classifier.Classifier`, or anything that does the same."""

    categories: tuple[str, ...]

    def recognise(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Category probabilities, float32 [n, n_categories], of frames uint8 [n, size, size], and which are known."""
        ...


def relevance_weights(
    classifier: Recogniser, clips: Sequence[FrameClip], progress: Progress = no_progress
) -> dict[ClipKey, np.ndarray]:
    """Weighs how much each category has to do with each clip: the classifier's mean probabilities over its frames.

    Args:
      classifier: says what is seen.
      clips: where their frames are.
      progress: called after every clip.

    Returns:
      float32 [n_categories] of every clip, in the classifier's order; they add up to 1.
    """
    weights = {}
    for clip in clips:
        seen = [classifier.recognise(read_row_group(group))[0] for group in clip.groups]
        weights[clip.key] = np.concatenate(seen).mean(axis=0)
        progress(len(weights), len(clips))
    return weights


@dataclass(frozen=True, eq=False)
class GloballyToldClip(CuedClip):
    """A sound of which the network is told one and the same at every frame, inside the clip and around it.

    Attributes:
      cue: float32 [n_cues].
    """

    cue: np.ndarray

    def window_cues(self, first: int, last: int, categories: Sequence[str], told: object = None) -> np.ndarray:
        """What the network hears over frames [first, last): float32 [last - first, n_cues]."""
        return np.tile(self.cue, (last - first, 1))


def cue_globally(clips: Iterable[Clip], hearing: Hearing, *, weights: Mapping[ClipKey, np.ndarray]) -> list[CuedClip]:
    """Tells of every clip its relevance weights, and nothing of when and how loud.

    Args:
      clips: each has weights.
      hearing: how its length in frames is measured.
      weights: of `relevance_weights`.
    """
    clips = list(clips)
    return [
        GloballyToldClip(
            path=cued.path,
            category=cued.category,
            frame_rate=cued.frame_rate,
            hop=cued.hop,
            loudness_db=cued.loudness_db,
            # No hit is known, so none is weighed, and no sound is moved to meet one.
            hit=np.zeros_like(cued.hit),
            starts=np.zeros_like(cued.starts),
            cue=global_cue(weights[clip.video_id, clip.clip_index]),
        )
        for clip, cued in zip(clips, cue_clips(clips, hearing), strict=True)
    ]


def global_cue(weights: np.ndarray) -> np.ndarray:
    """Weights of the categories, float [n_categories], as the network hears them: float32 [n_cues], without curves."""
    return np.concatenate([weights, np.zeros(N_CURVE_FEATURES)]).astype(np.float32)


def make_noise(n_samples: int, *, seed: int, start: int = 0) -> np.ndarray:
    """The random noise that a track starts from: float64 [n_samples] in [0, 1).

    Args:
      n_samples: of the track.
      seed: the same numbers again.
      start: frame at which the track begins; those of one video have noise of their own.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, start], np.uint64)))
    return generator.random(n_samples)


def cut_stretches(n_frames: int, frame_rate: int) -> list[tuple[int, int]]:
    """Cuts a video into stretches of about `STRETCH_S`, as equal as frames allow: [first, last) frames of each."""
    n_stretches = max(1, round(n_frames / (STRETCH_S * frame_rate)))
    borders = np.linspace(0, n_frames, n_stretches + 1).round().astype(int).tolist()
    return list(pairwise(borders))


class PaperSystem:
    """The paper's trained models, ready to sound.

    Attributes:
      categories: display names.
      sample_rate: Hz.
      frame_rate: per second.
      sampler: of its WaveNet.
    """

    def __init__(self, classifier: Recogniser, sampler: Sampler, card: dict, *, params: settings_of.Soundtrack) -> None:
        self.sampler = sampler
        self.categories: tuple[str, ...] = tuple(card["categories"])
        self.sample_rate: int = card["sample_rate"]
        self.frame_rate: int = card["frame_rate"]
        self._classifier = classifier
        self._params = params
        if classifier.categories != self.categories:
            raise ModelError(
                f"The paper's classifier and its WaveNet come from different trainings: categories "
                f"{classifier.categories} and {self.categories}. Train them again with `make paper`."
            )

    @classmethod
    def load(cls, models: Path, *, params: settings_of.Soundtrack) -> Self:
        """Loads classifier.keras and wavenet.keras from a folder.

        Raises:
          ModelError: when one is missing, or they do not belong together.
        """
        network, card = load_model(models / "wavenet.keras", "wavenet")
        classifier = Classifier.load(models / "classifier.keras")
        return cls(classifier, open_sampler(network, params.weights), card, params=params)

    def watch(self, batches: Iterable[np.ndarray]) -> Watched:
        """Says what is seen in each frame; as a cue sheet, the category of the first one throughout.

        Args:
          batches: uint8 [n, size, size] each, grayscale; not empty.
        """
        probabilities, known = self._classifier.recognise(np.concatenate(list(batches)))
        n_frames, first = len(probabilities), probabilities[0]
        seen = Segment(0.0, n_frames / self.frame_rate, self.categories[int(first.argmax())], float(first.max()))
        loudness_db = np.full(n_frames, LOUDNESS_MIDDLE_DB, np.float32)
        sheet = CueSheet(self.frame_rate, (seen,), loudness_db, np.zeros(n_frames, np.float32))
        return Watched(probabilities, known, (), sheet)

    def sound(self, frames: np.ndarray, *, n_frames: int, seed: int) -> np.ndarray:
        """Sounds a video as the paper does: the category of its first frame, from noise of its length.

        Args:
          frames: uint8 [n, size, size], grayscale; only the first is looked at.
          n_frames: length of the track.
          seed: of the noise; the same seed and frame give the same waveform, bit for bit.

        Returns:
          float32 [n_frames * hop].
        """
        (category,) = self._name(frames[:1])
        return self._sound(category, make_noise(n_frames * self.sampler.hop, seed=seed))

    def sound_stitched(self, frames: np.ndarray, *, n_frames: int, seed: int) -> np.ndarray:
        """Sounds each stretch of a video as if it were a video of its own, and crossfades them.

        Args:
          frames: uint8 [n, size, size], grayscale; only the first of each stretch is looked at.
          n_frames: length of the track.
          seed: of the noise.

        Returns:
          float32 [n_frames * hop].
        """
        stretches = cut_stretches(n_frames, self.frame_rate)
        # Sound may be a frame longer than the picture.
        firsts = np.minimum([first for first, _ in stretches], len(frames) - 1)
        track = np.zeros(n_frames * self.sampler.hop, np.float32)
        for start, piece in self._pieces(stretches, self._name(frames[firsts]), seed):
            track[start : start + len(piece)] += piece
        return track

    def _pieces(
        self, stretches: Sequence[tuple[int, int]], categories: Sequence[int], seed: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """First sample and waveform of every stretch, half a crossfade longer on each side, and faded there."""
        hop, n_frames = self.sampler.hop, stretches[-1][1]
        shortest = min(last - first for first, last in stretches)
        fade = max(1, min(round(self._params.crossfade_s / 2 * self.frame_rate), shortest // 2))
        # Equal power, since the two sides of a crossfade are not correlated.
        ramp = np.sin(np.linspace(0, np.pi / 2, 2 * fade * hop, dtype=np.float32))
        for (first, last), category in zip(stretches, categories, strict=True):
            begin, end = max(0, first - fade), min(n_frames, last + fade)
            piece = self._sound(category, make_noise((end - begin) * hop, seed=seed, start=first))
            if begin > 0:
                piece[: len(ramp)] *= ramp
            if end < n_frames:
                piece[-len(ramp) :] *= ramp[::-1]
            yield begin * hop, piece

    def _name(self, frames: np.ndarray) -> list[int]:
        """The likeliest category of each frame."""
        probabilities, _ = self._classifier.recognise(frames)
        return probabilities.argmax(axis=1).tolist()

    def _sound(self, category: int, noise: np.ndarray) -> np.ndarray:
        """Makes one sample of each value of the noise, told one category all the time."""
        cue = global_cue(np.eye(len(self.categories))[category])
        # With its context it is one frame as any other: at its ends, zeros would be heard.
        (projected,) = self.sampler.project(np.tile(cue, (1 + 2 * CUE_CONTEXT, 1)))[CUE_CONTEXT:-CUE_CONTEXT]
        held = np.broadcast_to(projected, (len(noise) // self.sampler.hop, *projected.shape))
        temperature, top_p = self._params.temperature, self._params.top_p
        classes = self.sampler.sample(self.sampler.start(), held, noise, temperature, top_p)
        return audio.mu_law_decode(classes)
