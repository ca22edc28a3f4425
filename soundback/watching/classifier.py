"""What is seen: a grayscale frame to category probabilities."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from soundback import training
from soundback.dataset import FrameShards
from soundback.errors import DataContractError, ModelError
from soundback.params import Classifier as ClassifierParams
from soundback.params import Frames
from soundback.progress import Progress, no_progress
from soundback.watching import frames

log = logging.getLogger(__name__)

KIND = "classifier"
VALIDATE_EVERY = 50
VALIDATION_FRAMES_PER_CLIP = 8
MAX_VALIDATION_CLIPS = 400
FRAMES_AT_ONCE = 128
LABEL_SMOOTHING = 0.05
TEMPERATURES = (0.5, 8.0)


def build_classifier(params: ClassifierParams, n_categories: int, size: int) -> keras.Model:
    """Builds the network: pictures [batch, p, p] in [0, 255] to logits [batch, n_categories].

    Args:
      params: architecture, channels, and p, the picture size.
      n_categories: how many categories.
      size: pixels of the stored frames, a multiple of p.
    """
    frames.check_sizes(size, params.picture_size)
    pictures = keras.Input((params.picture_size, params.picture_size), name="pictures")
    x = keras.layers.Reshape((params.picture_size, params.picture_size, 1))(pictures)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    features = {"residual": _residual, "paper": _paper}[params.architecture](x, params.channels)
    logits = keras.layers.Dense(n_categories, name="logits")(features)
    return keras.Model(pictures, logits, name=f"{params.architecture}_classifier")


def _residual(x: Any, channels: Sequence[int]) -> Any:
    """A small residual network with global pooling (He et al. 2016); the stem and every stage halve the picture."""
    x = _convolution(x, channels[0], stride=2)
    for width in channels:
        y = _convolution(x, width, stride=2)
        y = _convolution(y, width, activation=None)
        shortcut = keras.layers.Conv2D(width, 1)(keras.layers.AveragePooling2D(2, padding="same")(x))
        x = keras.layers.Activation("relu")(keras.layers.Add()([shortcut, y]))
    # The mean tells textures apart; the maximum does not lose a small thing in a large picture.
    pools = [keras.layers.GlobalAveragePooling2D()(x), keras.layers.GlobalMaxPooling2D()(x)]
    return keras.layers.Dropout(0.2)(keras.layers.Concatenate()(pools))


def _convolution(x: Any, channels: int, *, stride: int = 1, activation: str | None = "relu") -> Any:
    x = keras.layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.95)(x)
    return keras.layers.Activation(activation)(x) if activation else x


def _paper(x: Any, channels: Sequence[int]) -> Any:
    """3x3 convolutions, flatten, dense (Haile et al. 2023); the pooling between them is ours, the paper names none."""
    for width in channels:
        x = keras.layers.Conv2D(width, 3, activation="relu")(x)
        x = keras.layers.MaxPooling2D(2)(x)
    return keras.layers.Flatten()(x)


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """What a training gives.

    Attributes:
      model: with its best weights.
      card: what belongs to the model, for `training.save_model`.
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
    shards: FrameShards, *, params: ClassifierParams, stored: Frames, progress: Progress = no_progress
) -> TrainedClassifier:
    """Trains on the train split and keeps the weights that do best on the validation split.

    Args:
      shards: the frames of all labels.
      params: network and budget.
      stored: how the frames are stored.
      progress: called after every step.
    """
    keras.utils.set_random_seed(params.seed)
    train = frames.list_clips(shards, "train")
    pictures = frames.Pictures(stored.size, params.picture_size)
    validation = _ValidationFrames.read(frames.list_clips(shards, "validation"), shards.categories, pictures)
    model = build_classifier(params, len(shards.categories), stored.size)
    fit = training.fit(
        model,
        _weighted_loss(train, shards.categories),
        frames.frame_batches(train, shards.categories, pictures, batch_size=params.batch_size, seed=params.seed),
        validation.loss,
        params=params,
        recipe=training.Recipe(validate_every=min(VALIDATE_EVERY, params.steps)),
        progress=progress,
    )
    logits = predict_logits(model, validation.pictures)
    temperature = fit_temperature(logits, validation.frame_categories)
    probabilities = validation.mean_per_clip(softmax(logits / temperature, axis=1))
    card = {
        "kind": KIND,
        "categories": list(shards.categories),
        "size": stored.size,
        "fit": stored.fit,
        "temperature": temperature,
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
class _ValidationFrames:
    """A few frames of each validation clip.

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
    ) -> "_ValidationFrames":
        # Every n-th of too many, so that all labels stay: the clips are sorted by id, not by label.
        clips = clips[:: -(-len(clips) // MAX_VALIDATION_CLIPS)]
        parts = []
        for clip in clips:
            group = clip.groups[len(clip.groups) // 2]
            rows = np.linspace(0, group.n_frames - 1, min(VALIDATION_FRAMES_PER_CLIP, group.n_frames))
            parts.append(pictures.decode(group, rows.round().astype(int)))
        clip_of_frame = np.repeat(np.arange(len(clips)), [len(part) for part in parts])
        return cls(np.concatenate(parts), clip_of_frame, np.array([categories.index(clip.label) for clip in clips]))

    @property
    def frame_categories(self) -> np.ndarray:
        return self.clip_categories[self.clip_of_frame]

    def loss(self, model: keras.Model) -> float:
        """Mean cross-entropy over the frames."""
        return _cross_entropy(predict_logits(model, self.pictures), self.frame_categories)

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
    scores = []
    for category in np.unique(actual):
        hits = ((actual == category) & (predicted == category)).sum()
        scores.append(2 * hits / ((actual == category).sum() + (predicted == category).sum()))
    return {
        "accuracy": float((actual == predicted).mean()),
        "macro_f1": float(np.mean(scores)),
        "majority_accuracy": float((actual == majority).mean()),
    }


def predict_logits(model: keras.Model, pictures: np.ndarray) -> np.ndarray:
    """Runs the network a bounded number of pictures at a time: float32 [n, n_categories]."""
    parts = [
        model(pictures[start : start + FRAMES_AT_ONCE].astype(np.float32), training=False).numpy()
        for start in range(0, len(pictures), FRAMES_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, model.output_shape[-1]), np.float32)


class Classifier:
    """A trained classifier.

    Attributes:
      categories: display names, in the order of the answers.
      unsure_below: a probability; what stays below it is nothing we know.
      size: pixels of the frames it takes.
      fit: how a picture is brought to that size, see `params.Frames`.
    """

    def __init__(self, model: keras.Model, card: dict[str, Any]) -> None:
        self._model = model
        self.size: int = card["size"]
        self.fit: str = card["fit"]
        self._picture_size: int = card["params"]["picture_size"]
        self._temperature: float = card["temperature"]
        self.categories: tuple[str, ...] = tuple(card["categories"])
        self.unsure_below: float = card["params"]["unsure_below"]
        if model.output_shape[-1] != len(self.categories):
            raise ModelError(
                f"The classifier tells {model.output_shape[-1]} categories apart but its card names "
                f"{len(self.categories)}. Train it again with `dvc repro train_classifier`."
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a model file.

        Raises:
          ModelError: when it is missing, damaged, or no classifier.
        """
        return cls(*training.load_model(path, KIND))

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Says what is seen in each frame.

        Args:
          pixels: uint8 [n, size, size], of the size the classifier was trained on.

        Returns:
          float32 [n, n_categories], calibrated probabilities; below `unsure_below` it is nothing we know.
        """
        if pixels.shape[1:] != (self.size, self.size):
            raise ModelError(
                f"The classifier was trained on frames of {self.size}x{self.size} pixels and was given "
                f"{pixels.shape[2]}x{pixels.shape[1]}. Set frames.size to {self.size}, or train it again."
            )
        logits = predict_logits(self._model, frames.shrink(pixels, self._picture_size))
        return softmax(logits / self._temperature, axis=1).astype(np.float32)
