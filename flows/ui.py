"""Prefect's server and one worker on this machine, with everything in prefect.yaml deployed (`make ui`)."""

import argparse
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

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
START_S = 120.0
STOP_S = 4.0


class UiError(SoundbackError):
    """The server or the worker could not be started."""


def start(port: int) -> None:
    """Starts what is not running yet: server, deployments, worker.

    Raises:
      UiError: when the port is taken, or a part does not come up.
    """
    if _find("server") and _find("worker"):
        _tell(ADDRESS.read_text(encoding="utf-8"))
        return
    stop()
    _check_free(port)
    address = f"http://{HOST}:{port}"
    environment = {
        **os.environ,
        # Without these the pages that a server on another port than 4200 serves look for it on 4200.
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"{address}/api",
        "SOUNDBACK_PROJECT": str(PROJECT),
    }
    _start("server", ["server", "start", "--host", HOST, "--port", str(port)], environment)
    _wait_until_healthy(f"{address}/api/health")
    _run(["work-pool", "create", POOL, "--type", "process", "--overwrite"], environment)
    _run(["deploy", "--all"], environment)
    _start("worker", ["worker", "start", "--pool", POOL, "--name", "here", "--install-policy", "never"], environment)
    ADDRESS.write_text(address, encoding="utf-8")
    _tell(address)


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
    log.info("                  PREFECT_API_URL=%s/api .venv/bin/prefect deployment run pipeline/demand", address)
    log.info("Stop it all:      make ui-stop")


def _start(name: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Starts a part of Prefect in the background and notes which process it is."""
    STATE.mkdir(exist_ok=True)
    with (STATE / f"{name}.log").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
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
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        stop()
        raise UiError(f"`prefect {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UiError(f"Port {port} on {HOST} is taken. Choose another: make ui PORT={port + 1}.") from error


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
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        start(arguments.port) if arguments.action == "start" else stop()
    except SoundbackError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
