"""Outputs that appear whole or not at all: written beside under a dot-name, then put in place."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soundback.errors import SoundbackError


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """Yields where to write; the file appears as `out` when the block ends well, else nothing of it stays."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(out)
    try:
        yield partial
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder; it appears as `out`, in place of what was there, when the block ends well."""
    partial = _beside(out)
    # What a killed run left behind.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if out.exists():
            shutil.rmtree(out)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuses, before any work is done, to write where something is or where there is no folder.

    Raises:
      SoundbackError: saying what to do.
    """
    if out.exists() and not overwrite:
        raise SoundbackError(f"{out} exists already. Choose another name, or say --overwrite.")
    if not out.parent.is_dir():
        raise SoundbackError(f"There is no folder {out.parent} to write {out.name} to. Create it first.")


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")
