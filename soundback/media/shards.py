"""Frames as Parquet shards: written by clip, read by row group.

A row group holds consecutive frames of one clip only, so it is the unit of reading, shuffling and memory. Its
statistics tell whose frames it holds; listing a folder reads no column.

Images are encoded grayscale, JPEG or PNG. `decode_image` decodes one with Pillow; in a tf.data pipeline
`tf.io.decode_jpeg` and `tf.io.decode_png` do on the bytes that `read_images` gives.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from soundback import schemas
from soundback.errors import DataContractError
from soundback.outputs import whole_folder
from soundback.params import Frames

CLIP_COLUMNS = ("video_id", "clip_index", "label", "split")
FOOTER_BYTES = 1024  # of a shard's end, for each row group and once for the schema; kept free below the limit


@dataclass(frozen=True)
class ClipFrames:
    """The frames of one clip.

    Attributes:
      video_id: of the source.
      clip_index: which clip of the video.
      label: display name.
      split: one of `schemas.SPLITS`.
      frames: uint8 batches [n, size, size], consecutive, from time 0 on.
    """

    video_id: str
    clip_index: int
    label: str
    split: str
    frames: Iterable[np.ndarray]


@dataclass(frozen=True)
class RowGroup:
    """Where some consecutive frames of one clip are."""

    path: Path
    row_group: int
    video_id: str
    clip_index: int
    label: str
    split: str
    first_frame: int
    n_frames: int


@dataclass(frozen=True)
class ShardFormat:
    """What the frames of a shard have in common."""

    size: int
    frame_rate: int
    encoding: str


def write_shards(clips: Iterable[ClipFrames], folder: Path, *, params: Frames) -> None:
    """Encodes clips and packs them into part-00000.parquet and so on; the folder appears whole or not at all.

    The same clips in the same order give the same bytes.

    Args:
      clips: in the order in which they are to lie; their frames are drawn one batch at a time.
      folder: replaced if it exists.
      params: size, frame_rate, encoding, jpeg_quality, shard_bytes and row_group_frames are used.

    Raises:
      MediaError: whatever the iterators of frames raise.
    """
    with whole_folder(folder) as partial, _ShardWriter(partial, params) as writer:
        for clip in clips:
            for table in _clip_tables(clip, params):
                writer.write(table)


def merge_shards(folders: Iterable[Path], folder: Path, *, params: Frames) -> None:
    """Packs the shards of some folders into one folder, in their order, without decoding an image.

    Row groups stay as they are; memory holds one of them. Whole or not at all.
    """
    with whole_folder(folder) as partial, _ShardWriter(partial, params) as writer:
        for part in folders:
            for path in shard_paths(part):
                with pq.ParquetFile(path, pre_buffer=False) as file:
                    for row_group in range(file.num_row_groups):
                        writer.write(file.read_row_group(row_group, use_threads=False))


def shard_paths(where: Path | Iterable[Path]) -> list[Path]:
    """The shards in a folder and the folders below it, sorted; or the given paths themselves."""
    if isinstance(where, Path):
        return [where] if where.is_file() else sorted(where.rglob("part-*.parquet"))
    return list(where)


def read_format(path: Path) -> ShardFormat:
    """Size, frame rate and encoding of a shard.

    Raises:
      DataContractError: when it does not say, or is no shard of frames.
    """
    with _open_shard(path) as file:
        return _format_of(file, path)


def list_row_groups(where: Path | Iterable[Path]) -> list[RowGroup]:
    """Lists the row groups of shards from their footers alone.

    Args:
      where: a folder (those below it included), or shard paths.

    Raises:
      DataContractError: when one is no shard of frames.
    """
    return [row_group for path in shard_paths(where) for row_group in _row_groups_of(path)]


def read_images(row_group: RowGroup, rows: np.ndarray | None = None) -> list[bytes]:
    """The encoded images of a row group in the order of time, or those of some rows in theirs."""
    footer = _footer(row_group.path, row_group.path.stat().st_mtime_ns)
    # One column of one group: threads and reading ahead only cost.
    with pq.ParquetFile(row_group.path, metadata=footer, pre_buffer=False) as file:
        column = file.read_row_group(row_group.row_group, columns=["image"], use_threads=False)["image"]
    images: list[bytes] = column.to_pylist() if rows is None else [column[int(row)].as_py() for row in rows]
    return images


@lru_cache(maxsize=256)
def _footer(path: Path, _changed_ns: int) -> pq.FileMetaData:
    """What a shard says of its row groups; to parse it takes as long as to read one of them."""
    return pq.read_metadata(path)


def read_row_group(row_group: RowGroup) -> np.ndarray:
    """The frames of a row group: uint8 [n_frames, size, size]."""
    return np.stack([decode_image(image) for image in read_images(row_group)])


def read_clip(where: Path | Iterable[Path], video_id: str, clip_index: int) -> np.ndarray:
    """All frames of one clip, in the order of time: uint8 [n_frames, size, size].

    Args:
      where: a folder (those below it included), or shard paths.
      video_id: of the source.
      clip_index: which clip of the video.

    Raises:
      DataContractError: when there is no such clip.
    """
    groups = [g for g in list_row_groups(where) if (g.video_id, g.clip_index) == (video_id, clip_index)]
    if not groups:
        place = where if isinstance(where, Path) else "these shards"
        raise DataContractError(f"{place} holds no frames of clip {clip_index} of {video_id}.")
    return np.concatenate([read_row_group(group) for group in sorted(groups, key=lambda group: group.first_frame)])


def iter_clips(where: Path | Iterable[Path], *, split: str | None = None) -> Iterator[ClipFrames]:
    """Goes through the clips of shards, or of one split of them; frames are read as they are drawn, in batches.

    Args:
      where: a folder (those below it included), or shard paths.
      split: one of `schemas.SPLITS`; None for all.
    """
    clips: dict[tuple[str, str, int], list[RowGroup]] = {}
    for group in list_row_groups(where):
        if split is None or group.split == split:
            clips.setdefault((group.label, group.video_id, group.clip_index), []).append(group)
    for groups in clips.values():
        first = groups[0]
        yield ClipFrames(first.video_id, first.clip_index, first.label, first.split, map(read_row_group, groups))


def encode_image(frame: np.ndarray, params: Frames) -> bytes:
    """Encodes a frame, uint8 [size, size], as `params.encoding` says."""
    buffer = io.BytesIO()
    if params.encoding == "jpeg":
        Image.fromarray(frame).save(buffer, "JPEG", quality=params.jpeg_quality)
    else:
        Image.fromarray(frame).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def open_image(image: bytes) -> Image.Image:
    """Decodes an encoded frame into a grayscale picture of Pillow.

    Raises:
      DataContractError: when it is no image.
    """
    try:
        picture = Image.open(io.BytesIO(image))
        picture.load()
    except (UnidentifiedImageError, OSError) as error:
        raise DataContractError(
            f"A stored frame cannot be decoded ({error}). Rebuild data/frames with `dvc repro`."
        ) from error
    return picture if picture.mode == "L" else picture.convert("L")


def decode_image(image: bytes) -> np.ndarray:
    """Decodes an encoded grayscale frame into uint8 [size, size].

    Raises:
      DataContractError: when it is no image.
    """
    return np.asarray(open_image(image))


class _ShardWriter:
    """Writes row groups into part-00000.parquet and so on, beginning a new one where the size limit asks for it."""

    def __init__(self, folder: Path, params: Frames) -> None:
        self._folder = folder
        self._limit = params.shard_bytes
        metadata = {"size": str(params.size), "frame_rate": str(params.frame_rate), "encoding": params.encoding}
        self._schema = schemas.FRAMES.with_metadata(metadata)
        self._n_shards = 0
        self._sink: Any = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, table: pa.Table) -> None:
        """Adds one row group."""
        n_groups = 1 if self._writer is None else self._n_groups + 1
        size = 0 if self._sink is None else self._sink.tell()
        if self._writer is not None and size + table.nbytes + FOOTER_BYTES * (n_groups + 1) > self._limit:
            self._close()
        if self._writer is None:
            self._open()
        self._writer.write_table(pa.Table.from_arrays(table.columns, schema=self._schema), row_group_size=len(table))
        self._n_groups += 1

    def _open(self) -> None:
        self._sink = pa.OSFile(str(self._folder / f"part-{self._n_shards:05d}.parquet"), "wb")
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="none",  # Images are compressed already; the other columns are nothing beside them.
            use_dictionary=list(CLIP_COLUMNS),
            write_statistics=[name for name in self._schema.names if name != "image"],
        )
        self._n_groups = 0
        self._n_shards += 1

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
        self._writer = self._sink = None


def _clip_tables(clip: ClipFrames, params: Frames) -> Iterator[pa.Table]:
    """The rows of a clip, a row group at a time."""
    images: list[bytes] = []
    first = 0
    for batch in clip.frames:
        images += [encode_image(frame, params) for frame in batch]
        while len(images) >= params.row_group_frames:
            yield _table(clip, first, images[: params.row_group_frames], params)
            images = images[params.row_group_frames :]
            first += params.row_group_frames
    if images:
        yield _table(clip, first, images, params)


def _table(clip: ClipFrames, first: int, images: list[bytes], params: Frames) -> pa.Table:
    n_rows = len(images)
    indices = np.arange(first, first + n_rows, dtype=np.int32)
    rows: dict[str, np.ndarray | list[bytes]] = {
        "video_id": [clip.video_id.encode()] * n_rows,
        "clip_index": np.full(n_rows, clip.clip_index, np.int32),
        "label": [clip.label.encode()] * n_rows,
        "split": [clip.split.encode()] * n_rows,
        "frame_index": indices,
        "time_s": indices / params.frame_rate,
        "image": images,
    }
    return pa.Table.from_arrays(
        [_column(rows[field.name], field.type) for field in schemas.FRAMES], schema=schemas.FRAMES
    )


def _column(values: np.ndarray | list[bytes], kind: pa.DataType) -> pa.Array:
    """A column over memory as it lies; given Python's values, pyarrow imports pandas first, in every worker."""
    if isinstance(values, np.ndarray):
        buffers = [pa.py_buffer(values)]
    else:
        ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
        buffers = [pa.py_buffer(ends), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(kind, len(values), [None, *buffers])


def _open_shard(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataContractError(f"{path} cannot be read as Parquet ({error}). Rebuild it with `dvc repro`.") from error
    schemas.check(file.schema_arrow.empty_table(), schemas.FRAMES, source=path)
    return file


def _format_of(file: pq.ParquetFile, path: Path) -> ShardFormat:
    told = file.schema_arrow.metadata or {}
    try:
        return ShardFormat(int(told[b"size"]), int(told[b"frame_rate"]), told[b"encoding"].decode())
    except (KeyError, ValueError) as error:
        raise DataContractError(
            f"{path} does not say its size, frame rate and encoding. Rebuild it with `dvc repro`."
        ) from error


def _row_groups_of(path: Path) -> Iterator[RowGroup]:
    with _open_shard(path) as file:
        _format_of(file, path)
        columns = {name: index for index, name in enumerate(file.schema_arrow.names)}
        for number in range(file.num_row_groups):
            footer = file.metadata.row_group(number)
            told = {name: footer.column(index).statistics for name, index in columns.items() if name != "image"}
            if any(told[name].min != told[name].max for name in CLIP_COLUMNS):
                raise DataContractError(f"{path} mixes clips in row group {number}. Rebuild it with `dvc repro`.")
            yield RowGroup(
                path=path,
                row_group=number,
                **{name: told[name].min for name in CLIP_COLUMNS},
                first_frame=told["frame_index"].min,
                n_frames=footer.num_rows,
            )
