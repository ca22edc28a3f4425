"""The table of segments on the page: what it shows of a cue sheet, and the cue sheet that it says when edited."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gradio as gr

from soundback.cues import CueSheet, Segment
from soundback.errors import DataContractError

SCRIPT = Path(__file__).with_name("segment_table.js")
MOST_LOUDER_DB = 60.0
MOST_NAMED = 8
"""Faults."""
COLUMNS = {"start_s": "the start", "end_s": "the end", "confidence": "how sure", "louder_db": "louder by dB"}


def segment_table(categories: Sequence[str], *, frame_rate: int) -> gr.HTML:
    """A table of plain input fields: Gradio's own has neither lists to choose from nor labels for a screen reader.

    Its value is JSON, a list of rows: start_s, end_s, category, confidence, louder_db.
    """
    # As constants: of a component that is hidden at first, Gradio loses the properties.
    known = f"const CATEGORIES = {json.dumps(list(categories))}, FRAME_S = {1 / frame_rate};\n"
    return gr.HTML(
        value="[]",
        html_template='<div class="segments"></div>',
        js_on_load=known + SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
    )


def rows_of(sheet: CueSheet) -> str:
    """The value of the table that shows a cue sheet."""
    return json.dumps(
        [
            {
                "start_s": round(segment.start_s, 3),
                "end_s": round(segment.end_s, 3),
                "category": segment.category,
                "confidence": round(segment.confidence, 2),
                "louder_db": 0,
            }
            for segment in sheet.segments
        ]
    )


def edited(sheet: CueSheet, rows: str, categories: Sequence[str]) -> CueSheet:
    """A cue sheet with the segments of the table in place of its own.

    Times are moved to the next frame border. Loudness rises by what the table says, over each segment.

    Args:
      sheet: what the table was filled from.
      rows: value of the table.
      categories: those that the models know.

    Raises:
      DataContractError: naming each fault with its row.
    """
    faults: list[str] = []
    read = (_read_row(number, row, sheet, categories, faults) for number, row in enumerate(_parse(rows), start=1))
    good = sorted(filter(None, read), key=lambda row: row.start_s)
    for before, after in pairwise(good):
        if after.segment.start_s < before.segment.end_s:
            faults.append(
                f"Row {after.number} starts at {after.start_s:g} s, before row {before.number} has ended "
                f"({before.end_s:g} s)."
            )
    if faults:
        more = [f"There are {len(faults) - MOST_NAMED} more."] if len(faults) > MOST_NAMED else []
        raise DataContractError("\n".join(["Nothing was sounded.", *faults[:MOST_NAMED], *more]))
    loudness_db = sheet.loudness_db.copy()
    for row in good:
        loudness_db[sheet.frames_of(row.segment)] += row.louder_db
    return replace(sheet, segments=tuple(row.segment for row in good), loudness_db=loudness_db)


@dataclass(frozen=True)
class _Row:
    """A row of the table: its number and times as they were typed, and the segment that it says."""

    number: int
    start_s: float
    end_s: float
    louder_db: float
    segment: Segment


def _parse(rows: str) -> list[dict[str, Any]]:
    try:
        parsed = json.loads(rows)
    except (TypeError, ValueError):
        parsed = None
    if not isinstance(parsed, list) or not all(isinstance(row, dict) for row in parsed):
        raise DataContractError("What was sent is no table of segments. Load the page again.")
    return parsed


def _read_row(
    number: int, row: dict[str, Any], sheet: CueSheet, categories: Sequence[str], faults: list[str]
) -> _Row | None:
    """Reads a row; None, with what is wrong added to the faults, when it says no segment."""
    values = {name: _number(row.get(name)) for name in COLUMNS}
    found = [f"Row {number}: {COLUMNS[name]} is no number." for name, value in values.items() if value is None]
    category = row.get("category")
    if category not in categories:
        found.append(f"Row {number}: the models do not know {category!r}; they know {', '.join(categories)}.")
    start_s, end_s, confidence, louder_db = (0.0 if value is None else value for value in values.values())
    rate, length_s = sheet.frame_rate, sheet.n_frames / sheet.frame_rate
    start, end = round(start_s * rate), round(end_s * rate)
    if not found:
        if start < 0:
            found.append(f"Row {number} starts before the video.")
        if end_s <= start_s:
            found.append(f"Row {number} ends at {end_s:g} s, and does not start before that ({start_s:g} s).")
        elif start == end:
            found.append(f"Row {number} is shorter than a frame (1/{rate} s).")
        if end > sheet.n_frames:
            found.append(f"Row {number} ends at {end_s:g} s; the video is {length_s:.2f} s long.")
        if not 0 <= confidence <= 1:
            found.append(f"Row {number}: how sure must lie between 0 and 1, not be {confidence:g}.")
        if abs(louder_db) > MOST_LOUDER_DB:
            found.append(f"Row {number}: louder by {louder_db:g} dB is too much; at most {MOST_LOUDER_DB:g}.")
    if found:
        faults += found
        return None
    return _Row(number, start_s, end_s, louder_db, Segment(start / rate, end / rate, str(category), confidence))


def _number(value: object) -> float | None:
    """What was typed, as a finite number."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
