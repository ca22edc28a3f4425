"""Whatever is killed, whenever: the workspace is put back, nobody is left, and the next run finishes the work."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.clones import Clone, free_port, make_clone
from tests.processes import processes_in, still_running

SEED = 12
VIDEOS = 5
"""Of each label, by the form; params.yaml asks for another number, and is to go on doing so."""

KINDS = {
    "dvc": "dvc.cli",
    "stage": "stages.",
    "flow": "prefect.engine",
    "worker": "prefect worker",
    "server": "prefect server",
}
ENDS_SOON = ("dvc.cli", "stages.", "prefect.engine", "flows.workspace", "multiprocessing")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The lock file of a dataset that nothing came in the way of."""
    clone = make_clone(tmp_path_factory.mktemp("undisturbed"), profile="smoke")
    clone.run("dvc", "repro", "find_duplicates", "extract_audio", "extract_frames")
    return (clone.root / "dvc.lock").read_bytes()


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    clone = make_clone(tmp_path, profile="smoke")
    yield clone
    clone.run("python", "-m", "flows.ui", "stop")


@pytest.mark.slow
@pytest.mark.parametrize("n_kills", [5, 50])
def test_killed_at_random_moments_the_dataset_comes_out_as_undisturbed(
    clone: Clone, undisturbed: bytes, n_kills: int
) -> None:
    chance = random.Random(SEED)
    port = free_port()
    before = (clone.root / "params.yaml").read_bytes()
    # Each kind as often as the others, in any order.
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(n_kills)]
    chance.shuffle(kinds)
    for kind in kinds:
        start_ui(clone, port)
        start_run(port, force=chance.random() < 0.5)
        # In the middle of the work, not of Prefect's own start.
        wait_for(clone, "stage")
        time.sleep(5 * chance.random())
        victims = running(clone, kind) or running(clone, "flow") or running(clone, "worker")
        chance.choice(victims).kill()
        if kind in ("flow", "worker"):
            assert not still_running(those(clone, ENDS_SOON), within_s=10), kind
            deadline = time.monotonic() + 10
            while (clone.root / "params.yaml").read_bytes() != before:
                assert time.monotonic() < deadline, f"params.yaml is put back after the {kind} was killed"
                time.sleep(0.1)
    clone.run("python", "-m", "flows.ui", "stop")
    assert not still_running(processes_in(clone.root), within_s=10)

    clone.run("python", "-m", "flows.pipeline", "find_duplicates", "extract_audio", "extract_frames")
    assert (clone.root / "dvc.lock").read_bytes() == undisturbed
    assert (clone.root / "params.yaml").read_bytes() == before
    assert "up to date" in clone.run("dvc", "status", "find_duplicates", "extract_audio", "extract_frames")
    assert not (clone.root / ".dvc/tmp/flow.lock").read_text()


def start_ui(clone: Clone, port: int) -> None:
    # A file: what the server and the worker inherit of a pipe would stay open for as long as they run.
    with (clone.root / ".started").open("w") as printed:
        process = psutil.Popen(
            ["python", "-m", "flows.ui", "start", "--port", str(port)],
            cwd=clone.root, env=clone.environment, stdout=printed, stderr=printed,
        )  # fmt: skip
    assert process.wait(180) == 0, (clone.root / ".started").read_text()


def start_run(port: int, *, force: bool) -> None:
    api = f"http://127.0.0.1:{port}/api"
    deployment = requests.get(f"{api}/deployments/name/dataset/demand", timeout=30).json()["id"]
    order = {"parameters": {"videos_per_label": VIDEOS, "force": force}, "state": {"type": "SCHEDULED"}}
    deadline = time.monotonic() + 60
    # A server that was killed at work has its database to put in order.
    while not requests.post(f"{api}/deployments/{deployment}/create_flow_run", json=order, timeout=30).ok:
        assert time.monotonic() < deadline
        time.sleep(1)


def wait_for(clone: Clone, kind: str) -> None:
    deadline = time.monotonic() + 60
    while not running(clone, kind) and time.monotonic() < deadline:
        time.sleep(0.1)


def running(clone: Clone, kind: str) -> list[psutil.Process]:
    return those(clone, (KINDS[kind],))


def those(clone: Clone, names: tuple[str, ...]) -> list[psutil.Process]:
    """The processes of the clone whose command line names one of these."""
    found = []
    for process in processes_in(clone.root):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if any(name in command for name in names):
            found.append(process)
    return found
