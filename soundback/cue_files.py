"""Cue sheets as files: a table to keep and to edit, and a text track to read.

The table is one long CSV, `kind,start_s,end_s,category,value`:

* `segment`: a category from start to end; the value is how sure we are, 0 to 1.
* `loudness`: one row per frame; the value is in dBFS (RMS).
* `hit`: a frame in which a sound starts; the value is its strength, 0 to 1. Frames without a row have none.

Lines that start with # are comments and stand at the top. The text track is WebVTT and is not read back.
"""

import csv
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from soundback.cues import CueSheet, Segment
from soundback.errors import DataContractError
from soundback.outputs import whole_file

HEADER = ["kind", "start_s", "end_s", "category", "value"]
FRAME_RATES = (1, 1000)
"""Frames per second that a sheet may have."""

MOST_NAMED = 5
"""Of frames without loudness."""

CAPTION_S = 5.0
"""Captions of longer segments are repeated this often: who comes in later reads them too."""

LOUD_DB, QUIET_DB = -18.0, -34.0
"""Where a caption says "loud", and where "quiet": dBFS, the mean over its frames."""


def write_cues(sheet: CueSheet, path: Path) -> None:
    """Writes a cue sheet as CSV, whole or not at all."""
    text = io.StringIO()
    text.write("# Soundback cue sheet. loudness in dBFS, hit and confidence 0 to 1, times in seconds.\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for segment in sheet.segments:
        writer.writerow(["segment", segment.start_s, segment.end_s, segment.category, segment.confidence])
    for kind, curve in (("loudness", sheet.loudness_db), ("hit", sheet.hit)):
        for index, value in enumerate(curve):
            if kind == "loudness" or value > 0:
                writer.writerow([kind, index / sheet.frame_rate, (index + 1) / sheet.frame_rate, "", value])
    with whole_file(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")


def read_cues(path: Path, categories: Sequence[str] | None = None) -> CueSheet:
    """Reads a cue sheet.

    Args:
      path: what `write_cues` wrote, edited or not.
      categories: those that the models know; None checks no category.

    Raises:
      DataContractError: naming every fault with its line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataContractError(f"{path} cannot be read as a cue sheet: {error}") from error
    faults: list[str] = []
    segments: list[tuple[int, Segment]] = []
    curves: dict[str, list[tuple[int, float, float, float]]] = {"loudness": [], "hit": []}
    first = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if first == len(lines) or next(csv.reader([lines[first]])) != HEADER:
        raise DataContractError(f"{path} line {first + 1}: expected the header {','.join(HEADER)}")
    for number, row in enumerate(csv.reader(lines[first + 1 :]), start=first + 2):
        try:
            kind, start_s, end_s, category, value = row[0], float(row[1]), float(row[2]), row[3], float(row[4])
            _check_row(kind, start_s, end_s, category, value)
            if kind == "segment" and categories is not None and category not in categories:
                raise ValueError(f"the models do not know {category!r}; they know {', '.join(categories)}")
        except (IndexError, ValueError) as error:
            faults.append(f"  line {number}: {error}")
            continue
        if kind == "segment":
            segments.append((number, Segment(start_s, end_s, category, value)))
        else:
            curves[kind].append((number, start_s, end_s, value))
    sheet = None if faults else _assemble(segments, curves, faults)
    if sheet is None:
        raise DataContractError("\n".join([f"{path} has {len(faults)} fault(s):", *faults]))
    return sheet


def write_captions(sheet: CueSheet, path: Path) -> None:
    """Writes a cue sheet as a WebVTT text track, whole or not at all, for those who cannot hear it or not see it.

    A caption names what sounds and how loud it is on the whole; a dot of its own time stands for each hit, so that a
    player that knows such times lets the dots come up as it sounds.
    """
    lines = ["WEBVTT", "", "NOTE What is heard in this video; synthetic sound by Soundback.", ""]
    for start, end, category in _captions(sheet):
        loudness_db = float(sheet.loudness_db[start:end].mean())
        how = ", loud" if loudness_db > LOUD_DB else ", quiet" if loudness_db < QUIET_DB else ""
        hits = start + np.flatnonzero(sheet.hit[start:end])
        dots = "".join(f" <{_clock(hit / sheet.frame_rate)}>\u2022" for hit in hits if hit > start)
        if start in hits:
            dots = " \u2022" + dots
        lines += [
            f"{_clock(start / sheet.frame_rate)} --> {_clock(end / sheet.frame_rate)}",
            f"[{category}{how}]{dots}",
            "",
        ]
    with whole_file(path) as partial:
        partial.write_text("\n".join(lines), encoding="utf-8")


def _captions(sheet: CueSheet) -> Iterator[tuple[int, int, str]]:
    """First frame, end and category of each caption."""
    longest = max(1, round(CAPTION_S * sheet.frame_rate))
    for segment in sheet.segments:
        frames = sheet.frames_of(segment)
        for start in range(frames.start, frames.stop, longest):
            yield start, min(start + longest, frames.stop), segment.category


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"


def _check_row(kind: str, start_s: float, end_s: float, category: str, value: float) -> None:
    if kind not in ("segment", "loudness", "hit"):
        raise ValueError(f"kind must be segment, loudness or hit, found {kind!r}")
    if not all(map(math.isfinite, (start_s, end_s, value))):
        raise ValueError("times and values must be finite numbers")
    if not 0 <= start_s < end_s:
        raise ValueError(f"start_s ({start_s:g}) must be at least 0 and before end_s ({end_s:g})")
    if kind == "segment" and not category:
        raise ValueError("a segment needs a category")
    if kind != "loudness" and not 0 <= value <= 1:
        raise ValueError(f"the value of a {kind} must lie between 0 and 1, found {value:g}")


def _assemble(
    segments: list[tuple[int, Segment]],
    curves: dict[str, list[tuple[int, float, float, float]]],
    faults: list[str],
) -> CueSheet | None:
    """Puts checked rows together; None, with the faults named, when they do not fit each other."""
    if not curves["loudness"]:
        faults.append("  there is no loudness row; every frame needs one")
        return None
    number, start_s, end_s, _ = curves["loudness"][0]
    frame_rate = round(1 / (end_s - start_s))
    if not FRAME_RATES[0] <= frame_rate <= FRAME_RATES[1]:
        faults.append(
            f"  line {number}: a loudness row is one frame long, 1/25 s for instance, not {end_s - start_s:g} s"
        )
        return None
    loudness = _by_frame("loudness", curves["loudness"], frame_rate, faults)
    n_frames = max(loudness, default=-1) + 1
    absent = (index for index in range(n_frames) if index not in loudness)
    for index in itertools.islice(absent, MOST_NAMED):
        faults.append(f"  there is no loudness at {index / frame_rate:g} s; every frame needs one")
    hits = _by_frame("hit", curves["hit"], frame_rate, faults)
    for index, (number, _) in hits.items():
        if index >= n_frames:
            faults.append(f"  line {number}: the hit is after the last frame ({n_frames / frame_rate:g} s)")
    segments = sorted(segments, key=lambda numbered: numbered[1].start_s)
    for (_, before), (number, segment) in itertools.pairwise(segments):
        if segment.start_s < before.end_s:
            faults.append(f"  line {number}: this segment starts before the one from {before.start_s:g} s has ended")
    for number, segment in segments:
        first, last = round(segment.start_s * frame_rate), round(segment.end_s * frame_rate)
        if last > n_frames:
            faults.append(
                f"  line {number}: the segment ends at {segment.end_s:g} s, after the last frame "
                f"({n_frames / frame_rate:g} s)"
            )
        if first == last:
            faults.append(f"  line {number}: the segment is shorter than a frame (1/{frame_rate} s)")
    if faults:
        return None
    loudness_db, hit = np.zeros(n_frames, np.float32), np.zeros(n_frames, np.float32)
    for curve, values in ((loudness_db, loudness), (hit, hits)):
        for index, (_, value) in values.items():
            curve[index] = value
    return CueSheet(frame_rate, tuple(segment for _, segment in segments), loudness_db, hit)


def _by_frame(
    kind: str, rows: list[tuple[int, float, float, float]], frame_rate: int, faults: list[str]
) -> dict[int, tuple[int, float]]:
    """Line and value of each frame; names the rows that are of none, and those that are of one that has a row."""
    found: dict[int, tuple[int, float]] = {}
    for number, start_s, _, value in rows:
        index = round(start_s * frame_rate)
        if abs(index / frame_rate - start_s) > 0.01 / frame_rate:
            faults.append(f"  line {number}: {start_s:g} s is no frame time ({frame_rate} per second)")
        elif index in found:
            faults.append(f"  line {number}: a second {kind} at {start_s:g} s; the first is in line {found[index][0]}")
        else:
            found[index] = number, value
    return found
