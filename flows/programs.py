"""Programs that a flow runs: their lines as they come, and an end for all of them when the flow ends."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from flows.told import Told
from flows.workspace import LOOK_AGAIN_S
from soundback.errors import SoundbackError

# What a flow runs must not outlive it, or it would go on writing under nobody's eyes.
TIED = "from soundback.lifetime import die_with_parent; die_with_parent({flow}); {code}"
GRACE_S = 2.0

_running: set[subprocess.Popen[str]] = set()
_stopped: WeakSet[subprocess.Popen[str]] = WeakSet()
_guard = threading.Lock()
_stopping = threading.Event()


class StoppedError(SoundbackError):
    """The flow was stopped."""


def run(code: str, arguments: Sequence[str], told: Told, *, settings: Mapping[str, str]) -> int:
    """Runs Python code as a program of its own, in a process group of its own.

    Args:
      code: what it runs.
      arguments: of the program.
      told: takes in what it prints, line by line as it comes.
      settings: environment variables beside ours.

    Returns:
      Its exit status.

    Raises:
      StoppedError: if `stop_all` ended it.
    """
    process = _start([sys.executable, "-c", TIED.format(flow=os.getpid(), code=code), *arguments], settings)
    try:
        assert process.stdout is not None  # noqa: S101 (for mypy; Popen was asked for a pipe)
        with process.stdout:
            for line in process.stdout:
                if text := line.rstrip():
                    told.hear(text)
        status = process.wait()
    finally:
        with _guard:
            _running.discard(process)
    if process in _stopped:
        raise StoppedError(f"{told.what} was stopped; the next run goes on from there.")
    return status


def begin() -> None:
    """Lets programs start again after `stop_all`, for a flow that follows in the same process."""
    _stopping.clear()


def pause(seconds: float = LOOK_AGAIN_S) -> None:
    """Waits.

    Raises:
      StoppedError: as soon as `stop_all` is called.
    """
    if _stopping.wait(seconds):
        raise StoppedError("It was stopped before its turn came; the next run goes on from there.")


def stop_all() -> None:
    """Ends every program and its children: first politely, after `GRACE_S` for good.

    Call it from the flow's main thread, where Prefect's cancellation arrives.
    """
    _stopping.set()
    with _guard:
        processes = list(_running)
        _stopped.update(processes)
    for process in processes:
        _signal_group(process, signal.SIGINT)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        # The group may hold children that outlived their leader.
        _signal_group(process, signal.SIGKILL)


def _start(command: list[str], settings: Mapping[str, str]) -> subprocess.Popen[str]:
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        **settings,
        # dvc.yaml's commands say `python`: the one that runs the flow, activated or not.
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "SOUNDBACK_PROGRESS": "lines",
    }
    with _guard:
        if _stopping.is_set():
            raise StoppedError("The flow was stopped; the next run goes on from there.")
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        _running.add(process)
    return process


def _signal_group(process: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
