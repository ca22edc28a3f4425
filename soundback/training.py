"""What the trainings share: a loop with a budget, averaged weights, best weights, curves, and model files."""

import csv
import json
import logging
import math
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from soundback.errors import ModelError
from soundback.outputs import whole_file
from soundback.params import Training
from soundback.progress import Progress, no_progress

log = logging.getLogger(__name__)

Loss = Callable[[keras.Model, Any, bool], tf.Tensor]
"""`loss(model, batch, training)` gives the loss of each example, float [batch]."""

CARD = "soundback.json"
WARM_UP_SHARE = 0.05


@dataclass(frozen=True)
class Recipe:
    """How the weights move.

    Attributes:
      validate_every: steps between validations; the last step is always validated.
      clip_norm: global norm at which gradients are clipped, or None.
      beta_2: of Adam.
      ema_decay: of the exponential moving average of the weights, which is then what is validated and kept; or None.
    """

    validate_every: int
    clip_norm: float | None = None
    beta_2: float = 0.999
    ema_decay: float | None = None


@dataclass(frozen=True)
class Fit:
    """What a training did.

    Attributes:
      steps_done: how many steps were taken.
      stopped_by: "steps" or "max_minutes".
      best_value: lowest validation value; the model holds the weights that gave it.
      curve: one row per validation: step, loss (mean since the last row), validation.
    """

    steps_done: int
    stopped_by: str
    best_value: float
    curve: tuple[dict[str, float], ...]

    def budget(self) -> dict[str, object]:
        """What to say of the budget in the metrics."""
        return {"steps_done": self.steps_done, "stopped_by": self.stopped_by}


def fit(
    model: keras.Model,
    loss: Loss,
    batches: tf.data.Dataset,
    validate: Callable[[keras.Model], float],
    *,
    params: Training,
    recipe: Recipe,
    progress: Progress = no_progress,
) -> Fit:
    """Trains a model with Adam, a linear warm-up and a cosine decay, and leaves its best weights in it.

    Args:
      model: a built model.
      loss: per-example loss.
      batches: endless batches, as `loss` wants them.
      validate: what to minimise, measured on validation data.
      params: budget and learning rate. The budget is in steps; `max_minutes` only caps it.
      recipe: how the weights move.
      progress: called after every step.

    Raises:
      ModelError: when the loss is no longer a finite number.
    """
    step = _Stepper(model, loss, params, recipe)
    started = time.monotonic()
    curve: list[dict[str, float]] = []
    best: tuple[float, list[Any]] = (math.inf, model.get_weights())
    losses: list[float] = []
    done, stopped_by = 0, "steps"
    for batch in batches:
        losses.append(float(step.run(batch)))
        done += 1
        if not math.isfinite(losses[-1]):
            raise ModelError(
                f"Training diverged at step {done}: the loss is {losses[-1]}. Lower learning_rate "
                f"(now {params.learning_rate}) in params.yaml."
            )
        if time.monotonic() - started > params.max_minutes * 60 and done < params.steps:
            stopped_by = "max_minutes"
        ending = done == params.steps or stopped_by == "max_minutes"
        if ending or done % recipe.validate_every == 0:
            with step.averaged_weights():
                value = float(validate(model))
                if value < best[0]:
                    best = (value, model.get_weights())
            curve.append({"step": done, "loss": sum(losses) / len(losses), "validation": value})
            losses.clear()
        progress(done, params.steps)
        if ending:
            break
    if stopped_by == "max_minutes":
        log.warning(
            "Stopped after %d of %d steps: max_minutes (%g) was reached.", done, params.steps, params.max_minutes
        )
    model.set_weights(best[1])
    return Fit(done, stopped_by, best[0], tuple(curve))


class _Stepper:
    """One optimiser step, and the moving average of the weights that it leaves."""

    def __init__(self, model: keras.Model, loss: Loss, params: Training, recipe: Recipe) -> None:
        self.model = model
        weights = model.trainable_variables
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            warmup_target=params.learning_rate,
            warmup_steps=max(1, round(WARM_UP_SHARE * params.steps)),
            decay_steps=params.steps,
            alpha=0.01,
        )
        optimizer = keras.optimizers.Adam(schedule, beta_2=recipe.beta_2)
        optimizer.build(weights)
        self.averages = [tf.Variable(weight.value) for weight in weights] if recipe.ema_decay else []

        @tf.function
        def run(batch: Any) -> tf.Tensor:
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(loss(model, batch, True))
            gradients = tape.gradient(value, [weight.value for weight in weights])
            if recipe.clip_norm is not None:
                gradients, _ = tf.clip_by_global_norm(gradients, recipe.clip_norm)
            optimizer.apply(gradients, weights)
            if self.averages:
                # Young averages follow fast, or they would remember the random start.
                done = tf.cast(optimizer.iterations.value, tf.float32)
                decay = tf.minimum(recipe.ema_decay, (1.0 + done) / (10.0 + done))
                for average, weight in zip(self.averages, weights, strict=True):
                    average.assign(decay * average + (1.0 - decay) * weight.value)
            return value

        self.run = run

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The model with its averaged weights, if there are any."""
        if not self.averages:
            yield
            return
        raw = [weight.numpy() for weight in self.model.trainable_variables]
        for weight, average in zip(self.model.trainable_variables, self.averages, strict=True):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, value in zip(self.model.trainable_variables, raw, strict=True):
                weight.assign(value)


def save_model(model: keras.Model, path: Path, card: dict[str, Any]) -> None:
    """Writes a .keras file that also holds a card: what the model is and what it was trained on.

    The file appears whole or not at all and holds no clock time.

    Args:
      model: any Keras model that loads in safe mode.
      path: ends in .keras.
      card: JSON values; read back by `load_model`.
    """
    with tempfile.TemporaryDirectory() as folder, whole_file(path) as partial:
        plain = Path(folder) / "plain.keras"  # Keras insists on the suffix.
        model.save(plain)
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "metadata.json":
                    content = _without_date(content)
                target.writestr(zipfile.ZipInfo(name), content)
            target.writestr(zipfile.ZipInfo(CARD), json.dumps(card, indent=1, sort_keys=True))


def _without_date(metadata: bytes) -> bytes:
    return json.dumps({key: value for key, value in json.loads(metadata).items() if key != "date_saved"}).encode()


def load_model(path: Path, kind: str) -> tuple[keras.Model, dict[str, Any]]:
    """Reads what `save_model` wrote.

    Args:
      path: of the file.
      kind: "classifier", "spotter", "wavenet" or "judge": what its card must say.

    Raises:
      ModelError: when the file is missing, damaged, not one of Soundback's or of another kind.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            card = json.loads(archive.read(CARD))
        model = keras.models.load_model(path, compile=False)
    except FileNotFoundError as error:
        raise ModelError(
            f"There is no model {path}. Train it with `dvc repro`, or fetch it with `dvc pull`."
        ) from error
    # Keras says TypeError of a layer it does not know.
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is not a model that Soundback wrote ({error}). Train it with `dvc repro`.") from error
    if card.get("kind") != kind:
        raise ModelError(f"{path} holds a {card.get('kind')}, not a {kind}. Give the file of stage train_{kind}.")
    return model, card


def write_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Writes metrics as JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def write_curve(fit: Fit, folder: Path) -> None:
    """Writes the learning curve as curve.csv, for `dvc plots`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", "loss", "validation"])
        writer.writeheader()
        writer.writerows(fit.curve)
