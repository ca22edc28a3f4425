"""What a table of one's own videos holds under a label, as a catalog."""

import hashlib
import os
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rapidfuzz import process

from soundback.errors import SourceError
from soundback.params import Dataset
from soundback.progress import Progress, no_progress
from soundback.sources.sampling import sample_ids, split_of
from soundback.sources.table import Row, raise_faults, read_rows

MAX_REASON_LENGTH = 300


def list_label(
    table: Path, label: str, *, dataset: Dataset, progress: Progress = no_progress
) -> list[dict[str, object]]:
    """Finds the `schemas.CATALOG` rows of a label: in the order of the sample, as for any source.

    Args:
      table: the CSV.
      label: as the table writes it.
      dataset: how many videos, drawn how, split how.
      progress: called after every video.

    Raises:
      SourceError: if the table is wrong, has no such label, or a file is not the one it speaks of.
    """
    copies = _count_copies_once(_under_label(read_rows(table), label, table))
    rows = {row.video_id: row for row in copies}
    listed, changed = [], []
    sample = sample_ids(rows, dataset.videos_per_label, seed=dataset.seed)
    for done, video_id in enumerate(sample, start=1):
        row = rows[video_id]
        reason = copies[row] or _why_missing(row, table.parent)
        if not reason and _has_changed(row, table.parent):
            changed.append((row.line, f"{row.address} has changed; run `soundback table` again"))
        listed.append(_catalog_row(row, reason, table.parent, dataset))
        progress(done, len(sample))
    if changed:
        raise_faults(table, changed)
    return listed


def effective_split(row: Row, dataset: Dataset) -> str:
    """The split that the table says, or else the id."""
    return row.split or split_of(row.video_id, validation_share=dataset.validation_share, test_share=dataset.test_share)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in lower case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _under_label(rows: Sequence[Row], label: str, table: Path) -> list[Row]:
    if not rows:
        raise SourceError(f"{table} lists no videos yet. `soundback table FOLDER` lists FOLDER/LABEL/*.mp4 in it.")
    found = [row for row in rows if row.label == label.strip()]
    if not found:
        nearest = process.extractOne(label, sorted({row.label for row in rows}))[0]
        raise SourceError(f"{table} has no video under the label {label!r}. The closest label is {nearest!r}.")
    return found


def _count_copies_once(rows: Sequence[Row]) -> dict[Row, str | None]:
    """The rows, with the reason why one is gone: a file met before under another name."""
    first: dict[str, Row] = {}
    counted: dict[Row, str | None] = {}
    for row in rows:
        known = first.setdefault(row.video_id, row)
        if known is row:
            counted[row] = None
        else:
            counted[replace(row, given_id=row.address_id)] = f"the same video as {_shown(known)}"
    return counted


def _why_missing(row: Row, folder: Path) -> str | None:
    """Why a file cannot be had, in words that are the same on any machine."""
    if not row.is_file:
        return None
    path = folder / row.address
    try:
        found = path.is_file()
    except OSError:  # Of a name longer than any file's.
        found = False
    if not found:
        return f"no such file: {_shown(row)}"
    return None if os.access(path, os.R_OK) else f"not allowed to read {_shown(row)}"


def _has_changed(row: Row, folder: Path) -> bool:
    return row.is_file and bool(row.sha256) and hash_file(folder / row.address) != row.sha256


def _shown(row: Row) -> str:
    """The address of a file, less the folder that is this machine's business."""
    return posixpath.basename(row.address) if posixpath.isabs(row.address) else row.address


def _catalog_row(row: Row, reason: str | None, folder: Path, dataset: Dataset) -> dict[str, object]:
    return {
        "video_id": row.video_id,
        "address": None if reason else _from_here(row, folder),
        "label": row.label,
        "label_mid": "",
        "split": effective_split(row, dataset),
        "status": "gone" if reason else "ok",
        "reason": reason[:MAX_REASON_LENGTH] if reason else None,
    }


def _from_here(row: Row, folder: Path) -> str:
    """The address as one that no program takes for an option, a scheme or a protocol."""
    if not row.is_file:
        return row.address
    path = (folder / row.address).as_posix()  # Without //, which would look like a protocol's.
    return path if posixpath.isabs(path) else f"./{path}"
