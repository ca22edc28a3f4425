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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from soundback import schemas
from soundback.errors import DataContractError
from soundback.sources.cutting import Clip, file_sha256

log = logging.getLogger(__name__)

TABLE = "downloads.parquet"
UNFINISHED = ".unfinished"
REQUEST, TASTE = b"soundback.request", b"soundback.taste"


@dataclass(frozen=True)
class Ledger:
    """The books of one folder.

    Attributes:
      folder: of the videos.
      request: hash of all that decides which bytes a video id leads to; what was fetched for another is not kept.
      taste: hash of all that decides which clips are wanted; those kept for another are looked at again.
    """

    folder: Path
    request: str
    taste: str

    def work_folder(self, video_id: str) -> Path:
        """Where a video is fetched to."""
        return self._unfinished / video_id

    def enter(self, video_id: str, clips: Sequence[Clip]) -> None:
        """Notes what came of a video and moves its clips into place."""
        self._unfinished.mkdir(parents=True, exist_ok=True)
        note = self._unfinished / f"{video_id}.json"
        partial = note.with_suffix(".partial")
        entry = {"taste": self.taste, "clips": [clip.to_json() for clip in clips]}
        partial.write_text(json.dumps(entry), encoding="utf-8")
        partial.replace(note)
        self._move(video_id, clips)

    def held(self, retry: Collection[str] = ()) -> "Held":
        """What is known and still stands: clips that are whole, and failures that last.

        Args:
          retry: statuses of failures that do not stand this time.
        """
        self._forget_other_requests()
        entries = self._last_finished()
        for note in sorted(self._unfinished.glob("*.json")):
            entry = json.loads(note.read_text(encoding="utf-8"))
            clips = [Clip.from_json(row) for row in entry["clips"]]
            self._move(note.stem, clips)
            entries[note.stem] = (entry["taste"], clips)
        passing = {*schemas.RETRYABLE_STATUSES, *retry}
        held = Held({}, {})
        for video_id, (taste, clips) in entries.items():
            if not all(self._stands(clip, passing) for clip in clips):
                continue
            if taste == self.taste:
                held.clips[video_id] = clips
            elif not any(clip.status in schemas.CURATION_STATUSES for clip in clips):
                held.for_another_taste[video_id] = clips
        return held

    def close(self, rows: list[dict[str, object]]) -> None:
        """Writes the table and removes whatever it does not speak of.

        Args:
          rows: of `schemas.DOWNLOADS`.
        """
        schema = schemas.DOWNLOADS.with_metadata({REQUEST: self.request.encode(), TASTE: self.taste.encode()})
        schemas.write_table(rows, schema, self.folder / TABLE)
        keep = {TABLE, *(row[name] for row in rows for name in ("path", "source_path"))}
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
        for name in {name for clip in clips for name in (clip.path, clip.source_path) if name is not None}:
            if (work / name).exists():
                (work / name).replace(self.folder / name)
        shutil.rmtree(work, ignore_errors=True)

    def _stands(self, clip: Clip, passing: Collection[str]) -> bool:
        if clip.path is None:
            return clip.status not in passing
        path = self.folder / clip.path
        if clip.source_path is not None and not (self.folder / clip.source_path).is_file():
            return False
        return path.is_file() and path.stat().st_size == clip.n_bytes and file_sha256(path) == clip.sha256

    def _last_finished(self) -> dict[str, tuple[str, list[Clip]]]:
        path = self.folder / TABLE
        if not path.exists():
            return {}
        try:
            table = schemas.read_table(path, schemas.DOWNLOADS)
            metadata = pq.read_schema(path).metadata or {}
        except (DataContractError, pa.ArrowInvalid, OSError) as error:
            log.warning(f"{path} cannot be used and is made anew: {error}")
            return {}
        if metadata.get(REQUEST) != self.request.encode():
            return {}
        taste = metadata.get(TASTE, b"").decode()
        known: dict[str, tuple[str, list[Clip]]] = {}
        for row in table.drop_columns(["label", "split"]).to_pylist():
            known.setdefault(row["video_id"], (taste, []))[1].append(Clip(**row))
        return known

    def _forget_other_requests(self) -> None:
        for entry in (self.folder / UNFINISHED).glob("*"):
            if entry != self._unfinished:
                shutil.rmtree(entry)


@dataclass(frozen=True)
class Held:
    """What a folder holds of use, by video id.

    Attributes:
      clips: what came of each video.
      for_another_taste: what would have to be looked at again, but not fetched.
    """

    clips: dict[str, list[Clip]]
    for_another_taste: dict[str, list[Clip]]


def hash_request(*parts: Mapping[str, object]) -> str:
    """Hashes what decides the bytes, in any order of keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
