"""What is seen: a grayscale frame to category probabilities."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
from scipy.special import softmax

from soundback import model_files
from soundback.errors import ModelError
from soundback.params import Classifier as ClassifierParams
from soundback.watching import frames
from soundback.watching.oddness import FIRST, LAST, run

log = logging.getLogger(__name__)

KIND = "classifier"


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
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")(x)
    features = {"residual": _residual, "paper": _paper}[params.architecture](x, params.channels)
    logits = keras.layers.Dense(n_categories, name="logits")(features)
    return keras.Model(pictures, logits, name=f"{params.architecture}_classifier")


def _residual(x: Any, channels: Sequence[int]) -> Any:
    """A small residual network with global pooling (He et al. 2016); the stem and every stage halve the picture."""
    x = _named(FIRST, _convolution(x, channels[0], stride=2))
    for width in channels:
        y = _convolution(x, width, stride=2)
        y = _convolution(y, width, activation=None)
        shortcut = keras.layers.Conv2D(width, 1)(keras.layers.AveragePooling2D(2, padding="same")(x))
        x = keras.layers.Activation("relu")(keras.layers.Add()([shortcut, y]))
    x = _named(LAST, x)
    # The mean tells textures apart; the maximum does not lose a small thing in a large picture.
    pools = [keras.layers.GlobalAveragePooling2D()(x), keras.layers.GlobalMaxPooling2D()(x)]
    return keras.layers.Dropout(0.2)(keras.layers.Concatenate()(pools))


def _convolution(x: Any, channels: int, *, stride: int = 1, activation: str | None = "relu") -> Any:
    x = keras.layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.95)(x)
    return keras.layers.Activation(activation)(x) if activation else x


def _paper(x: Any, channels: Sequence[int]) -> Any:
    """3x3 convolutions, flatten, dense (Haile et al. 2023); the pooling between them is ours, the paper names none."""
    for place, width in enumerate(channels):
        x = keras.layers.Conv2D(width, 3, activation="relu")(x)
        x = keras.layers.MaxPooling2D(2)(_named(FIRST, x) if place == 0 else x)
    return keras.layers.Flatten()(_named(LAST, x))


def _named(name: str, x: Any) -> Any:
    """The same, as a layer that `add_oddness` finds by its name."""
    return keras.layers.Identity(name=name)(x)


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
        self._odd_above: float = card["odd_above"]
        self.categories: tuple[str, ...] = tuple(card["categories"])
        self.unsure_below: float = card["params"]["unsure_below"]
        logits = model.output_shape[0]
        if (model.input_shape[1], logits[-1]) != (self._picture_size, len(self.categories)):
            raise ModelError(
                f"The classifier takes pictures of {model.input_shape[1]} pixels and tells {logits[-1]} categories "
                f"apart, but its card says {self._picture_size} pixels and {len(self.categories)} categories: they do "
                "not belong together. Train it again with `dvc repro train_classifier`."
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a model file.

        Raises:
          ModelError: when it is missing, damaged, or no classifier.
        """
        return cls(*model_files.load_model(path, KIND))

    def recognise(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Says what is seen in each frame, and whether it is like anything that the classifier was trained on.

        Args:
          pixels: uint8 [n, size, size], of the size the classifier was trained on.

        Returns:
          probabilities: float32 [n, n_categories], calibrated on what is known.
          known: bool [n]; where it is False, the probabilities mean nothing.
        """
        if pixels.shape[1:] != (self.size, self.size):
            raise ModelError(
                f"The classifier was trained on frames of {self.size}x{self.size} pixels and was given "
                f"{pixels.shape[2]}x{pixels.shape[1]}. Set frames.size to {self.size}, or train it again."
            )
        logits, oddness = run(self._model, frames.shrink(pixels, self._picture_size))
        return softmax(logits / self._temperature, axis=1).astype(np.float32), oddness <= self._odd_above
