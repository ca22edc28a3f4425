"""Fills a disk of its own while a stage writes: `python -m tests.small_disk` in a mount namespace, see `fill`."""

import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

from tests.clones import PROJECT

ROOMY = 4 << 30
UNSHARED = ("unshare", "--user", "--map-root-user", "--mount")
MARK = "/next-go"


@dataclass(frozen=True)
class Task:
    """What is to be run on a disk that is too small.

    Attributes:
      stage: its name.
      arguments: of its command line.
      project: a folder that is copied to the disk first.
      disk: where the disk is mounted, an empty folder.
      site: address of a server that is told when a go begins; it need not know of it.
      free: bytes left when the stage begins, a go for each; None for plenty.
    """

    stage: str
    arguments: Sequence[str]
    project: str
    disk: str
    site: str
    free: Sequence[int | None]


@dataclass(frozen=True)
class Go:
    """What came of one go.

    Attributes:
      free: bytes left at its beginning.
      ended: None if all went well, else the sentence it ended with, or "Traceback: ...".
      left: SHA-256 of every file there was then.
      again: as `ended`, of a second run with plenty of room.
      done: as `left`, after it.
    """

    free: int | None
    ended: str | None
    left: dict[str, str]
    again: str | None
    done: dict[str, str]


def can_mount() -> bool:
    """Whether the kernel lets a user mount a disk that nobody else sees."""
    try:
        tried = subprocess.run([*UNSHARED, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return tried.returncode == 0


def fill(task: Task) -> list[Go]:
    """Runs a stage again and again, from the same beginning, with another room left each time."""
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "SOUNDBACK_EXECUTOR": "threads", "SOUNDBACK_WORKERS": "2"}
    command = [*UNSHARED, sys.executable, "-m", "tests.small_disk"]
    run = subprocess.run(command, input=json.dumps(asdict(task)), env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return [Go(**json.loads(line)) for line in run.stdout.splitlines()]


def main() -> None:
    """Runs inside the namespace."""
    task = Task(**json.loads(sys.stdin.read()))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What the stage prints is no answer.
    disk = Path(task.disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(disk)], check=True)
    os.chdir(disk)
    for free in task.free:
        for entry in disk.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.copytree(task.project, disk, dirs_exist_ok=True)
        ended, left = run_stage(task, free), files_in(disk)
        again, done = run_stage(task, None), files_in(disk)
        print(json.dumps(asdict(Go(free, ended, left, again, done))), file=answers, flush=True)


def run_stage(task: Task, free: int | None) -> str | None:
    """Runs a stage as a program, but in this process: no second start of the interpreter for each page of a disk."""
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(task.site + MARK).close()
    sys.modules.pop(f"stages.{task.stage}", None)
    resize(Path(task.disk), free)
    # Room enough is found before the work begins; then the disk fills.
    arguments = mock.patch.object(sys, "argv", [task.stage, *task.arguments])
    try:
        with arguments, mock.patch("soundback.doctor.checks.require"):
            runpy.run_module(f"stages.{task.stage}", run_name="__main__")
    except SystemExit as ended:
        return str(ended.code)
    except Exception as error:  # noqa: BLE001 (the test says that there must be none)
        return f"Traceback: {type(error).__name__}: {error}"
    finally:
        resize(Path(task.disk), None)
    return None


def resize(disk: Path, free: int | None) -> None:
    """Leaves so many bytes on the disk, or plenty."""
    now = os.statvfs(disk)
    size = ROOMY if free is None else (now.f_blocks - now.f_bfree) * now.f_frsize + free
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def files_in(disk: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    files = [path for path in disk.rglob("*") if path.is_file()]
    return {str(path.relative_to(disk)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main()
