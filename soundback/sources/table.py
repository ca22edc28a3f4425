"""A table of one's own videos: files or addresses, with their labels.

    # Lines that begin with # may stand above the header.
    address,label,split,sha256,video_id
    clips/Drum/take 1.mp4,Drum,,9f86d081884c7d65...,
    https://example.org/bell.mp4,Bell,test,,

`address` and `label` are needed, the other columns may be missing, and their cells empty. The address of a file is
relative to the table's folder, or absolute. `split` is train, validation or test; without it, the video's id decides.
`sha256` of a file's bytes makes a file that is replaced another video, and one that is there twice the same video.
`video_id` names a video's files under data/; without it, the sha256 or else the address decides. Who gives ids gives
another one when a video's bytes change.
"""

import csv
import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from soundback import schemas
from soundback.errors import SourceError
from soundback.outputs import whole_file

COLUMNS = ("address", "label", "split", "sha256", "video_id")
NEEDED = ("address", "label")
COMMENT = (
    "# One's own videos, for `source: table`. `soundback table FOLDER` lists FOLDER/LABEL/*.mp4 here;\n"
    "# what the columns mean is in soundback/sources/table.py.\n"
)
MAX_FAULTS_SHOWN = 20

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Row:
    """A video under a label.

    Attributes:
      address: of a file, or http(s).
      label: display name.
      split: one of `schemas.SPLITS`; empty where the id decides.
      sha256: of the file's bytes, in lower case; empty where it is not known.
      given_id: what the column video_id says; may be empty.
      line: in the table, counted from 1; 0 for a row that is not yet in one.
    """

    address: str
    label: str
    split: str = ""
    sha256: str = ""
    given_id: str = ""
    line: int = 0

    @property
    def is_file(self) -> bool:
        """Whether the video lies on this machine."""
        return "://" not in self.address

    @property
    def video_id(self) -> str:
        """Fit to be a file's name on any system, and the same on any machine."""
        return self.given_id or self.sha256[:16] or self.address_id

    @property
    def address_id(self) -> str:
        """An id made of the address alone."""
        address = posixpath.normpath(self.address) if self.is_file else self.address
        return hashlib.sha256(address.encode()).hexdigest()[:16]


def read_rows(path: Path) -> tuple[Row, ...]:
    """Reads and checks a table.

    Raises:
      SourceError: naming every line that is wrong.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(file)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}). `soundback table FOLDER` writes it.") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 (byte {error.start}). Save it as CSV in UTF-8.") from error
    faults: list[tuple[int, str]] = []
    rows = []
    for line, cells in _lines_of(lines, path):
        row, found = _row(line, cells)
        rows.append(row)
        faults += [(line, fault) for fault in found]
    faults += _contradictions(rows)
    if faults:
        raise_faults(path, faults)
    return tuple(rows)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Writes a table that `read_rows` reads as the same rows."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(COMMENT)
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([row.address, row.label, row.split, row.sha256, row.given_id] for row in rows)


def raise_faults(path: Path, faults: Iterable[tuple[int, str]]) -> NoReturn:
    """Raises a `SourceError` that names faults by their lines, the first ones if there are many."""
    told = [f"  line {line}: {fault}" for line, fault in sorted(faults)]
    more = [f"  and {len(told) - MAX_FAULTS_SHOWN} more"] * (len(told) > MAX_FAULTS_SHOWN)
    raise SourceError("\n".join([f"{path} has {len(told)} fault(s):", *told[:MAX_FAULTS_SHOWN], *more]))


def _lines_of(lines: Sequence[str], path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yields line numbers and cells by column.

    Raises:
      SourceError: if the header is not one, or a line is not CSV.
    """
    # Spreadsheets put quotes around a comment that has commas.
    is_comment = [line.lstrip('"').startswith("#") or not line.strip() for line in lines]
    n_comments = next((n for n, each in enumerate(is_comment) if not each), len(lines))
    reader = csv.reader(lines[n_comments:], strict=True)
    try:
        header = ",".join(name.strip().lower() for name in next(reader, [])).rstrip(",").split(",")
        _check_header(header, path)
        line = n_comments + reader.line_num + 1
        for cells in reader:
            if any(cells):
                named = dict(zip_longest(header, cells[: len(header)], fillvalue=""))
                yield line, named | {"": "".join(cells[len(header) :])}
            line = n_comments + reader.line_num + 1
    except csv.Error as error:
        raise_faults(path, [(n_comments + reader.line_num, f"it is not CSV: {error}")])


def _check_header(header: Sequence[str], path: Path) -> None:
    if missing := [name for name in NEEDED if name not in header]:
        raise SourceError(
            f"{path} has no column {' and no column '.join(missing)}: its header must be {','.join(COLUMNS)}, of which "
            f"the last three may be missing, with commas between; found {','.join(header)[:80]!r}."
        )
    if unknown := [name for name in header if name not in COLUMNS]:
        raise SourceError(f"{path} has a column {unknown[0]!r}; a table may have {', '.join(COLUMNS)} and no others.")
    if len(set(header)) < len(header):
        raise SourceError(f"{path} names a column twice: {','.join(header)}.")


def _row(line: int, cells: Mapping[str, str]) -> tuple[Row, list[str]]:
    """The row that a line stands for, and what is wrong with it."""
    address = cells["address"]
    row = Row(
        address=address.strip() if "://" in address else address,
        label=cells["label"].strip(),
        split=cells.get("split", "").strip(),
        sha256=cells.get("sha256", "").strip().lower(),
        given_id=cells.get("video_id", "").strip(),
        line=line,
    )
    faults = [fault for check in _CHECKS if (fault := check(row))]
    return row, [*faults, *["it has more cells than the header"] * bool(cells[""])]


def _check_address(row: Row) -> str | None:
    if not row.address.strip():
        return "it has no address"
    if _CONTROL.search(row.address):
        return f"its address has a character that no name should have: {row.address[:60]!r}"
    if row.is_file:
        return None
    scheme, host = row.address.split("://", 1)[0].lower(), _host(row.address)
    if scheme not in ("http", "https") or not host:
        return f"an address is a file, http://... or https://...; found {row.address[:60]!r}"
    return "sha256 is said of files, not of what an address leads to" if row.sha256 else None


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _check_label(row: Row) -> str | None:
    if not row.label:
        return "it has no label"
    return f"its label has a character that no name should have: {row.label!r}" if _CONTROL.search(row.label) else None


def _check_split(row: Row) -> str | None:
    if row.split in ("", *schemas.SPLITS):
        return None
    return f"there is no split {row.split!r}; there are {', '.join(schemas.SPLITS)}, or none"


def _check_sha256(row: Row) -> str | None:
    if not row.sha256 or _SHA256.fullmatch(row.sha256):
        return None
    return f"its sha256 is not 64 hexadecimal digits: {row.sha256[:70]!r}"


def _check_id(row: Row) -> str | None:
    if not row.given_id or schemas.VIDEO_ID.fullmatch(row.given_id):
        return None
    return f"a video_id has 1 to 40 of A-Z, a-z, 0-9, _ and -, and names no device; found {row.given_id[:60]!r}"


_CHECKS: tuple[Callable[[Row], str | None], ...] = (
    _check_address,
    _check_label,
    _check_split,
    _check_sha256,
    _check_id,
)


def _contradictions(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """What is wrong between rows."""
    faults = []
    places: dict[tuple[str, str], int] = {}
    by_address: dict[str, Row] = {}
    by_id: dict[str, Row] = {}
    for row in rows:
        first = places.setdefault((row.label, row.address), row.line)
        same_address, same_id = by_address.setdefault(row.address, row), by_id.setdefault(row.video_id, row)
        if first != row.line:
            faults.append((row.line, f"the same address under the same label as line {first}"))
        elif same_address.video_id != row.video_id:
            faults.append((row.line, f"the same address as line {same_address.line}, but another video_id or sha256"))
        elif same_id.address != row.address and not (row.sha256 and row.sha256 == same_id.sha256):
            faults.append((row.line, f"the video_id of line {same_id.line}, but another address"))
    return faults
