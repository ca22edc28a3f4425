"""Outputs that appear whole or not at all: written beside under a dot-name, then put in place."""

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from soundback.errors import SoundbackError


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """Yields where to write; the file appears as `out` when the block ends well, else nothing of it stays.

    Raises:
      SoundbackError: if the disk is full.
    """
    partial = _beside(out)
    try:
        with _full_disk_said(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder; it appears as `out`, in place of what was there, when the block ends well.

    Raises:
      SoundbackError: if the disk is full.
    """
    partial = _beside(out)
    # What a killed run left behind.
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _full_disk_said(out):
            partial.mkdir(parents=True)
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


def check_case_kept(folder: Path, names: Iterable[str]) -> None:
    """Refuses names that differ in case alone where the file system would hold one file for both.

    Raises:
      SoundbackError: naming two of them.
    """
    known: dict[str, str] = {}
    for name in names:
        if (twin := known.setdefault(name.casefold(), name)) != name and not _keeps_case(folder):
            raise SoundbackError(
                f"{twin} and {name} differ in upper and lower case alone, and the file system of {folder} takes them "
                "for one name: one would overwrite the other. Move the project to a file system that tells them apart."
            )


def _keeps_case(folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(prefix=".case-a", dir=folder) as file:
        return not (folder / Path(file.name).name.swapcase()).exists()


@contextmanager
def _full_disk_said(out: Path) -> Iterator[None]:
    """Turns the error of a write for which there was no room into a sentence; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        left = "no room"
        with suppress(OSError):
            left = f"{shutil.disk_usage(out.parent).free / 1e6:.0f} MB left"
        raise SoundbackError(
            f"The disk is full ({left}): {out.name} could not be written. Free some space (`soundback doctor` says how "
            "much these params need) and run again: what was finished is kept."
        ) from error


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")
