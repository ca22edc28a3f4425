"""Is data/ what dvc.lock says? Which file is not, and, of a clip, why.

DVC is asked in a process of its own: the library works without it.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundback import schemas
from soundback.errors import DataContractError, SoundbackError
from soundback.sources.cutting import file_sha256

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]

# By DVC's words.
KINDS = {"deleted": "missing", "modified": "changed", "added": "extra", "unknown": "unknown"}


@dataclass(frozen=True)
class Difference:
    """A file that is not what dvc.lock says.

    Attributes:
      path: from the project's folder.
      kind: missing, changed, extra, gone (the source has the video no more), corrupt (not what its own row says), or
        unknown (dvc.lock's listing of the folder cannot be had).
      why: a sentence.
    """

    path: str
    kind: str
    why: str


def verify(project: Path = Path()) -> list[Difference]:
    """Reads all that dvc.lock names, every byte, and compares.

    Args:
      project: the folder with dvc.lock.

    Raises:
      SoundbackError: if DVC cannot be asked.
    """
    said = _ask_dvc(project)
    paths = {
        # Where the list of a folder is missing, its files say nothing; else they say more than the folder.
        (f"{Path(path).parent}/" if name == "unknown" and not path.endswith("/") else path, kind)
        for name, kind in KINDS.items()
        for path in said.get(name, [])
        if name == "unknown" or not _has_inside(path, said)
    }
    tables: dict[Path, dict[str, Row]] = {}
    return [_explain(project, path, kind, tables) for path, kind in sorted(paths)]


def as_table(differences: Iterable[Difference]) -> "Table":
    """The differences as a table for a terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("file", "is", "why", box=None)
    for each in differences:
        table.add_row(escape(each.path), each.kind, escape(each.why))
    return table


def _ask_dvc(project: Path) -> dict[str, list[str]]:
    command = [sys.executable, "-m", "dvc", "data", "status", "--granular", "--json"]
    with tempfile.TemporaryDirectory() as memory:
        # DVC remembers hashes by a file's time and size, which a failing disk leaves as they are. Without its memory
        # it reads every byte.
        asked = subprocess.run(
            command, cwd=project, env={**os.environ, "DVC_SITE_CACHE_DIR": memory}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    if asked.returncode != 0:
        words = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if "No module named 'dvc'" in words:
            raise SoundbackError("DVC is not installed here: `.venv/bin/pip install -e '.[pipeline]'`.")
        raise SoundbackError(f"DVC cannot compare {project.resolve()} with dvc.lock: {words}")
    found: dict[str, list[str]] = json.loads(asked.stdout or "{}").get("uncommitted", {})
    return found


def _has_inside(folder: str, said: Mapping[str, list[str]]) -> bool:
    inside = (path.startswith(folder) and path != folder for paths in said.values() for path in paths)
    return folder.endswith("/") and any(inside)


def _explain(project: Path, path: str, kind: str, tables: dict[Path, dict[str, Row]]) -> Difference:
    if kind == "unknown":
        return Difference(path, kind, "dvc.lock's list of its files is neither in the cache nor fetched: `dvc fetch`.")
    rows = _rows_beside(project / path, tables)
    row = rows.get(Path(path).name)
    if kind == "missing":
        video_id = Path(path).stem.rpartition("_")[0]
        lost = next((each for each in rows.values() if each["video_id"] == video_id and each["status"] != "ok"), None)
        if lost is not None:
            words = f": {lost['reason']}" if lost["reason"] else ""
            return Difference(path, "gone", f"When it was asked for again, it was {lost['status']}{words}.")
        return Difference(path, kind, "It was deleted. `dvc checkout` or `dvc pull` brings it back.")
    if kind == "extra":
        return Difference(path, kind, "dvc.lock does not name it.")
    if row is not None and row["sha256"] != file_sha256(project / path):
        return Difference(path, "corrupt", "It is not what its own row says. Delete it, then `dvc checkout`.")
    if row is not None:
        return Difference(path, kind, "The source gave other bytes when it was asked for again.")
    return Difference(
        path, kind, "It was made anew or changed by hand. `dvc repro`, or `dvc checkout` for the old one."
    )


def _rows_beside(path: Path, tables: dict[Path, dict[str, Row]]) -> dict[str, Row]:
    """What downloads.parquet in a clip's folder says, by file name, or by video id for those that have none."""
    table = path.parent / "downloads.parquet"
    if table not in tables:
        try:
            rows = schemas.read_table(table, schemas.DOWNLOADS).to_pylist() if table.is_file() else []
        except DataContractError:
            rows = []
        tables[table] = {row["path"] or row["video_id"]: row for row in rows}
    return tables[table]
