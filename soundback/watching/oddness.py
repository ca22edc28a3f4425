"""How unlike all training pictures a picture is: a network that tells categories apart names one for anything.

Two descriptions of a picture are compared with those of the training pictures of the category it was named: what its
first layer sees (grain, edges, contrast) and what its last one makes of it. Each is a Mahalanobis distance with one
covariance for all categories (Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, 2018),
the second one between descriptions of length one (Mueller and Hein, Mahalanobis++, 2025). Tried on camera video and
photographs beside it: the highest probability alone, the nearest neighbours of the last layer, and pictures made of
dead leaves as a category of their own, which cost accuracy.
"""

from typing import Any

import keras
import numpy as np
from sklearn.covariance import LedoitWolf

FIRST, LAST = "first_look", "last_look"
"""Names of the layers whose output is described: float [batch, height, width, channels]."""

PICTURES_AT_ONCE = 128


@keras.saving.register_keras_serializable("soundback")
class Describe(keras.layers.Layer):
    """Mean, maximum and spread of every channel: [batch, height, width, channels] to [batch, 3 * channels].

    Args:
      unit: whether a description has length one, so that its strength says nothing.
    """

    def __init__(self, *, unit: bool, **given: Any) -> None:
        super().__init__(**given)
        self.unit = unit

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {**super().get_config(), "unit": self.unit}

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Three numbers a channel."""
        return (input_shape[0], 3 * input_shape[-1])

    def call(self, inputs: Any) -> Any:
        """Looks at the whole picture at once."""
        places = (1, 2)
        parts = [op(inputs, axis=places) for op in (keras.ops.mean, keras.ops.max, keras.ops.std)]
        described = keras.ops.concatenate(parts, axis=-1)
        return keras.ops.normalize(described) if self.unit else described


@keras.saving.register_keras_serializable("soundback")
class Distance(keras.layers.Layer):
    """Standardised log distance of a description to the mean of the likeliest category.

    Takes descriptions [batch, n] and logits [batch, n_categories] and gives [batch]: 0 for what validation pictures
    have on average, 1 for what is further by as much as they differ.
    """

    def build(self, input_shape: Any) -> None:
        """Makes room for the statistics."""
        (_, n), (_, n_categories) = input_shape
        self.means = self.add_weight(shape=(n_categories, n), name="means", trainable=False)
        self.whitening = self.add_weight(shape=(n, n), name="whitening", trainable=False)
        self.standard = self.add_weight(shape=(2,), name="standard", trainable=False)
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> Any:
        """One number a picture."""
        return (input_shape[0][0],)

    def call(self, inputs: Any) -> Any:
        """Measures the distance."""
        described, logits = inputs
        away = described - keras.ops.take(self.means, keras.ops.argmax(logits, axis=-1), axis=0)
        squares = keras.ops.sum(keras.ops.square(keras.ops.matmul(away, self.whitening)), axis=-1)
        middle, spread = self.standard[0], self.standard[1]
        return (0.5 * keras.ops.log(squares + 1e-12) - middle) / spread


def add_oddness(
    classifier: keras.Model, pictures: np.ndarray, categories: np.ndarray, validation: np.ndarray
) -> keras.Model:
    """Gives a trained classifier a second output: how odd each picture is.

    Args:
      classifier: pictures to logits; its layers FIRST and LAST are looked at.
      pictures: uint8 [n, p, p], of the training split, not varied: what is varied is odd itself.
      categories: int [n], what they show; every category occurs.
      validation: uint8 [m, p, p], by which the oddness is scaled: 0 on average.

    Returns:
      a model from pictures to logits [batch, n_categories] and oddness [batch].
    """
    logits = classifier.output
    odd = []
    for name, unit in ((FIRST, False), (LAST, True)):
        look = Describe(unit=unit)(classifier.get_layer(name).output)
        distance = Distance()
        odd.append(distance([look, logits]))
        described = run(keras.Model(classifier.input, look), pictures)
        means, whitening = _statistics(described, categories)
        distance.set_weights([means, whitening, np.array([0.0, 1.0])])
        measured = run(keras.Model(classifier.input, odd[-1]), validation)
        distance.set_weights([means, whitening, np.array([measured.mean(), max(measured.std(), 1e-3)])])
    return keras.Model(classifier.input, [logits, keras.layers.Average(name="oddness")(odd)], name=classifier.name)


def _statistics(described: np.ndarray, categories: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each category, and the matrix that makes what is left of unit variance and uncorrelated."""
    means = np.stack([described[categories == category].mean(axis=0) for category in range(categories.max() + 1)])
    away = described - means[categories]
    scale = away.std(axis=0)
    # A channel that never says anything must not turn the least sound of it into a distance.
    scale = scale + 1e-3 * scale.mean() + 1e-6
    precision = LedoitWolf(assume_centered=True).fit(away / scale).precision_
    return means, np.linalg.cholesky(precision) / scale[:, None]


def run(model: keras.Model, pictures: np.ndarray) -> Any:
    """Runs a network a bounded number of pictures at a time.

    Args:
      model: from pictures to one output, or several.
      pictures: uint8 [n, p, p].

    Returns:
      each output as one array float32 [n, ...]; a list where there are several.
    """
    several = isinstance(model.output_shape, list)
    shapes = model.output_shape if several else [model.output_shape]
    found = [[np.zeros((0, *shape[1:]), np.float32)] for shape in shapes]
    for start in range(0, len(pictures), PICTURES_AT_ONCE):
        outputs = model(pictures[start : start + PICTURES_AT_ONCE].astype(np.float32), training=False)
        for parts, output in zip(found, outputs if several else [outputs], strict=True):
            parts.append(output.numpy())
    arrays = [np.concatenate(parts) for parts in found]
    return arrays if several else arrays[0]
