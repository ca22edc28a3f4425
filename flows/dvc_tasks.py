"""One DVC stage as one Prefect task: DVC decides whether it runs, Prefect shows what it says."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast
from uuid import UUID
from weakref import WeakSet

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from soundback.errors import SoundbackError

# DVC itself must not outlive the flow either, or its stage would go on writing under nobody's eyes. The flow may have
# ended before DVC could ask for that: then its parent is another by now.
DVC = (
    "import os, sys; from soundback.lifetime import die_with_parent; die_with_parent();"
    "os.getppid() == {flow} or sys.exit('the flow has ended'); from dvc.cli import main; sys.exit(main())"
)
OUTCOMES = {
    re.compile(r"Stage '.+' didn't change, skipping"): "Skipped",
    re.compile(r"Stage '.+' is cached - skipping run"): "Restored",
    re.compile(r"Running stage '.+':"): "Completed",
}
PROGRESS = re.compile(r"PROGRESS (\d+) (\d+) (.+)")
HINTS = ("To track the changes with git", "To enable auto staging", "Use `dvc push`", "git add ", "dvc config ")
LAST_WORDS = 5
GRACE_S = 2.0

_running: set[subprocess.Popen[str]] = set()
_stopped: WeakSet[subprocess.Popen[str]] = WeakSet()
_guard = threading.Lock()


class StageError(SoundbackError):
    """A stage of the pipeline failed."""


@task(name="dvc stage", task_run_name="{stage}", cache_policy=NO_CACHE)  # DVC is the cache.
def reproduce(stage: str, force: bool = False) -> State[None]:
    """Brings one stage up to date, given that those it depends on are.

    Args:
      stage: as in dvc.yaml, e.g. "extract_audio@drum".
      force: run it even if nothing that it depends on changed.

    Returns:
      A completed state named Skipped (nothing had changed), Restored (DVC knew the result) or Completed (it ran).

    Raises:
      StageError: with the stage's own last words.
    """
    told = _Told(stage, get_run_logger())
    process = _start(stage, force)
    try:
        for line in _lines_of(process):
            told.hear(line)
        code = process.wait()
    finally:
        with _guard:
            _running.discard(process)
    if process in _stopped:
        raise StageError(f"{stage} was stopped; the next run goes on from there.")
    if code != 0:
        raise StageError(f"{stage} failed: {told.last_words()}")
    return Completed(name=told.outcome, message=f"{stage}: {told.outcome.lower()}")


def stop_stages() -> None:
    """Ends every running DVC, its stage and their children: first politely, after `GRACE_S` for good.

    Call it from the flow's main thread, where Prefect's cancellation arrives. DVC runs in a process group of its own.
    """
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


def _start(stage: str, force: bool) -> subprocess.Popen[str]:
    # Without --wait-for-lock, stages that run at the same time fail on DVC's lock now and then.
    options = ["--single-item", "--force"] if force else ["--single-item"]
    command = [sys.executable, "-c", DVC.format(flow=os.getpid()), "--wait-for-lock", "repro", *options, stage]
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        # dvc.yaml's commands say `python`: the one that runs the flow, activated or not.
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "SOUNDBACK_PROGRESS": "lines",
    }
    with _guard:
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


def _lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """What DVC and the stage print, line by line as it comes, without empty lines."""
    if process.stdout is None:
        return
    with process.stdout:
        for line in process.stdout:
            if text := line.rstrip():
                yield text


def _signal_group(process: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


class _Told:
    """What the lines of one DVC run say: outcome, progress, and what was said last."""

    def __init__(self, stage: str, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self.stage = stage
        self.outcome = "Completed"
        self._log = log
        self._artifact: UUID | None = None
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._dvc_words: deque[str] = deque(maxlen=LAST_WORDS)

    def hear(self, line: str) -> None:
        """Takes in one line: progress goes to an artifact, everything else to the log."""
        if progress := PROGRESS.fullmatch(line):
            done, total, what = progress.groups()
            self._show_progress(100 * int(done) / max(int(total), 1), what)
            return
        if line.lstrip().startswith(HINTS):
            return
        self._log.info("%s", line)
        for pattern, outcome in OUTCOMES.items():
            if pattern.match(line):
                self.outcome = outcome
                self._words.clear()
                return
        if line.startswith("ERROR: "):
            self._dvc_words.append(line.removeprefix("ERROR: "))
        elif not line.startswith("> "):
            self._words.append(line)

    def last_words(self) -> str:
        """The last lines of the stage; DVC's own where the stage said nothing."""
        return "\n".join(self._words or self._dvc_words) or "it said nothing"

    def _show_progress(self, percent: float, what: str) -> None:
        if self._artifact is None:
            key = re.sub(r"[^a-z0-9]+", "-", self.stage.lower())
            described = f"{self.stage}: {what}"
            self._artifact = cast(UUID, create_progress_artifact(progress=percent, key=key, description=described))
        else:
            update_progress_artifact(self._artifact, progress=percent, description=f"{self.stage}: {what}")
