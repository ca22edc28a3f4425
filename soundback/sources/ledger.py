"""What a folder of videos holds, so that no finished video is fetched twice, whenever the work was killed.

    folder/
      downloads.parquet              all that came of the last finished run
      <video_id>_<clip>.mp4
      .unfinished/<request>/         of a run under way
        <video_id>.json              a video that is done, whatever came of it
        <video_id>/                  a video being fetched

A clip is moved out of its video's folder only after the .json that speaks of it is there, so a kill between the two
loses nothing.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from soundback import schemas
from soundback.errors import DataContractError
from soundback.sources.download import Clip, file_sha256

log = logging.getLogger(__name__)

TABLE = "downloads.parquet"
UNFINISHED = ".unfinished"
REQUEST = b"soundback.request"


@dataclass(frozen=True)
class Ledger:
    """The books of one folder.

    Attributes:
      folder: of the videos.
      request: hash of all that decides which bytes a video id leads to; what was fetched for another is not kept.
    """

    folder: Path
    request: str

    def work_folder(self, video_id: str) -> Path:
        """Where a video is fetched to."""
        return self._unfinished / video_id

    def enter(self, video_id: str, clips: Sequence[Clip]) -> None:
        """Notes what came of a video and moves its clips into place."""
        self._unfinished.mkdir(parents=True, exist_ok=True)
        note = self._unfinished / f"{video_id}.json"
        partial = note.with_suffix(".partial")
        partial.write_text(json.dumps([asdict(clip) for clip in clips]), encoding="utf-8")
        partial.replace(note)
        self._move(video_id, clips)

    def held(self) -> dict[str, list[Clip]]:
        """Per video id, what is known and still stands: clips that are whole, and failures that last."""
        self._forget_other_requests()
        known = self._last_finished()
        for note in sorted(self._unfinished.glob("*.json")):
            clips = [Clip(**row) for row in json.loads(note.read_text(encoding="utf-8"))]
            self._move(note.stem, clips)
            known[note.stem] = clips
        return {video_id: clips for video_id, clips in known.items() if all(map(self._stands, clips))}

    def close(self, rows: list[dict[str, object]]) -> None:
        """Writes the table and removes whatever it does not speak of.

        Args:
          rows: of `schemas.DOWNLOADS`.
        """
        schema = schemas.DOWNLOADS.with_metadata({REQUEST: self.request.encode()})
        schemas.write_table(rows, schema, self.folder / TABLE)
        keep = {TABLE, *(row["path"] for row in rows)}
        for entry in self.folder.iterdir():
            if entry.name in keep:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    @property
    def _unfinished(self) -> Path:
        return self.folder / UNFINISHED / self.request

    def _move(self, video_id: str, clips: Iterable[Clip]) -> None:
        work = self.work_folder(video_id)
        for clip in clips:
            if clip.path is not None and (work / clip.path).exists():
                (work / clip.path).replace(self.folder / clip.path)
        shutil.rmtree(work, ignore_errors=True)

    def _stands(self, clip: Clip) -> bool:
        if clip.path is None:
            return clip.status not in schemas.RETRYABLE_STATUSES
        path = self.folder / clip.path
        return path.is_file() and path.stat().st_size == clip.n_bytes and file_sha256(path) == clip.sha256

    def _last_finished(self) -> dict[str, list[Clip]]:
        path = self.folder / TABLE
        if not path.exists():
            return {}
        try:
            table = schemas.read_table(path, schemas.DOWNLOADS)
            request = (pq.read_schema(path).metadata or {}).get(REQUEST)
        except (DataContractError, pa.ArrowInvalid, OSError) as error:
            log.warning(f"{path} cannot be used and is made anew: {error}")
            return {}
        if request != self.request.encode():
            return {}
        known: dict[str, list[Clip]] = {}
        for row in table.drop_columns(["label", "split"]).to_pylist():
            known.setdefault(row["video_id"], []).append(Clip(**row))
        return known

    def _forget_other_requests(self) -> None:
        for entry in (self.folder / UNFINISHED).glob("*"):
            if entry != self._unfinished:
                shutil.rmtree(entry)


def hash_request(*parts: Mapping[str, object]) -> str:
    """Hashes what decides the bytes, in any order of keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
