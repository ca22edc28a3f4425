"""Cuts the downloaded clips into grayscale frames and packs them into Parquet shards."""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from soundback import schemas
from soundback.doctor import checks
from soundback.errors import MediaError
from soundback.executors import open_workers
from soundback.media import ffmpeg, shards
from soundback.params import Frames, load_params
from soundback.progress import Progress, show_progress
from stages import each_label, stage_process

log = logging.getLogger(__name__)


def extract_frames(videos: Path, frames: Path, *, params: Frames) -> None:
    """Writes shards of `schemas.FRAMES` rows, clips in the order of their ids.

    A clip that cannot be decoded is left out and named in the log: the table of frames has no place for its reason.
    """
    downloads = schemas.read_table(videos / "downloads.parquet", schemas.DOWNLOADS).to_pylist()
    clips = sorted((row for row in downloads if row["status"] == "ok"), key=_order)
    # Workers write each clip to shards of its own; packed in the order of ids, the bytes do not depend on the workers.
    # Absolute, for workers that run elsewhere.
    parts = frames.absolute().with_name(f".{frames.name}.clips")
    shutil.rmtree(parts, ignore_errors=True)
    folders = [parts / f"{number:06d}" for number in range(len(clips))]
    work = partial(_extract, videos=videos.absolute(), params=params)
    left_out: list[str] = []
    try:
        with open_workers() as workers, show_progress("Extracting frames") as progress:
            # Closing it takes back what has not begun, when packing fails.
            reasons: Any = workers.executor.map(work, clips, folders)
            with closing(reasons):
                finished = _finished(folders, reasons, left_out, progress)
                shards.merge_shards(finished, frames, params=params)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    n_frames = sum(row_group.n_frames for row_group in shards.list_row_groups(frames))
    log.info("%d frames of %d clips; clips left out: %d", n_frames, len(clips) - len(left_out), len(left_out))
    for reason in left_out:
        log.warning("Left out: %s", reason)


def _finished(
    folders: list[Path], reasons: Iterator[str | None], left_out: list[str], progress: Progress
) -> Iterator[Path]:
    """The folders of clips as they get done, while workers go on; each is gone once the next is asked for.

    Args:
      folders: in the order in which they are packed.
      reasons: for each, why it could not be cut; None for those that could.
      left_out: takes up these reasons.
      progress: called after each.
    """
    for done, (folder, reason) in enumerate(zip(folders, reasons, strict=True), start=1):
        if reason:
            left_out.append(reason)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
        progress(done, len(folders))


def _order(row: dict[str, object]) -> tuple[object, object]:
    return row["video_id"], row["clip_index"]


def _extract(row: dict[str, object], folder: Path, *, videos: Path, params: Frames) -> str | None:
    """Cuts one clip into shards of its own; returns the reason if it cannot be decoded."""
    try:
        frames = ffmpeg.read_frames(
            videos / str(row["path"]), frame_rate=params.frame_rate, size=params.size, fit=params.fit
        )
        clip = shards.ClipFrames(
            video_id=str(row["video_id"]),
            clip_index=int(str(row["clip_index"])),
            label=str(row["label"]),
            split=str(row["split"]),
            frames=frames,
        )
        shards.write_shards([clip], folder, params=params)
    except MediaError as error:
        return str(error)
    return None


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        checks.require(params, "extract_frames")
        branch, (videos, frames) = sys.argv[1], map(Path, sys.argv[2:])
        each_label(
            params.labels,
            branch,
            lambda label: extract_frames(videos / label, frames / label, params=params.frames),
        )
