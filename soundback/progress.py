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

VIDEO_BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}, {remaining} left{postfix}]"


def no_progress(done: int, total: int) -> None:
    """Shows nothing."""


@contextmanager
def show_progress(what: str, *, of_video: bool = False) -> Iterator[Progress]:
    """Yields a `Progress` that draws a bar on a terminal and prints lines elsewhere.

    Args:
      what: shown beside the bar, e.g. "Training the WaveNet".
      of_video: what is done are milliseconds of video, and the bar says how much faster than real time.
    """
    if load_settings().progress == "lines" or not sys.stderr.isatty():
        yield _lines(what, of_video)
        return
    with tqdm(desc=what, dynamic_ncols=True, mininterval=0.2, bar_format=VIDEO_BAR if of_video else None) as bar:
        pace = _Pace(of_video)

        def draw(done: int, total: int) -> None:
            bar.total = total
            bar.set_postfix_str(pace.describe(done), refresh=False)
            bar.update(done - bar.n)

        yield draw


def _lines(what: str, of_video: bool) -> Progress:
    started = last = time.monotonic()
    pace = _Pace(of_video)

    def line(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        words = pace.describe(done)
        if done < total and now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        left_s = (now - started) / max(done, 1) * (total - done)
        words = f"about {left_s:.0f} s left{words}"
        print(f"PROGRESS {done} {total} {what}, {words}", flush=True)  # noqa: T201 (its purpose)

    return line


class _Pace:
    """How fast video goes by, from when the first of it was done: what came before was loading."""

    def __init__(self, of_video: bool) -> None:
        self._of_video = of_video
        self._first: tuple[float, int] | None = None

    def describe(self, done: int) -> str:
        now = time.monotonic()
        if not self._of_video:
            return ""
        if self._first is None:
            self._first = now, done
        spent_s, done_s = now - self._first[0], (done - self._first[1]) / 1000
        return f", {done_s / spent_s:.1f} x real time" if spent_s > 0 else ""
