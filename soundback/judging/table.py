"""The evaluation table: every row scored on the same held-out videos, with intervals, differences and claims."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from soundback.judging import scores
from soundback.judging.claims import CLAIMS, PAIRS
from soundback.judging.distances import diversities, frechet_distances, kernel_distances
from soundback.judging.intervals import Bootstrap, Cell, Interval
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

CLIP_COLUMNS, LEAST = (*scores.CLIP_COLUMNS, *scores.MODEL_COLUMNS), scores.SET_COLUMNS
COLUMNS = (*CLIP_COLUMNS[:-1], *LEAST, CLIP_COLUMNS[-1])


@dataclass(frozen=True, eq=False)
class Results:
    """The table, and what it was made of.

    Attributes:
      evaluation: as written to evaluation.json.
      categories: the rows of each category, {label: {row: {column: cell}}}, columns that a clip has alone.
      clips: scores of each row and each trial, {row: [scores]}; empty scores where a row lacks the trial.
      watching: of the cue sheets themselves.
    """

    evaluation: dict[str, Any]
    categories: dict[str, dict[str, dict[str, Cell]]]
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
    clips = {row: score_row(trials, row, heard, bits.get(row)) for row in ROWS if row in heard}
    table = Table(trials, clips, heard, training_embeddings, bootstrap)
    rows = {row: {column: table.mean(row, column).cell() for column in COLUMNS} for row in clips}
    evaluation = {
        "n_videos": len(table.labels),
        "judge": {"accuracy": rows["real"]["category_accuracy"], "n_training_videos": len(training_embeddings)},
        "claims": {
            name: claim.describe(table.compare(claim.first, claim.second, claim.column, claim.by))
            for name, claim in CLAIMS.items()
        },
        **describe(watching),
        "probes": dict(probes),
        "rows": rows,
        "paired": {
            f"{first}_minus_{second}": {column: table.compare(first, second, column).cell() for column in columns}
            for first, second, columns in PAIRS
            if first in clips and second in clips
        },
    }
    return Results(evaluation, table.by_category(), clips, watching)


def score_row(
    trials: list[Trial], row: str, heard: Mapping[str, Mapping[int, Heard]], bits: Sequence[float | None] | None
) -> list[Scores]:
    """Scores what was heard of one row.

    Args:
      trials: the held-out clips.
      row: of the table.
      heard: as for `build_table`.
      bits: bits per sample of each trial's real sound, under the row's cues; None where that makes no sense.

    Returns:
      Of each trial; empty where the row lacks it.
    """
    found: list[Scores] = []
    for index, trial in enumerate(trials):
        known = score_sound(trial, row, heard[row][index], heard["real"][index]) if index in heard[row] else {}
        found.append(known | {"bits_per_sample": bits[index] if bits else None} if known else {})
    return found


class Table:
    """Means and differences of what was scored, with intervals over videos.

    Attributes:
      labels: of each video, {video_id: label}.
    """

    def __init__(
        self,
        trials: list[Trial],
        clips: Mapping[str, list[Scores]],
        heard: Mapping[str, Mapping[int, Heard]],
        training_embeddings: Sequence[np.ndarray],
        bootstrap: Bootstrap,
    ) -> None:
        self.labels = {trial.video_id: trial.label for trial in trials}
        self._means = {row: mean_by_video(trials, of_row) for row, of_row in clips.items()}
        self._embeddings = {row: embeddings_by_video(trials, heard[row]) for row in clips}
        self._training = training_embeddings
        self._bootstrap = bootstrap

    def mean(self, row: str, column: str) -> Interval:
        """Of one cell of the table."""
        if column not in LEAST:
            return self._bootstrap.mean(list(self._values(row, column).values()))
        videos = list(self._embeddings[row])
        of_counts = self._of_set(row, column, videos)
        return self._bootstrap.statistic(len(videos), of_counts, least=LEAST[column])

    def compare(self, first: str, second: str, column: str, by: str = "difference") -> Interval:
        """One row minus another, or over it, on the videos that both have; nothing where one of the rows is missing."""
        if first not in self._means or second not in self._means:
            return Interval(None, None, None, 0)
        if column in LEAST:
            videos = [video for video in self._embeddings[first] if video in self._embeddings[second]]
            of_first, of_second = (self._of_set(row, column, videos) for row in (first, second))
            return self._bootstrap.statistic(len(videos), lambda counts: of_first(counts) - of_second(counts))
        compare = self._bootstrap.share if by == "share" else self._bootstrap.paired
        return compare(self._values(first, column), self._values(second, column))

    def by_category(self) -> dict[str, dict[str, dict[str, Cell]]]:
        """The rows of each category alone, in the columns that a clip has alone."""
        return {
            label: {
                row: {
                    column: self._bootstrap.mean(
                        [value for video, value in means.get(column, {}).items() if self.labels[video] == label]
                    ).cell()
                    for column in CLIP_COLUMNS
                }
                for row, means in self._means.items()
            }
            for label in sorted(set(self.labels.values()))
        }

    def _values(self, row: str, column: str) -> dict[str, float | None]:
        return self._means[row].get(column, {})

    def _of_set(self, row: str, column: str, videos: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
        """The column of a set of videos, for many weightings of them."""
        estimated = [self._embeddings[row][video] for video in videos]
        labels = [self.labels[video] for video in videos]

        def of_counts(counts: np.ndarray) -> np.ndarray:
            if column == "diversity":
                return diversities(estimated, labels, counts)
            distances = {"frechet_distance": frechet_distances, "kernel_distance": kernel_distances}[column]
            return distances(self._training, estimated, counts)

        return of_counts
