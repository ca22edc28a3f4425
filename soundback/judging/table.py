"""The evaluation table: every row scored on the same held-out videos, with intervals and paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from soundback.judging.intervals import Bootstrap, Interval
from soundback.judging.metrics import ONSET_WINDOWS_MS, frechet_distances, kernel_distances
from soundback.judging.rows import ROWS
from soundback.judging.trials import (
    Heard,
    Scores,
    Trial,
    embeddings_by_video,
    mean_by_video,
    score_sound,
)
from soundback.judging.watching import Watching, describe

CLIP_COLUMNS = (
    "category_accuracy",
    "category_kept",
    *(f"onset_{name}_{window_ms}ms" for window_ms in ONSET_WINDOWS_MS for name in ("precision", "recall", "f1")),
    "loudness_correlation",
    "loudness_error_db",
    "noise_floor_db",
    "bits_per_sample",
)
SET_COLUMNS = {"frechet_distance": frechet_distances, "kernel_distance": kernel_distances}
LEAST = {"frechet_distance": 0.0, "kernel_distance": -math.inf}
COLUMNS = (*CLIP_COLUMNS[:-1], *SET_COLUMNS, CLIP_COLUMNS[-1])

TIMING = ("onset_f1_100ms", "loudness_correlation")
CLAIMS = (
    ("local_predicted", "category_only", (*TIMING, "category_accuracy")),
    ("local_predicted", "same_category_swap", TIMING),
    ("local_predicted", "nearest_onset_paste", TIMING),
    ("local_predicted", "local_true", (*TIMING, "category_accuracy")),
)
"""Which row minus which other, in which columns, is worth a paired interval."""


@dataclass(frozen=True, eq=False)
class Results:
    """The table, and what it was made of.

    Attributes:
      evaluation: as written to evaluation.json.
      clips: scores of each row and each trial, {row: [scores]}; empty scores where a row lacks the trial.
      watching: of the cue sheets themselves.
    """

    evaluation: dict[str, Any]
    clips: dict[str, list[Scores]]
    watching: Watching


def build_table(
    trials: list[Trial],
    heard: Mapping[str, Mapping[int, Heard]],
    bits: Mapping[str, Sequence[float | None]],
    training_embeddings: Sequence[np.ndarray],
    bootstrap: Bootstrap,
    *,
    watching: Watching,
    probes: Mapping[str, Any],
) -> Results:
    """Scores everything that was heard.

    Args:
      trials: the held-out clips.
      heard: {row: {index of the trial: what is heard}}; "real" must be complete.
      bits: {row: bits per sample of each trial's real sound, under the row's cues}; rows without are null.
      training_embeddings: the judge's embedding of real training sound, one array per video.
      bootstrap: how the intervals are drawn.
      watching: what was found of the cue sheets.
      probes: what was found of videos that were altered on purpose, as it goes to evaluation.json.
    """
    clips = {row: score_row(trials, heard["real"], heard[row], bits.get(row)) for row in ROWS if row in heard}
    means = {row: mean_by_video(trials, scores) for row, scores in clips.items()}
    rows = {
        row: describe_row(means[row], embeddings_by_video(trials, heard[row]), training_embeddings, bootstrap)
        for row in clips
    }
    evaluation = {
        "n_videos": len({trial.video_id for trial in trials}),
        **describe(watching),
        "probes": dict(probes),
        "rows": rows,
        "paired": _paired(means, bootstrap),
    }
    return Results(evaluation, clips, watching)


def score_row(
    trials: list[Trial], real: Mapping[int, Heard], heard: Mapping[int, Heard], bits: Sequence[float | None] | None
) -> list[Scores]:
    """Scores what was heard of one row.

    Args:
      trials: the held-out clips.
      real: what is heard of the real sound of each, by its index.
      heard: what is heard of the row's sound, where it has one.
      bits: bits per sample of each trial's real sound, under the row's cues; None where that makes no sense.

    Returns:
      Of each trial; empty where the row lacks it.
    """
    scores: list[Scores] = []
    for index, trial in enumerate(trials):
        known = score_sound(trial, heard[index], real[index]) if index in heard else {}
        scores.append(known | {"bits_per_sample": bits[index] if bits else None} if known else {})
    return scores


def describe_row(
    means: Mapping[str, Mapping[str, float | None]],
    embeddings: Sequence[np.ndarray],
    training_embeddings: Sequence[np.ndarray],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """A row as it goes to evaluation.json: every column with its interval.

    Args:
      means: of the row's scores over the clips of each video, see `mean_by_video`.
      embeddings: the judge's, of the row's sound, one array per video.
      training_embeddings: of real training sound, one array per video.
      bootstrap: how the intervals are drawn.
    """
    cells = {column: bootstrap.mean(list(means.get(column, {}).values())) for column in CLIP_COLUMNS}
    for column, distances in SET_COLUMNS.items():

        def of_counts(counts: np.ndarray, distances: Any = distances) -> np.ndarray:
            return distances(training_embeddings, embeddings, counts)

        known = len(embeddings) and len(training_embeddings)
        cells[column] = (
            bootstrap.statistic(len(embeddings), of_counts, least=LEAST[column])
            if known
            else Interval(None, None, None, 0)
        )
    return {column: cells[column].cell() for column in COLUMNS}


def _paired(means: Mapping[str, Mapping[str, Mapping[str, float | None]]], bootstrap: Bootstrap) -> dict[str, Any]:
    return {
        f"{first}_minus_{second}": {
            column: bootstrap.paired(means[first][column], means[second][column]).cell() for column in columns
        }
        for first, second, columns in CLAIMS
        if means.get(first) and means.get(second)
    }
