"""The columns and rows of the evaluation as people see them: names, meanings, and numbers as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any


@dataclass(frozen=True)
class Column:
    """How a column of the table is shown.

    Attributes:
      key: its name in evaluation.json.
      title: short name.
      better: which way is better: "higher", "lower" or "near real".
      meaning: what it says, and in which unit.
      group: what kind of thing it tells; columns of a group stand side by side.
    """

    key: str
    title: str
    better: str
    meaning: str
    group: str


COLUMNS = (
    Column(
        "category_accuracy",
        "category",
        "higher",
        "share of videos whose sound the judge takes for the right category",
        "category",
    ),
    Column(
        "category_kept",
        "kept",
        "higher",
        "the same, of the videos whose real sound it takes for the right one",
        "category",
    ),
    Column(
        "category_divergence",
        "divergence",
        "lower",
        "how far the judge's probabilities are from those of the real sound: Kullback-Leibler divergence in nats",
        "category",
    ),
    Column("onset_f1_100ms", "onsets 100 ms", "higher", "F1 of onsets, right within 100 ms", "onsets"),
    Column("onset_f1_50ms", "onsets 50 ms", "higher", "F1 of onsets, right within 50 ms", "onsets"),
    Column("onset_f1_300ms", "onsets 300 ms", "higher", "F1 of onsets, right within 300 ms", "onsets"),
    Column(
        "loudness_correlation", "loudness", "higher", "correlation of the loudness curve with the real one", "loudness"
    ),
    Column("loudness_error_db", "error dB", "lower", "mean difference of the loudness curves in dB", "loudness"),
    Column(
        "loudness_lag_ms",
        "lag ms",
        "lower",
        "how early or late the loudness curve fits the real one best, in ms; worth nothing without correlation",
        "loudness",
    ),
    Column(
        "av_align",
        "AV-Align",
        "higher",
        "share of motion peaks and onsets that are one event; needs no reference",
        "picture",
    ),
    Column(
        "kernel_distance", "kernel", "lower", "kernel distance to real training sound, in the judge's embedding", "sets"
    ),
    Column(
        "frechet_distance",
        "Fréchet",
        "lower",
        "Fréchet distance to real training sound, in the judge's embedding",
        "sets",
    ),
    Column(
        "diversity",
        "diversity",
        "near real",
        "how much sounds differ from each other, in the judge's embedding",
        "sets",
    ),
    Column(
        "noise_floor_db", "noise dB", "lower", "level in dBFS where the real sound is silent; of few clips", "waveform"
    ),
    Column(
        "seam_discontinuity_db",
        "seams dB",
        "lower",
        "how much more the spectrum changes where the stitched track has its seams than elsewhere, in dB",
        "waveform",
    ),
    Column(
        "bits_per_sample",
        "bits",
        "lower",
        "bits per sample that the real sound costs the WaveNet under these cues",
        "waveform",
    ),
)
"""In the order of the table: what is asked first comes first, and a group stands together."""

WITH_INTERVALS = ("category_accuracy", "onset_f1_100ms", "loudness_correlation")
"""The columns that say most: with intervals in plain text, and what examples are sorted by."""

OF_A_CATEGORY = (
    "category_accuracy",
    "category_divergence",
    "onset_f1_100ms",
    "loudness_correlation",
    "loudness_error_db",
    "loudness_lag_ms",
    "av_align",
)
"""What is shown category by category: columns that few videos can tell."""

ROW_MEANINGS = {
    "real": "the real sound: the ceiling, as the same detector and judge hear it",
    "real_shifted": "the real sound, 0.2 s late",
    "same_category_swap": "another video's real sound of the same category",
    "local_predicted": "Soundback: the WaveNet, told by the cue sheet that the watchers wrote",
    "local_true": "the WaveNet, told by the cue sheet measured on the real sound",
    "category_only": "the same WaveNet, told only what the first frame shows",
    "nearest_onset_paste": "training sounds of the category pasted at the predicted hits",
    "envelope_noise": "white noise with the real loudness curve",
    "silence": "nothing",
    "paper": "the paper's own system: one category, from the first frame, for the whole track",
    "paper_stitched": "the same a second at a time, each told its own first frame, stitched",
}


def columns_of(rows: Mapping[str, Mapping[str, Any]], wanted: Sequence[str] | None = None) -> list[Column]:
    """The columns that at least one row has a value in, in the order of the table.

    Args:
      rows: {row: {column: cell}}; a row may lack a column.
      wanted: keys to choose among; without it all.
    """
    told = {key for cells in rows.values() for key, cell in cells.items() if cell["mean"] is not None}
    return [column for column in COLUMNS if column.key in told and (wanted is None or column.key in wanted)]


def groups_of(columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """Columns by their group, in the order in which they stand."""
    return [(group, list(members)) for group, members in groupby(columns, key=lambda column: column.group)]


def format_number(value: float | None) -> str:
    """A number with as many digits as an interval leaves meaning to."""
    if value is None:
        return "-"
    n_digits = 2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    # Adding 0 takes the sign from a zero.
    return f"{round(value, n_digits) + 0.0:.{n_digits}f}"


def format_cell(cell: Mapping[str, Any] | None, *, with_interval: bool = True) -> str:
    """A mean, and if it has one its interval: `0.98 [0.94 1.00]`."""
    if cell is None or cell["mean"] is None:
        return "-"
    if not with_interval or cell.get("low") is None:
        return format_number(cell["mean"])
    return f"{format_number(cell['mean'])} [{format_number(cell['low'])} {format_number(cell['high'])}]"


def format_difference(cell: Mapping[str, Any]) -> str:
    """A difference with its sign, and its interval."""
    if cell["mean"] is None:
        return "-"
    return f"{cell['mean']:+.2f} [{cell['low']:+.2f} {cell['high']:+.2f}]"
