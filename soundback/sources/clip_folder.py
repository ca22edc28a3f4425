"""A folder LABEL/*.mp4 becomes a table of one's own videos, and a params file that names its labels."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from soundback.errors import ParamsError, SourceError
from soundback.params import Dataset, TableSource, load_params
from soundback.progress import Progress, no_progress
from soundback.schemas import SPLITS
from soundback.sources.naming import name_keys, write_labels
from soundback.sources.own_videos import effective_split, hash_file
from soundback.sources.sampling import sample_ids
from soundback.sources.table import Row, read_rows, write_rows

SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})
# One to train on, one to choose the best weights by, one to judge by.
MIN_VIDEOS = len(SPLITS)
MIN_LABELS = 2

# Control characters, and bytes that are no UTF-8, as Python shows them.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def update_table(table: Path, folder: Path, *, dataset: Dataset, progress: Progress = no_progress) -> list[Row]:
    """Brings a table up to date with a folder of videos.

    Args:
      table: the CSV, written anew; what stands in it of other folders stays.
      folder: one folder per label in it.
      dataset: how ids decide splits.
      progress: called after every file.

    Raises:
      SourceError: if there is nothing to list, too little under a label, or the table is wrong as it is.
    """
    listed = read_rows(table) if table.exists() else ()
    found = find_videos(folder, table.parent, progress=progress)
    rows = fill_splits(merge(listed, found, folder, table.parent), dataset)
    if len(labels := {row.label for row in rows}) < MIN_LABELS:
        raise SourceError(
            f"{folder} has one label, {labels.pop()}: put a folder of something else beside it, so that there is "
            "something to tell apart."
        )
    write_rows(rows, table)
    return rows


def find_videos(folder: Path, base: Path, *, progress: Progress = no_progress) -> list[Row]:
    """Finds FOLDER/LABEL/*.mp4 and the like; what begins with a dot is hidden and stays so.

    Args:
      folder: one folder per label in it.
      base: the folder of the table; addresses of what lies below it are relative.
      progress: called after every file, each of which is read.

    Returns:
      Rows, sorted by label and address.

    Raises:
      SourceError: if there are none, or a name cannot be written to a table.
    """
    if not folder.is_dir():
        raise SourceError(f"There is no folder {folder}. Say the folder that holds one folder of videos per label.")
    paths = sorted(path for path in folder.glob("*/*") if is_video(path))
    if not paths:
        astray = next((path.name for path in sorted(folder.glob("*")) if is_video(path)), None)
        found = f"; {astray} lies in no label's folder" if astray else ""
        raise SourceError(f"{folder} holds no videos as {folder.name}/LABEL/NAME.mp4{found}.")
    if odd := [path for path in paths if _UNWRITABLE.search(str(path)) or not path.parent.name.strip()]:
        raise SourceError(f"{len(odd)} names cannot be written to a table, {str(odd[0])!r} first. Rename the files.")
    rows = []
    for path in paths:
        rows.append(Row(_address(path, base), path.parent.name.strip(), sha256=hash_file(path)))
        progress(len(rows), len(paths))
    return sorted(rows, key=lambda row: (row.label, row.address))


def merge(listed: Sequence[Row], found: Sequence[Row], folder: Path, base: Path) -> list[Row]:
    """Brings a table up to date with a folder; what stands in it of other videos stays.

    Args:
      listed: what the table said.
      found: what the folder holds now.
      folder: the one that was searched.
      base: the folder of the table.

    Returns:
      Rows, sorted. Of a file known before the split stays, and while its bytes are the same the video_id too.
    """
    known = {(row.label, row.address): row for row in listed}
    new = [_with_what_was_said(row, known.get((row.label, row.address), row)) for row in found]
    others = [row for row in listed if not (row.is_file and _grandparent(base / row.address) == _absolute(folder))]
    return sorted([*others, *new], key=lambda row: (row.label, row.address))


def fill_splits(rows: Sequence[Row], dataset: Dataset) -> list[Row]:
    """Gives every label a video of each split: few videos may by chance all fall into one.

    Args:
      rows: of a table; a split that stands there stays.
      dataset: the shares by which ids decide.

    Raises:
      SourceError: if a label has too few videos for that.
    """
    by_label: defaultdict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_label[row.label].setdefault(row.video_id, row)
    if poor := {label: len(videos) for label, videos in by_label.items() if len(videos) < MIN_VIDEOS}:
        told = ", ".join(f"{label} has {n}" for label, n in poor.items())
        raise SourceError(
            f"Every label needs at least {MIN_VIDEOS} different videos, to train on, to validate with and to test on: "
            f"{told}. Add some, or take the folder away."
        )
    moved = {label: _moved(videos, dataset) for label, videos in by_label.items()}
    return [replace(row, split=moved[row.label].get(row.video_id, row.split)) for row in rows]


def choose_settings(params: Path) -> Path:
    """The file that `write_params` starts from: the params themselves if they speak of a table, else profiles/own.yaml.

    Args:
      params: params.yaml, with profiles/ beside it.

    Raises:
      ParamsError: if the params have settings of another source that are in no profile: they would be gone.
    """
    profiles = sorted((params.parent / "profiles").glob("*.yaml"))
    if not params.exists() or params.read_bytes() in [path.read_bytes() for path in profiles]:
        return params.parent / "profiles" / "own.yaml"
    if isinstance(load_params(params).source, TableSource):
        return params
    raise ParamsError(
        f"{params} has settings of your own: keep them with cp {params} profiles/NAME.yaml, or delete the file."
    )


def write_params(params: Path, settings: Path, labels: Iterable[str]) -> bool:
    """Makes a params file name the labels of a table.

    Args:
      params: the file to write.
      settings: the file to take all else from; its comments stay.
      labels: all labels of the table.

    Returns:
      Whether the file changed.
    """
    return write_labels(params, settings, name_keys(labels, load_params(settings).labels), note="as in videos.csv")


def _with_what_was_said(row: Row, old: Row) -> Row:
    """An id that was given to other bytes would hide that they changed."""
    return replace(row, split=old.split, given_id=old.given_id if old.sha256 in ("", row.sha256) else "")


def is_video(path: Path) -> bool:
    """Whether a file's name is a video's; hidden ones are not meant."""
    hidden = path.name.startswith(".") or path.parent.name.startswith(".")
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


def _address(path: Path, base: Path) -> str:
    """Relative to the table's folder, but for what was said as an absolute path and lies elsewhere."""
    relative = os.path.relpath(path, base)
    return path.as_posix() if path.is_absolute() and relative.startswith("..") else Path(relative).as_posix()


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))  # Not `resolve`: a link to a folder is as good as a folder.


def _grandparent(path: Path) -> Path:
    return _absolute(path).parent.parent


def _moved(videos: Mapping[str, Row], dataset: Dataset) -> dict[str, str]:
    """The splits to write down, by video id."""
    splits = {video_id: effective_split(row, dataset) for video_id, row in videos.items()}
    moved: dict[str, str] = {}
    for split in SPLITS:
        counts = Counter(splits.values())
        free = [video_id for video_id, own in splits.items() if counts[own] > 1 and not videos[video_id].split]
        if counts[split] or not free:
            continue
        richest = max(counts[splits[video_id]] for video_id in free)
        chosen = sample_ids([each for each in free if counts[splits[each]] == richest], 1, seed=dataset.seed)[0]
        splits[chosen] = moved[chosen] = split
    return moved
