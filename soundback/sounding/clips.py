"""Sounds and their measured cues, cut into the windows that the WaveNet learns from.

Per clip only its curves stay in memory (8 bytes a frame, 0.7 MB per hour at 25 frames per second); a window's samples
are read from the wav when they are needed, which takes a fraction of a millisecond. What lies outside a clip is silence
of which no cue says anything: zeros, the same that the sampler starts from.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import soundfile
import tensorflow as tf
from scipy.ndimage import uniform_filter1d

from soundback.cues import CueSheet, Hearing, Segment, conditioning
from soundback.dataset import Clip
from soundback.errors import DataContractError
from soundback.media.audio import mu_law_encode, read_wav
from soundback.params import WaveNet
from soundback.sounding.sampler import SILENCE
from soundback.sounding.wavenet import CUE_CONTEXT, N_CLASSES, Window

PERTURBATION_MARGIN = 3
"""Frames on each side of a window whose curves reach into it: by a shift, by smoothing, and by the rise of loudness."""

SHIFTS, SHIFT_CHANCES = (-1, 0, 1), (0.2, 0.6, 0.2)
"""Frames by which loudness in training lies beside the hits, as predicted curves would."""

ATTACK_S = 0.008
"""Seconds before and after the start of a sound that are compared to find it."""

HIT_FEATURE = -2
"""Where `cues.conditioning` puts the hits."""

HIT_MISSED = 0.05
"""Share of hits that are not told in training; the rise of loudness has to do."""

HIT_WEAKEST = 0.7
"""A hit in training is heard at this share of its strength, up to all of it."""

Batch = dict[str, np.ndarray]
"""What the network learns from at once, all with a first axis [batch].

previous: int32 [n_inputs]; cues: float32 [n_cue_frames, n_cues]; targets: int32 [n_outputs];
weights: float32 [n_frames], how much each frame counts.
"""


@dataclass(frozen=True, eq=False)
class CuedClip:
    """A sound on disk and what its cue sheet would say.

    Attributes:
      path: wav file.
      category: display name; it sounds all the time.
      frame_rate: per second.
      hop: samples per frame.
      loudness_db: float32 [n_frames], as measured.
      hit: float32 [n_frames], as measured.
      starts: int64 [n_frames], samples from the start of a frame to where its hit sounds; 0 where there is none.
    """

    path: Path
    category: str
    frame_rate: int
    hop: int
    loudness_db: np.ndarray
    hit: np.ndarray
    starts: np.ndarray

    @property
    def n_frames(self) -> int:
        """Whole frames; samples after the last one are never used."""
        return len(self.loudness_db)

    def read_classes(self, first: int, last: int) -> np.ndarray:
        """Samples [first, last) as mu-law classes, int32; in front of the clip there is silence."""
        waveform, _ = soundfile.read(self.path, start=max(0, first), stop=last, dtype="float32")
        return np.pad(mu_law_encode(waveform), (max(0, -first), 0), constant_values=SILENCE)

    def window_cues(
        self, first: int, last: int, categories: Sequence[str], told: "Telling | None" = None
    ) -> np.ndarray:
        """What the network hears over frames [first, last), which may begin before the clip and end after it.

        Args:
          first: frame, may be negative.
          last: frame after the window.
          categories: the model's categories.
          told: how the true cues are altered; without it, not at all.

        Returns:
          float32 [last - first, n_cues].
        """
        begin = max(0, first - PERTURBATION_MARGIN)
        end = min(self.n_frames, last + PERTURBATION_MARGIN)
        told = told or Telling()
        loudness_db, hit = told.perturb(self.loudness_db[begin:end], self.hit[begin:end])
        whole = Segment(0.0, (end - begin) / self.frame_rate, self.category, told.confidence)
        sheet = CueSheet(self.frame_rate, (whole,), loudness_db, hit)
        features = conditioning(sheet, categories, with_curves=told.with_curves)
        inside = features[max(first, 0) - begin : min(last, self.n_frames) - begin]
        return np.pad(inside, ((max(0, -first), max(0, last - self.n_frames)), (0, 0)))


def _unaltered(loudness_db: np.ndarray, hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return loudness_db, hit


@dataclass(frozen=True)
class Telling:
    """How cues are told to the network; by default as they are.

    Attributes:
      confidence: of the category.
      with_curves: whether loudness and hits are told at all.
      perturb: alters loudness_db and hit.
    """

    confidence: float = 1.0
    with_curves: bool = True
    perturb: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] = _unaltered

    @classmethod
    def as_predicted(cls, params: WaveNet, generator: np.random.Generator) -> "Telling":
        """As a spotter and a classifier would tell them: a little wrong; a share of the time, the category alone."""
        with_curves = bool(generator.random() >= params.cue_dropout)
        if generator.random() >= params.perturbed:
            return cls(with_curves=with_curves)

        def perturb(loudness_db: np.ndarray, hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return blur_loudness(loudness_db, params.cue_noise_db, generator), weaken_hits(hit, generator)

        confidence = float(generator.uniform(params.confidence_low, 1.0))
        return cls(confidence, with_curves, perturb)


def blur_loudness(loudness_db: np.ndarray, noise_db: float, generator: np.random.Generator) -> np.ndarray:
    """Moves a loudness curve by up to a frame and changes its level, smooths it a little, adds noise without jitter.

    Args:
      loudness_db: float32 [n_frames].
      noise_db: dB, standard deviation of the change of level, and of the noise.
      generator: draws.
    """
    places = np.arange(len(loudness_db)) - generator.choice(SHIFTS, p=SHIFT_CHANCES)
    moved = loudness_db[np.clip(places, 0, len(loudness_db) - 1)]
    smooth = uniform_filter1d(moved, int(generator.choice((1, 3))), mode="nearest")
    noise = uniform_filter1d(generator.normal(size=len(smooth)), 3, mode="nearest") * np.sqrt(3)
    return (smooth + noise_db * (generator.normal() + noise)).astype(np.float32)


def weaken_hits(hit: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Weakens each hit by up to 30 % and leaves out a few.

    Their places stay, and loudness moves around them: a network that is told a hit one frame beside its sound learns
    to wait and see, and then, as likely as not, to let it pass.

    Args:
      hit: float32 [n_frames].
      generator: draws.
    """
    heard = generator.random(len(hit)) >= HIT_MISSED
    return (hit * heard * generator.uniform(HIT_WEAKEST, 1.0, len(hit))).astype(np.float32)


def find_starts(waveform: np.ndarray, hit: np.ndarray, *, sample_rate: int, hop: int) -> np.ndarray:
    """Finds where in its frame each hit sounds: where the power just after most exceeds the power just before.

    Args:
      waveform: float32 [time].
      hit: float32 [n_frames].
      sample_rate: Hz.
      hop: samples per frame.

    Returns:
      int64 [n_frames], samples from the start of the frame, in [0, hop); 0 where there is no hit.
    """
    attack = round(ATTACK_S * sample_rate)
    padded = np.pad(waveform.astype(np.float64), (attack, attack))
    energy = np.concatenate([[0.0], np.cumsum(padded**2)])
    power = np.maximum(energy[attack:] - energy[:-attack], 1e-9)
    rise = power[attack:] / power[:-attack]  # At sample t: [t, t + attack) over [t - attack, t).
    starts = np.zeros(len(hit), np.int64)
    for frame in np.flatnonzero(hit):
        starts[frame] = rise[frame * hop : (frame + 1) * hop].argmax()
    return starts


def cue_clips(clips: Iterable[Clip], hearing: Hearing) -> list[CuedClip]:
    """Measures the curves of all clips."""
    return [_cue_clip(clip, hearing) for clip in clips]


def _cue_clip(clip: Clip, hearing: Hearing) -> CuedClip:
    waveform = read_wav(clip.path)
    loudness_db, hit = hearing.measure(waveform)
    starts = find_starts(waveform, hit, sample_rate=hearing.sample_rate, hop=hearing.hop)
    return CuedClip(clip.path, clip.label, hearing.frame_rate, hearing.hop, loudness_db, hit, starts)


def read_window(
    clip: CuedClip,
    start: int,
    window: Window,
    categories: Sequence[str],
    told: Telling | None = None,
    *,
    late: int = 0,
) -> Batch:
    """Reads what the network needs to say something about frames [start, start + window.n_frames) of a clip.

    Args:
      clip: where from.
      start: first frame.
      window: how much.
      categories: the model's categories.
      told: how the true cues are altered.
      late: samples by which the sound is read later than its cues.

    Returns:
      A `Batch` without its first axis.
    """
    first_frame, last_frame = start - window.history_frames, start + window.n_frames
    late = min(late, (clip.n_frames - last_frame) * clip.hop)
    # One sample more in front: position i of the input holds the class before sample i.
    classes = clip.read_classes(first_frame * clip.hop - 1 + late, last_frame * clip.hop + late)
    return {
        "previous": classes[:-1],
        "cues": clip.window_cues(first_frame - CUE_CONTEXT, last_frame + CUE_CONTEXT, categories, told),
        "targets": classes[-window.n_outputs :],
        "weights": np.ones(window.n_frames, np.float32),
    }


def lateness(clip: CuedClip, start: int, window: Window) -> int:
    """By how many samples to read a window late, so that its hit sounds as its frame begins.

    A cue says in which frame a sound starts, not where in it. Left to guess, a network spreads its chances over
    hundreds of samples, and the sampler often comes to the end of them without a start. With the sound moved by less
    than a frame in training, it learns to start at once; in what it makes, a hit is then at most a frame early.

    Returns:
      Samples in [0, hop), for the first hit that carries loss, or else the last one in the history.
    """
    frames = np.arange(max(0, start - window.history_frames), start + window.n_frames)
    hits = frames[clip.hit[frames] > 0]
    if not len(hits):
        return 0
    with_loss = hits[hits >= start]
    return int(clip.starts[with_loss[0] if len(with_loss) else hits[-1]])


def put_in_front(before: Batch, example: Batch, hit_weight: float) -> Batch:
    """Cuts from another sound, and its cues, to an example at its first frame.

    The first samples after the cut count like a hit: they are what teaches the network to obey its cues when they and
    the past disagree. In real sound they never do, but in the sampler's own they may: an onset that it missed, or its
    first samples in a tone of the wrong category, would otherwise stay as they are.

    Args:
      before: from `read_window` with the same window; its history is taken.
      example: from `read_window`; the rest is taken.
      hit_weight: what is added to the weight of the first frame.
    """
    n_heard = len(example["previous"]) - len(example["targets"]) + 1
    n_told = len(example["cues"]) - len(example["weights"]) - CUE_CONTEXT
    weights = example["weights"].copy()
    weights[0] = 1 + hit_weight
    return {
        "previous": np.concatenate([before["previous"][:n_heard], example["previous"][n_heard:]]),
        "cues": np.concatenate([before["cues"][:n_told], example["cues"][n_told:]]),
        "targets": example["targets"],
        "weights": weights,
    }


def add_noise(example: Batch, most: float, generator: np.random.Generator) -> Batch:
    """Adds rounded Gaussian noise to what is heard, not to what is to be said.

    The sampler hears its own sound, which is never quite right. Learning from perfect history alone, a network comes to
    trust it more than the cues. (On two tones in noise, this also lowered the validation bits.)

    Args:
      example: from `read_window`.
      most: mu-law classes; the noise's RMS is drawn from 0 to here.
      generator: draws.
    """
    heard = example["previous"]
    noise = np.rint(generator.normal(0, generator.uniform(0, most), len(heard))).astype(np.int32)
    return {**example, "previous": np.clip(heard + noise, 0, N_CLASSES - 1)}


def weigh_hits(example: Batch, hit_weight: float) -> Batch:
    """Lets the frames of hits and those beside them count more.

    A sound that starts is one sample of surprise among a thousand that follow from their past; unweighted, a short
    training learns to go on and not to begin. The weight hangs on the cues alone, never on the samples, so that what
    the network learns to say is still how likely each sample is.

    Args:
      example: from `read_window`.
      hit_weight: what is added to the weight of such a frame.
    """
    hit = example["cues"][:, HIT_FEATURE] > 0
    near = hit[:-2] | hit[1:-1] | hit[2:]
    last = len(near) - (CUE_CONTEXT - 1)
    return {**example, "weights": 1 + np.float32(hit_weight) * near[last - len(example["weights"]) : last]}


def training_batches(
    clips: Sequence[CuedClip], window: Window, categories: Sequence[str], params: WaveNet, start: int = 0
) -> tf.data.Dataset:
    """Endless batches of random windows, from batch number `start` on; all windows of all clips are equally likely.

    Args:
      clips: of the training split.
      window: how much is heard and learned from at once.
      categories: the model's categories.
      params: batch size, seed, and how cues and history are perturbed.
      start: number of the first batch; what a batch holds hangs on its number and the seed alone.

    Raises:
      DataContractError: when no clip is as long as the window.
    """
    clips = [clip for clip in clips if clip.n_frames >= window.n_frames]
    if not clips:
        raise DataContractError(
            f"No training clip is {window.n_frames} frames long. Lower wavenet.crop_frames, or keep longer clips."
        )
    ends = np.cumsum([clip.n_frames - window.n_frames + 1 for clip in clips])

    def read_anywhere(generator: np.random.Generator) -> Batch:
        place = generator.integers(ends[-1])
        index = int(np.searchsorted(ends, place, side="right"))
        frame = int(place - (ends[index - 1] if index else 0))
        told = Telling.as_predicted(params, generator)
        late = lateness(clips[index], frame, window)
        return weigh_hits(read_window(clips[index], frame, window, categories, told, late=late), params.hit_weight)

    def draw_example(generator: np.random.Generator) -> Batch:
        example = read_anywhere(generator)
        chance = generator.random()
        if chance < params.cold_start:
            example = put_in_front(_silence_like(example), example, params.hit_weight)
        elif chance < params.cold_start + params.splice:
            example = put_in_front(read_anywhere(generator), example, params.hit_weight)
        return add_noise(example, params.history_noise, generator)

    def draw() -> Iterator[Batch]:
        for number in count(start):
            generator = np.random.default_rng([params.seed, number])
            yield _stack([draw_example(generator) for _ in range(params.batch_size)])

    n_cues = read_window(clips[0], 0, window, categories)["cues"].shape[1]
    signature = {
        "previous": tf.TensorSpec((params.batch_size, window.n_inputs), tf.int32),
        "cues": tf.TensorSpec((params.batch_size, window.n_cue_frames, n_cues), tf.float32),
        "targets": tf.TensorSpec((params.batch_size, window.n_outputs), tf.int32),
        "weights": tf.TensorSpec((params.batch_size, window.n_frames), tf.float32),
    }
    return tf.data.Dataset.from_generator(draw, output_signature=signature).prefetch(8)


def validation_windows(clips: Sequence[CuedClip], window: Window, categories: Sequence[str]) -> Iterator[Batch]:
    """All windows of all clips side by side, cues as they are, one window in a batch."""
    for clip in clips:
        for start in range(0, clip.n_frames - window.n_frames + 1, window.n_frames):
            yield _stack([read_window(clip, start, window, categories)])


def _silence_like(example: Batch) -> Batch:
    return {"previous": np.full_like(example["previous"], SILENCE), "cues": np.zeros_like(example["cues"])}


def _stack(windows: Sequence[Batch]) -> Batch:
    return {name: np.stack([window[name] for window in windows]) for name in windows[0]}
