"""Asks again for videos that failed: a stage that ended well is not run again by `dvc repro` on its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rapidfuzz import process

from soundback import schemas
from soundback.errors import ParamsError, SourceError

FAILURES = tuple(status for status in schemas.DOWNLOAD_STATUSES if status != "ok")


def parse_statuses(text: str) -> frozenset[str]:
    """Reads "network,rate_limited".

    Raises:
      ParamsError: if one of them is no failure.
    """
    statuses = frozenset(text.replace(",", " ").split())
    if unknown := sorted(statuses - set(FAILURES)):
        raise ParamsError(f"--status names {', '.join(unknown)}; a video can fail as {', '.join(FAILURES)}.")
    return statuses


def retry(wanted: Sequence[str], statuses: frozenset[str], labels: Mapping[str, str]) -> dict[str, int]:
    """Runs the download stage of these labels again, through DVC, so that dvc.lock knows of it.

    Args:
      wanted: folder names or labels.
      statuses: of the videos to ask for.
      labels: of the params, by folder name.

    Returns:
      Per folder name, how many rows had one of these statuses; stages without any are not run.

    Raises:
      ParamsError: if there is no such label.
      SourceError: if the stage failed; it has said why.
    """
    counts = {key: _count(key, statuses) for key in dict.fromkeys(_find_key(each, labels) for each in wanted)}
    if stages := dict.fromkeys(_stage(key) for key, n_rows in counts.items() if n_rows):
        # dvc.yaml's commands say `python`: it must be this one.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        environment = {**os.environ, "PATH": path, "SOUNDBACK_RETRY": ",".join(sorted(statuses))}
        repro = [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", *stages]
        if subprocess.run(repro, env=environment, check=False).returncode != 0:
            raise SourceError("Asking again did not come to its end; what was fetched is kept, run it again.")
    return counts


def _find_key(wanted: str, labels: Mapping[str, str]) -> str:
    for key, label in labels.items():
        if wanted.casefold() in (key, label.casefold()):
            return key
    nearest = process.extractOne(wanted, list(labels))
    raise ParamsError(f"params.yaml has no label {wanted!r}; did you mean {nearest[0]!r}?")


def _stage(key: str) -> str:
    """The stage that fetches the videos of a label, and those of the others of its branch."""
    return f"download_videos@{key.split('/')[0]}"


def _count(key: str, statuses: frozenset[str]) -> int:
    table = Path("data") / "videos" / key / "downloads.parquet"
    if not table.exists():
        raise SourceError(f"There is no {table} yet. Run `dvc repro {_stage(key)}`: it asks for all it lacks.")
    found = schemas.read_table(table, schemas.DOWNLOADS).column("status").to_pylist()
    return sum(status in statuses for status in found)
