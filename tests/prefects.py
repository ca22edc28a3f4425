"""Prefect's server and worker in a clone, as `make ui` starts them, and what the server knows."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from tests.clones import Clone, free_port

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Ui:
    """A clone with Prefect running in it."""

    clone: Clone
    address: str

    def ask(self, path: str, **body: object) -> Any:
        """Posts to the server's API."""
        answer = requests.post(f"{self.address}/api/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def deployment(self, name: str) -> dict[str, Any]:
        """What the server knows of a deployment, e.g. "dataset/dataset-weekly"."""
        answer = requests.get(f"{self.address}/api/deployments/name/{name}", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def change(self, path: str, **body: object) -> None:
        """Changes what the server knows."""
        requests.patch(f"{self.address}/api/{path}", json=body, timeout=30).raise_for_status()

    def order(self, deployment: str, **parameters: object) -> str:
        """Asks for a run; gives its id."""
        path = f"deployments/{self.deployment(deployment)['id']}/create_flow_run"
        return self.ask(path, parameters=parameters, state={"type": "SCHEDULED"})["id"]

    def run(self, identity: str) -> dict[str, Any]:
        """What the server knows of a run."""
        return requests.get(f"{self.address}/api/flow_runs/{identity}", timeout=30).json()

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        """All runs of a deployment whose time has come, the first first."""
        only = {"deployments": {"id": {"any_": [self.deployment(deployment)["id"]]}}}
        due = {"flow_runs": {"start_time": {"is_null_": False}}}
        return self.ask("flow_runs/filter", sort="START_TIME_ASC", **only, **due)

    def wait_until(self, identity: str, within_s: float, *, name: str = "") -> dict[str, Any]:
        """Waits until a run has ended, or until its state has this name; gives what is known of it then."""
        wanted: Callable[[dict[str, Any]], bool] = lambda state: state["name"] == name if name else False  # noqa: E731
        deadline = time.monotonic() + within_s
        while not wanted((run := self.run(identity))["state"]) and run["state"]["type"] not in ENDED:
            assert time.monotonic() < deadline, run["state"]
            time.sleep(0.3)
        return run

    def task_states(self, identity: str) -> dict[str, str]:
        """The name of the state of each task of a run."""
        tasks = self.ask("task_runs/filter", flow_runs={"id": {"any_": [identity]}}, limit=200)
        return {task["name"]: task["state"]["name"] for task in tasks}

    def states_passed(self, identity: str) -> Sequence[tuple[str, str]]:
        """Name and message of each state that a run was in, the first first."""
        path = f"{self.address}/api/flow_run_states/"
        states = requests.get(path, params={"flow_run_id": identity}, timeout=30).json()
        return [(each["name"], each["message"] or "") for each in sorted(states, key=lambda each: each["timestamp"])]


@contextmanager
def ui_in(clone: Clone) -> Iterator[Ui]:
    """Starts Prefect's server and worker in a clone, and stops them afterwards."""
    port = free_port()
    # A file: what the server and the worker inherit of a pipe would stay open for as long as they run.
    with (clone.root / "started.log").open("w") as printed:
        command = ["python", "-m", "flows.ui", "start", "--port", str(port)]
        subprocess.run(command, cwd=clone.root, env=clone.environment, stdout=printed, check=True)
    try:
        yield Ui(clone, f"http://127.0.0.1:{port}")
    finally:
        clone.run("python", "-m", "flows.ui", "stop")
