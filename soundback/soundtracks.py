"""Soundtracks for a folder of videos: one after the other, none lost to another's failure."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

from soundback.errors import MediaError, SoundbackError
from soundback.media import ffmpeg
from soundback.media.containers import MUXERS
from soundback.outputs import whole_file
from soundback.progress import Progress, no_progress
from soundback.sources.clip_folder import is_video

TABLE = "soundtracks.csv"
MILLI = 1000  # Progress counts whole things; a video is a thousand of them.


class Generate(Protocol):
    """Does one video."""

    def __call__(self, video: Path, out: Path, *, progress: Progress) -> object:
        """Writes `video` with sound to `out`; raises a MediaError if it cannot."""


@dataclass(frozen=True)
class Outcome:
    """What came of one video.

    Attributes:
      video: its name.
      status: ok, kept (its output was there already), or a `MediaError` status.
      out: name of the video with sound; "" without one.
      reason: why there is none.
    """

    video: str
    status: str
    out: str = ""
    reason: str = ""


def sound_folder(
    folder: Path, out: Path, generate: Callable[[], Generate], *, overwrite: bool, progress: Progress = no_progress
) -> list[Outcome]:
    """Gives every video of a folder its sound back, and writes what came of each to soundtracks.csv beside them.

    Args:
      folder: where the videos are; folders below it are left alone.
      out: where they go with sound, under their own names; .mkv is added to one that cannot be written as it is.
      generate: gives the function that does it; only asked if there is a video to do, for that takes seconds.
      overwrite: make those anew whose output is there already.
      progress: called as it goes.

    Raises:
      SoundbackError: if there is no video in the folder, or `out` is the folder itself.
    """
    videos = sorted(path for path in folder.iterdir() if is_video(path))
    if not videos:
        raise SoundbackError(f"There is no video in {folder}; folders below it are not looked into.")
    if out.resolve() == folder.resolve():
        raise SoundbackError(f"{out} is where the videos are. Say another folder, so that none is overwritten.")
    out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    work: Generate | None = None
    for number, video in enumerate(videos):

        def inside(done: int, total: int, number: int = number) -> None:
            progress(number * MILLI + MILLI * done // max(total, 1), len(videos) * MILLI)

        target = out / (video.name if video.suffix.lower() in MUXERS else f"{video.name}.mkv")
        if target.exists() and not overwrite:
            outcomes.append(Outcome(video.name, "kept", target.name))
        else:
            try:
                ffmpeg.probe(video)
                work = work or generate()
                work(video, target, progress=inside)
                outcomes.append(Outcome(video.name, "ok", target.name))
            except MediaError as error:
                outcomes.append(Outcome(video.name, error.status, reason=str(error)))
        _write(outcomes, out / TABLE)
        inside(1, 1)
    return outcomes


def _write(outcomes: Sequence[Outcome], path: Path) -> None:
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Outcome)])
        writer.writeheader()
        writer.writerows(map(asdict, outcomes))
