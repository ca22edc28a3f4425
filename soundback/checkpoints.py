"""Where a training that was cut off goes on from: its whole state in one file, kept until its outputs are written.

One zip of arrays, put in place at once and checked by its sums when read. Looked at: tf.train.Checkpoint and Keras'
BackupAndRestore write several files that must fit each other, and know nothing of the averages and the best weights.
"""

import hashlib
import io
import json
import logging
import shutil
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from soundback.outputs import whole_file

log = logging.getLogger(__name__)

FOLDER = ".checkpoints"
STATE = "state.npz"
SMALL_BYTES = 2**20
"""Tables up to this size are hashed whole."""


@dataclass(frozen=True, eq=False)
class State:
    """What a training must know to go on as if nothing had happened.

    Attributes:
      arrays: lists of arrays by name.
      course: JSON values.
    """

    arrays: dict[str, list[np.ndarray]]
    course: dict[str, Any]

    def pack(self) -> bytes:
        """All of it as a zip."""
        lengths = {name: len(arrays) for name, arrays in self.arrays.items()}
        course = json.dumps({**self.course, "lengths": lengths}).encode()
        flat = {f"{name}_{i}": array for name, arrays in self.arrays.items() for i, array in enumerate(arrays)}
        packed = io.BytesIO()
        np.savez(packed, course=np.frombuffer(course, np.uint8), **flat)  # type: ignore[arg-type]
        return packed.getvalue()

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """What `pack` gave.

        Raises:
          ValueError, KeyError, zipfile.BadZipFile: if it is not whole.
        """
        with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
            course = json.loads(stored["course"].tobytes())
            lengths = course.pop("lengths")
            return cls({name: [stored[f"{name}_{i}"] for i in range(n)] for name, n in lengths.items()}, course)


@dataclass(frozen=True)
class Checkpoint:
    """The place of one training's state.

    Attributes:
      folder: KIND-KEY; another training of the same kind has another key.
    """

    folder: Path

    @classmethod
    def of(cls, kind: str, root: Path, told: Iterable[str], inputs: Sequence[Path]) -> Self:
        """The place of a training that is told this and learns from these; it is another one if anything differs.

        Args:
          kind: of model.
          root: folder of all data.
          told: all that decides what is trained, beside our code and the data.
          inputs: files and folders that it learns from.
        """
        key = hashlib.sha256()
        for part in (kind, *told):
            key.update(f"{len(part)} {part}".encode())
        for path in (*_loaded_code(), *inputs):
            _add(path, key)
        return cls(root / FOLDER / f"{kind}-{key.hexdigest()[:16]}")

    def read(self) -> State | None:
        """The state of a training that was cut off; None where there is none, or none that can be used."""
        path = self.folder / STATE
        try:
            return State.unpack(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            log.warning("%s is damaged (%s). The training starts anew.", path, error)
            return None

    def write(self, state: State) -> None:
        """Puts a state in place of the last one, whole."""
        with whole_file(self.folder / STATE) as partial:
            partial.write_bytes(state.pack())

    def remove_others(self) -> None:
        """Removes what other trainings of the kind have left: they would not be gone on with."""
        kind = self.folder.name.rpartition("-")[0]
        for folder in self.folder.parent.glob(f"{kind}-*"):
            if folder != self.folder:
                shutil.rmtree(folder)

    def remove(self) -> None:
        """Removes the state: what was trained is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _loaded_code() -> list[Path]:
    """The files of all modules of ours that are loaded: changed code would not go on as it began."""
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "soundback"}
    return [Path(file) for name in sorted(ours) if (file := getattr(ours[name], "__file__", None))]


def _add(path: Path, key: Any) -> None:
    """Adds a file, or all files of a folder, to a hash: name, size, and of tables what tells their content."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        # A dot-file is what an output is called until it is whole.
        if file.name.startswith(".") or not file.is_file():
            continue
        size = file.stat().st_size
        key.update(f"{file.relative_to(path.parent)} {size} ".encode())
        if file.suffix in (".parquet", ".py"):
            key.update(file.read_bytes() if size <= SMALL_BYTES else _footer(file))


def _footer(file: Path) -> bytes:
    """The metadata of a Parquet file: where every row group lies, its size, and the span of its values."""
    with file.open("rb") as opened:
        opened.seek(-8, 2)
        length = int.from_bytes(opened.read(4), "little")
        opened.seek(-8 - length, 2)
        return opened.read(length)
