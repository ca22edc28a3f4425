"""The pyarrow schema of every table that crosses a stage border. A failure is a row, never a missing line."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from soundback.errors import DataContractError
from soundback.outputs import whole_file

SPLITS = ("train", "validation", "test")
CATALOG_STATUSES = ("ok", "gone")
CURATION_STATUSES = ("still", "clipped", "silent", "offset")
DOWNLOAD_STATUSES = (
    "ok",
    "private",
    "removed",
    "unavailable",
    "age_restricted",
    "geo_blocked",
    "too_long",
    "live",
    "too_short",
    "no_audio",
    "corrupt",
    "rate_limited",
    "network",
    *CURATION_STATUSES,
)
RETRYABLE_STATUSES = ("rate_limited", "network")
AUDIO_STATUSES = ("ok", "no_audio", "silent", "too_short", "corrupt")

# Fit to be a file's name on any system: those of Windows' devices are none.
VIDEO_ID = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)$)[A-Za-z0-9_-]{1,40}", re.IGNORECASE)


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


CATALOG = pa.schema(
    [
        _required("video_id", pa.string()),  # of the source; of YouTube-8M itself when the video is gone
        pa.field("address", pa.string()),  # relative to the source's base; null when gone
        _required("label", pa.string()),  # display name
        _required("label_mid", pa.string()),
        _required("split", pa.string()),  # one of SPLITS
        _required("status", pa.string()),  # one of CATALOG_STATUSES
        pa.field("reason", pa.string()),  # the source's own words, null when ok
    ]
)

_CLIP = [
    _required("video_id", pa.string()),
    _required("clip_index", pa.int32()),
    _required("label", pa.string()),
    _required("split", pa.string()),
]

DOWNLOADS = pa.schema(
    [
        *_CLIP,
        _required("status", pa.string()),  # one of DOWNLOAD_STATUSES
        pa.field("reason", pa.string()),  # addresses, times and paths scrubbed; null when ok
        pa.field("path", pa.string()),  # relative to the table's folder
        pa.field("n_bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("clip_start_s", pa.float64()),  # within the source video
        pa.field("width", pa.int32()),  # as shown, after rotation
        pa.field("height", pa.int32()),
        pa.field("frame_rate", pa.float64()),  # average
        pa.field("duration_s", pa.float64()),
        pa.field("has_audio", pa.bool_()),
        pa.field("picture_print", pa.binary()),  # media/curation.py; null where duplicates are not looked for
        pa.field("sound_print", pa.binary()),
        pa.field("source_path", pa.string()),  # the whole video, where download.keep_source asks for it
    ]
)

DUPLICATES = pa.schema(
    [
        *_CLIP,  # of the clip that is left out
        _required("of_video_id", pa.string()),  # which it resembles, in a split that is held out from it
        _required("of_clip_index", pa.int32()),
        _required("of_label", pa.string()),
        _required("of_split", pa.string()),
        _required("by", pa.string()),  # picture, sound or both
        _required("distance", pa.float64()),  # share of bits that differ
    ]
)

AUDIO = pa.schema(
    [
        *_CLIP,
        _required("status", pa.string()),  # one of AUDIO_STATUSES
        pa.field("reason", pa.string()),
        pa.field("path", pa.string()),  # wav, relative to the table's folder
        pa.field("sample_rate", pa.int32()),
        pa.field("n_samples", pa.int64()),
        pa.field("loudness_lufs_in", pa.float64()),  # null when shorter than one gating block
        pa.field("gain_db", pa.float64()),
        pa.field("gain_limited_by", pa.string()),  # loudness or peak
        pa.field("silence_share", pa.float64()),
    ]
)

FRAMES = pa.schema(
    [
        *_CLIP,
        _required("frame_index", pa.int32()),
        _required("time_s", pa.float64()),  # frame_index / frame_rate
        _required("image", pa.binary()),  # encoded, grayscale
    ]
)


def check(table: pa.Table, schema: pa.Schema, *, source: Path) -> pa.Table:
    """Returns the table if it follows the schema (schema metadata aside).

    Raises:
      DataContractError: otherwise, showing both.
    """
    if not table.schema.equals(schema, check_metadata=False):
        raise DataContractError(
            f"{source} does not follow its schema.\nExpected:\n{schema}\nFound:\n{table.schema}\n"
            "Rebuild it with `dvc repro`."
        )
    return table


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Reads a Parquet table and checks it."""
    return check(pq.read_table(path), schema, source=path)


def write_table(rows: list[dict[str, object]], schema: pa.Schema, path: Path) -> None:
    """Writes rows as one Parquet table, whole or not at all, the same bytes for the same rows."""
    with whole_file(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), partial)
