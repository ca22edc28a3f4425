"""What was lost on the way from a label to what can be trained on: how many videos, at which step, and why.

Every video that was wanted is counted once: as usable, or under the first thing that took it out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from soundback.errors import DataContractError, SoundbackError
from soundback.outputs import whole_file
from soundback.params import Dataset, Source, TableSource

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group
    from rich.table import Column

Row = Mapping[str, object]

# Not of any table: what no row says.
UNLISTED = "unlisted"
PENDING = "pending"
SEVERAL_LABELS = "several_labels"
DUPLICATE = "duplicate"

USABLE_COLOUR = "#0b5cad"
# Told apart also without colour: neighbours differ in lightness, and hatches begin where the colours start again.
LOST_COLOURS = ("#d95f02", "#f2c14e", "#7b3294", "#a6cee3", "#4d4d4d", "#b2df8a", "#b30000", "#fdcdac", "#1b7837")
HATCHES = ("", "///", "...", "xxx")
WORDS_SHOWN = 100
PLOT_METADATA: Mapping[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What matplotlib would say of itself and the time, per kind of picture."""


@dataclass(frozen=True)
class Tables:
    """Where the tables of all labels are.

    Attributes:
      videos: a folder for each label, with its downloads.parquet.
      audio: a folder for each label, with its audio.parquet.
      catalog: a folder for each label, with its catalog.parquet; only looked at while there is no downloads.parquet.
      duplicates: one table, if duplicates were looked for.
    """

    videos: Path
    audio: Path
    catalog: Path | None = None
    duplicates: Path | None = None

    @classmethod
    def of(cls, data: Path) -> "Tables":
        """The tables in the folder of all that DVC makes."""
        return cls(data / "videos", data / "audio", data / "catalog", data / "duplicates.parquet")


@dataclass(frozen=True)
class Fate:
    """What became of a video.

    Attributes:
      step: where it was lost: list, download, sound or training; None if it is usable.
      status: of `schemas`, or one of this module's; "ok" if it is usable.
      words: the source's own, or what else says why.
      had: whether a clip of it is there.
    """

    step: str | None
    status: str
    words: str | None = None
    had: bool = False

    @property
    def cause(self) -> str:
        """The status, told apart from the same status of an earlier step."""
        return f"{self.status} (sound)" if self.step == "sound" and self.status != PENDING else self.status


@dataclass(frozen=True)
class Account:
    """The books of one label.

    Attributes:
      label: display name.
      wanted: videos asked for.
      had: videos of which a clip is there.
      usable: videos that can be trained on or held out.
      lost: videos per cause, the most frequent first; with `usable` they add up to `wanted`.
      words: an example of what the source said, per cause.
    """

    label: str
    wanted: int
    had: int
    usable: int
    lost: Mapping[str, int]
    words: Mapping[str, str]


def draw_up(tables: Tables, labels: Mapping[str, str], *, wanted: int | None = None) -> list[Account]:
    """Counts what became of the videos of each label.

    Args:
      tables: as far as they exist; what no table speaks of yet is `pending`.
      labels: by folder name; as params.yaml has them, so that they may be MIDs.
      wanted: videos asked for per label; None: as many as are listed.

    Returns:
      The books of each label, in the order of the folders' names.

    Raises:
      DataContractError: if a table is not what it should be.
    """
    return [
        _account(_name(tables, key) or labels[key], fates, wanted)
        for key, fates in follow_videos(tables, labels).items()
    ]


def follow_videos(tables: Tables, labels: Iterable[str]) -> dict[str, dict[str, Fate]]:
    """Finds what became of each listed video.

    Args:
      tables: as far as they exist.
      labels: folder names.

    Returns:
      {folder name: {video_id: fate}}, both sorted.

    Raises:
      DataContractError: if a table is not what it should be.
    """
    keys = sorted(labels)
    heard = {key: _by_video(tables.audio / key / "audio.parquet") for key in keys}
    under: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        for video_id in heard[key] or ():
            under[video_id].append(key)
    unwanted = _duplicates(tables.duplicates) | {
        video_id: Fate("training", SEVERAL_LABELS, f"under {', '.join(where)}: which is heard is not known", had=True)
        for video_id, where in under.items()
        if len(where) > 1
    }
    return {key: _follow(tables, key, heard[key], unwanted) for key in keys}


def summarise(accounts: Sequence[Account]) -> Account:
    """The books of all labels together; a video under two labels counts under both."""
    lost = sum((Counter(account.lost) for account in accounts), Counter())
    return Account(
        "all",
        sum(account.wanted for account in accounts),
        sum(account.had for account in accounts),
        sum(account.usable for account in accounts),
        _by_size(lost),
        {cause: words for account in reversed(accounts) for cause, words in account.words.items()},
    )


def as_table(accounts: Sequence[Account]) -> "Group":
    """The books as tables for a terminal: by label, and for each cause what a source said."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    together = summarise(accounts)
    by_label = Table("label", *(_right(name) for name in ("wanted", "had", "usable", "lost")), "why", box=None)
    for account in [*accounts, together]:
        numbers = (account.wanted, account.had, account.usable, account.wanted - account.usable)
        why = ", ".join(f"{n} {cause}" for cause, n in account.lost.items())
        by_label.add_row(escape(account.label), *map(str, numbers), why, style="bold" if account is together else None)
    by_cause = Table(_right("videos"), "cause", "for example", box=None)
    for cause, n in together.lost.items():
        by_cause.add_row(str(n), cause, escape(together.words.get(cause, "")[:WORDS_SHOWN]))
    return Group(by_label, "", by_cause) if together.lost else Group(by_label)


def draw(accounts: Sequence[Account]) -> "Figure":
    """A bar for each label: what is usable, and what was lost by cause, the most frequent cause first."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.3 + 0.4 * len(accounts)), layout="constrained")
    axes = figure.subplots()
    names, ends = [account.label for account in accounts], [0] * len(accounts)
    for place, part in enumerate(["usable", *summarise(accounts).lost]):
        widths = [account.usable if part == "usable" else account.lost.get(part, 0) for account in accounts]
        # Hatches begin where the colours start again.
        again, colour = divmod(place - 1, len(LOST_COLOURS))
        axes.barh(
            names,
            widths,
            left=ends,
            label=part,
            color=LOST_COLOURS[colour] if place else USABLE_COLOUR,
            hatch=HATCHES[again % len(HATCHES)] if place else "",
            edgecolor="white",
        )
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("videos")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    return figure


def write_plot(accounts: Sequence[Account], path: Path) -> None:
    """Writes what `draw` draws, whole or not at all, without date or program name.

    Raises:
      SoundbackError: if the suffix names no kind of picture.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in PLOT_METADATA:
        raise SoundbackError(f"{path.name} must end in one of {', '.join(f'.{each}' for each in PLOT_METADATA)}.")
    with whole_file(path) as partial:
        draw(accounts).savefig(partial, format=kind, dpi=120, metadata=PLOT_METADATA[kind])


def count_wanted(source: Source, dataset: Dataset) -> int | None:
    """How many videos of each label are asked for; None of a table, which is had as far as it goes."""
    return None if isinstance(source, TableSource) else dataset.videos_per_label


def _account(label: str, fates: Mapping[str, Fate], wanted: int | None) -> Account:
    lost = Counter(fate.cause for fate in fates.values() if fate.step is not None)
    words: dict[str, str] = {}
    for fate in fates.values():
        if fate.words:
            words.setdefault(fate.cause, fate.words)
    if wanted is not None and wanted > len(fates):
        lost[UNLISTED] = wanted - len(fates)
        words[UNLISTED] = f"the source lists {len(fates)} videos of {label}" if fates else "not listed yet"
    usable = sum(fate.step is None for fate in fates.values())
    had = sum(fate.had for fate in fates.values())
    return Account(label, usable + lost.total(), had, usable, _by_size(lost), words)


def _by_size(lost: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(lost.items(), key=lambda item: (-item[1], item[0])))


def _follow(
    tables: Tables, key: str, heard: Mapping[str, list[Row]] | None, unwanted: Mapping[str, Fate]
) -> dict[str, Fate]:
    """What became of each video of one label."""
    fetched = _by_video(tables.videos / key / "downloads.parquet")
    if fetched is None:
        listed = _by_video(tables.catalog and tables.catalog / key / "catalog.parquet") or {}
        return {video_id: _lost("list", rows) or Fate("download", PENDING) for video_id, rows in listed.items()}

    def fate(video_id: str, rows: Sequence[Row]) -> Fate:
        sounds = (heard or {}).get(video_id)
        if lost := _lost("download", rows):
            return lost
        if sounds is None:
            return Fate("sound", PENDING, had=True)
        return _lost("sound", sounds) or unwanted.get(video_id) or Fate(None, "ok", had=True)

    return {video_id: fate(video_id, rows) for video_id, rows in fetched.items()}


def _lost(step: str, rows: Sequence[Row]) -> Fate | None:
    """Why a video was lost at a step; None if any clip of it came through."""
    if any(row["status"] == "ok" for row in rows):
        return None
    reason = rows[0]["reason"]
    return Fate(step, str(rows[0]["status"]), None if reason is None else str(reason), had=step == "sound")


def _name(tables: Tables, key: str) -> str | None:
    """The display name of a label, as its tables have it."""
    paths = (tables.videos / key / "downloads.parquet", tables.catalog and tables.catalog / key / "catalog.parquet")
    return next((str(row["label"]) for path in paths for row in _read(path, ("label",)) or ()), None)


def _duplicates(path: Path | None) -> dict[str, Fate]:
    rows = _read(path, ("video_id", "of_video_id", "of_label", "of_split")) or []
    return {
        str(row["video_id"]): Fate(
            "training", DUPLICATE, f"like {row['of_video_id']} of {row['of_label']}, {row['of_split']} split", had=True
        )
        for row in rows
    }


def _by_video(path: Path | None) -> dict[str, list[Row]] | None:
    """Status and reason of each clip of each video, both sorted; None where there is no table."""
    rows = _read(path, ("video_id", "status", "reason"))
    if rows is None:
        return None
    by_video: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_video[str(row["video_id"])].append(row)
    return dict(sorted(by_video.items()))


def _read(path: Path | None, columns: Sequence[str]) -> list[Row] | None:
    """Some columns of a table, None where there is none: those that tables of every age have.

    Raises:
      DataContractError: if it is no table, or lacks one.
    """
    if path is None or not path.is_file():
        return None
    try:
        return pq.read_table(path, columns=list(columns)).select(columns).to_pylist()
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DataContractError(
            f"{path} is no table with the columns {', '.join(columns)} ({error}). Rebuild it with `dvc repro`."
        ) from error


def _right(name: str) -> "Column":
    from rich.table import Column

    return Column(name, justify="right")
