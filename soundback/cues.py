"""The cue sheet: what sounds when, and how loud. Measured from real sound, predicted from frames, edited by hand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.signal import find_peaks

from soundback.dataset import Clip
from soundback.errors import DataContractError
from soundback.media import audio
from soundback.params import Audio, Cues, Frames

FRAMES_BETWEEN_HITS = 3
"""Nearer onsets are one hit: at 25 frames per second, 0.12 s."""

LOUDNESS_MIDDLE_DB = -30.0
LOUDNESS_RANGE_DB = 30.0
RISE_RANGE_DB = 10.0
N_CURVE_FEATURES = 4


@dataclass(frozen=True)
class Segment:
    """A stretch in which one category sounds.

    Attributes:
      start_s: seconds, on a frame border.
      end_s: seconds, on a frame border, after start_s.
      category: display name.
      confidence: 0 to 1.
    """

    start_s: float
    end_s: float
    category: str
    confidence: float


@dataclass(frozen=True, eq=False)
class CueSheet:
    """What sounds when, and how loud.

    Attributes:
      frame_rate: frame times per second.
      segments: in order, not overlapping; between them nothing sounds.
      loudness_db: float32 [n_frames], dBFS.
      hit: float32 [n_frames], 0 to 1; 0 where no sound starts.
    """

    frame_rate: int
    segments: tuple[Segment, ...]
    loudness_db: np.ndarray
    hit: np.ndarray

    @property
    def n_frames(self) -> int:
        """How many frame times there are."""
        return len(self.loudness_db)

    def frames_of(self, segment: Segment) -> slice:
        """The frames that a segment covers."""
        return slice(round(segment.start_s * self.frame_rate), round(segment.end_s * self.frame_rate))

    def __eq__(self, other: object) -> bool:
        """Whether two sheets say the same, to the last bit."""
        return (
            isinstance(other, CueSheet)
            and (self.frame_rate, self.segments) == (other.frame_rate, other.segments)
            and np.array_equal(self.loudness_db, other.loudness_db)
            and np.array_equal(self.hit, other.hit)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Hearing:
    """How the true curves are measured on a sound.

    Attributes:
      sample_rate: Hz.
      hop: samples per frame.
      cues: windows, floor and threshold.
      hit_scale: onset strength that counts as a hit of 1.
    """

    sample_rate: int
    hop: int
    cues: Cues
    hit_scale: float

    @classmethod
    def of(cls, waveforms: Iterable[np.ndarray], *, sample_rate: int, hop: int, cues: Cues) -> Self:
        """Takes the hit scale from these sounds, the training split's: a quantile, one constant for all clips.

        Raises:
          DataContractError: when no onset is in them.
        """
        strengths = [audio.onset_strength(waveform, sample_rate=sample_rate, hop=hop) for waveform in waveforms]
        scale = float(np.quantile(np.concatenate(strengths), cues.hit_quantile))
        if scale <= 0:
            raise DataContractError(
                "The training sounds hold no onset at all; check that they are not silent or constant."
            )
        return cls(sample_rate, hop, cues, scale)

    @classmethod
    def of_training(cls, clips: Iterable[Clip], sound: Audio, stored: Frames, cues: Cues) -> Self:
        """Takes the hit scale from the clips of the training split.

        Args:
          clips: of all splits.
          sound: how the sound is stored.
          stored: how the frames are; their rate is that of the cues.
          cues: windows, floor and threshold.

        Raises:
          DataContractError: when no onset is in them.
        """
        waveforms = (audio.read_wav(clip.path) for clip in clips if clip.split == "train")
        rate = sound.sample_rate
        return cls.of(waveforms, sample_rate=rate, hop=rate // stored.frame_rate, cues=cues)

    @property
    def frame_rate(self) -> int:
        """Frames per second."""
        return self.sample_rate // self.hop

    def measure(self, waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Measures the true loudness and hits of a sound.

        Args:
          waveform: float32 [time].

        Returns:
          loudness_db: float32 [time // hop], dBFS over the window around each frame.
          hit: float32 [time // hop], 0 to 1.
        """
        loudness_db = audio.rms_db(
            waveform,
            hop=self.hop,
            window_samples=round(self.cues.loudness_window_s * self.sample_rate),
            floor_db=self.cues.loudness_floor_db,
        )
        strength = audio.onset_strength(waveform, sample_rate=self.sample_rate, hop=self.hop) / self.hit_scale
        return loudness_db, pick_hits(strength, self.cues.hit_threshold)


def pick_hits(strength: np.ndarray, threshold: float) -> np.ndarray:
    """Keeps the local maxima of an onset curve that reach a threshold, and sets all else to 0.

    Args:
      strength: float [n_frames], 1 is a strong onset.
      threshold: weaker maxima are no hits.

    Returns:
      float32 [n_frames], 0 to 1.
    """
    # Zeros on both sides let the first and the last frame be maxima too.
    peaks, _ = find_peaks(np.pad(strength, 1), height=threshold, distance=FRAMES_BETWEEN_HITS)
    hit = np.zeros(len(strength), np.float32)
    hit[peaks - 1] = np.minimum(strength[peaks - 1], 1.0)
    return hit


def curve_features(loudness_db: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """The curves as a network hears them.

    Args:
      loudness_db: [n_frames], dBFS.
      hit: [n_frames], 0 to 1.

    Returns:
      float32 [n_frames, N_CURVE_FEATURES]: loudness, its rise since the last frame, hit,
      and 1 for "the curves are known".
    """
    rise = np.diff(loudness_db, prepend=loudness_db[:1]) / RISE_RANGE_DB
    scaled = (loudness_db - LOUDNESS_MIDDLE_DB) / LOUDNESS_RANGE_DB
    return np.stack([scaled, np.clip(rise, -2, 2), hit, np.ones_like(hit)], axis=1).astype(np.float32)


def conditioning(sheet: CueSheet, categories: Sequence[str], *, with_curves: bool = True) -> np.ndarray:
    """The whole sheet as a network hears it.

    Args:
      sheet: the cue sheet.
      categories: the model's categories, in its order.
      with_curves: whether loudness and hits are told; a model hears zeros where they are not.

    Returns:
      float32 [n_frames, len(categories) + N_CURVE_FEATURES]: category times confidence, then the curve features.

    Raises:
      DataContractError: when the sheet names a category that the model does not know.
    """
    place = {category: index for index, category in enumerate(categories)}
    told = np.zeros((sheet.n_frames, len(categories)), np.float32)
    for segment in sheet.segments:
        if segment.category not in place:
            raise DataContractError(
                f"The cue sheet names {segment.category!r}, which the model does not know. "
                f"It knows {', '.join(categories)}."
            )
        told[sheet.frames_of(segment), place[segment.category]] = segment.confidence
    curves = curve_features(sheet.loudness_db, sheet.hit)
    return np.concatenate([told, curves if with_curves else np.zeros_like(curves)], axis=1)
