"""Fetches the videos of one label and keeps one clip or more of each."""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from soundback import schemas
from soundback.doctor import checks
from soundback.errors import DataContractError, LabelError, SettingsError, TransientError
from soundback.outputs import check_case_kept
from soundback.params import Curation, Download, Source, load_params
from soundback.progress import show_progress
from soundback.settings import load_settings
from soundback.sources import origins
from soundback.sources.cutting import Clip
from soundback.sources.download import RECIPE
from soundback.sources.harvest import Order, Wanted, download_all
from soundback.sources.ledger import Ledger, hash_request
from stages import each_label, stage_process

log = logging.getLogger(__name__)


class Sections(NamedTuple):
    """What the downloads need to know of the params."""

    source: Source
    download: Download
    curation: Curation


def download_videos(catalog: Path, videos: Path, *, params: Sections) -> None:
    """Fills a folder with clips, and its `downloads.parquet` with a `schemas.DOWNLOADS` row for each, had or not.

    What the folder already holds is not fetched again; what the catalog no longer wants is removed.

    Args:
      catalog: a table of `schemas.CATALOG`.
      videos: the folder to fill.
      params: where the videos are, and what is wanted of them.

    Raises:
      SourceError: if the source refuses us, or too many videos failed for reasons that may pass; the work done is kept.
      LabelError: if none could be had.
    """
    catalogued = {row["video_id"]: row for row in schemas.read_table(catalog, schemas.CATALOG).to_pylist()}
    fetchable = [video_id for video_id, row in catalogued.items() if row["status"] == "ok"]
    _check_ids(fetchable, catalog)
    check_case_kept(videos, fetchable)
    # How many may fail decides no byte.
    limits = params.download.model_dump(mode="json", exclude={"max_retryable_share"})
    ledger = Ledger(
        videos,
        request=hash_request(origins.identify(params.source), limits, {"recipe": RECIPE}),
        taste=_hash_taste(params.curation),
    )
    held = ledger.held(retry=_checked(load_settings().retry))
    outcomes = {video_id: clips for video_id, clips in held.clips.items() if video_id in catalogued}
    outcomes |= {video_id: [_gone(row)] for video_id, row in catalogued.items() if row["status"] == "gone"}
    missing = [row for video_id, row in catalogued.items() if video_id not in outcomes]
    if missing:
        log.info(
            f"{len(outcomes)} of {len(catalogued)} videos need no asking; "
            f"{len(missing)} to fetch{' or look at again' * bool(held.for_another_taste)}."
        )
        with origins.open_base(params.source) as base, show_progress(f"Downloading {videos.name}") as progress:
            orders = [
                Order(row["video_id"], base + row["address"], tuple(held.for_another_taste.get(row["video_id"], ())))
                for row in missing
            ]
            wanted = Wanted(params.download, params.curation)
            outcomes |= download_all(orders, ledger, wanted=wanted, progress=progress)
    _check_yield(outcomes, params.download)
    ledger.close(
        [
            {**asdict(clip), "label": catalogued[video_id]["label"], "split": catalogued[video_id]["split"]}
            for video_id in sorted(catalogued)
            for clip in outcomes[video_id]
        ]
    )
    log.info(f"{_counts(outcomes)}.")


def _check_ids(video_ids: Iterable[str], catalog: Path) -> None:
    """Refuses what cannot be a file's name: the catalog may have been written by something else.

    Raises:
      DataContractError: naming the first.
    """
    if odd := [video_id for video_id in video_ids if not schemas.VIDEO_ID.fullmatch(video_id)]:
        raise DataContractError(
            f"{catalog} names a video {odd[0][:60]!r}; an id has 1 to 40 of A-Z, a-z, 0-9, _ and -. "
            "Make the catalog anew with `dvc repro --force`."
        )


def _hash_taste(curation: Curation) -> str:
    """How near duplicates may be is for the stage that finds them; here it counts whether clips get fingerprints."""
    limits = curation.model_dump(mode="json", exclude={"max_print_distance"})
    return hash_request(limits, {"prints": curation.max_print_distance is not None})


def _checked(retry: frozenset[str]) -> frozenset[str]:
    """The statuses to ask again.

    Raises:
      SettingsError: if one of them is none.
    """
    if unknown := sorted(retry - set(schemas.DOWNLOAD_STATUSES)):
        raise SettingsError(
            f"SOUNDBACK_RETRY names {', '.join(unknown)}; the statuses are {', '.join(schemas.DOWNLOAD_STATUSES)}."
        )
    return retry


def _gone(row: Mapping[str, str]) -> Clip:
    status = "removed" if row["reason"].startswith("HTTP ") else "unavailable"
    return Clip(row["video_id"], status=status, reason=row["reason"])


def _check_yield(outcomes: Mapping[str, Sequence[Clip]], params: Download) -> None:
    """Stops before a dataset is made of what happened to be reachable today.

    Raises:
      TransientError: if that may be another day; saying what to do.
      LabelError: if there is nothing.
    """
    statuses = [_status(clips) for clips in outcomes.values()]
    n_retryable = sum(status in schemas.RETRYABLE_STATUSES for status in statuses)
    if n_retryable > params.max_retryable_share * len(statuses):
        raise TransientError(
            f"{_counts(outcomes)}. Network and rate limits may keep at most {params.max_retryable_share:.0%} of the "
            "videos away (download.max_retryable_share). What was fetched is kept: wait, or give cookies by "
            "SOUNDBACK_COOKIES, or update yt-dlp, and run again."
        )
    if "ok" not in statuses:
        raise LabelError(f"{_counts(outcomes)}. Nothing can be made of this label: choose another in params.yaml.")


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
        checks.require(params, "download_videos")
        sections = Sections(params.source, params.download, params.curation)
        branch, (catalogs, videos) = sys.argv[1], map(Path, sys.argv[2:])
        each_label(
            params.labels,
            branch,
            lambda label: download_videos(catalogs / label / "catalog.parquet", videos / label, params=sections),
        )
