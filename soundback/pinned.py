"""The tables that dvc.lock pinned at a revision, and what became of their videos since.

DVC is asked for them in a process of its own: the library works without it.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soundback.attrition import PENDING, UNLISTED, Fate, Tables, follow_videos
from soundback.errors import SoundbackError

if TYPE_CHECKING:
    from rich.console import Group

Fates = Mapping[str, Mapping[str, Fate]]
"""{folder name of the label: {video_id: fate}}."""

# Takes files of a revision out of DVC's cache, or else its remote, and says for each what kept it from doing so.
READER = """
import json, sys
from pathlib import Path
from dvc.api import DVCFileSystem
revision, folder, *names = sys.argv[1:]
files, faults = DVCFileSystem(rev=revision), {}
for name in names:
    out = Path(folder, name)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with files.open(name, "rb") as file:
            out.write_bytes(file.read())
    except Exception as error:
        faults[name] = f"{type(error).__name__}: {error}"
print(json.dumps(faults))
"""
NOT_PINNED = "No such file or directory"
NOT_STORED = ("No storage files available", "failed to load directory")
VIDEOS_SHOWN = 40
WORDS_SHOWN = 80


@dataclass(frozen=True)
class Since:
    """What became of a label's videos since a revision.

    Attributes:
      label: folder name.
      had: videos of which a clip was there.
      kept: those of which one is there still.
      lost: the others, by cause: {cause: {video_id: the source's words}}.
      came_back: ids of videos that were listed and not had then, and are had now.
    """

    label: str
    had: int
    kept: int
    lost: Mapping[str, Mapping[str, str]]
    came_back: tuple[str, ...]


def follow_pinned(revision: str, labels: Sequence[str], project: Path = Path()) -> dict[str, dict[str, Fate]]:
    """Finds what had become of each video by a revision, as `attrition.follow_videos` does for now.

    Args:
      revision: of git.
      labels: folder names; those that had no tables yet have no videos.
      project: the folder with dvc.lock.

    Raises:
      SoundbackError: if DVC, the revision or what DVC stored is not there.
    """
    names = [
        f"data/{name}" for key in labels for name in (f"videos/{key}/downloads.parquet", f"audio/{key}/audio.parquet")
    ]
    with tempfile.TemporaryDirectory() as folder:
        faults = _take_out(revision, [*names, "data/duplicates.parquet"], Path(folder), project)
        absent = [name for name, words in faults.items() if any(phrase in words for phrase in NOT_STORED)]
        if absent:
            raise SoundbackError(
                f"Of the tables that dvc.lock pins at {revision}, DVC's cache and remote lack {len(absent)}, "
                f"{absent[0]} among them. Where they were made, `dvc push --all-commits` puts them on the remote."
            )
        if others := [words for words in faults.values() if NOT_PINNED not in words]:
            raise SoundbackError(f"The tables of revision {revision} cannot be read: {others[0]}")
        if len(faults) == len(names) + 1:
            raise SoundbackError(
                f"dvc.lock pins no tables of {', '.join(labels)} at {revision}. Name a later revision."
            )
        return follow_videos(Tables.of(Path(folder) / "data"), labels)


def compare(before: Fates, now: Fates) -> list[Since]:
    """Says per label what became of the videos that were had, and which came back."""
    return [_since(key, before[key], now.get(key, {})) for key in sorted(before)]


def as_table(changes: Sequence[Since], revision: str) -> "Group":
    """The changes as tables for a terminal: by label, then each video that was lost."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Column, Table

    titles = (f"had at {revision}", "still had", "lost since", "came back")
    by_label = Table("label", *(Column(title, justify="right") for title in titles), "why", box=None)
    for each in changes:
        numbers = (each.had, each.kept, each.had - each.kept, len(each.came_back))
        why = ", ".join(f"{len(videos)} {cause}" for cause, videos in each.lost.items())
        by_label.add_row(each.label, *map(str, numbers), why)
    by_video = Table("label", "video", "cause", "in the source's words", box=None)
    lost = [
        (each.label, video_id, cause, escape(words[:WORDS_SHOWN]))
        for each in changes
        for cause, videos in each.lost.items()
        for video_id, words in videos.items()
        if cause != PENDING
    ]
    for row in lost[:VIDEOS_SHOWN]:
        by_video.add_row(*row)
    if not lost:
        return Group(by_label)
    return Group(by_label, "", by_video, f" and {len(lost) - VIDEOS_SHOWN} more" if len(lost) > VIDEOS_SHOWN else "")


def _since(key: str, before: Mapping[str, Fate], now: Mapping[str, Fate]) -> Since:
    had = [video_id for video_id, fate in before.items() if fate.had]
    lost: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for video_id in had:
        fate = now.get(video_id, Fate("list", UNLISTED))
        if not fate.had:
            lost[fate.cause][video_id] = fate.words or ""
    came_back = [
        video_id
        for video_id, fate in now.items()
        if fate.had and video_id in before and not before[video_id].had and before[video_id].status != PENDING
    ]
    n_lost = sum(map(len, lost.values()))
    by_size = dict(sorted(lost.items(), key=lambda item: (-len(item[1]), item[0])))
    return Since(key, len(had), len(had) - n_lost, by_size, tuple(came_back))


def _take_out(revision: str, names: Sequence[str], folder: Path, project: Path) -> dict[str, str]:
    """Puts files of a revision into a folder; returns what DVC said of those it could not.

    Raises:
      SoundbackError: if DVC cannot be asked.
    """
    command = [sys.executable, "-c", READER, revision, str(folder), *names]
    asked = subprocess.run(
        command, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if asked.returncode == 0:
        return dict(json.loads(asked.stdout.splitlines()[-1]))
    words = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if "No module named 'dvc'" in words:
        raise SoundbackError("DVC is not installed here: `.venv/bin/pip install -e '.[pipeline]'`.")
    raise SoundbackError(f"DVC cannot read revision {revision} in {project.resolve()}: {words}")
