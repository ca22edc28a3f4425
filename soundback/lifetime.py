"""Processes that must not outlive the one that started them."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Asks the kernel to end this process when its parent ends, however that ends (Linux; elsewhere nothing).

    DVC leaves a stage running when DVC itself is killed; such an orphan would go on writing outputs.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before the kernel was asked.
        os.kill(os.getpid(), signal.SIGKILL)
