"""The judge: a listener that names the category of a sound, trained on the real sound of the training split only.

It hears log-mel spectrograms, made by librosa outside the network: one way of hearing for training and judging alike.
Each clip is scaled to its own loudest spot, so level decides nothing, and noise floors are varied in training, so that
a quiet hiss (8-bit mu-law leaves one) decides nothing either. It is never shown generated sound.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self

import keras
import librosa
import numpy as np
import tensorflow as tf

from soundback import model_files, training
from soundback.errors import DataContractError, ModelError
from soundback.params import Judge as JudgeParams
from soundback.progress import Progress, no_progress

log = logging.getLogger(__name__)

N_MELS = 40
SPECTRA_PER_SECOND = 50
SPECTRUM_S = 0.064
RANGE_DB = 80.0
"""Quieter than the loudest spot of the clip by more than this is not heard."""

NOISE_DB = (-80.0, -35.0)
"""Noise floors tried in training, below the loudest spot."""

VALIDATIONS = 6


@dataclass(frozen=True)
class Example:
    """One clip to learn from or to be tested on.

    Attributes:
      log_mel: float [n_spectra, N_MELS], as `hear` gives it.
      category: index of its category.
    """

    log_mel: np.ndarray
    category: int


@dataclass(frozen=True)
class Opinion:
    """What the judge makes of one sound.

    Attributes:
      probabilities: float32 [n_categories], mean over the windows.
      embedding: float32 [n_windows, n_dimensions], what it heard in each window.
    """

    probabilities: np.ndarray
    embedding: np.ndarray


def hear(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """The log-mel spectrogram of a clip, relative to its loudest spot.

    Args:
      waveform: float32 [time].
      sample_rate: Hz.

    Returns:
      float16 [n_spectra, N_MELS] in [-1, 1]: -1 is RANGE_DB below the loudest spot, and silence; 1 the loudest spot.
    """
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=sample_rate,
        n_fft=2 ** round(np.log2(SPECTRUM_S * sample_rate)),
        hop_length=sample_rate // SPECTRA_PER_SECOND,
        n_mels=N_MELS,
    ).T
    loudest = power.max(initial=0.0)
    if loudest <= 0:
        return np.full(power.shape, -1, np.float16)
    relative_db = 10 * np.log10(np.maximum(power / loudest, 10 ** (-RANGE_DB / 10)))
    return (relative_db / (RANGE_DB / 2) + 1).astype(np.float16)


def cut_windows(log_mel: np.ndarray, n_spectra: int) -> np.ndarray:
    """Half-overlapping windows over a whole clip; a clip shorter than one is filled up with silence.

    Returns:
      float32 [n_windows, n_spectra, N_MELS].
    """
    missing = max(0, n_spectra - len(log_mel))
    padded = np.pad(log_mel.astype(np.float32), ((0, missing), (0, 0)), constant_values=-1)
    starts = range(0, len(padded) - n_spectra + 1, max(1, n_spectra // 2))
    return np.stack([padded[start : start + n_spectra] for start in starts])


def build_judge(params: JudgeParams, n_categories: int) -> keras.Model:
    """A small convolutional network over one window.

    Args:
      params: widths.
      n_categories: how many categories it tells apart.

    Returns:
      A model from float32 [batch, n_spectra, N_MELS] to logits [batch, n_categories] and embedding
      [batch, params.embedding]; the logits are one dense layer away from the embedding.
    """
    window = keras.Input((_window_spectra(params), N_MELS))
    x = keras.layers.Reshape((*window.shape[1:], 1))(window)
    for n_channels in params.channels:
        x = keras.layers.Conv2D(n_channels, 3, strides=2, padding="same", activation="relu")(x)
    # Pitch stays where it is, time does not: a category is told by what sounds, not by when.
    x = keras.layers.Permute((2, 3, 1))(x)
    x = keras.layers.Reshape((x.shape[1] * x.shape[2], x.shape[3]))(x)
    x = keras.layers.GlobalAveragePooling1D(data_format="channels_first")(x)
    x = keras.layers.Dropout(0.2)(x)
    embedding = keras.layers.Dense(params.embedding, name="embedding")(x)
    logits = keras.layers.Dense(n_categories, name="logits")(embedding)
    return keras.Model(window, [logits, embedding], name="judge")


def train_judge(
    examples: Sequence[Example],
    validation: Sequence[Example],
    n_categories: int,
    *,
    params: JudgeParams,
    logbook: training.Logbook | None = None,
    progress: Progress = no_progress,
) -> training.Fit:
    """Trains a judge.

    Args:
      examples: of the training split, real sound only.
      validation: of the validation split; when empty, the last weights of a full budget are judged on `examples`.
      n_categories: how many categories there are.
      params: widths, budget and seed.
      logbook: what the training writes while under way.
      progress: called after every step.

    Raises:
      DataContractError: when there is nothing to learn from.
    """
    if not examples:
        raise DataContractError(
            "The judge found no usable sound in the training split. See data/audio/*/audio.parquet."
        )
    windows, categories = _all_windows(validation or examples, params)

    def validate(trained: keras.Model) -> float:
        return float(tf.reduce_mean(_loss(trained, (windows, categories), False)))

    return training.fit(
        lambda: build_judge(params, n_categories),
        _loss,
        lambda start: _batches(examples, params, start),
        validate,
        params=params,
        recipe=training.Recipe(validate_every=max(1, params.steps // VALIDATIONS)),
        logbook=logbook,
        progress=progress,
    )


class Judge:
    """A trained judge.

    Attributes:
      categories: display names, in the order of its probabilities.
      sample_rate: Hz, at which it wants its sound.
    """

    def __init__(self, model: keras.Model, categories: Sequence[str], sample_rate: int) -> None:
        self.categories = tuple(categories)
        self.sample_rate = sample_rate
        self._model = model
        n_known = model.output_shape[0][-1]
        if n_known != len(self.categories):
            raise ModelError(
                f"The judge tells {n_known} categories apart but its card names {len(self.categories)}. "
                "Train it again with `dvc repro train_judge`."
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a judge that `save` wrote.

        Raises:
          ModelError: when the file is missing or holds another kind of model.
        """
        model, card = model_files.load_model(path, "judge")
        return cls(model, card["categories"], card["sample_rate"])

    def save(self, path: Path) -> None:
        """Writes model and categories into one file."""
        card: dict[str, Any] = {"kind": "judge", "categories": self.categories, "sample_rate": self.sample_rate}
        model_files.save_model(self._model, path, card)

    def listen(self, waveform: np.ndarray) -> Opinion:
        """What it makes of a sound (float32 [time], at `sample_rate`) of any length, silence included."""
        return self._judge(hear(waveform, self.sample_rate))

    def predict(self, waveform: np.ndarray) -> np.ndarray:
        """Category probabilities, float32 [n_categories], mean over the windows."""
        return self.listen(waveform).probabilities

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """What it hears in each window, float32 [n_windows, n_dimensions]."""
        return self.listen(waveform).embedding

    def accuracy(self, examples: Sequence[Example]) -> float | None:
        """Share of clips that it names rightly, in [0, 1]; None where there are none."""
        if not examples:
            return None
        named = [int(self._judge(example.log_mel).probabilities.argmax()) for example in examples]
        return float(np.mean(np.equal(named, [example.category for example in examples])))

    def _judge(self, log_mel: np.ndarray) -> Opinion:
        windows = cut_windows(log_mel, self._model.input_shape[1])
        logits, embedding = self._model(windows, training=False)
        return Opinion(tf.nn.softmax(logits).numpy().mean(axis=0), embedding.numpy())


def _window_spectra(params: JudgeParams) -> int:
    return max(1, round(params.window_s * SPECTRA_PER_SECOND))


def _loss(model: keras.Model, batch: Any, training: bool) -> tf.Tensor:
    windows, categories = batch
    logits, _ = model(windows, training=training)
    return keras.losses.sparse_categorical_crossentropy(categories, logits, from_logits=True)


def _all_windows(examples: Sequence[Example], params: JudgeParams) -> tuple[np.ndarray, np.ndarray]:
    cut = [cut_windows(example.log_mel, _window_spectra(params)) for example in examples]
    categories = [np.full(len(windows), example.category) for windows, example in zip(cut, examples, strict=True)]
    return np.concatenate(cut), np.concatenate(categories)


def _batches(examples: Sequence[Example], params: JudgeParams, start: int) -> tf.data.Dataset:
    """Endless batches of (windows, categories) from number `start` on, every category as often as any other."""
    shape = (params.batch_size, _window_spectra(params), N_MELS)
    signature = (tf.TensorSpec(shape, tf.float32), tf.TensorSpec(shape[:1], tf.int32))
    return tf.data.Dataset.from_generator(lambda: _draw(examples, params, start), output_signature=signature).prefetch(
        4
    )


def _draw(examples: Sequence[Example], params: JudgeParams, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    n_spectra = _window_spectra(params)
    by_category = [
        [example for example in examples if example.category == category]
        for category in sorted({example.category for example in examples})
    ]
    for number in count(start):
        generator = np.random.default_rng([params.seed, number])
        groups = [by_category[index] for index in generator.integers(len(by_category), size=params.batch_size)]
        drawn = [group[generator.integers(len(group))] for group in groups]
        windows = [_vary(_cut_somewhere(example.log_mel, n_spectra, generator), generator) for example in drawn]
        yield np.stack(windows), np.array([example.category for example in drawn], np.int32)


def _cut_somewhere(log_mel: np.ndarray, n_spectra: int, generator: np.random.Generator) -> np.ndarray:
    start = generator.integers(max(1, len(log_mel) - n_spectra + 1))
    return cut_windows(log_mel[start : start + n_spectra], n_spectra)[0]


def _vary(window: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Adds a noise floor, and hides a few spectra and a few pitches (SpecAugment, Park et al. 2019)."""
    noise_db = generator.uniform(*NOISE_DB) + generator.normal(0, 2, window.shape)
    power = 10 ** ((window - 1) * RANGE_DB / 20) + 10 ** (noise_db / 10)
    varied = np.clip(10 * np.log10(power) / (RANGE_DB / 2) + 1, -1, 1)
    first_spectrum, first_pitch = generator.integers(len(varied)), generator.integers(N_MELS)
    varied[first_spectrum : first_spectrum + generator.integers(len(varied) // 8 + 1)] = -1
    varied[:, first_pitch : first_pitch + generator.integers(N_MELS // 8 + 1)] = -1
    return varied.astype(np.float32)
