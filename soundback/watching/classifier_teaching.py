"""Teaches the classifier, calibrates it, and says what is odd to it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score

from soundback import training
from soundback.dataset import FrameShards
from soundback.errors import DataContractError
from soundback.params import Classifier as ClassifierParams
from soundback.params import Frames
from soundback.progress import Progress, no_progress
from soundback.watching import classifier, frames
from soundback.watching.oddness import add_oddness, run

log = logging.getLogger(__name__)

VALIDATIONS = 14
FRAMES_PER_CLIP = 16
MAX_CLIPS = 400
"""So many frames of so many clips are validated on, and so many of the training split say what is odd."""

EMA_DECAY = 0.99
LABEL_SMOOTHING = 0.05
TEMPERATURES = (0.5, 8.0)


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """What a training gives.

    Attributes:
      model: with its best weights.
      card: what belongs to the model, for `model_files.save_model`.
      fit: how the training went.
      metrics: on validation clips.
      confusion: (actual, predicted) category of each validation clip.
    """

    model: keras.Model
    card: dict[str, Any]
    fit: training.Fit
    metrics: dict[str, Any]
    confusion: tuple[tuple[str, str], ...]


def train_classifier(
    shards: FrameShards,
    *,
    params: ClassifierParams,
    stored: Frames,
    logbook: training.Logbook | None = None,
    progress: Progress = no_progress,
) -> TrainedClassifier:
    """Trains on the train split and keeps the weights that do best on the validation split.

    Args:
      shards: the frames of all labels.
      params: network and budget.
      stored: how the frames are stored.
      logbook: what the training writes while under way.
      progress: called after every step.
    """
    train = frames.list_clips(shards, "train")
    pictures = frames.Pictures(stored.size, params.picture_size)
    validation = _SomeFrames.read(frames.list_clips(shards, "validation"), shards.categories, pictures)
    fit = training.fit(
        lambda: classifier.build_classifier(params, len(shards.categories), stored.size),
        _weighted_loss(train, shards.categories),
        lambda start: frames.frame_batches(
            train, shards.categories, pictures, batch_size=params.batch_size, seed=params.seed, start=start
        ),
        validation.loss,
        params=params,
        recipe=training.Recipe(validate_every=max(1, params.steps // VALIDATIONS), ema_decay=EMA_DECAY),
        logbook=logbook,
        progress=progress,
    )
    known = _SomeFrames.read(train, shards.categories, pictures)
    model = add_oddness(fit.model, known.pictures, known.frame_categories, validation.pictures)
    logits, oddness = run(model, validation.pictures)
    temperature = fit_temperature(logits, validation.frame_categories)
    probabilities = validation.mean_per_clip(softmax(logits / temperature, axis=1))
    card = {
        "kind": classifier.KIND,
        "categories": list(shards.categories),
        "size": stored.size,
        "fit": stored.fit,
        "temperature": temperature,
        "odd_above": float(np.quantile(oddness, 1 - params.odd_share)),
        "params": params.model_dump(mode="json"),
    }
    predicted = probabilities.argmax(axis=1)
    metrics = measure(validation.clip_categories, predicted, _majority(train, shards.categories))
    frame_accuracy = float((logits.argmax(axis=1) == validation.frame_categories).mean())
    names = np.array(shards.categories)
    confusion = tuple(zip(names[validation.clip_categories].tolist(), names[predicted].tolist(), strict=True))
    metrics |= {"frame_accuracy": frame_accuracy, "n_clips": len(predicted), **fit.budget()}
    return TrainedClassifier(model, card, fit, metrics, confusion)


def _weighted_loss(clips: Sequence[frames.FrameClip], categories: Sequence[str]) -> training.Loss:
    """Cross-entropy in which every category weighs the same, however many clips it has."""
    counts = np.array([sum(len(clip.groups) for clip in clips if clip.label == name) for name in categories])
    if missing := [name for name, count in zip(categories, counts, strict=True) if count == 0]:
        raise DataContractError(
            f"The train split holds no clip of {', '.join(missing)}. Raise dataset.videos_per_label in params.yaml."
        )
    weights = tf.constant(counts.sum() / (len(categories) * counts), tf.float32)

    def loss(model: keras.Model, batch: Any, is_training: bool) -> tf.Tensor:
        pictures, category = batch
        target = tf.one_hot(category, len(categories)) * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / len(categories)
        entropy = tf.nn.softmax_cross_entropy_with_logits(target, model(pictures, training=is_training))
        return entropy * tf.gather(weights, category)

    return loss


def _majority(clips: Sequence[frames.FrameClip], categories: Sequence[str]) -> int:
    """The category that most training clips have."""
    return int(np.argmax([sum(clip.label == name for clip in clips) for name in categories]))


@dataclass(frozen=True, eq=False)
class _SomeFrames:
    """A few frames of each clip.

    Attributes:
      pictures: uint8 [n, p, p].
      clip_of_frame: int [n], which clip a frame is from.
      clip_categories: int [n_clips].
    """

    pictures: np.ndarray
    clip_of_frame: np.ndarray
    clip_categories: np.ndarray

    @classmethod
    def read(
        cls, clips: Sequence[frames.FrameClip], categories: Sequence[str], pictures: frames.Pictures
    ) -> "_SomeFrames":
        # Every n-th of too many, so that all labels stay: the clips are sorted by id, not by label.
        clips = clips[:: -(-len(clips) // MAX_CLIPS)]
        parts = []
        for clip in clips:
            group = clip.groups[len(clip.groups) // 2]
            rows = np.linspace(0, group.n_frames - 1, min(FRAMES_PER_CLIP, group.n_frames))
            parts.append(pictures.decode(group, rows.round().astype(int)))
        clip_of_frame = np.repeat(np.arange(len(clips)), [len(part) for part in parts])
        return cls(np.concatenate(parts), clip_of_frame, np.array([categories.index(clip.label) for clip in clips]))

    @property
    def frame_categories(self) -> np.ndarray:
        return self.clip_categories[self.clip_of_frame]

    def loss(self, model: keras.Model) -> float:
        """Mean cross-entropy over the frames."""
        return _cross_entropy(run(model, self.pictures), self.frame_categories)

    def mean_per_clip(self, values: np.ndarray) -> np.ndarray:
        """Averages [n, ...] over the frames of each clip: [n_clips, ...]."""
        return np.stack([values[self.clip_of_frame == i].mean(axis=0) for i in range(len(self.clip_categories))])


def _cross_entropy(logits: np.ndarray, categories: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(categories)), categories].mean())


def fit_temperature(logits: np.ndarray, categories: np.ndarray) -> float:
    """The temperature at which probabilities mean what they say (Guo et al. 2017): least cross-entropy.

    Args:
      logits: float [n, n_categories].
      categories: int [n], the truth.

    Returns:
      a number within TEMPERATURES, by which logits are divided.
    """
    low, high = np.log(TEMPERATURES)
    best = minimize_scalar(
        lambda log_t: _cross_entropy(logits / np.exp(log_t), categories), bounds=(low, high), method="bounded"
    )
    return float(np.exp(best.x))


def measure(actual: np.ndarray, predicted: np.ndarray, majority: int) -> dict[str, Any]:
    """Accuracy and macro F1 over the categories that occur, beside always naming the majority.

    Args:
      actual: int [n].
      predicted: int [n].
      majority: the category of most training clips.
    """
    return {
        "accuracy": float((actual == predicted).mean()),
        "macro_f1": float(f1_score(actual, predicted, labels=np.unique(actual), average="macro")),
        "majority_accuracy": float((actual == majority).mean()),
    }
