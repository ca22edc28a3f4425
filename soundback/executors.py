"""Opens the workers that per-video work runs on: threads, processes, or a Dask cluster."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import joblib

from soundback.errors import SettingsError
from soundback.lifetime import die_with_parent
from soundback.settings import Settings, load_settings

DASK_TIMEOUT_S = 10


@dataclass(frozen=True)
class Workers:
    """Where work is handed to.

    Attributes:
      executor: takes it.
      count: how much is done at once.
      others: child processes that are not of them, because they were there before.
    """

    executor: Executor
    count: int
    others: frozenset[BaseProcess] = frozenset()


@dataclass
class _Kept:
    closing: ExitStack
    workers: Workers | None = None


_kept: list[_Kept] = []


@contextmanager
def keep_workers() -> Iterator[None]:
    """Has all blocks of `open_workers` within this one share their workers: these take a second or two to start."""
    with ExitStack() as closing:
        _kept.append(_Kept(closing))
        closing.callback(_kept.pop)
        yield


@contextmanager
def open_workers(settings: Settings | None = None) -> Iterator[Workers]:
    """Opens workers as SOUNDBACK_EXECUTOR, SOUNDBACK_WORKERS and SOUNDBACK_DASK_ADDRESS say.

    The processes of a pool die with the process that opened it. The workers of a Dask cluster must see the same files
    under the same paths, so whoever hands out work gives absolute ones.

    Raises:
      SettingsError: if the Dask cluster cannot be had.
    """
    if settings is not None or not _kept:
        with _open(settings or load_settings()) as workers:
            yield workers
        return
    kept = _kept[-1]
    kept.workers = kept.workers or kept.closing.enter_context(_open(load_settings()))
    yield kept.workers


@contextmanager
def _open(settings: Settings) -> Iterator[Workers]:
    count = settings.workers or joblib.cpu_count()
    if settings.executor == "dask":
        with _open_dask(settings.dask_address) as workers:
            yield workers
    elif settings.executor == "threads":
        with ThreadPoolExecutor(count) as executor:
            yield Workers(executor, count)
    else:
        # Spawned workers inherit no locks or open sockets from a parent that runs threads.
        spawning = multiprocessing.get_context("spawn")
        others = frozenset(multiprocessing.active_children())
        with ProcessPoolExecutor(
            count, mp_context=spawning, initializer=die_with_parent, initargs=(os.getpid(),)
        ) as executor:
            yield Workers(executor, count, others)


@contextmanager
def _open_dask(address: str | None) -> Iterator[Workers]:
    if address is None:
        raise SettingsError("SOUNDBACK_EXECUTOR=dask needs an address: SOUNDBACK_DASK_ADDRESS=tcp://HOST:8786.")
    try:
        from distributed import Client
    except ImportError as error:
        raise SettingsError('SOUNDBACK_EXECUTOR=dask needs Dask: pip install "soundback[dask]".') from error
    try:
        client = Client(address, timeout=DASK_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"No Dask scheduler answers at {address} (SOUNDBACK_DASK_ADDRESS). Start one with `dask scheduler`, and "
            "workers with `dask worker ADDRESS`."
        ) from error
    with client:
        count = sum(client.nthreads().values())
        if not count:
            raise SettingsError(f"The Dask scheduler at {address} has no workers. Start some: `dask worker {address}`.")
        # Not pure: the same work done twice is done twice, and no result is kept on the cluster.
        with client.get_executor(pure=False) as executor:
            yield Workers(executor, count)
