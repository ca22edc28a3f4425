"""Progress of long work: a bar with an estimate for people, plain lines for programs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from soundback.settings import load_settings

Progress = Callable[[int, int], None]
"""Called as `progress(done, total)` as work goes on."""

SECONDS_BETWEEN_LINES = 5.0


def no_progress(done: int, total: int) -> None:
    """Shows nothing."""


@contextmanager
def show_progress(what: str) -> Iterator[Progress]:
    """Yields a `Progress` that draws a bar on a terminal and prints lines elsewhere.

    Args:
      what: shown beside the bar, e.g. "Training the WaveNet".
    """
    if load_settings().progress == "lines" or not sys.stderr.isatty():
        yield _lines(what)
        return
    with tqdm(desc=what, dynamic_ncols=True, mininterval=0.2) as bar:

        def draw(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield draw


def _lines(what: str) -> Progress:
    started = last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        left_s = (now - started) / max(done, 1) * (total - done)
        print(f"PROGRESS {done} {total} {what}, about {left_s:.0f} s left", flush=True)  # noqa: T201 (its purpose)

    return line
