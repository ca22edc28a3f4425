"""Outputs that appear whole or not at all: written beside under a dot-name, then put in place."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")
