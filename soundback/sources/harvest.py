"""Fetches many videos at once, and puts each on the books as soon as it is done."""

import multiprocessing
from collections.abc import Mapping
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool

from soundback import schemas
from soundback.errors import SourceError
from soundback.executors import open_executor
from soundback.lifetime import interrupts_stay_here
from soundback.media.ffmpeg import ffmpeg_path
from soundback.params import Download
from soundback.progress import Progress, no_progress
from soundback.sources.download import Clip, download_clips, refuse_full_disk
from soundback.sources.ledger import Ledger


def download_all(
    addresses: Mapping[str, str], ledger: Ledger, *, params: Download, progress: Progress = no_progress
) -> dict[str, list[Clip]]:
    """Fetches videos and keeps their clips.

    Args:
      addresses: of the videos, by video id.
      ledger: of the folder they go to.
      params: what is wanted of each.
      progress: called after every video.

    Returns:
      What came of each video. Only what lasts is on the books by then: failures that may pass are not.

    Raises:
      SourceError: if a process was killed, or the disk is full; what was finished is on the books.
    """
    ffmpeg_path()  # Without it nothing could be cut: better said before the first download than after each.
    outcomes: dict[str, list[Clip]] = {}
    progress(0, len(addresses))
    with open_executor() as executor:
        before = set(multiprocessing.active_children())
        with interrupts_stay_here():
            futures = {
                executor.submit(_download_one, video_id, address, ledger, params): video_id
                for video_id, address in addresses.items()
            }
        workers = set(multiprocessing.active_children()) - before
        try:
            for future in as_completed(futures):
                outcomes[futures[future]] = future.result()
                progress(len(outcomes), len(addresses))
        except BaseException as error:
            executor.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()
            if isinstance(error, BrokenProcessPool):
                raise SourceError(
                    "A process that fetched videos was killed, most often for want of memory. What was fetched is "
                    "kept: run again, with SOUNDBACK_WORKERS=1 if it happens again."
                ) from error
            raise
    return outcomes


def _download_one(video_id: str, address: str, ledger: Ledger, params: Download) -> list[Clip]:
    """Runs in a worker, which notes what came of the video: the parent may be gone by then."""
    try:
        clips = download_clips(video_id, address, ledger.work_folder(video_id), params=params)
        if not any(clip.status in schemas.RETRYABLE_STATUSES for clip in clips):
            ledger.enter(video_id, clips)
    except OSError as error:
        refuse_full_disk(str(error))
        raise
    return clips
