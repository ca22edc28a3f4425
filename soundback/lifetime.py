"""Processes that end together: with their parent, and on Ctrl-C without a word from each."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import resource_tracker
from typing import Any

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Asks the kernel to end this process when its parent ends, however that ends (Linux; elsewhere nothing).

    DVC leaves a stage running when DVC itself is killed; such an orphan would go on writing outputs.

    Args:
      parent: process id of the parent, where it is known: a worker takes a second to start, and if its parent was
        killed meanwhile, somebody else is its parent by now.
    """
    if sys.platform != "linux":
        return
    parent = parent or os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before the kernel was asked.
        os.kill(os.getpid(), signal.SIGKILL)


def is_orphan() -> bool:
    """Whether the process that started this one within its session has ended: an orphan's new parent is of another."""
    return sys.platform == "linux" and os.getsid(os.getppid()) != os.getsid(0)


def start_tied(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a program that the kernel ends together with the thread that started it (Linux; elsewhere it may go on).

    Args:
      command: program and arguments.
      options: further ones for `subprocess.Popen`.
    """
    if tie := _tie():
        command = [*tie, str(os.getpid()), *command]
    elif sys.platform == "linux":
        options["preexec_fn"] = die_with_parent
    return subprocess.Popen(command, **options)


@cache
def _tie() -> tuple[str, ...]:
    """What to put before our process id and a command to tie it to us; empty where no program can.

    Python's own way, `preexec_fn`, copies this whole process first, and is not safe beside threads.
    """
    program = shutil.which("setpriv") if sys.platform == "linux" else None
    if program is None:
        return ()
    # Then it looks whether we died before the kernel was asked.
    look = 'parent=$1; shift; [ "$PPID" = "$parent" ] && exec "$@"'
    tie = (program, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", look, "sh")
    # BusyBox has a setpriv without this option.
    tried = subprocess.run([*tie, str(os.getpid()), "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return tie if tried.returncode == 0 else ()


@contextmanager
def interrupts_stay_here() -> Iterator[None]:
    """What is started in the block, threads and processes, never sees SIGINT; here it arrives once the block ends.

    Ctrl-C reaches every process of a terminal, and each Python would answer it with a traceback of its own.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # Python's tracker of shared resources starts with the first process, and unblocks SIGINT on its way.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
