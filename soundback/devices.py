"""Which devices train, in which precision, and which of several machines writes."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import keras
import tensorflow as tf

from soundback.errors import SettingsError
from soundback.settings import load_settings

BFLOAT16_FROM, FLOAT16_FROM = (8, 0), (7, 0)
"""Compute capabilities of GPUs whose matrix units take these numbers (NVIDIA, Mixed-Precision Training guide)."""


@cache
def open_strategy() -> tf.distribute.Strategy:
    """How the devices share a training: all GPUs of this machine, or of all machines that TF_CONFIG names.

    Devices can only be told before TensorFlow uses them, so a stage opens the strategy before all else; later calls
    give the same one.

    Raises:
      SettingsError: if SOUNDBACK_DEVICES or TF_CONFIG names what is not there or cannot be.
    """
    named = load_settings().devices
    if _task() is not None:
        if named:
            raise SettingsError(
                "SOUNDBACK_DEVICES and TF_CONFIG are both set. A machine that trains with others uses all its GPUs: "
                "unset SOUNDBACK_DEVICES (CUDA_VISIBLE_DEVICES hides some)."
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if named:
        _make(named)
        return tf.distribute.OneDeviceStrategy(named[0]) if len(named) == 1 else tf.distribute.MirroredStrategy(named)
    # The default strategy takes the one GPU if there is one, and adds nothing to a step.
    several = len(tf.config.list_physical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


def is_chief() -> bool:
    """Whether this process writes: the only one, or the first of those that TF_CONFIG names."""
    task = _task()
    return task is None or task == ("chief", 0) or (task == ("worker", 0) and "chief" not in _cluster())


def several_machines() -> bool:
    """Whether TF_CONFIG names other processes that train with this one."""
    return _task() is not None


def choose_precision() -> str:
    """The Keras dtype policy to train in: mixed where the GPUs gain by it, unless SOUNDBACK_PRECISION says otherwise.

    Returns:
      "float32", "mixed_bfloat16" or "mixed_float16".
    """
    settings = load_settings()
    if settings.precision != "auto":
        return settings.precision
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus or any(name.startswith("CPU") for name in settings.devices):
        return "float32"
    weakest = min(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus)
    # Brain floats have the range of float32: nothing overflows, and no loss needs scaling.
    if weakest >= BFLOAT16_FROM:
        return "mixed_bfloat16"
    return "mixed_float16" if weakest >= FLOAT16_FROM else "float32"


@contextmanager
def in_precision(policy: str) -> Iterator[None]:
    """Layers made in the block compute as the policy says, and keep their weights in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _make(named: tuple[str, ...]) -> None:
    """Splits the processor into as many logical devices as are named, and refuses a device that is not there."""
    logical = tf.config.LogicalDeviceConfiguration()
    n_processors = max((int(name.split(":")[1]) + 1 for name in named if name.startswith("CPU")), default=1)
    if n_processors > 1:
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [logical] * n_processors)
    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    if missing := [name for name in named if name not in there]:
        raise SettingsError(
            f"SOUNDBACK_DEVICES names {', '.join(missing)}, but TensorFlow finds only {', '.join(there)}."
        )


def _task() -> tuple[str, int] | None:
    """Type and number of this process among those of TF_CONFIG; None where it is not set."""
    if not os.environ.get("TF_CONFIG"):
        return None
    try:
        told = json.loads(os.environ["TF_CONFIG"])
        task = (str(told["task"]["type"]), int(told["task"]["index"]))
        known = task[1] < len(told["cluster"][task[0]]) and task[0] in ("chief", "worker")
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"TF_CONFIG cannot be read ({error!r}). {_TF_CONFIG_EXAMPLE}") from error
    if not known:
        raise SettingsError(f"TF_CONFIG says that this is {task[0]} {task[1]}. {_TF_CONFIG_EXAMPLE}")
    return task


def _cluster() -> dict[str, list[str]]:
    return dict(json.loads(os.environ["TF_CONFIG"])["cluster"])


_TF_CONFIG_EXAMPLE = (
    'Expected e.g. {"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}, '
    "a chief or a worker that the cluster lists; see docs/training.md."
)
