"""Prefect's server and one worker on this machine, with everything in prefect.yaml deployed (`make ui`)."""

import argparse
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import requests

from flows import PROJECT
from soundback.errors import SoundbackError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
POOL = "soundback"
STATE = PROJECT / ".prefect"
ADDRESS = STATE / "address"
PROCESSES = ("worker", "server")  # in the order in which they are stopped
PREFECT = (sys.executable, "-m", "prefect")
WORKER = ("worker", "start", "--pool", POOL, "--install-policy", "never")
# A flow that starts while its worker is killed has another parent by the time it can ask who that is.
SAYING_WHO_IT_IS = ("/bin/sh", "-c", 'SOUNDBACK_WORKER=$$ exec "$@"', "sh")
# Prefect's server asks GitHub for a list of worker types, and has one of its own where that does not answer; no setting
# says otherwise. Nobody listens there. A user's own HTTPS_PROXY stays, an empty one too: then it may call out.
CALLS_NOBODY = {"HTTPS_PROXY": os.environ.get("HTTPS_PROXY", f"http://{HOST}:9")}
FOLDER = {"SOUNDBACK_PROJECT": str(PROJECT)}
START_S = 120.0
STOP_S = 4.0


class UiError(SoundbackError):
    """The server or the worker could not be started."""


def start(port: int) -> None:
    """Starts what is not running: server, deployments, worker. What runs goes on, with the runs under way.

    Args:
      port: of the server, unless a part of it all still runs: then the address stays that of before.

    Raises:
      UiError: when the port is taken, or a part does not come up.
    """
    worker = _find("worker")
    if _find("server") and worker:
        _tell(ADDRESS.read_text(encoding="utf-8"))
        return
    address = ADDRESS.read_text(encoding="utf-8") if _find("server") or worker else f"http://{HOST}:{port}"
    port = int(address.rpartition(":")[2])
    environment = {
        **os.environ,
        # Without these the pages that a server on another port than 4200 serves look for it on 4200.
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"{address}/api",
        # Prefect's 10 s are meant for a server far away.
        "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "2"),
    }
    if not _find("server"):
        _check_free(port)
        command = [*PREFECT, "server", "start", "--host", HOST, "--port", str(port)]
        _start("server", command, {**environment, **CALLS_NOBODY})
        ADDRESS.write_text(address, encoding="utf-8")
        _wait_until_healthy(f"{address}/api/health")
    _run(["work-pool", "create", POOL, "--type", "process", "--overwrite"], environment)
    switched_on = _scheduled(f"{address}/api")
    _run(["deploy", "--all"], environment)
    _switch_on(f"{address}/api", switched_on)
    _mark_dead(f"{address}/api", {"RUNNING", "CANCELLING"} if worker else {"RUNNING", "CANCELLING", "PENDING"})
    if worker is None:
        command = [*SAYING_WHO_IT_IS, *PREFECT, *WORKER, "--name", "here", "--work-queue", "default"]
        # Not in `deploy`: that would write this folder into the deployments, for workers on other machines too.
        _start("worker", command, {**environment, **FOLDER})
    _tell(address)


def work(address: str) -> None:
    """Becomes a worker for soundtracks, one at a time and nothing else, of a server elsewhere; runs until stopped.

    Args:
      address: of the server, e.g. http://127.0.0.1:4200 where `ssh -L` leads there.

    Raises:
      UiError: when no server answers there.
    """
    try:
        requests.get(f"{address}/api/health", timeout=10).raise_for_status()
    except requests.RequestException as error:
        raise UiError(f"No Prefect server answers at {address}. Is `make ui` running there, and the tunnel?") from error
    # A slash is not allowed in it.
    name = f"{socket.gethostname()} {PROJECT}".replace("/", "-")
    command = [*SAYING_WHO_IT_IS, *PREFECT, *WORKER, "--name", name, "--work-queue", "elsewhere", "--limit", "1"]
    os.chdir(PROJECT)
    os.execvpe(command[0], command, {**os.environ, **FOLDER, "PREFECT_API_URL": f"{address}/api"})


def stop() -> None:
    """Ends worker, server and all that they started; a run under way ends with its stages."""
    for name in PROCESSES:
        process = _find(name)
        if process is None:
            continue
        tree = [process, *process.children(recursive=True)]
        # From the leaves up, so that a flow still has the time to stop its stages.
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for each in reversed(tree):
                if each.is_running():
                    end(each)
            _, tree = psutil.wait_procs(tree, timeout=STOP_S)
        log.info("Stopped Prefect's %s.", name)
        _note(name).unlink(missing_ok=True)


def _tell(address: str) -> None:
    log.info("Prefect's pages:  %s", address)
    log.info("Start a run:      under Deployments there, or with")
    log.info("                  PREFECT_API_URL=%s/api .venv/bin/prefect deployment run pipeline/pipeline-now", address)
    log.info("Stop it all:      make ui-stop")


def _start(name: str, command: list[str], environment: dict[str, str]) -> None:
    """Starts a part of Prefect in the background and notes which process it is."""
    STATE.mkdir(exist_ok=True)
    with (STATE / f"{name}.log").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # A process id alone may belong to a stranger later; with the time of its start it does not.
    _note(name).write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}", encoding="utf-8")


def _find(name: str) -> psutil.Process | None:
    """The part of Prefect that runs under this name, if it still does."""
    try:
        pid, created = _note(name).read_text(encoding="utf-8").split()
        process = psutil.Process(int(pid))
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    ended = process.status() == psutil.STATUS_ZOMBIE
    return process if process.create_time() == float(created) and not ended else None


def _note(name: str) -> Path:
    return STATE / f"{name}.pid"


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    command = [*PREFECT, "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        stop()
        raise UiError(f"`prefect {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")


def _mark_dead(api: str, types: set[str]) -> None:
    """Has runs that are shown as under way, though nobody is at it, be shown as crashed.

    Who would have said so, the worker or the server, was killed with them. Those of the other queue may be under way on
    another machine.
    """
    wanted = {"flow_runs": {"state": {"type": {"any_": sorted(types)}}}, "work_pools": {"name": {"any_": [POOL]}}}
    under_way = _post(f"{api}/flow_runs/filter", {**wanted, "work_pool_queues": {"name": {"any_": ["default"]}}})
    alive = set()
    for process in psutil.process_iter(["cmdline", "environ"]):
        if "prefect" in " ".join(process.info["cmdline"] or []):
            alive.add((process.info["environ"] or {}).get("PREFECT__FLOW_RUN_ID"))
    for run in under_way:
        if run["id"] not in alive:
            crashed = {"type": "CRASHED", "message": "It was killed, and nobody was left to say so."}
            _post(f"{api}/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})


def _scheduled(api: str) -> set[str]:
    """The deployments whose schedule somebody switched on; deploying switches it off again."""
    found = _post(f"{api}/deployments/filter", {})
    return {each["id"] for each in found if any(schedule["active"] for schedule in each["schedules"])}


def _switch_on(api: str, deployments: set[str]) -> None:
    for each in _post(f"{api}/deployments/filter", {"deployments": {"id": {"any_": sorted(deployments)}}}):
        for schedule in each["schedules"]:
            place = f"{api}/deployments/{each['id']}/schedules/{schedule['id']}"
            requests.patch(place, json={"active": True}, timeout=START_S).raise_for_status()


def _post(address: str, what: dict[str, Any]) -> Any:
    answer = requests.post(address, json=what, timeout=START_S)
    answer.raise_for_status()
    return answer.json()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((HOST, port))
        except OSError as error:
            other = f"make ui-stop, then make ui PORT={port + 1}"
            raise UiError(f"Port {port} on {HOST} is taken. Choose another: {other}.") from error


def _wait_until_healthy(address: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and _find("server"):
        try:
            if requests.get(address, timeout=2).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.3)
    stop()
    raise UiError(f"Prefect's server did not come up; its last words are in {STATE / 'server.log'}.")


def main() -> None:
    """Starts or stops, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m flows.ui", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("start").add_argument("--port", type=int, default=4200)
    actions.add_parser("stop")
    actions.add_parser("work").add_argument("--server", required=True, help="http://HOST:PORT")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        match arguments.action:
            case "start":
                start(arguments.port)
            case "stop":
                stop()
            case "work":
                work(arguments.server)
    except SoundbackError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
