"""Teaches a WaveNet on real sounds and their measured cues, and says how well it learned."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from soundback import training
from soundback.cues import N_CURVE_FEATURES, Hearing
from soundback.dataset import Clip
from soundback.errors import DataContractError
from soundback.params import WaveNet
from soundback.progress import Progress, no_progress
from soundback.sounding.baselines import Baselines
from soundback.sounding.clips import Batch, CuedClip, cue_clips, training_batches, validation_windows
from soundback.sounding.wavenet import Window, bits_per_sample, build_wavenet, start_at_histogram

log = logging.getLogger(__name__)

VALIDATIONS = 8
"""How often the learning curve is measured."""

VALIDATION_FRAMES = 25
"""Frames per validation window; more of them would spare history, and take more memory."""

WATCHED_WINDOWS = 24
"""Validation windows behind the learning curve and the choice of the best weights; the metrics use all."""

SAMPLED = ("dilated", "residual", "skip", "head", "logits")
"""First words of the names of the layers whose kernels every sample reads."""

Cueing = Callable[[Iterable[Clip], Hearing], list[CuedClip]]
"""Says of every clip what the network is told of it."""


@dataclass(frozen=True)
class Taught:
    """What a training brought.

    Attributes:
      model: with its best weights.
      fit: the learning curve.
      card: what goes into the model file.
      validation: clips to measure it on.
      windows: of these clips, as the network hears them.
      baselines: what simpler predictors have learnt from the same clips.
    """

    model: keras.Model
    fit: training.Fit
    card: dict[str, Any]
    validation: Sequence[CuedClip]
    windows: Sequence[Batch]
    baselines: Baselines

    def measure(self, progress: Progress = no_progress) -> dict[str, Any]:
        """Bits per sample, those of the baselines, and what became of the budget.

        Args:
          progress: called after every window.
        """
        return {
            "bits_per_sample": mean_bits(self.model, self.windows, progress),
            "bits_lost_in_bfloat16": self._bits_lost_in_bfloat16(),
            **self.baselines.measure(self.validation, self.windows[0]["weights"].shape[-1]),
            "n_clips": len(self.validation),
            **self.fit.budget(),
        }

    def _bits_lost_in_bfloat16(self) -> float:
        """By how many bits per sample the network says less with the weights that a sampler may keep in 16 bits."""
        windows = _spread(self.windows)
        exact, before = self.model.get_weights(), mean_bits(self.model, windows)
        for layer in self.model.layers:
            if layer.name.split("_")[0] in SAMPLED:
                layer.kernel.assign(tf.cast(tf.cast(layer.kernel, tf.bfloat16), tf.float32))
        after = mean_bits(self.model, windows)
        self.model.set_weights(exact)
        return after - before


def teach(
    clips: Sequence[Clip],
    hearing: Hearing,
    *,
    params: WaveNet,
    cueing: Cueing = cue_clips,
    logbook: training.Logbook | None = None,
    progress: Progress = no_progress,
) -> Taught:
    """Trains on the train split and keeps the weights that do best on the validation split.

    Args:
      clips: of all labels and splits; the test split is not touched.
      hearing: how the true cues are measured.
      params: network, budget, and how cues are perturbed.
      cueing: what the network is told of a clip; by default its true cues.
      logbook: what the training writes while under way.
      progress: called after every step.

    Raises:
      DataContractError: when a split has no clip long enough to learn from.
    """
    categories = sorted({clip.label for clip in clips})
    train, validation = (_cued(clips, split, hearing, cueing) for split in ("train", "validation"))
    baselines = Baselines.fit(train)

    def build() -> keras.Model:
        model = build_wavenet(params, len(categories) + N_CURVE_FEATURES, hearing.hop)
        start_at_histogram(model, baselines.counts.sum(axis=0))
        return model

    window = Window.of(params, hop=hearing.hop, n_frames=params.crop_frames)
    shortest = min(clip.n_frames for clip in validation)
    listening = replace(window, n_frames=min(VALIDATION_FRAMES, shortest))
    windows = list(validation_windows(validation, listening, categories))
    watched = _spread(windows)
    fit = training.fit(
        build,
        bits_per_sample,
        lambda start: training_batches(train, window, categories, params, start),
        lambda each: mean_bits(each, watched),
        params=params,
        recipe=training.Recipe(
            validate_every=max(1, params.steps // VALIDATIONS),
            clip_norm=params.clip_norm,
            beta_2=params.beta_2,
            ema_decay=params.ema_decay,
        ),
        logbook=logbook,
        progress=progress,
    )
    return Taught(fit.model, fit, _card(categories, train, hearing, params), validation, windows, baselines)


def mean_bits(model: keras.Model, windows: Sequence[Batch], progress: Progress = no_progress) -> float:
    """Bits per sample over windows of equal length."""
    bits = []
    for window in windows:
        bits.append(bits_per_sample(model, window, False))
        progress(len(bits), len(windows))
    return float(np.mean(bits))


def describe(measured: dict[str, Any]) -> str:
    """What `Taught.measure` found, in a sentence."""
    return (
        "on {n_clips} validation clips: {bits_per_sample:.3f} bits per sample, with 16-bit weights "
        "{bits_lost_in_bfloat16:.4f} more (histogram {histogram_bits:.3f}, previous sample {previous_sample_bits:.3f}, "
        "linear prediction {linear_prediction_bits:.3f})."
    ).format_map(measured)


def _spread(windows: Sequence[Batch]) -> Sequence[Batch]:
    return windows[:: -(-len(windows) // WATCHED_WINDOWS)]


def _cued(clips: Sequence[Clip], split: str, hearing: Hearing, cueing: Cueing) -> list[CuedClip]:
    cued = cueing((clip for clip in clips if clip.split == split), hearing)
    if not cued:
        raise DataContractError(
            f"No clip of the {split} split has usable sound. Keep more videos (dataset.videos_per_label), "
            f"or give the split a larger share."
        )
    return cued


def _card(categories: Sequence[str], train: Sequence[CuedClip], hearing: Hearing, params: WaveNet) -> dict[str, Any]:
    return {
        "kind": "wavenet",
        "categories": list(categories),
        "sample_rate": hearing.sample_rate,
        "frame_rate": hearing.frame_rate,
        "hop": hearing.hop,
        "receptive_field": params.receptive_field,
        "loudness_low_db": float(min(clip.loudness_db.min() for clip in train)),
        "loudness_high_db": float(max(clip.loudness_db.max() for clip in train)),
        "hit_scale": hearing.hit_scale,
        "cues": hearing.cues.model_dump(mode="json"),
        "params": params.model_dump(mode="json"),
    }
