"""Several sounds at once."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from soundback.settings import load_settings

T = TypeVar("T")


def in_parallel(jobs: Sequence[Callable[[], T]], done: Callable[[int], None]) -> list[T]:
    """What the jobs give, in their order. Threads are enough: what takes long releases the GIL.

    Args:
      jobs: what is to be done; when one fails, those that have not begun are left.
      done: called after each, with how many are done.
    """
    with ThreadPoolExecutor(load_settings().workers or os.cpu_count()) as executor:
        futures = [executor.submit(job) for job in jobs]
        try:
            for n_done, future in enumerate(as_completed(futures), 1):
                future.result()
                done(n_done)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
