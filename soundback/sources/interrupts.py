"""Ctrl-C with many processes: one of them answers it, and ends the others."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


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
