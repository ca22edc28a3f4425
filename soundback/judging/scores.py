"""Scores of every file of a set: their table, what is told of the whole set, and how two such tables differ.

A null is a score that cannot be told (a constant curve has no correlation), never a 0: it is left out of means, and the
n beside each mean says how many remained.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from soundback.errors import DataContractError
from soundback.judging.intervals import Bootstrap, Cell, Interval
from soundback.judging.metrics import ONSET_WINDOWS_MS
from soundback.outputs import whole_file

BOOTSTRAP = Bootstrap(n_resamples=2000, seed=0)
"""How intervals are drawn where no params say so."""

ROWS = ("generated", "reference", "reference_shifted", "silence")
"""What is scored of every file: the sound in question, and the controls without which no number says anything."""

SCORED = ("ok", "silent")
"""Silence where sound was asked for is an answer, and scored as what it is: left out, it would flatter a system."""

STATUSES = (
    *SCORED,
    "no_reference",
    "no_generated",
    "ambiguous",
    "other_kind",
    "unreadable",
    "no_sound",
    "silent_reference",
    "too_short",
)

CLIP_COLUMNS = (
    "category_accuracy",
    "category_kept",
    "category_divergence",
    *(f"onset_{name}_{window_ms}ms" for window_ms in ONSET_WINDOWS_MS for name in ("precision", "recall", "f1")),
    "loudness_correlation",
    "loudness_error_db",
    "loudness_lag_ms",
    "noise_floor_db",
    "av_align",
)
"""What one sound alone can tell, whoever made it."""

MODEL_COLUMNS = ("seam_discontinuity_db", "bits_per_sample")
"""What one sound can tell where its maker is known as well; null of a folder."""

SET_COLUMNS = {"frechet_distance": 0.0, "kernel_distance": -math.inf, "diversity": 0.0}
"""What no sound has alone but a set of them, and what it cannot be below."""

CATEGORY_COLUMNS = (
    "category_accuracy",
    "onset_f1_100ms",
    "loudness_correlation",
    "loudness_error_db",
    "loudness_lag_ms",
)
"""Those that are printed of each category; the JSON has all."""

SHIFTED = ("reference_shifted", "real_shifted")
"""The control that hangs on the real sound alone, of a folder and of the evaluate stage."""

ALIKE = 1e-3
"""Controls that differ by less were measured alike: processors differ in the last bits."""

SCORES = pa.schema(
    [
        pa.field("row", pa.string(), nullable=False),
        pa.field(
            "name", pa.string(), nullable=False
        ),  # of the clip; of a file its path below the folder, without ending
        pa.field("video_id", pa.string(), nullable=False),  # clips of one video are not independent; of a file its name
        pa.field("label", pa.string()),  # its category, null where nobody says
        pa.field("status", pa.string(), nullable=False),  # one of STATUSES
        pa.field("reason", pa.string()),  # null when ok
        *(pa.field(column, pa.float64()) for column in (*CLIP_COLUMNS, *MODEL_COLUMNS)),
        pa.field("length_difference_s", pa.float64()),  # generated minus reference, before both were cut
    ]
)


def write_scores(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes rows of `SCORES` as Parquet, whole or not at all, the same bytes for the same rows.

    Raises:
      DataContractError: when two of them are of the same row and name, a status is unknown or a score is not finite.
    """
    table = pa.Table.from_pylist(list(rows), schema=SCORES)
    _check(table, path)
    with whole_file(path) as partial:
        pq.write_table(table, partial)


def read_scores(path: Path) -> list[dict[str, Any]]:
    """Reads what `write_scores` wrote.

    Raises:
      DataContractError: when it is missing, no Parquet, or does not follow `SCORES`.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataContractError(
            f"{path} cannot be read as Parquet ({error}). Give a file that `soundback evaluate --scores` wrote, or a "
            "data/report/scores.parquet."
        ) from error
    _check(table, path)
    return table.to_pylist()


def write_evaluation(evaluation: Mapping[str, Any], path: Path) -> None:
    """Writes what is told of the whole set as JSON, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(evaluation, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def describe(rows: Iterable[Mapping[str, Any]], bootstrap: Bootstrap) -> dict[str, dict[str, Cell]]:
    """The mean of every clip column of every row with its interval over files, {row: {column: cell}}.

    A row that scored nothing has cells as well, with an n of 0.
    """
    scored = [row for row in rows if row["status"] in SCORED]
    return {
        name: {
            column: bootstrap.mean([row[column] for row in scored if row["row"] == name]).cell()
            for column in CLIP_COLUMNS
        }
        for name in ROWS
    }


def compare(
    first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]], bootstrap: Bootstrap
) -> dict[str, dict[str, Interval]]:
    """Mean differences first - second over the videos that both have scored, {row: {column: interval}}.

    Paired by video. It says nothing unless both were measured alike: on the same references, at the same rate, by the
    same judge.

    Args:
      first: rows of `SCORES`.
      second: others.
      bootstrap: how the intervals are drawn.

    Returns:
      Of every row that both have, in the order of the first.
    """
    ours, theirs = _by_row(first), _by_row(second)
    return {
        row: {
            column: bootstrap.paired(_column(ours[row], column), _column(theirs[row], column))
            for column in (*CLIP_COLUMNS, *MODEL_COLUMNS)
        }
        for row in ours
        if row in theirs
    }


def format_evaluation(evaluation: Mapping[str, Any]) -> str:
    """The evaluation as plain text: the judge's ceiling, what was lost, a line per column, a line per category."""
    rows, categories = evaluation["rows"], evaluation["categories"]
    columns = list(rows[ROWS[0]])
    table = [["", *rows], *([column, *(_text(rows[row][column]) for row in rows)] for column in columns)]
    lines = [*_opening(evaluation), "", "Means, 95 % intervals over files, number of files:", *_aligned(table)]
    if categories:
        together = {"all": rows, **categories}
        table = [["generated", *CATEGORY_COLUMNS, "reference: category_accuracy"]]
        for label, cells in together.items():
            heard = [_text(cells["generated"][column]) for column in CATEGORY_COLUMNS]
            table.append([label, *heard, _text(cells["reference"]["category_accuracy"])])
        lines += ["", "The generated sounds of each category, and the judge's ceiling there:", *_aligned(table)]
    return "\n".join(lines)


def format_differences(differences: Mapping[str, Mapping[str, Interval]], first: str, second: str, *, row: str) -> str:
    """What `compare` found of one row, as plain text.

    The controls hang on the real sounds alone: where they differ as well, a line says that the rest means nothing.

    Args:
      differences: of `compare`.
      first: what the first table is called.
      second: what the second is called.
      row: of both.
    """
    found = differences.get(row, {})
    n_videos = max((each.n for each in found.values()), default=0)
    if not n_videos:
        return f"Nothing of row {row} was scored both in {first} and in {second}: there is nothing to compare."
    table = [
        [column, "-" if each.mean is None else f"{each.mean:+.3f} [{each.low:+.3f} {each.high:+.3f}] n {each.n}"]
        for column, each in found.items()
        if each.n or column in CLIP_COLUMNS
    ]
    lines = [f"{row}, {first} minus {second}, over the {n_videos} that both scored:", *_aligned(table)]
    controls = next((differences[name] for name in SHIFTED if name in differences), {})
    if other := [column for column, each in controls.items() if not _is_zero(each)]:
        lines.append(
            f"Both were not measured alike: the controls differ too ({', '.join(other)}). Compare what was measured on "
            "the same real sounds, equally long, at one sample rate and by one judge."
        )
    return "\n".join(lines)


def _is_zero(interval: Interval) -> bool:
    return all(abs(end) < ALIKE for end in (interval.low, interval.high) if end is not None)


def _opening(evaluation: Mapping[str, Any]) -> list[str]:
    """What must be known before any number is read; the judge first."""
    judge = evaluation["judge"]
    lost = ", ".join(f"{n} {status}" for status, n in evaluation["lost"].items())
    lines = [
        _ceiling(judge),
        f"{evaluation['n_files']} files compared at {evaluation['sample_rate']} Hz and {evaluation['loudness_lufs']:g} "
        f"LUFS; lost: {lost or 'none'}.",
    ]
    if evaluation["n_silent"]:
        lines.append(f"{evaluation['n_silent']} of them are silent, and scored as silence.")
    if evaluation["n_other_length"]:
        lines.append(f"{evaluation['n_other_length']} are longer or shorter than their reference by more than a frame.")
    return lines if judge is None else [*lines, _distances(judge)]


def _ceiling(judge: Mapping[str, Any] | None) -> str:
    if judge is None:
        return (
            "There is no judge: categories and distances are not told. --judge names its file; "
            "`dvc repro train_judge` trains one, `dvc pull` fetches it."
        )
    if not judge["accuracy"]["n"]:
        return (
            "How often the judge is right about the reference sounds is not known: no file lies in a folder of one of "
            f"its categories ({', '.join(judge['categories'])}), and --truth names none."
        )
    accuracy = _text(judge["accuracy"], n=False)
    return (
        f"The judge names {accuracy} of the reference sounds rightly (n {judge['accuracy']['n']}): "
        "that is the ceiling of every row."
    )


def _distances(judge: Mapping[str, Any]) -> str:
    if judge["distances_to"] == "reference":
        return "Distances are to the reference sounds themselves: give --training to have them to other real sound."
    lost = f" ({judge['n_training_lost']} more could not be heard)" if judge["n_training_lost"] else ""
    return f"Distances are to {judge['n_training']} training sounds{lost}."


def _check(table: pa.Table, source: Path) -> None:
    advice = "Write it again with `soundback evaluate --scores`."
    if not table.schema.equals(SCORES, check_metadata=False):
        raise DataContractError(
            f"{source} does not follow its schema.\nExpected:\n{SCORES}\nFound:\n{table.schema}\n{advice}"
        )
    counts = Counter(zip(table["row"].to_pylist(), table["name"].to_pylist(), strict=True))
    for (row, name), n in counts.items():
        if n > 1:
            raise DataContractError(f"{source} has {n} rows {row} of {name}; expected one. {advice}")
    if unknown := sorted(set(table["status"].to_pylist()) - set(STATUSES)):
        raise DataContractError(
            f"{source} has the status {unknown[0]}; expected one of {', '.join(STATUSES)}. {advice}"
        )
    for column in (*CLIP_COLUMNS, *MODEL_COLUMNS, "length_difference_s"):
        if not np.isfinite(table[column].drop_null().to_numpy()).all():
            raise DataContractError(f"{source} has a {column} that is not finite; expected null there. {advice}")


def _by_row(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """{row: {video: its clips}}."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        if row["status"] in SCORED:
            found.setdefault(row["row"], {}).setdefault(row["video_id"], []).append(row)
    return found


def _column(videos: Mapping[str, Sequence[Mapping[str, Any]]], column: str) -> dict[str, float | None]:
    """Of each video the mean over its clips, None where none can tell."""
    known = {video: [row[column] for row in clips if row[column] is not None] for video, clips in videos.items()}
    return {video: float(np.mean(values)) if values else None for video, values in known.items()}


def _text(cell: Mapping[str, Any], *, n: bool = True) -> str:
    if cell["mean"] is None:
        return "-"
    interval = "" if cell["low"] is None else f" [{_number(cell['low'])} {_number(cell['high'])}]"
    return f"{_number(cell['mean'])}{interval}" + (f" n {cell['n']}" if n else "")


def _number(value: float) -> str:
    # Added to 0, a negative 0 becomes a plain one.
    return f"{value:.1f}" if abs(value) >= 10 else f"{round(value, 3) + 0.0:.3f}"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in table]
