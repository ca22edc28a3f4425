"""Opens the executor on which per-video work runs."""

import multiprocessing
import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import joblib

from soundback.lifetime import die_with_parent
from soundback.settings import Settings


def open_executor(settings: Settings | None = None) -> Executor:
    """Opens a `concurrent.futures` executor as SOUNDBACK_EXECUTOR and SOUNDBACK_WORKERS say.

    Use it as a context manager. Workers of a process pool die with the process that opened it.
    """
    settings = settings or Settings()
    workers = settings.workers or joblib.cpu_count()
    if settings.executor == "threads":
        return ThreadPoolExecutor(workers)
    # Spawned workers inherit no locks or open sockets from a parent that runs threads.
    return ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),)
    )
