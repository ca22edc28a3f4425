"""What the trainings and the evaluation read: the usable clips of all labels, no video under two, no copy held out."""

import logging
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from soundback import schemas
from soundback.errors import DataContractError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A clip whose sound is usable.

    Attributes:
      video_id: of the source.
      clip_index: which clip of that video.
      label: display name.
      split: train, validation or test.
      path: wav file.
      n_samples: its length.
    """

    video_id: str
    clip_index: int
    label: str
    split: str
    path: Path
    n_samples: int


@dataclass(frozen=True)
class FrameShards:
    """Where the frames are.

    Attributes:
      paths: Parquet shards of all labels.
      categories: display names of the labels, sorted.
      left_out: ids of videos that are not to be used, of `left_out`.
    """

    paths: tuple[Path, ...]
    categories: tuple[str, ...]
    left_out: frozenset[str]


def audio_clips(root: Path, duplicates: Path, labels: Collection[str], split: str | None = None) -> list[Clip]:
    """Lists the usable clips, in a fixed order.

    Args:
      root: data/audio, one folder per label.
      duplicates: data/duplicates.parquet.
      labels: folder names that must be there, and no others.
      split: which split, or None for all.

    Raises:
      DataContractError: when a folder is missing or belongs to no label.
    """
    rows = [
        (folder, row)
        for folder in label_folders(root, labels)
        for row in schemas.read_table(folder / "audio.parquet", schemas.AUDIO).to_pylist()
    ]
    unwanted = left_out(((row["video_id"], row["label"]) for _, row in rows), duplicates)
    return [
        Clip(row["video_id"], row["clip_index"], row["label"], row["split"], folder / row["path"], row["n_samples"])
        for folder, row in rows
        if row["status"] == "ok" and row["video_id"] not in unwanted and split in (None, row["split"])
    ]


def frame_shards(root: Path, duplicates: Path, labels: Collection[str]) -> FrameShards:
    """Lists the shards of frames.

    Args:
      root: data/frames, one folder per label.
      duplicates: data/duplicates.parquet.
      labels: folder names that must be there, and no others.

    Raises:
      DataContractError: when a folder is missing or belongs to no label.
    """
    paths = [path for folder in label_folders(root, labels) for path in sorted(folder.glob("part-*.parquet"))]
    pairs: set[tuple[str, str]] = set()
    for path in paths:
        table = pq.read_table(path, columns=["video_id", "label"]).to_pydict()
        pairs.update(zip(table["video_id"], table["label"], strict=True))
    categories = tuple(sorted({label for _, label in pairs}))
    return FrameShards(tuple(paths), categories, left_out(pairs, duplicates))


def label_folders(root: Path, labels: Collection[str]) -> list[Path]:
    """The folders of these labels, sorted; a stale folder would poison what is trained on."""
    found = {path.relative_to(root).as_posix() for path in _label_entries(root, labels) if path.is_dir()}
    if stale := sorted(found - set(labels)):
        raise DataContractError(
            f"{root} holds {', '.join(stale)}, which params.yaml does not name. "
            f"Delete {', '.join(str(root / name) for name in stale)}, or add the label again, and run `dvc repro`."
        )
    if missing := sorted(set(labels) - found):
        raise DataContractError(f"{root} lacks {', '.join(missing)}, which params.yaml names. Run `dvc repro`.")
    return [root / label for label in sorted(labels)]


def left_out(pairs: Iterable[tuple[str, str]], duplicates: Path) -> frozenset[str]:
    """Finds the videos that nothing is to train or be tested on, and logs how many.

    Those under several labels: which is heard is not known. And those of which a clip resembles one of a split that is
    held out from theirs, by picture or by sound, with all their clips: who was copied once was copied further on. They
    are left out of every training alike, so that all models have seen and heard the same videos.

    Args:
      pairs: video_id and label of what there is.
      duplicates: what the stage find_duplicates wrote.

    Returns:
      Their ids.
    """
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for video_id, label in pairs:
        labels[video_id].add(label)
    ambiguous = frozenset(video_id for video_id, names in labels.items() if len(names) > 1)
    if ambiguous:
        log.info("%d videos are under several labels and left out: which is heard is not known.", len(ambiguous))
    copies = frozenset(schemas.read_table(duplicates, schemas.DUPLICATES)["video_id"].to_pylist()) & labels.keys()
    if copies:
        log.info("%d videos resemble some that are held out, and are left out.", len(copies))
    return ambiguous | copies


def prune(data: Path, labels: Collection[str]) -> list[Path]:
    """Removes what lies under data/ of labels that the params no longer name; DVC's cache keeps it.

    What is made of all labels together, as duplicates.parquet is, stays: DVC makes it anew.

    Returns:
      What was removed.
    """
    stale = [
        path
        for kind in ("catalog", "videos", "audio", "frames")
        for path in _label_entries(data / kind, labels)
        if path.relative_to(data / kind).as_posix() not in labels
    ]
    for path in stale:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return stale


def _label_entries(root: Path, labels: Collection[str]) -> list[Path]:
    """What lies where the folders of labels are: under `root`, and in the folders of branches that several share."""
    shared = {label.split("/")[0] for label in labels if "/" in label}
    return [
        entry
        for path in (sorted(root.iterdir()) if root.is_dir() else ())
        for entry in (sorted(path.iterdir()) if path.name in shared and path.is_dir() else (path,))
    ]
