"""Soundtracks for many videos: one after the other, none lost to another's failure."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

from soundback.errors import MediaError, SoundbackError
from soundback.media.containers import MUXERS, outline
from soundback.outputs import whole_file
from soundback.progress import Progress, no_progress
from soundback.sources.clip_folder import is_video

TABLE = "soundtracks.csv"


class Written(Protocol):
    """What is known of a video that has its sound."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""

    @property
    def length_s(self) -> float:
        """Of the video."""

    @property
    def spent_s(self) -> Mapping[str, float]:
        """Seconds on the clock, {what: for how long}."""


class Generate(Protocol):
    """Does one video."""

    def __call__(self, video: Path, out: Path, *, progress: Progress) -> Written:
        """Writes `video` with sound to `out`, or beside it; raises a MediaError if it cannot."""


@dataclass(frozen=True)
class Outcome:
    """What came of one video.

    Attributes:
      video: its name.
      status: ok, kept (its output was there already), or a `MediaError` status.
      out: name of the video with sound; "" without one.
      words: why there is none, or what to know of it.
      length_s: seconds of video that got its sound, to a tenth.
      spent_s: seconds that this took, to a tenth.
    """

    video: str
    status: str
    out: str = ""
    words: str = ""
    length_s: float = 0.0
    spent_s: float = 0.0


def find_videos(paths: Iterable[Path]) -> list[Path]:
    """The videos that are meant: files as they are, of a folder those in it, by name; folders below are left alone.

    Raises:
      SoundbackError: if there is none.
    """
    paths = list(paths)
    videos = []
    for path in paths:
        videos += sorted(each for each in path.iterdir() if is_video(each)) if path.is_dir() else [path]
    if not videos:
        raise SoundbackError(f"There is no video in {', '.join(map(str, paths))}; folders below are not looked into.")
    return videos


def sound_videos(
    videos: Sequence[Path],
    out: Path,
    generate: Callable[[], Generate],
    *,
    suffix: str | None = None,
    overwrite: bool,
    progress: Progress = no_progress,
) -> list[Outcome]:
    """Gives every video its sound back, and writes what came of each to soundtracks.csv beside them.

    Args:
      videos: of different names.
      out: folder where they go with sound, under their own names; made if missing.
      generate: gives the function that does it; only asked if there is a video to do, for that takes seconds.
      suffix: names the container of all; by default each keeps its own, and .mkv is added to one that cannot.
      overwrite: make those anew whose output is there already.
      progress: called with milliseconds of video.

    Raises:
      SoundbackError: if `out` holds one of the videos, or two of them would have one output.
    """
    if own := next((video for video in videos if video.parent.resolve() == out.resolve()), None):
        raise SoundbackError(f"{out} is where {own.name} is. Say another folder, so that none is overwritten.")
    targets = [out / _name(video, suffix) for video in videos]
    named = Counter(target.name for target in targets)
    if twice := next((name for name, n in named.items() if n > 1), None):
        raise SoundbackError(f"Two videos would both be written to {out / twice}. Take them one by one.")
    out.mkdir(parents=True, exist_ok=True)
    lengths_ms = [_length_ms(video) for video in videos]
    outcomes: list[Outcome] = []
    work: Generate | None = None
    for number, (video, target) in enumerate(zip(videos, targets, strict=True)):

        def inside(done: int, total: int, number: int = number) -> None:
            share = lengths_ms[number] * done // max(total, 1)
            progress(sum(lengths_ms[:number]) + share, sum(lengths_ms))

        instead = target.with_suffix(".mkv")
        if done := next((path for path in (target, instead) if path.exists() and not overwrite), None):
            outcomes.append(Outcome(video.name, "kept", done.name))
        else:
            try:
                outline(video)
                work = work or generate()
                written = work(video, target, progress=inside)
                spent_s = round(sum(written.spent_s.values()), 1)
                told = (written.path.name, " ".join(written.notes), round(written.length_s, 1), spent_s)
                outcomes.append(Outcome(video.name, "ok", *told))
            except MediaError as error:
                outcomes.append(Outcome(video.name, error.status, words=str(error)))
        _write(outcomes, out / TABLE)
        inside(1, 1)
    return outcomes


def _name(video: Path, suffix: str | None) -> str:
    if suffix is not None:
        return f"{video.stem}{suffix}"
    return video.name if video.suffix.lower() in MUXERS else f"{video.name}.mkv"


def _length_ms(video: Path) -> int:
    try:
        return round(1000 * outline(video).duration_s)
    except MediaError:
        return 0  # It is named when its turn comes.


def _write(outcomes: Sequence[Outcome], path: Path) -> None:
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Outcome)])
        writer.writeheader()
        writer.writerows(map(asdict, outcomes))
