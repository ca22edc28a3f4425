"""What params ask of a machine's disk and memory, estimated before anything is fetched.

Assumed of the disk:

* Every video that is wanted is had: what is lost makes room.
* Clips are copied out of the videos, so they cost what the source's small formats cost: 0.1 bit per pixel and picture
  at 30 pictures per second and 16:9, and 128 kbit/s of sound. The rendered world's cost was measured on it; that of
  one's own files is measured on a few of them.
* Sounds are 16 bit, mono: exact but for the moment by which a copied clip is longer than it was asked to be.
* Frames cost per pixel what grayscale JPEG and PNG were measured to cost on natural pictures.
* What stays is there twice, in data/ and in DVC's cache; a file system that copies by reference needs half.
* While the work goes on: the frames of one label twice more, and per worker one whole video, picture and sound apart
  and merged. Models, plots and tables (megabytes) are not counted.

Held against the demo's data, what stays comes out a third too large.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundback.errors import MediaError
from soundback.media.containers import probe
from soundback.params import DemoSource, Download, Frames, Params, TableSource
from soundback.sources.table import read_rows

WAV_HEADER_BYTES = 44
SAMPLE_BYTES = 2
TIMES_KEPT = 2

PICTURE_RATE, ASPECT = 30, 16 / 9
BITS_PER_PIXEL = 0.1
SOUND_BYTES_PER_S = 16_000
RENDERED_BYTES_PER_S = 107_000
"""Of the rendered world's videos: small, noisy pictures in a hurry, and lossless sound."""

JPEG_QUALITIES, JPEG_BYTES_PER_PIXEL = (25, 50, 75, 90, 95, 100), (0.06, 0.09, 0.14, 0.23, 0.32, 0.55)
PNG_BYTES_PER_PIXEL = 0.5
FILES_OPENED = 8
"""Of one's own files, to measure what a second of them costs."""

EXAMPLE_BYTES = 1_000_000
"""Of the report, for each video that it shows."""

TRAINING_BYTES = 1_500_000_000
"""TensorFlow with a model and the pictures that are kept decoded: 1.0 to 1.4 GB at most, measured on the demo."""
WAVEFORM_COPIES = 2
"""How often the evaluation holds the training split's waveforms: as they are, and as the judge hears them."""
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Disk:
    """Bytes on disk.

    Attributes:
      clips: videos, cut.
      sources: whole videos, where `download.keep_source` asks for them.
      sounds: wavs.
      frames: shards.
      report: its examples.
      passing: what is there only while the work goes on.
    """

    clips: float
    sources: float
    sounds: float
    frames: float
    report: float
    passing: float

    @property
    def kept(self) -> float:
        """What stays in data/."""
        return self.clips + self.sources + self.sounds + self.frames + self.report

    @property
    def total(self) -> float:
        """All of it, with DVC's copy."""
        return TIMES_KEPT * self.kept + self.passing


@dataclass(frozen=True)
class Amount:
    """How much a source holds of what is wanted.

    Attributes:
      n_videos: of all labels together.
      bytes_per_s: of its videos.
      fetched_bytes: of one whole video, the longest; 0 where nothing is fetched.
      on_the_internet: whether other machines are asked.
    """

    n_videos: int
    bytes_per_s: float
    fetched_bytes: float
    on_the_internet: bool


NOTHING = Amount(0, 0.0, 0.0, on_the_internet=False)


def measure_amount(params: Params, table: Path) -> Amount:
    """Finds how much is wanted.

    Args:
      params: what is wanted, from where.
      table: of one's own videos, if the source is a table; some of its files are opened.

    Raises:
      SourceError: if the source is a table that is wrong.
    """
    wanted = params.dataset.videos_per_label
    match params.source:
        case DemoSource(videos_per_label=rendered, duration_s=length_s):
            n_videos = min(wanted, rendered) * len(params.labels)
            return Amount(n_videos, RENDERED_BYTES_PER_S, length_s * RENDERED_BYTES_PER_S, on_the_internet=False)
        case TableSource():
            return _measure_table(table, params)
    bytes_per_s = _bytes_per_s(params.download)
    return Amount(
        wanted * len(params.labels), bytes_per_s, params.download.max_duration_s * bytes_per_s, on_the_internet=True
    )


def estimate_disk(params: Params, amount: Amount, *, workers: int) -> Disk:
    """Estimates what the dataset and its report take on disk.

    Args:
      params: what is wanted.
      amount: how much of it there is.
      workers: videos that are fetched at once.
    """
    download = params.download
    clip_s = min(download.clip_s * download.clips_per_video, download.max_duration_s)
    seconds = amount.n_videos * clip_s
    frames = seconds * params.frames.frame_rate * frame_bytes(params.frames)
    usual_s = (download.min_duration_s + download.max_duration_s) / 2
    shown = len(params.labels) * params.evaluation.examples_per_label
    return Disk(
        clips=seconds * amount.bytes_per_s,
        sources=amount.n_videos * min(amount.fetched_bytes, usual_s * amount.bytes_per_s) * download.keep_source,
        sounds=amount.n_videos * wav_bytes(clip_s, params.audio.sample_rate),
        frames=frames,
        report=shown * EXAMPLE_BYTES,
        passing=2 * frames / len(params.labels) + workers * 2 * amount.fetched_bytes,
    )


def frame_bytes(params: Frames) -> float:
    """What one stored frame is expected to cost."""
    if params.encoding == "png":
        return params.size**2 * PNG_BYTES_PER_PIXEL
    return params.size**2 * float(np.interp(params.jpeg_quality, JPEG_QUALITIES, JPEG_BYTES_PER_PIXEL))


def wav_bytes(duration_s: float, sample_rate: int) -> int:
    """What a stored sound costs, exactly."""
    return WAV_HEADER_BYTES + SAMPLE_BYTES * round(duration_s * sample_rate)


def estimate_memory(params: Params, amount: Amount) -> float:
    """Estimates the bytes of memory that the most demanding stage needs: a training, or the evaluation."""
    clip_s = params.download.clip_s * params.download.clips_per_video
    share = 1 - params.dataset.validation_share - params.dataset.test_share
    samples = amount.n_videos * share * clip_s * params.audio.sample_rate
    return TRAINING_BYTES + WAVEFORM_COPIES * FLOAT_BYTES * samples


def stored_bytes(*folders: Path) -> int:
    """What the files under some folders take."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def _bytes_per_s(params: Download) -> float:
    """What a second of the source's small formats is expected to cost."""
    height = params.max_height
    return height * height * ASPECT * PICTURE_RATE * BITS_PER_PIXEL / 8 + SOUND_BYTES_PER_S


def _measure_table(path: Path, params: Params) -> Amount:
    rows = [row for row in read_rows(path) if row.label in params.labels.values()]
    per_label = Counter(row.label for row in rows)
    n_videos = sum(min(n, params.dataset.videos_per_label) for n in per_label.values())
    if any(not row.is_file for row in rows):
        bytes_per_s = _bytes_per_s(params.download)
        return Amount(n_videos, bytes_per_s, params.download.max_duration_s * bytes_per_s, on_the_internet=True)
    some = rows[:: max(1, len(rows) // FILES_OPENED)][:FILES_OPENED]
    known = [facts for row in some if (facts := _size_and_length(path.parent / row.address))]
    n_bytes, length_s = (sum(each) for each in zip(*known, strict=True)) if known else (0, 0.0)
    bytes_per_s = n_bytes / length_s if length_s else _bytes_per_s(params.download)
    return Amount(n_videos, bytes_per_s, 0.0, on_the_internet=False)


def _size_and_length(path: Path) -> tuple[int, float] | None:
    """Bytes and seconds of a video, if it is one."""
    try:
        return path.stat().st_size, probe(path).duration_s
    except (OSError, MediaError):
        return None
