"""Finds the clips that resemble one of a split that is held out from theirs."""

import logging
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from soundback import schemas
from soundback.dataset import label_folders
from soundback.media.prints import find_nearest, print_distance
from soundback.params import Curation, load_params
from stages import stage_process

log = logging.getLogger(__name__)

Row = dict[str, Any]
PRINTS = {"picture": "picture_print", "sound": "sound_print"}
"""What a duplicate is found by, and in which column of the downloads."""


def find_duplicates(videos: Path, duplicates: Path, *, params: Curation, labels: Collection[str]) -> None:
    """Writes a table with a `schemas.DUPLICATES` row for each clip that is to be left out.

    Train gives way to validation and test, validation gives way to test: what is held out stays. Each clip is compared
    with every one of the splits that are held out from it, and its row names the nearest. So whether a clip is left out
    hangs on its own pairs alone, and more videos never bring one back.

    Comparing one pair costs about 11 ns: a hundredth of a second for 2,400 clips, 18 s and 400 MB for 100,000.

    Args:
      videos: folder of all labels' clips.
      duplicates: table to write.
      params: max_print_distance; None finds nothing, not even the same file twice.
      labels: folder names that must be there, and no others.

    Raises:
      DataContractError: when a folder is missing or belongs to no label.
    """
    clips: list[Row] = [
        row
        for folder in label_folders(videos, labels)
        for row in schemas.read_table(folder / "downloads.parquet", schemas.DOWNLOADS).to_pylist()
        if row["status"] == "ok"
    ]
    clips.sort(key=_key)
    found: list[Row] = []
    if params.max_print_distance is not None:
        for place, split in enumerate(schemas.SPLITS):
            giving_way = [clip for clip in clips if clip["split"] == split]
            held_out = [clip for clip in clips if clip["split"] in schemas.SPLITS[place + 1 :]]
            found += _resembling(giving_way, held_out, params.max_print_distance)
    schemas.write_table(sorted(found, key=_key), schemas.DUPLICATES, duplicates)
    by = Counter(row["by"] for row in found)
    log.info(
        "%d of %d clips resemble one that is held out from them: %d by picture, %d by sound, %d by both.",
        *(len(found), len(clips), by["picture"], by["sound"], by["both"]),
    )


def _key(row: Row) -> tuple[str, int, str]:
    return row["video_id"], row["clip_index"], row["label"]


def _resembling(giving_way: Sequence[Row], held_out: Sequence[Row], max_distance: float) -> list[Row]:
    """A row for each clip that resembles one that is held out, naming the nearest."""
    found: dict[tuple[str, int, str], Row] = {}
    for clip, other in _candidates(giving_way, held_out):
        pair = _compare(clip, other, max_distance)
        if pair and pair["distance"] < found.get(_key(clip), {"distance": 1.0})["distance"]:
            found[_key(clip)] = pair
    return list(found.values())


def _candidates(giving_way: Sequence[Row], held_out: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Each clip with that of the same file, with the nearest by picture, and with the nearest by sound."""
    files = {other["sha256"]: other for other in reversed(held_out) if other["sha256"]}
    yield from ((clip, files[clip["sha256"]]) for clip in giving_way if clip["sha256"] in files)
    for column in PRINTS.values():
        ours, theirs = ([clip for clip in clips if clip[column]] for clips in (giving_way, held_out))
        if ours and theirs:
            nearest = find_nearest([clip[column] for clip in ours], [other[column] for other in theirs])
            yield from ((clip, theirs[index]) for clip, index in zip(ours, nearest, strict=True))


def _compare(clip: Row, other: Row, max_distance: float) -> Row | None:
    """A row of the table, if the two are duplicates."""
    same_file = clip["sha256"] is not None and clip["sha256"] == other["sha256"]
    near = {}
    for kind, column in PRINTS.items():
        if same_file:
            near[kind] = 0.0
        elif (
            clip[column] and other[column] and (distance := print_distance(clip[column], other[column])) < max_distance
        ):
            near[kind] = distance
    # A table of one's own may put a video under two labels into two splits; it is left out as it is.
    if not near or clip["video_id"] == other["video_id"]:
        return None
    named = ("video_id", "clip_index", "label", "split")
    by = "both" if len(near) == len(PRINTS) else next(iter(near))
    ours, theirs = {name: clip[name] for name in named}, {f"of_{name}": other[name] for name in named}
    return {**ours, **theirs, "by": by, "distance": min(near.values())}


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        find_duplicates(*map(Path, sys.argv[1:]), params=params.curation, labels=params.labels)
