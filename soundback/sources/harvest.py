"""Fetches many videos at once, and puts each on the books as soon as it is done."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

from soundback import schemas
from soundback.errors import SourceError
from soundback.executors import Workers, open_workers
from soundback.lifetime import interrupts_stay_here
from soundback.media.ffmpeg import ffmpeg_path
from soundback.params import Curation, Download
from soundback.progress import Progress, no_progress
from soundback.settings import load_settings
from soundback.sources.breaker import Breaker
from soundback.sources.cutting import Clip, curate, refuse_full_disk
from soundback.sources.download import absolute_address, download_clips
from soundback.sources.ledger import Ledger
from soundback.sources.pace import Pace

# One video waits for each worker that is about to be free.
WAITING = 1


@dataclass(frozen=True)
class Order:
    """One video to be had.

    Attributes:
      video_id: names its clips.
      address: of the video, or the path of a file.
      kept: clips of it that are here, to be looked at again rather than fetched.
    """

    video_id: str
    address: str
    kept: tuple[Clip, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What is wanted of every video.

    Attributes:
      download: which videos, and which pieces of them.
      curation: which clips.
    """

    download: Download
    curation: Curation


def download_all(
    orders: Sequence[Order], ledger: Ledger, *, wanted: Wanted, progress: Progress = no_progress
) -> dict[str, list[Clip]]:
    """Fetches videos and keeps their clips.

    Only as many videos as there are workers are under way at any time: when the source refuses us, the others have not
    been asked for, and memory does not grow with their number.

    Args:
      orders: the videos.
      ledger: of the folder they go to.
      wanted: of each.
      progress: called after every video.

    Returns:
      What came of each video. Only what lasts is on the books by then: failures that may pass are not.

    Raises:
      SourceError: if the source refuses us, a process was killed, or the disk is full; what was finished is on the
        books.
    """
    ffmpeg_path()  # Without it nothing could be cut: better said before the first download than after each.
    # Absolute, for workers that run elsewhere.
    ledger = replace(ledger, folder=ledger.folder.absolute())
    orders = [replace(each, address=absolute_address(each.address)) for each in orders]
    outcomes: dict[str, list[Clip]] = {}
    breaker = Breaker()
    progress(0, len(orders))
    with _open_pool() as workers:
        for video_id, clips in _work(orders, ledger, wanted, workers, breaker):
            outcomes[video_id] = clips
            progress(len(outcomes), len(orders))
    # With nothing left to ask, it is for the caller to say whether enough was had.
    if breaker.refusal is not None and len(outcomes) < len(orders):
        n_ready = sum(any(clip.status == "ok" for clip in clips) for clips in outcomes.values())
        raise SourceError(
            f'The source refuses us ("{breaker.refusal.words}"), so downloading stopped: {n_ready} more videos are '
            f"ready and kept, {len(orders) - len(outcomes)} were not asked for. {breaker.refusal.advice} Run again and "
            "it goes on from there."
        )
    return outcomes


@contextmanager
def _open_pool() -> Iterator[Workers]:
    """Workers that end at once when the block fails, rather than finish what they have."""
    with open_workers() as workers:
        with interrupts_stay_here():  # The processes of a pool start with its first work.
            workers.executor.submit(os.getpid)
        try:
            yield workers
        except BaseException as error:
            workers.executor.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - workers.others:
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise SourceError(
                    "A process that fetched videos was killed, most often for want of memory. What was fetched is "
                    "kept: run again, with SOUNDBACK_WORKERS=1 if it happens again."
                ) from error
            raise


def _work(
    orders: Sequence[Order], ledger: Ledger, wanted: Wanted, workers: Workers, breaker: Breaker
) -> Iterator[tuple[str, list[Clip]]]:
    """Hands out orders, at the pace that is allowed, until all are done or the breaker trips."""
    pace = Pace(load_settings().videos_per_hour)
    waiting = iter(orders)
    under_way: dict[Future[list[Clip]], str] = {}
    while True:
        room = workers.count + WAITING - len(under_way) if breaker.refusal is None else 0
        for order in islice(waiting, room):
            turn = time.monotonic() + (0.0 if order.kept else pace.take_turn(order.address))
            while breaker.refusal is None and (left_s := turn - time.monotonic()) > 0:
                yield from _finished(under_way, breaker, timeout_s=left_s)
            if breaker.refusal is not None:
                break
            under_way[workers.executor.submit(_fill, order, ledger, wanted)] = order.video_id
        if not under_way:
            return
        yield from _finished(under_way, breaker)


def _finished(
    under_way: dict[Future[list[Clip]], str], breaker: Breaker, timeout_s: float | None = None
) -> Iterator[tuple[str, list[Clip]]]:
    """Waits for the next videos that are done, and takes them out."""
    if not under_way:
        time.sleep(timeout_s or 0.0)
    for future in wait(under_way, timeout_s, FIRST_COMPLETED).done:
        clips = future.result()
        breaker.hear(next((clip.reason for clip in clips if clip.status == "rate_limited"), None))
        yield under_way.pop(future), clips


def _fill(order: Order, ledger: Ledger, wanted: Wanted) -> list[Clip]:
    """Runs in a worker, which notes what came of the video: the parent may be gone by then."""
    try:
        if order.kept:
            clips = [curate(clip, ledger.folder, wanted.curation) for clip in order.kept]
        else:
            clips = download_clips(
                order.video_id,
                order.address,
                ledger.work_folder(order.video_id),
                params=wanted.download,
                curation=wanted.curation,
            )
        if not any(clip.status in schemas.RETRYABLE_STATUSES for clip in clips):
            ledger.enter(order.video_id, clips)
    except OSError as error:
        refuse_full_disk(str(error))
        raise
    return clips
