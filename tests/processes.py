"""Which processes run where, and whether they have ended."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil


def still_running(processes: Iterable[psutil.Process], *, within_s: float) -> list[psutil.Process]:
    """Those that have not ended `within_s` seconds from now; gives up waiting once all have.

    An orphan that ended stays in the process table until its new parent looks, which may take long: it does not run.
    """
    deadline = time.monotonic() + within_s
    left = list(processes)
    while (left := [each for each in left if _runs(each)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_in(root: Path) -> list[psutil.Process]:
    """Those that work in a folder or below it; not this one."""
    found = psutil.process_iter(["cwd", "pid"])
    return [each for each in found if (each.info["cwd"] or "").startswith(str(root)) and each.pid != os.getpid()]
