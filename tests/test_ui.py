"""`make ui` for real: all comes up, runs go through, here and on another machine, and `make ui-stop` leaves nothing."""

import csv
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests

from soundback.cues import N_CURVE_FEATURES
from soundback.model_files import save_model
from soundback.params import load_params
from soundback.sounding.wavenet import build_wavenet
from soundback.watching.classifier import build_classifier
from soundback.watching.oddness import add_oddness
from soundback.watching.spotter import build_spotter
from tests.clones import Clone, make_clone
from tests.prefects import Ui, ui_in
from tests.processes import processes_in, still_running
from tests.synthetic import Film

pytestmark = pytest.mark.slow


# Every Python imports it: Prefect's server and worker, the flow, DVC, the stages and their pools.
LISTENER = """
import socket

def note(host):
    with open({log!r}, "a") as log:
        log.write(f"{{host}}\\n")

def getaddrinfo(host, *rest, ask=socket.getaddrinfo, **named):
    note(host)
    return ask(host, *rest, **named)

def connect(self, address, reach=socket.socket.connect):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        note(address[0])
    return reach(self, address)

socket.getaddrinfo, socket.socket.connect = getaddrinfo, connect
"""
THIS_MACHINE = {"127.0.0.1", "localhost", "None"}


@pytest.fixture
def ui(tmp_path: Path) -> Iterator[Ui]:
    clone = make_clone_in(tmp_path / "here")
    (clone.root / "sitecustomize.py").write_text(LISTENER.format(log=str(tmp_path / "asked")))
    with ui_in(clone) as ui:
        yield ui


def make_clone_in(root: Path) -> Clone:
    root.mkdir()
    return make_clone(root, profile="smoke")


def test_a_run_started_from_its_deployment_completes_asks_nobody_outside_and_stopping_leaves_no_process(ui: Ui) -> None:
    clone = ui.clone
    assert ui.address in (clone.root / "started.log").read_text()
    assert ui.address in clone.run("python", "-m", "flows.ui", "start"), "a second start tells where it is"
    assert requests.get(ui.address, timeout=10).ok

    command = ["prefect", "deployment", "run", "pipeline/pipeline-now", "--watch", "-p", 'stages=["list_videos@drum"]']
    prefect = {"PREFECT_API_URL": f"{ui.address}/api", "PREFECT_HOME": str(clone.root / ".prefect")}
    environment = {**clone.environment, **prefect}
    ran = subprocess.run(command, cwd=clone.root, env=environment, capture_output=True, text=True, check=True)
    assert "Completed" in ran.stdout
    assert "list_videos@drum" in (clone.root / "dvc.lock").read_text()
    asked = set((clone.root.parent / "asked").read_text().splitlines())
    assert "127.0.0.1" in asked
    assert asked <= THIS_MACHINE, "nobody calls out"

    started = processes_in(clone.root)
    assert started
    clone.run("python", "-m", "flows.ui", "stop")
    assert not still_running(started, within_s=10)
    assert not processes_in(clone.root)


def test_a_schedule_that_was_switched_on_still_is_after_everything_was_stopped_and_started_again(ui: Ui) -> None:
    weekly = ui.deployment("dataset/dataset-weekly")
    (schedule,) = weekly["schedules"]
    ui.change(f"deployments/{weekly['id']}/schedules/{schedule['id']}", active=True)
    ui.clone.run("python", "-m", "flows.ui", "stop")
    with ui_in(ui.clone) as again:
        (schedule,) = again.deployment("dataset/dataset-weekly")["schedules"]
    assert schedule["active"]


def test_another_machine_takes_soundtracks_runs_them_in_its_own_folder_and_takes_nothing_else(
    ui: Ui, tmp_path: Path
) -> None:
    there = make_clone_in(tmp_path / "there")
    write_untrained_models(there.root)
    (there.root / "silent").mkdir()
    for name in ("a.mp4", "b.mp4"):
        Film(duration_s=1.0, has_sound=False).write(there.root / "silent" / name)
    # Nobody is left who might take them first.
    for process in processes_in(ui.clone.root):
        if "worker" in process.cmdline():
            process.kill()
    others = [ui.order(name) for name in ("dataset/dataset-now", "pipeline/pipeline-now", "training/training-now")]
    others.append(ui.order("soundtrack/soundtrack-here", folder="silent", out="not here"))
    with worker_in(there, ui):
        for out in ("sounding", "sounding again"):
            run = ui.wait_until(ui.order("soundtrack/soundtrack-elsewhere", folder="silent", out=out), within_s=180)
            assert run["state"]["name"] == "Completed", run["state"]
            with (there.root / out / "soundtracks.csv").open(newline="") as table:
                assert [(row["video"], row["status"]) for row in csv.DictReader(table)] == [
                    ("a.mp4", "ok"),
                    ("b.mp4", "ok"),
                ]
    assert not processes_in(there.root)
    assert {ui.run(other)["state"]["type"] for other in others} == {"SCHEDULED"}
    assert not list(ui.clone.root.glob("sounding*"))
    assert not (there.root / "data" / "videos").exists(), "it needs no dataset"


@contextmanager
def worker_in(clone: Clone, ui: Ui) -> Iterator[None]:
    """What `make worker` starts on another machine."""
    with (clone.root / "worker.log").open("w") as printed:
        command = ["python", "-m", "flows.ui", "work", "--server", ui.address]
        worker = subprocess.Popen(command, cwd=clone.root, env=clone.environment, stdout=printed, stderr=printed)
    try:
        yield
    finally:
        worker.terminate()
        try:
            worker.wait(15)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        still_running(processes_in(clone.root), within_s=10)


def write_untrained_models(root: Path) -> None:
    """What the trainings of the smoke profile would leave in data/models if they learnt nothing."""
    params = load_params(root / "params.yaml")
    cues, stored = params.cues.model_dump(mode="json"), {"size": params.frames.size, "fit": params.frames.fit}
    labels, rate = sorted(params.labels.values()), params.frames.frame_rate
    hop = params.audio.sample_rate // rate
    models = root / "data" / "models"
    models.mkdir(parents=True)
    size = params.classifier.picture_size
    pictures = np.random.default_rng(0).integers(0, 256, (20 * len(labels), size, size), np.uint8)
    classifier = build_classifier(params.classifier, len(labels), params.frames.size)
    save_model(
        add_oddness(classifier, pictures, np.arange(len(pictures)) % len(labels), pictures),
        models / "classifier.keras",
        {
            "kind": "classifier",
            "categories": labels,
            "temperature": 1.0,
            "odd_above": 2.0,
            "params": params.classifier.model_dump(mode="json"),
            **stored,
        },
    )
    save_model(
        build_spotter(params.spotter, rate, params.frames.size),
        models / "spotter.keras",
        {
            "kind": "spotter",
            "frame_rate": rate,
            "loudness_low_db": -50.0,
            "loudness_high_db": -10.0,
            "hit_scale": 1.0,
            "hit_threshold": 0.5,
            "cues": cues,
            "params": params.spotter.model_dump(mode="json"),
            **stored,
        },
    )
    save_model(
        build_wavenet(params.wavenet, n_cues=len(labels) + N_CURVE_FEATURES, hop=hop),
        models / "wavenet.keras",
        {
            "kind": "wavenet",
            "categories": labels,
            "sample_rate": params.audio.sample_rate,
            "frame_rate": rate,
            "hop": hop,
            "cues": cues,
        },
    )
