"""Fetches the videos of one label and keeps one clip or more of each."""

import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from soundback import schemas
from soundback.errors import SourceError
from soundback.params import DemoSource, Download, YouTube8MSource, load_params
from soundback.progress import show_progress
from soundback.sources import youtube8m
from soundback.sources.download import RECIPE, Clip
from soundback.sources.harvest import download_all
from soundback.sources.ledger import Ledger, hash_request
from stages import stage_process

log = logging.getLogger(__name__)


def download_videos(catalog: Path, videos: Path, *, source: DemoSource | YouTube8MSource, download: Download) -> None:
    """Fills a folder with clips, and its `downloads.parquet` with a `schemas.DOWNLOADS` row for each, had or not.

    What the folder already holds is not fetched again; what the catalog no longer wants is removed.

    Args:
      catalog: a table of `schemas.CATALOG`.
      videos: the folder to fill.
      source: where the videos are.
      download: what is wanted of them.

    Raises:
      SourceError: if too many videos failed for reasons that may pass, or none could be had; the work done is kept.
    """
    wanted = {row["video_id"]: row for row in schemas.read_table(catalog, schemas.CATALOG).to_pylist()}
    # How many may fail decides no byte.
    limits = download.model_dump(mode="json", exclude={"max_retryable_share"})
    ledger = Ledger(videos, hash_request(youtube8m.identify(source), limits, {"recipe": RECIPE}))
    outcomes = {video_id: clips for video_id, clips in ledger.held().items() if video_id in wanted}
    outcomes |= {video_id: [_gone(row)] for video_id, row in wanted.items() if row["status"] == "gone"}
    missing = {video_id: row["address"] for video_id, row in wanted.items() if video_id not in outcomes}
    if missing:
        log.info(f"{len(wanted) - len(missing)} of {len(wanted)} videos need no asking; {len(missing)} to fetch.")
        with youtube8m.open_endpoints(source) as endpoints, show_progress(f"Downloading {videos.name}") as progress:
            addresses = {video_id: endpoints.watch + address for video_id, address in missing.items()}
            outcomes |= download_all(addresses, ledger, params=download, progress=progress)
    _check_yield(outcomes, download)
    ledger.close(
        [
            {**asdict(clip), "label": wanted[video_id]["label"], "split": wanted[video_id]["split"]}
            for video_id in sorted(wanted)
            for clip in outcomes[video_id]
        ]
    )
    log.info(f"{_counts(outcomes)}.")


def _gone(row: Mapping[str, str]) -> Clip:
    status = "removed" if row["reason"].startswith("HTTP ") else "unavailable"
    return Clip(row["video_id"], status=status, reason=row["reason"])


def _check_yield(outcomes: Mapping[str, Sequence[Clip]], params: Download) -> None:
    """Stops before a dataset is made of what happened to be reachable today.

    Raises:
      SourceError: saying what to do.
    """
    statuses = [_status(clips) for clips in outcomes.values()]
    n_retryable = sum(status in schemas.RETRYABLE_STATUSES for status in statuses)
    if n_retryable > params.max_retryable_share * len(statuses):
        raise SourceError(
            f"{_counts(outcomes)}. Network and rate limits may keep at most {params.max_retryable_share:.0%} of the "
            "videos away (download.max_retryable_share). What was fetched is kept: wait, or give cookies by "
            "SOUNDBACK_COOKIES, or update yt-dlp, and run again."
        )
    if "ok" not in statuses:
        raise SourceError(f"{_counts(outcomes)}. Nothing can be made of this label: choose another in params.yaml.")


def _counts(outcomes: Mapping[str, Sequence[Clip]]) -> str:
    counts = Counter(_status(clips) for clips in outcomes.values())
    n_ready = counts.pop("ok", 0)
    counted = f"{n_ready} of {len(outcomes)} videos ready"
    if counts:
        failed = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        counted += f", {counts.total()} not: " + ", ".join(f"{n} {status}" for status, n in failed)
    return counted


def _status(clips: Sequence[Clip]) -> str:
    """The status of a video: ok when any clip of it is."""
    return "ok" if any(clip.status == "ok" for clip in clips) else clips[0].status


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        download_videos(Path(sys.argv[1]), Path(sys.argv[2]), source=params.source, download=params.download)
