"""Which file of one folder belongs to which of another, and what people say of them.

Files belong together by their path below the folder, without ending: a/b.mp4 with a/b.wav.
"""

import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from soundback.errors import DataContractError, SoundbackError

SOUND_SUFFIXES = (
    ".wav", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".ac3", ".aif", ".aiff", ".aifc", ".caf",
    ".amr", ".au", ".wma", ".mka",
)  # fmt: skip
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv", ".ogv", ".3gp",
    ".mxf",
)  # fmt: skip
"""In lower case. What ends otherwise is said to be left alone."""

TRUTH_KEYS = ("name", "category", "onsets_s")


@dataclass(frozen=True)
class Pair:
    """A name, and the files that have it.

    Attributes:
      name: path below the folder, without ending; with it for what is neither sound nor video.
      generated: the sound in question; None where there is not one.
      reference: the real one; None likewise.
      status: one of `scores.STATUSES`; ok as far as names can tell.
      reason: why it is not ok.
    """

    name: str
    generated: Path | None = None
    reference: Path | None = None
    status: str = "ok"
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Truth:
    """What people say of a file.

    Attributes:
      category: what sounds; None where they do not say.
      onsets_s: float [n], when it sets in, seconds in rising order; None likewise.
    """

    category: str | None = None
    onsets_s: np.ndarray | None = None


def find_pairs(generated: Path, reference: Path) -> list[Pair]:
    """Every name of either folder, in order; what has no partner says so.

    Raises:
      SoundbackError: when a folder is missing or no name is in both.
    """
    ours, theirs = list_files(generated), list_files(reference)
    pairs = [_pair(name, ours.get(name, []), theirs.get(name, [])) for name in sorted(ours.keys() | theirs.keys())]
    if not any(pair.status == "ok" for pair in pairs):
        raise SoundbackError(
            f"No sound or video in {generated} has a partner in {reference}. Files belong together by their path below "
            f"the folder, without ending, as a/b.mp4 and a/b.wav. Found {_example(ours, generated)} and "
            f"{_example(theirs, reference)}. Give folders whose files have the same names."
        )
    return pairs


def list_files(folder: Path) -> dict[str, list[Path]]:
    """All files below a folder by their names, in order; what begins with a dot is hidden and stays so.

    Links to folders are not followed. A name has several files where only their endings differ.

    Raises:
      SoundbackError: when there is no such folder.
    """
    if not folder.is_dir():
        raise SoundbackError(f"There is no folder {folder}.")
    found: dict[str, list[Path]] = {}
    for path in sorted(_walk(folder)):
        found.setdefault(_name(path.relative_to(folder)), []).append(path)
    return found


def is_media(path: Path) -> bool:
    """Whether a file's ending is that of a sound or a video."""
    return path.suffix.lower() in (*SOUND_SUFFIXES, *VIDEO_SUFFIXES)


def find_label(name: str, categories: Sequence[str], told: str | None) -> str | None:
    """The category of a file.

    The innermost of its folders that is one of `categories`, or one in lower case with underscores for spaces; else
    what people say; else None.
    """
    by_slug = {_slug(category): category for category in categories}
    for folder in reversed(PurePosixPath(name).parent.parts):
        if _slug(folder) in by_slug:
            return by_slug[_slug(folder)]
    return None if told is None else by_slug.get(_slug(told), told)


def read_truth(path: Path, names: Sequence[str], categories: Sequence[str]) -> dict[str, Truth]:
    """Reads what people say of files: rows {name, category (optional), onsets_s (optional list of seconds)}.

    Args:
      path: .json, a list of objects, or .parquet.
      names: of the files there are.
      categories: those of the judge; a folder's that is one of them must not be said to be another.

    Raises:
      DataContractError: naming every fault.
    """
    entries = _read_entries(path)
    faults = []
    known: set[str] = set()
    for number, entry in enumerate(entries, 1):
        faults += [f"  row {number}: {fault}" for fault in _faults(entry, set(names), categories)]
        if isinstance(entry, dict) and isinstance(name := entry.get("name"), str):
            if name in known:
                faults.append(f"  row {number}: {name!r} stands there twice; expected one row per name")
            known.add(name)
    if faults:
        raise DataContractError("\n".join([f"{path} has {len(faults)} fault(s), and nothing was computed:", *faults]))
    return {
        entry["name"]: Truth(
            entry.get("category"),
            None if entry.get("onsets_s") is None else np.array(entry["onsets_s"], dtype=np.float64),
        )
        for entry in entries
    }


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in files if not name.startswith("."))


def _name(path: Path) -> str:
    plain = (path.with_suffix("") if is_media(path) else path).as_posix()
    # One system writes é as one character and another as two; and what is no UTF-8 fits into no table.
    plain = unicodedata.normalize("NFC", plain)
    return plain.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _pair(name: str, generated: Sequence[Path], reference: Sequence[Path]) -> Pair:
    """What is known of a name before any file is opened."""
    for side, files in (("generated", generated), ("reference", reference)):
        if len(files) > 1:
            reason = f"{side}: {' and '.join(path.name for path in files)} have the same name; which is meant?"
            return Pair(name, status="ambiguous", reason=reason)
    if not is_media([*generated, *reference][0]):
        sides = " and ".join(side for side, files in (("generated", generated), ("reference", reference)) if files)
        return Pair(name, status="other_kind", reason=f"{sides}: neither a sound nor a video, by its ending.")
    if not reference:
        return Pair(name, generated[0], None, "no_reference", "reference: there is no file of this name.")
    if not generated:
        return Pair(name, None, reference[0], "no_generated", "generated: there is no file of this name.")
    return Pair(name, generated[0], reference[0])


def _example(files: dict[str, list[Path]], folder: Path) -> str:
    media = [path for paths in files.values() for path in paths if is_media(path)]
    return f"{media[0].relative_to(folder)} in {folder}" if media else f"no sound or video in {folder}"


def _slug(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.casefold())


def _read_entries(path: Path) -> list[Any]:
    """The rows of a truth file, unchecked."""
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path).to_pylist()
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # pa.ArrowInvalid and what json says are ValueErrors.
        raise DataContractError(f"{path} cannot be read ({error}). Expected .json or .parquet.") from error
    if not isinstance(entries, list):
        raise DataContractError(f"{path} holds {type(entries).__name__}; expected a list of {{name, ...}} objects.")
    return entries


def _faults(entry: Any, names: set[str], categories: Sequence[str]) -> Iterator[str]:
    """What is wrong with one row of a truth file."""
    if not isinstance(entry, dict):
        yield f"found {entry!r}, expected an object with {', '.join(TRUTH_KEYS)}"
        return
    for key in sorted(entry.keys() - set(TRUTH_KEYS)):
        yield f"there is no {key!r}; expected {', '.join(TRUTH_KEYS)}"
    name, category, onsets_s = (entry.get(key) for key in TRUTH_KEYS)
    if not isinstance(name, str):
        yield f"name must be a string, found {name!r}"
    elif name not in names:
        yield f"no file is named {name!r}; names are paths below the folder without ending, such as {min(names)!r}"
    if category is not None and (not isinstance(category, str) or not category):
        yield f"category must be a string, found {category!r}"
    elif category is not None and isinstance(name, str):
        lies_in = find_label(name, categories, None)
        if lies_in not in (None, find_label("", categories, category)):
            yield f"{name} is said to be {category}, but lies in a folder of {lies_in}"
    yield from _onset_faults(onsets_s)


def _onset_faults(onsets_s: Any) -> Iterator[str]:
    if onsets_s is None:
        return
    if not isinstance(onsets_s, list):
        yield f"onsets_s must be a list of seconds, found {onsets_s!r}"
        return
    wrong = [each for each in onsets_s if isinstance(each, bool) or not isinstance(each, int | float)]
    if wrong:
        yield f"onsets_s must hold numbers, found {wrong[0]!r}"
    elif not all(math.isfinite(each) and each >= 0 for each in onsets_s):
        yield f"onsets_s must be finite seconds from 0 on, found {onsets_s}"
    elif any(later < earlier for earlier, later in pairwise(onsets_s)):
        yield f"onsets_s must be in rising order, found {onsets_s}"
