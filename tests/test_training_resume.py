"""A training that is killed goes on as if nothing had happened: real processes, real SIGKILLs, the stage itself."""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from soundback import model_files, training
from soundback.checkpoints import Checkpoint, State
from soundback.params import load_params
from stages.train_classifier import train_classifier
from tests import watched

PARAMS = load_params().classifier.model_copy(
    update={
        "architecture": "residual", "picture_size": 16, "channels": (8, 16), "steps": 40, "max_minutes": 2,
        "batch_size": 8, "learning_rate": 0.004, "patience": 99,
    }
)  # fmt: skip
STORED = load_params().frames.model_copy(update={"size": watched.SIZE})
# Forked from a process that has TensorFlow loaded and not used: each attempt starts in no time.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


def attempt(root: Path, killed: str) -> None:
    """Runs the stage, with all that a training can have: averaged weights, clipping, BatchNorm, Dropout."""
    os.environ["SOUNDBACK_CHECKPOINT_S"] = "0"
    logging.basicConfig(filename=root / "log.txt", level=logging.INFO)
    recipe = training.Recipe
    training.Recipe = lambda **given: recipe(5, clip_norm=1.0, ema_decay=0.9)
    whole_write, save_model = Path.write_bytes, model_files.save_model

    def write_half(path: Path, content: bytes) -> int:
        if State.unpack(content).course["done"] == 13:
            whole_write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return whole_write(path, content)

    if killed == "while it writes its checkpoint":
        Path.write_bytes = write_half
    if killed == "while it writes its outputs":
        model_files.save_model = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    out = root / "models" / "classifier.keras", root / "classifier.json", root / "plots"
    inputs = root.parent / "frames", root.parent / "duplicates.parquet"
    train_classifier(*inputs, *out, params=PARAMS, stored=STORED, labels=watched.LABELS)
    model_files.save_model = save_model


def run(root: Path, killed: str = "", when: Callable[[], bool] = lambda: False) -> int:
    """One attempt in a process of its own; gives its exit code."""
    (root / "models").mkdir(parents=True, exist_ok=True)
    process = PROCESSES.Process(target=attempt, args=(root, killed))
    process.start()
    while process.is_alive() and not when():
        time.sleep(0.002)
    if process.is_alive():
        process.kill()
    process.join()
    return process.exitcode or 0


def done(root: Path) -> int:
    """How many steps the last checkpoint knows of."""
    states = list(root.glob(".checkpoints/classifier-*/state.npz"))
    return State.unpack(states[0].read_bytes()).course["done"] if states else 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    watched.write_dataset(root, n_train=4, n_validation=2)
    assert run(root / "undisturbed") == 0
    return root / "undisturbed"


def curves(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / "plots" / "plots" / "metrics").glob("*.tsv")}


def test_a_training_that_is_killed_again_and_again_ends_where_an_undisturbed_one_does(undisturbed):
    root = undisturbed.parent / "killed"
    assert run(root, "while it writes its checkpoint") == -signal.SIGKILL
    assert done(root) == 12
    assert run(root, when=lambda: done(root) >= 21) == -signal.SIGKILL
    whole = curves(undisturbed)
    for name, table in curves(root).items():
        assert 5 <= len(table.splitlines()) < 9, "it grows while the training is under way"
        assert whole[name].startswith(table)
    assert list((root / "tensorboard" / "classifier").glob("events*"))
    assert run(root, "while it writes its outputs") == -signal.SIGKILL
    assert done(root) == 40
    assert not (root / "models" / "classifier.keras").exists()
    assert run(root) == 0
    said = (root / "log.txt").read_text()
    assert "Going on after step 12 of 40" in said
    assert "Going on after step 40 of 40" in said

    assert curves(root) == curves(undisturbed)
    assert set(curves(root)) == {"loss.tsv", "validation.tsv", "learning_rate.tsv"}
    assert (root / "classifier.json").read_bytes() == (undisturbed / "classifier.json").read_bytes()
    models = [
        model_files.load_model(each / "models" / "classifier.keras", "classifier") for each in (root, undisturbed)
    ]
    for ours, theirs in zip(models[0][0].get_weights(), models[1][0].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert models[0][1] == models[1][1]
    assert not list((root / ".checkpoints").glob("*")), "removed when the outputs are written"


def state(value: float) -> State:
    return State({"variables": [np.full((2, 2), value, np.float32), np.array([3, 4], np.uint32)]}, {"done": 5})


def test_a_state_comes_back_bit_for_bit(tmp_path):
    checkpoint = Checkpoint(tmp_path / "spotter-1")
    assert checkpoint.read() is None
    checkpoint.write(state(1 / 3))
    found = checkpoint.read()
    assert found is not None
    assert found.course == {"done": 5}
    for ours, theirs in zip(found.arrays["variables"], state(1 / 3).arrays["variables"], strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_changed_params_data_or_tables_are_another_training(tmp_path):
    watched.write_dataset(tmp_path, n_train=2, n_validation=1)
    inputs = [tmp_path / "frames", tmp_path / "duplicates.parquet"]

    def place(told: str = "steps: 40") -> Path:
        return Checkpoint.of("classifier", tmp_path, [told], inputs).folder

    first = place()
    assert place() == first
    assert first.parent == tmp_path / ".checkpoints"
    assert place("steps: 41") != first
    watched.write_duplicates(tmp_path, "disc000")
    changed = place()
    assert changed != first
    shard = next((tmp_path / "frames" / "disc").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes() + b" ")
    assert place() != changed


def test_what_another_training_of_the_kind_left_is_removed_and_no_more(tmp_path):
    for name in ("spotter-1", "spotter-2", "classifier-1"):
        Checkpoint(tmp_path / name).write(state(1.0))
    Checkpoint(tmp_path / "spotter-2").remove_others()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier-1", "spotter-2"]
