"""Trainings on several devices and several machines: real processes, the stage itself."""

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from soundback import devices, training
from soundback.checkpoints import State
from soundback.errors import SoundbackError
from soundback.params import load_params
from soundback.watching import classifier_teaching
from stages.train_classifier import train_classifier
from tests import watched
from tests.clones import free_port

STORED = load_params().frames.model_copy(update={"size": watched.SIZE})
# Without BatchNorm, whose statistics are those of each device's part of a batch: no two devices train it as one does.
PARAMS = load_params().classifier.model_copy(
    update={
        "architecture": "paper", "picture_size": 16, "channels": (4, 8), "steps": 60, "max_minutes": 2,
        "batch_size": 8, "learning_rate": 0.004, "patience": 99,
    }
)  # fmt: skip
# Forked from a process that has TensorFlow loaded and not used: each attempt starts in no time.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


def attempt(data: Path, root: Path, environment: dict[str, str], given: dict[str, Any]) -> None:
    """Runs the stage; leaves beside the outputs what the process itself ended with."""
    os.environ |= {"SOUNDBACK_CHECKPOINT_S": "0", **environment}
    logging.basicConfig(filename=root.with_suffix(".txt"), level=logging.INFO)
    recipe, train = training.Recipe, classifier_teaching.train_classifier
    training.Recipe = lambda **_: recipe(5, clip_norm=0.3, ema_decay=0.9)

    def report(*args: Any, **kwargs: Any) -> classifier_teaching.TrainedClassifier:
        trained = train(*args, **kwargs)
        weights = [weight.tolist() for weight in trained.model.get_weights()]
        curve = [dict(row) for row in trained.fit.curve]
        root.with_suffix(".json").write_text(json.dumps({"weights": weights, "curve": curve} | trained.fit.budget()))
        return trained

    classifier_teaching.train_classifier = report
    out = root / "models" / "classifier.keras", root / "metrics" / "classifier.json", root / "plots"
    params = PARAMS.model_copy(update=given)
    try:
        train_classifier(
            data / "frames", data / "duplicates.parquet", *out, params=params, stored=STORED, labels=watched.LABELS
        )
    except SoundbackError as error:
        root.with_suffix(".txt").open("a").write(str(error))
        sys.exit(3)


class Run:
    """One attempt at a training, in one process for each environment."""

    def __init__(self, root: Path, environments: list[dict[str, str]], **given: Any) -> None:
        self.roots = [root.with_name(f"{root.name}{number}") for number in range(len(environments))]
        self.processes = [
            PROCESSES.Process(target=attempt, args=(root.parent, each, environment, given))
            for each, environment in zip(self.roots, environments, strict=True)
        ]
        for process in self.processes:
            process.start()

    def end(self) -> list[int | None]:
        """Waits for all processes; gives their exit codes."""
        for process in self.processes:
            process.join(120)
            if process.is_alive():
                process.kill()
        return [process.exitcode for process in self.processes]

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(root.with_suffix(".json").read_text()) for root in self.roots]

    def wait_for(self, step: int) -> None:
        """Waits until the chief has written down that it has come so far."""
        while self.processes[0].is_alive():
            states = list(self.roots[0].glob(".checkpoints/*/state.npz"))
            if states and State.unpack(states[0].read_bytes()).course["done"] >= step:
                return
            time.sleep(0.005)


def machines() -> list[dict[str, str]]:
    """What two machines are told, both of them this one."""
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(2)]}
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})} for i in range(2)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("devices")
    watched.write_dataset(root, n_train=4, n_validation=2)
    return root


@pytest.fixture(scope="module")
def alone(data):
    run = Run(data / "alone", [{}])
    assert run.end() == [0]
    return run.told()[0]


def assert_close(told: dict[str, Any], alone: dict[str, Any]) -> None:
    """Sums of the same numbers in another order: equal to rounding, and after many steps to a little more."""
    for ours, theirs in zip(told["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(theirs), rtol=1e-3, atol=1e-4)
    assert len(told["curve"]) == len(alone["curve"]) == 12
    for ours, theirs in zip(told["curve"], alone["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_two_devices_train_as_one_does_on_the_same_batches(data, alone):
    run = Run(data / "devices", [{"SOUNDBACK_DEVICES": "CPU:0,CPU:1"}])
    assert run.end() == [0]
    assert_close(run.told()[0], alone)


def test_two_machines_end_with_the_weights_of_one_and_only_the_chief_writes(data, alone):
    run = Run(data / "machines", machines())
    assert run.end() == [0, 0]
    chief, worker = run.told()
    assert chief == worker
    assert_close(chief, alone)
    assert (run.roots[0] / "models" / "classifier.keras").is_file()
    assert not run.roots[1].exists()


def test_a_machine_whose_chief_dies_ends_with_a_sentence_and_both_go_on_when_started_again(data, alone):
    run = Run(data / "dying", machines())
    run.wait_for(15)
    run.processes[0].kill()
    assert run.end() == [-signal.SIGKILL, 3]
    assert "Another machine of TF_CONFIG has ended" in run.roots[1].with_suffix(".txt").read_text()
    run = Run(data / "dying", machines())
    assert run.end() == [0, 0]
    chief, worker = run.told()
    assert chief == worker
    assert_close(chief, alone)
    for root in run.roots:
        assert "Going on after step" in root.with_suffix(".txt").read_text()
    assert not run.roots[1].exists()


def test_machines_stop_together_when_the_chiefs_time_is_over(data):
    run = Run(data / "late", machines(), steps=100000, max_minutes=0.05)
    assert run.end() == [0, 0]
    chief, worker = run.told()
    assert chief == worker
    assert chief["stopped_by"] == "max_minutes"


def test_a_batch_that_cannot_be_shared_out_is_refused(data):
    run = Run(data / "odd", [{"SOUNDBACK_DEVICES": "CPU:0,CPU:1,CPU:2"}])
    assert run.end() == [3]
    said = run.roots[0].with_suffix(".txt").read_text()
    assert "batch_size (8) must be a multiple of the 3 devices" in said


def test_a_device_that_is_not_there_is_refused(data):
    run = Run(data / "absent", [{"SOUNDBACK_DEVICES": "GPU:7"}])
    assert run.end() == [3]
    assert "SOUNDBACK_DEVICES names GPU:7" in run.roots[0].with_suffix(".txt").read_text()


@pytest.mark.parametrize(
    "told", ["{", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}']
)
def test_a_tf_config_that_cannot_be_read_is_refused_with_an_example(told, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", told)
    with pytest.raises(SoundbackError, match=r"TF_CONFIG .*host1:12345"):
        devices.is_chief()


def test_the_chief_is_who_is_called_so_or_the_first_worker(monkeypatch):
    def told(cluster: dict[str, list[str]], task: str) -> bool:
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": task, "index": 0}}))
        return devices.is_chief()

    assert devices.is_chief()
    assert told({"worker": ["a:1", "b:1"]}, "worker")
    assert told({"chief": ["a:1"], "worker": ["b:1"]}, "chief")
    assert not told({"chief": ["a:1"], "worker": ["b:1"]}, "worker")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([], "float32"),
        ([(6, 1)], "float32"),
        ([(7, 5)], "mixed_float16"),
        ([(8, 0)], "mixed_bfloat16"),
        ([(9, 0), (7, 0)], "mixed_float16"),
        ([None], "float32"),
    ],
)
def test_precision_is_what_the_weakest_gpu_gains_by(capabilities, expected, monkeypatch):
    details = [{} if each is None else {"compute_capability": each} for each in capabilities]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: list(range(len(details))))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details[gpu])
    assert devices.choose_precision() == expected
    monkeypatch.setenv("SOUNDBACK_DEVICES", "CPU:0")
    assert devices.choose_precision() == "float32"
    monkeypatch.setenv("SOUNDBACK_PRECISION", "mixed_bfloat16")
    assert devices.choose_precision() == "mixed_bfloat16"
