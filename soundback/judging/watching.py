"""The cue sheets of the held-out clips against the truth, before any sound is made."""

import csv
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soundback.cues import CueSheet
from soundback.judging import classification, metrics
from soundback.judging.classification import Reliability
from soundback.judging.intervals import DIGITS, Array, Bootstrap, Cell, Interval
from soundback.judging.trials import Scores, Trial, mean_by_video

MEANINGS = {
    "category_accuracy": "share of clips whose cue sheet gives most time to the right category",
    "macro_f1": "F1 of each category, all with the same weight",
    "majority_accuracy": "share that would be right if the commonest training label were always named",
    "loudness_correlation": "correlation of the loudness seen with the one measured on the real sound",
    "loudness_error_db": "mean difference of the two in dB",
    "hit_f1_100ms": "F1 of hits, right within 100 ms of a true onset",
    "unsure_share": "share of the time to which no category is given",
    "calibration_error": "mean distance of a frame's probability from how often such frames are right",
}
COLUMNS = tuple(MEANINGS)
OF_THE_WHOLE = ("macro_f1", "calibration_error")
"""What no clip has alone; all else is a mean over videos."""

MISSED_SHOWN = 12
"""Frames that a person looks through with patience."""


@dataclass(frozen=True, eq=False)
class MissedFrame:
    """A frame that the classifier gets wrong, or is least sure of.

    Attributes:
      trial: the clip.
      frame: its number in the clip.
      said: the likeliest category.
      said_probability: of that one.
      true_probability: of what it truly is.
    """

    trial: Trial
    frame: int
    said: str
    said_probability: float
    true_probability: float


@dataclass(frozen=True, eq=False)
class Watching:
    """What there is to say, and to draw, of the cue sheets.

    Attributes:
      numbers: of evaluation.json, {column of COLUMNS: value}.
      intervals: of the same columns.
      trials: the held-out clips.
      scores: of each trial.
      categories: names, in the order of the confusions.
      confusions: float64 [n_categories, n_categories + 1], clips; the last column is unsure.
      frame_confusions: the same, frames as the cue sheets name them.
      reliability: of the frame-wise probabilities.
      missed: the frames that are most wrong, one of each clip, the worst first.
      curves: of each label the trial whose loudness is followed worst, the worst first.
    """

    numbers: dict[str, float | None]
    intervals: dict[str, Cell]
    trials: list[Trial]
    scores: list[Scores]
    categories: tuple[str, ...]
    confusions: Array
    frame_confusions: Array
    reliability: Reliability
    missed: list[MissedFrame]
    curves: list[Trial]


def judge_watching(
    trials: list[Trial], categories: Sequence[str], commonest: str | None, bootstrap: Bootstrap
) -> Watching:
    """Scores what was watched.

    Args:
      trials: the held-out clips.
      categories: in the order of their probabilities.
      commonest: label of most training clips.
      bootstrap: how the intervals are drawn.
    """
    names = tuple(categories)
    scores = [
        score_watching(trial) | {"majority_accuracy": None if commonest is None else float(trial.label == commonest)}
        for trial in trials
    ]
    means = mean_by_video(trials, scores)
    found = {column: bootstrap.mean(list(means[column].values())) for column in COLUMNS if column not in OF_THE_WHOLE}
    by_video = _by_video(trials)
    clips = np.stack([_count_clips(of_video, names) for of_video in by_video])
    sums = np.stack([_sum_bins(of_video, names) for of_video in by_video])
    found["macro_f1"] = _share(bootstrap, len(by_video), functools.partial(classification.macro_f1s, clips))
    calibration = functools.partial(classification.calibration_errors, sums)
    found["calibration_error"] = _share(bootstrap, len(by_video), calibration)
    confidence, right = _confidence(trials, names)
    return Watching(
        {column: _rounded(found[column].mean) for column in COLUMNS},
        {column: found[column].cell() for column in COLUMNS},
        trials,
        scores,
        names,
        clips.sum(axis=0),
        sum((_count_frames(trial, names) for trial in trials), np.zeros((len(names), len(names) + 1))),
        classification.reliability(confidence, right),
        find_missed_frames(trials, names, MISSED_SHOWN),
        choose_curves(trials, scores),
    )


def score_watching(trial: Trial) -> Scores:
    """Scores the predicted cue sheet of one clip against label, loudness and reference onsets."""
    predicted, n_frames = trial.predicted_sheet, trial.true_sheet.n_frames
    scores = metrics.evaluate(
        trial.onsets_s,
        hit_times_s(predicted),
        trial.true_sheet.loudness_db,
        predicted.loudness_db[:n_frames],
        frame_rate=predicted.frame_rate,
    )
    return {
        "category_accuracy": float(majority_category(predicted) == trial.label),
        "loudness_correlation": scores["loudness_correlation"],
        "loudness_error_db": scores["loudness_error_db"],
        "hit_f1_100ms": scores["onset_f1_100ms"],
        "unsure_share": frames_by_category(predicted)[None] / max(1, predicted.n_frames),
    }


def hit_times_s(sheet: CueSheet) -> np.ndarray:
    """When a sheet says that something hits: float64 [n], seconds."""
    # A hit belongs to a frame, which lasts a while: its middle is the best guess.
    return (np.flatnonzero(sheet.hit) + 0.5) / sheet.frame_rate


def frames_by_category(sheet: CueSheet) -> Counter[str | None]:
    """How many frames a sheet gives to each category, and how many to none."""
    frames: Counter[str | None] = Counter()
    for segment in sheet.segments:
        covered = sheet.frames_of(segment)
        frames[segment.category] += covered.stop - covered.start
    frames[None] = sheet.n_frames - frames.total()
    return frames


def majority_category(sheet: CueSheet) -> str | None:
    """The category of most frames; None where most belong to no segment."""
    frames = frames_by_category(sheet)
    return max(frames, key=lambda category: frames[category])


def find_missed_frames(trials: Sequence[Trial], categories: Sequence[str], n_frames: int) -> list[MissedFrame]:
    """The frames to whose true category least probability was given, at most one of each clip, the worst first."""
    found = []
    for trial in trials:
        of_truth = trial.probabilities[:, list(categories).index(trial.label)]
        frame = int(of_truth.argmin())
        likeliest = int(trial.probabilities[frame].argmax())
        said_probability = float(trial.probabilities[frame, likeliest])
        found.append(MissedFrame(trial, frame, categories[likeliest], said_probability, float(of_truth[frame])))
    return sorted(found, key=lambda missed: (missed.true_probability, missed.trial.name))[:n_frames]


def choose_curves(trials: Sequence[Trial], scores: Sequence[Scores]) -> list[Trial]:
    """Of each label the trial whose loudness is followed worst, by correlation, else by error; the worst first."""

    def badness(index: int) -> tuple[float, float, str]:
        correlation, error_db = scores[index]["loudness_correlation"], scores[index]["loudness_error_db"]
        # Where a curve is constant there is no correlation: as bad as one that has nothing to do with it.
        return (correlation or 0.0, -(error_db or 0.0), trials[index].name)

    worst: dict[str, int] = {}
    for index in sorted(range(len(trials)), key=badness):
        worst.setdefault(trials[index].label, index)
    return [trials[index] for index in worst.values()]


def _by_video(trials: Sequence[Trial]) -> list[list[Trial]]:
    videos: dict[str, list[Trial]] = {}
    for trial in trials:
        videos.setdefault(trial.video_id, []).append(trial)
    return list(videos.values())


def _count_clips(trials: Sequence[Trial], categories: Sequence[str]) -> Array:
    named = [majority_category(trial.predicted_sheet) for trial in trials]
    return classification.count_confusions([trial.label for trial in trials], named, categories)


def _count_frames(trial: Trial, categories: Sequence[str]) -> Array:
    named = frames_by_category(trial.predicted_sheet)
    row = [named[category] for category in [*categories, None]]
    return np.array([row if category == trial.label else [0] * len(row) for category in categories], np.float64)


def _confidence(trials: Sequence[Trial], categories: Sequence[str]) -> tuple[Array, np.ndarray]:
    """Probability of the likeliest category of every frame, and whether it is right."""
    probabilities = np.concatenate([trial.probabilities for trial in trials])
    truth = np.repeat(
        [list(categories).index(trial.label) for trial in trials], [len(trial.probabilities) for trial in trials]
    )
    return probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == truth


def _sum_bins(trials: Sequence[Trial], categories: Sequence[str]) -> Array:
    return classification.bin_sums(*_confidence(trials, categories))


def _share(bootstrap: Bootstrap, n_videos: int, of_counts: Callable[[Array], Array]) -> Interval:
    """Interval of a share of the whole set: the bootstrap's, within 0 and 1."""
    interval = bootstrap.statistic(n_videos, of_counts, least=0.0)
    return Interval(interval.mean, interval.low, None if interval.high is None else min(1.0, interval.high), interval.n)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def describe(watching: Watching) -> dict[str, Any]:
    """What evaluation.json says of the watching: numbers, and their intervals beside them."""
    return {"watching": watching.numbers, "watching_intervals": watching.intervals}


def write_tables(watching: Watching, folder: Path) -> None:
    """Writes confusion.csv, a line per clip, and reliability.csv, a line per bin that has frames."""
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        for trial in watching.trials:
            writer.writerow([trial.label, majority_category(trial.predicted_sheet) or "unsure"])
    with (folder / "reliability.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["confidence", "accuracy", "n_frames"])
        found = watching.reliability
        for confidence, accuracy, n_frames in zip(found.confidence, found.accuracy, found.n_frames, strict=True):
            if n_frames:
                writer.writerow([round(float(confidence), 4), round(float(accuracy), 4), n_frames])
