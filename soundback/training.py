"""What the trainings share: one loop for one device, many devices and many machines, that keeps the best weights."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from soundback import devices
from soundback.checkpoints import Checkpoint, State
from soundback.errors import ModelError, ParamsError, SoundbackError
from soundback.outputs import whole_file
from soundback.params import Training
from soundback.progress import Progress, no_progress
from soundback.settings import load_settings

log = logging.getLogger(__name__)

Loss = Callable[[Any, Any, bool], tf.Tensor]
"""`loss(model, batch, training)` gives the loss of each example, float [batch]; it calls `model` as a Keras model."""

Batches = Callable[[int], tf.data.Dataset]
"""`batches(n)` gives endless batches from number n on; a batch is the same wherever one starts."""

Row = Mapping[str, float]
"""A point of a learning curve: step, loss (mean since the last row), validation, learning_rate."""

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
class Logbook:
    """What a training leaves while it is under way. Nothing, unless told.

    Attributes:
      checkpoint: where a training that was cut off goes on from.
      draw: called with all rows of the curve so far, at the start and after every validation.
    """

    checkpoint: Checkpoint | None = None
    draw: Callable[[Sequence[Row]], None] = lambda rows: None


@dataclass(frozen=True, eq=False)
class Fit:
    """What a training did.

    Attributes:
      model: with its best weights, in float32.
      steps_done: how many steps were taken.
      stopped_by: "steps", "max_minutes" or "patience".
      best_value: lowest validation value; the model holds the weights that gave it.
      curve: one row per validation.
    """

    model: keras.Model
    steps_done: int
    stopped_by: str
    best_value: float
    curve: tuple[Row, ...]

    def budget(self) -> dict[str, object]:
        """What to say of the budget in the metrics."""
        return {"steps_done": self.steps_done, "stopped_by": self.stopped_by}


@dataclass(eq=False)
class _Course:
    """How far a training has come, beside its variables."""

    done: int = 0
    losses: list[float] = field(default_factory=list)  # since the last row
    curve: list[Row] = field(default_factory=list)
    best_value: float = math.inf
    without_better: int = 0
    spent_s: float = 0.0
    stopped_by: str | None = None


def fit(
    build: Callable[[], keras.Model],
    loss: Loss,
    batches: Batches,
    validate: Callable[[keras.Model], float],
    *,
    params: Training,
    recipe: Recipe,
    logbook: Logbook | None = None,
    progress: Progress = no_progress,
) -> Fit:
    """Trains a model with Adam, a linear warm-up and a cosine decay, and keeps its best weights.

    It computes on all devices of `devices.open_strategy` and in the precision of `devices.choose_precision`; what is
    validated and kept is a model in float32 that knows of neither. A training that was cut off goes on from the
    checkpoint, and its curve from there is what it would have been.

    Args:
      build: makes the model; called once for training and once for what is kept.
      loss: per-example loss.
      batches: batches of `params.batch_size` examples, as `loss` wants them, shared out among the devices.
      validate: what to minimise, measured on validation data; always given the same model.
      params: budget, learning rate and seed. The budget is in steps; `max_minutes`, which counts the time of cut-off
        attempts too, and `patience` only cap it.
      recipe: how the weights move.
      logbook: what it writes while under way.
      progress: called after every step.

    Raises:
      ModelError: when the loss is no longer a finite number.
      ParamsError: when the batch cannot be shared out evenly.
      SoundbackError: when another machine that trains with this one has ended.
    """
    try:
        return _Fitting(build, loss, validate, params, recipe, logbook or Logbook()).run(batches, progress)
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if not devices.several_machines():
            raise
        raise SoundbackError(
            "Another machine of TF_CONFIG has ended or cannot be reached, so this one ends too. Start the training "
            "again on all of them: it goes on from where the chief last wrote its state."
        ) from error


class _Fitting:
    """A training under way: its variables, how far it has come, and the model that is kept."""

    def __init__(
        self,
        build: Callable[[], keras.Model],
        loss: Loss,
        validate: Callable[[keras.Model], float],
        params: Training,
        recipe: Recipe,
        logbook: Logbook,
    ) -> None:
        keras.utils.set_random_seed(params.seed)
        self.stepper = Stepper(build, loss, params, recipe)
        self.kept = build()
        self.best = self.kept.get_weights()
        self.course = _Course()
        self.validate = validate
        self.params = params
        self.recipe = recipe
        self.logbook = logbook

    def run(self, batches: Batches, progress: Progress) -> Fit:
        """Takes the steps that are left."""
        self.go_on()
        course, params = self.course, self.params
        self.logbook.draw(course.curve)
        clock = _Clock(course.spent_s)
        # A training that was cut off after its last step has no steps left.
        for batch in self.stepper.share_out(batches, course.done) if course.stopped_by is None else ():
            # All machines go by the clock of the chief.
            told = self.stepper.run(batch, (clock.spent_s > params.max_minutes * 60, clock.unsaved()))
            loss, too_late, unsaved = float(told[0]), bool(told[1]), bool(told[2])
            course.done += 1
            course.losses.append(loss)
            if not math.isfinite(loss):
                raise ModelError(
                    f"Training diverged at step {course.done}: the loss is {loss}. Lower learning_rate "
                    f"(now {params.learning_rate}) in params.yaml."
                )
            if course.done == params.steps:
                course.stopped_by = "steps"
            elif too_late:
                course.stopped_by = "max_minutes"
            if course.stopped_by or course.done % self.recipe.validate_every == 0:
                self.judge()
            progress(course.done, params.steps)
            if unsaved or course.stopped_by:
                course.spent_s = clock.spent_s
                self.save()
                clock.saved()
            if course.stopped_by:
                break
        self.kept.set_weights(self.best)
        stopped_by = course.stopped_by or "steps"
        if stopped_by != "steps":
            why = f"{stopped_by} ({getattr(params, stopped_by):g}) was reached"
            log.warning("Stopped after %d of %d steps: %s.", course.done, params.steps, why)
        return Fit(self.kept, course.done, stopped_by, course.best_value, tuple(course.curve))

    def judge(self) -> None:
        """Validates, keeps the weights if they are the best so far, and adds a row to the curve."""
        course = self.course
        self.stepper.copy_to(self.kept)
        value = float(self.validate(self.kept)) if devices.is_chief() else 0.0
        value = json.loads(self.stepper.from_chief(json.dumps(value).encode()))
        course.without_better += 1
        if value < course.best_value:
            course.best_value, course.without_better = value, 0
            self.best = self.kept.get_weights()
        elif course.stopped_by is None and course.without_better >= self.params.patience:
            course.stopped_by = "patience"
        row = {
            "step": course.done,
            "loss": sum(course.losses) / len(course.losses),
            "validation": value,
            "learning_rate": self.stepper.learning_rate(course.done - 1),
        }
        course.curve.append(row)
        course.losses.clear()
        self.logbook.draw(course.curve)

    def save(self) -> None:
        """Has the chief write down all that a later attempt must know."""
        if self.logbook.checkpoint is not None and devices.is_chief():
            arrays = {"variables": [variable.numpy() for variable in self.stepper.variables], "best": self.best}
            self.logbook.checkpoint.write(State(arrays, asdict(self.course)))

    def go_on(self) -> None:
        """Takes up what an earlier attempt wrote, if there is something that fits."""
        checkpoint = self.logbook.checkpoint
        state = checkpoint.read() if checkpoint is not None and devices.is_chief() else None
        if state is not None and not self._fits(state):
            log.warning("The state of the last attempt does not fit this model. The training starts anew.")
            state = None
        packed = self.stepper.from_chief(state.pack() if state is not None else b"")
        if packed:
            state = State.unpack(packed)
            for variable, array in zip(self.stepper.variables, state.arrays["variables"], strict=True):
                variable.assign(array)
            self.best = state.arrays["best"]
            self.course = _Course(**state.course)
            log.info("Going on after step %d of %d.", self.course.done, self.params.steps)
        elif checkpoint is not None and devices.is_chief():
            checkpoint.remove_others()

    def _fits(self, state: State) -> bool:
        ours = {
            "variables": [tuple(each.shape) for each in self.stepper.variables],
            "best": [e.shape for e in self.best],
        }
        return ours == {name: [array.shape for array in arrays] for name, arrays in state.arrays.items()}


class _Clock:
    """The minutes of a training, those of earlier attempts included, and when to save.

    Attributes:
      before_s: seconds that earlier attempts took.
    """

    def __init__(self, before_s: float) -> None:
        self.before_s = before_s
        self._started = self._saved = time.monotonic()
        self._save_every_s = load_settings().checkpoint_s

    @property
    def spent_s(self) -> float:
        """Seconds of training, of all attempts."""
        return self.before_s + time.monotonic() - self._started

    def unsaved(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= self._save_every_s

    def saved(self) -> None:
        """Says that it was done."""
        self._saved = time.monotonic()


class Stepper:
    """The optimiser's steps of a model on all devices, and the moving average of the weights that they leave.

    Attributes:
      model: in the precision of `devices.choose_precision`.
      variables: all that a step changes, the same on every device.
    """

    def __init__(self, build: Callable[[], keras.Model], loss: Loss, params: Training, recipe: Recipe) -> None:
        self._strategy = devices.open_strategy()
        self._n_examples = params.batch_size
        n_devices = self._strategy.num_replicas_in_sync
        if params.batch_size % n_devices:
            raise ParamsError(
                f"batch_size ({params.batch_size}) must be a multiple of the {n_devices} devices that train. Change it "
                "in params.yaml, or name other devices in SOUNDBACK_DEVICES."
            )
        self._schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            warmup_target=params.learning_rate,
            warmup_steps=max(1, round(WARM_UP_SHARE * params.steps)),
            decay_steps=params.steps,
            alpha=0.01,
        )
        precision = devices.choose_precision()
        with self._strategy.scope():
            with devices.in_precision(precision):
                self.model = build()
            self._weights = self.model.trainable_variables
            # Keras clips what each device has before it sums: here that is the n-th part of the sum.
            clip_norm = recipe.clip_norm and recipe.clip_norm / n_devices
            self._optimizer: Any = keras.optimizers.Adam(
                self._schedule, beta_2=recipe.beta_2, global_clipnorm=clip_norm
            )
            if precision == "mixed_float16":
                self._optimizer = keras.optimizers.LossScaleOptimizer(self._optimizer)
            self._optimizer.build(self._weights)
            # Keras' own moving averages start at full decay, and are not among what it documents.
            self._averages = [
                keras.Variable(weight.numpy(), trainable=False, aggregation="only_first_replica")
                for weight in (self._weights if recipe.ema_decay else ())
            ]
        self._ema_decay = recipe.ema_decay
        # Only the sum over all devices says how long a gradient is, and whether it is finite.
        self._sum_first = n_devices > 1 and (clip_norm is not None or precision == "mixed_float16")
        self._loss = loss
        self._answer = self.model if precision == "float32" else self._in_float32
        self.variables = [*self.model.variables, *self._optimizer.variables, *self._averages]
        self._run = tf.function(self._step)

    def run(self, batch: Any, told: tuple[bool, ...] = ()) -> list[float]:
        """Takes one step.

        Args:
          batch: of `share_out`.
          told: what the chief tells all machines.

        Returns:
          the mean loss over the whole batch, and what the chief told.
        """
        return self._run(batch, tf.constant(told, tf.float32)).numpy().tolist()

    def _step(self, batch: Any, told: tf.Tensor) -> tf.Tensor:
        parts = self._strategy.run(self._step_of_device, args=(batch, told))
        if self._ema_decay is not None:
            # Young averages follow fast, or they would remember the random start.
            done = tf.cast(self._optimizer.iterations.value, tf.float32)
            decay = tf.minimum(self._ema_decay, (1.0 + done) / (10.0 + done))
            for average, weight in zip(self._averages, self._weights, strict=True):
                self._strategy.extended.update(average.value, _follow, args=(weight.value, decay))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def _step_of_device(self, batch: Any, told: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(self._loss(self._answer, batch, True)) / self._n_examples
            scaled = self._optimizer.scale_loss(value)
        gradients = tape.gradient(scaled, [weight.value for weight in self._weights])
        if self._sum_first:
            n_devices = context.num_replicas_in_sync
            gradients = [each / n_devices for each in context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)]
        self._optimizer.apply(gradients, self._weights)
        chief = tf.cast(context.replica_id_in_sync_group == 0, tf.float32)
        return tf.concat([value[None], chief * told], axis=0)

    def _in_float32(self, *inputs: Any, training: bool) -> Any:
        """The model's answers, from which losses are computed in full precision."""
        answers = self.model(*inputs, training=training)
        return tf.nest.map_structure(lambda answer: tf.cast(answer, tf.float32), answers)

    def learning_rate(self, n: int) -> float:
        """Of step number n, from 0."""
        return float(self._schedule(n))

    def copy_to(self, kept: keras.Model) -> None:
        """Gives another model of the same build the averaged weights if there are any, or else the weights."""
        averaged = {id(weight): average for weight, average in zip(self._weights, self._averages, strict=False)}
        kept.set_weights([averaged.get(id(weight), weight).numpy() for weight in self.model.weights])

    def share_out(self, batches: Batches, start: int) -> Any:
        """The batches from number `start` on, of each its n-th part for each of n devices.

        A machine reads whole batches and keeps the parts of its own devices.
        """
        n_devices = self._strategy.num_replicas_in_sync
        if n_devices == 1:
            return batches(start)

        def of_machine(context: tf.distribute.InputContext) -> tf.data.Dataset:
            n_own = n_devices // context.num_input_pipelines
            first = context.input_pipeline_id * n_own

            def own_parts(*batch: Any) -> tf.data.Dataset:
                parted = tf.nest.map_structure(
                    lambda part: tf.reshape(part, (n_devices, -1, *part.shape[1:]))[first : first + n_own],
                    batch if len(batch) > 1 else batch[0],
                )
                return tf.data.Dataset.from_tensor_slices(parted)

            return batches(start).flat_map(own_parts).prefetch(2 * n_own)

        return self._strategy.distribute_datasets_from_function(of_machine)

    def from_chief(self, told: bytes) -> bytes:
        """What the chief tells, on every machine."""
        if not devices.several_machines():
            return told
        length = int(self._broadcast(np.array([len(told)]))[0])
        if length == 0:  # TensorFlow 2.21 crashes when it shares nothing.
            return b""
        content = np.zeros(length)
        if devices.is_chief():
            content[:] = np.frombuffer(told, np.uint8)
        return self._broadcast(content).astype(np.uint8).tobytes()

    def _broadcast(self, numbers: np.ndarray) -> np.ndarray:
        def of_device(own: tf.Tensor) -> tf.Tensor:
            is_first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
            return own * tf.cast(is_first, own.dtype)

        @tf.function
        def share(own: tf.Tensor) -> tf.Tensor:
            return self._strategy.reduce(
                tf.distribute.ReduceOp.SUM, self._strategy.run(of_device, args=(own,)), axis=None
            )

        return share(tf.constant(numbers)).numpy()


def _follow(average: tf.Variable, weight: tf.Tensor, decay: tf.Tensor) -> None:
    average.assign(decay * average + (1.0 - decay) * weight)


def write_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Writes metrics as JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
