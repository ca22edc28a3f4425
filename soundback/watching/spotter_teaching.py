"""Teaches the spotter: on the real sound of the training clips, whose loudness and onsets need no labels."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import mir_eval
import numpy as np
import tensorflow as tf

from soundback import cues, dataset, training
from soundback.cues import Hearing
from soundback.dataset import FrameShards
from soundback.errors import DataContractError
from soundback.media.audio import read_wav
from soundback.params import Frames
from soundback.params import Spotter as SpotterParams
from soundback.progress import Progress, no_progress
from soundback.watching import frames, spotter

log = logging.getLogger(__name__)

VALIDATIONS = 10
MAX_VALIDATION_CLIPS = 200
HIT_WEIGHT = 6.0
HIT_BLUR = 0.5
LOUDNESS_WEIGHT = 4.0
SHAPE_WEIGHT = 4.0
CLIP_NORM = 1.0
EMA_DECAY = 0.99
HIT_WINDOW_S = 0.1
MIN_REFERENCE_HITS = 3
THRESHOLDS = np.arange(0.04, 0.9, 0.03)
CONSTANT_BELOW_DB = 0.1


@dataclass(frozen=True, eq=False)
class TrainedSpotter:
    """What a training gives.

    Attributes:
      model: with its best weights.
      card: what belongs to the model, for `model_files.save_model`.
      fit: how the training went.
      metrics: on validation clips.
      curves: measured and predicted loudness of a few validation clips.
    """

    model: keras.Model
    card: dict[str, Any]
    fit: training.Fit
    metrics: dict[str, Any]
    curves: tuple["LoudnessCurves", ...]


@dataclass(frozen=True, eq=False)
class LoudnessCurves:
    """What was heard and what was seen, in one validation clip.

    Attributes:
      label: display name.
      video_id: of the source.
      measured_db: float32 [n_frames], on the real sound.
      predicted_db: float32 [n_frames], from the frames.
    """

    label: str
    video_id: str
    measured_db: np.ndarray
    predicted_db: np.ndarray


def train_spotter(
    shards: FrameShards,
    sounds: Sequence[dataset.Clip],
    *,
    params: SpotterParams,
    hearing: Hearing,
    stored: Frames,
    logbook: training.Logbook | None = None,
    progress: Progress = no_progress,
) -> TrainedSpotter:
    """Trains on the train split and keeps the weights that do best on the validation split.

    Args:
      shards: the frames of all labels.
      sounds: the clips of all labels with usable sound.
      params: network and budget.
      hearing: how the truth is measured.
      stored: how the frames are stored.
      logbook: what the training writes while under way.
      progress: called after every step.
    """
    train = hear(frames.list_clips(shards, "train"), sounds, hearing)
    seen = frames.list_clips(shards, "validation")
    # Every n-th of too many, so that all labels stay: the clips are sorted by id, not by label.
    validation = hear(seen[:: -(-len(seen) // MAX_VALIDATION_CLIPS)], sounds, hearing)
    pictures = frames.Pictures(stored.size, params.picture_size)
    compiled = cache(spotter.compile_answer)

    def validate(model: keras.Model) -> float:
        return float(np.mean([_clip_loss(compiled(model)(pictures.read_clip(c.frames)), c) for c in validation]))

    fit = training.fit(
        lambda: spotter.build_spotter(params, hearing.frame_rate, stored.size),
        _batch_loss,
        lambda start: frames.crop_batches(train, pictures, params, start=start),
        validate,
        params=params,
        recipe=training.Recipe(
            validate_every=max(1, params.steps // VALIDATIONS), clip_norm=CLIP_NORM, ema_decay=EMA_DECAY
        ),
        logbook=logbook,
        progress=progress,
    )
    answer = compiled(fit.model)
    answers = [answer(pictures.read_clip(clip.frames))[: clip.n_frames] for clip in validation]
    card = {
        "kind": spotter.KIND,
        "frame_rate": hearing.frame_rate,
        "size": stored.size,
        "fit": stored.fit,
        "loudness_low_db": float(min(clip.loudness_db.min() for clip in train)),
        "loudness_high_db": float(max(clip.loudness_db.max() for clip in train)),
        "hit_scale": hearing.hit_scale,
        "hit_threshold": choose_threshold(
            [clip.hit for clip in validation], [spotter.hit_probability(a) for a in answers], hearing
        ),
        "cues": hearing.cues.model_dump(mode="json"),
        "params": params.model_dump(mode="json"),
    }
    predictions = [spotter.finish(a, card) for a in answers]
    metrics = measure(validation, predictions, hearing.frame_rate) | {"n_clips": len(validation), **fit.budget()}
    return TrainedSpotter(fit.model, card, fit, metrics, _examples(validation, predictions))


def hear(clips: Sequence[frames.FrameClip], sounds: Sequence[dataset.Clip], hearing: Hearing) -> list[frames.HeardClip]:
    """The clips that have both frames and usable sound, with what is measured on it."""
    of_key = {(sound.video_id, sound.clip_index): sound for sound in sounds}
    heard = [
        frames.HeardClip(clip, *hearing.measure(read_wav(of_key[clip.key].path)))
        for clip in clips
        if clip.key in of_key
    ]
    if not heard:
        raise DataContractError(
            f"None of {len(clips)} clips with frames has usable sound. "
            "Rebuild data/audio and data/frames with `dvc repro`."
        )
    return heard


def _losses(answer: tf.Tensor, loudness_db: tf.Tensor, hit: tf.Tensor) -> tf.Tensor:
    """Loss of each example.

    Args:
      answer: float [batch, time, 2], of the network.
      loudness_db: float [batch, time], measured.
      hit: float [batch, time], measured, sparse.

    Returns:
      float [batch].
    """
    scaled = (loudness_db - cues.LOUDNESS_MIDDLE_DB) / cues.LOUDNESS_RANGE_DB
    beside = tf.maximum(tf.pad(hit[:, 1:], [[0, 0], [0, 1]]), tf.pad(hit[:, :-1], [[0, 0], [1, 0]]))
    # The neighbours of a hit are half right: onsets are measured to about a frame.
    target = tf.maximum(hit, HIT_BLUR * beside)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(target, answer[..., 1]) * (1.0 + HIT_WEIGHT * target)
    error = answer[..., 0] - scaled
    # How loudness comes and goes counts beside how loud it is, which a picture hardly tells: every clip is made equally
    # loud. Without this, a training of the same length follows a waterfall at 0.83 and with it at 0.93.
    shape = tf.abs(error - tf.reduce_mean(error, axis=1, keepdims=True))
    return tf.reduce_mean(LOUDNESS_WEIGHT * tf.abs(error) + SHAPE_WEIGHT * shape + entropy, axis=1)


def _batch_loss(model: keras.Model, batch: Any, is_training: bool) -> tf.Tensor:
    pictures, loudness_db, hit = batch
    return _losses(model(pictures, training=is_training), loudness_db, hit)


def _clip_loss(answer: np.ndarray, clip: frames.HeardClip) -> float:
    n = clip.n_frames
    return float(_losses(answer[None, :n], clip.loudness_db[None, :n], clip.hit[None, :n])[0])


def choose_threshold(true_hits: Sequence[np.ndarray], probabilities: Sequence[np.ndarray], hearing: Hearing) -> float:
    """The threshold that gives the best F1 on these clips; the one for real sound where none has enough hits."""

    def score(threshold: float) -> float:
        picked = [cues.pick_hits(probability, threshold) for probability in probabilities]
        return hit_f1(true_hits, picked, hearing.frame_rate) or 0.0

    scores = [score(threshold) for threshold in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(scores))]) if max(scores) > 0 else hearing.cues.hit_threshold


def hit_f1(true_hits: Sequence[np.ndarray], hits: Sequence[np.ndarray], frame_rate: int) -> float | None:
    """Mean onset F1 at 100 ms over the clips with at least three true hits; None where there are no such clips."""
    scores = [
        _onset_f1(np.flatnonzero(true) / frame_rate, np.flatnonzero(hit) / frame_rate)
        for true, hit in zip(true_hits, hits, strict=True)
        if np.count_nonzero(true) >= MIN_REFERENCE_HITS
    ]
    return float(np.mean(scores)) if scores else None


def _onset_f1(reference_s: np.ndarray, found_s: np.ndarray) -> float:
    """F1 of one clip; mir_eval warns where nothing was found, and says 0 too."""
    return float(mir_eval.onset.f_measure(reference_s, found_s, HIT_WINDOW_S)[0]) if len(found_s) else 0.0


def measure(
    clips: Sequence[frames.HeardClip], predictions: Sequence[tuple[np.ndarray, np.ndarray]], frame_rate: int
) -> dict[str, Any]:
    """Predicted against measured curves; a correlation only where neither curve is constant."""
    pairs = [(clip.loudness_db[: clip.n_frames], pair[0]) for clip, pair in zip(clips, predictions, strict=True)]
    correlations = [
        np.corrcoef(true, seen)[0, 1] for true, seen in pairs if min(true.std(), seen.std()) > CONSTANT_BELOW_DB
    ]
    true_hits = [clip.hit[: clip.n_frames] for clip in clips]
    return {
        "loudness_correlation": float(np.mean(correlations)) if correlations else None,
        "loudness_error_db": float(np.mean([np.abs(true - seen).mean() for true, seen in pairs])),
        "hit_f1_100ms": hit_f1(true_hits, [hit for _, hit in predictions], frame_rate),
    }


def _examples(
    clips: Sequence[frames.HeardClip], predictions: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[LoudnessCurves, ...]:
    """One clip of each label."""
    first = {
        clip.frames.label: (clip, seen) for clip, (seen, _) in reversed(list(zip(clips, predictions, strict=True)))
    }
    return tuple(
        LoudnessCurves(label, clip.frames.key[0], clip.loudness_db[: clip.n_frames], seen)
        for label, (clip, seen) in sorted(first.items())
    )
