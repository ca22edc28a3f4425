"""From frame-wise probabilities to segments: smoothed over time, hardened, and never across a scene cut."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from soundback.cues import CueSheet, Segment
from soundback.params import Soundtrack

UNSURE = -1


@dataclass(frozen=True, eq=False)
class Watched:
    """What was seen in a video.

    Attributes:
      probabilities: float32 [n_frames, n_categories], of each frame alone, see `Classifier.recognise`.
      known: bool [n_frames], whether the classifier has seen anything like it.
      cuts: frames at which a new shot begins.
      sheet: the cue sheet that was written from it.
    """

    probabilities: np.ndarray
    known: np.ndarray
    cuts: tuple[int, ...]
    sheet: CueSheet


def find_segments(
    probabilities: np.ndarray,
    cuts: Sequence[int],
    *,
    categories: Sequence[str],
    unsure_below: float,
    frame_rate: int,
    params: Soundtrack,
) -> tuple[Segment, ...]:
    """Hardens frame-wise probabilities into segments; where none is likely enough there is no segment.

    Args:
      probabilities: [n_frames, n_categories]; a row need not add up to 1, and all of it small says "unsure".
      cuts: frames at which a new shot begins, in rising order; a segment lies within one shot.
      categories: names, in the order of the columns.
      unsure_below: a probability that the likeliest category must reach once it is smoothed.
      frame_rate: per second.
      params: over how long probabilities are averaged, and how short a segment may be if its shot is longer.
    """
    smoothing, shortest = (max(1, round(s * frame_rate)) for s in (params.smoothing_s, params.min_segment_s))
    segments = []
    for first, last in itertools.pairwise([0, *cuts, len(probabilities)]):
        shot = probabilities[first:last]
        if not len(shot):
            continue
        smooth = uniform_filter1d(shot, smoothing, axis=0, mode="nearest")
        winner = np.where(smooth.max(axis=1) < unsure_below, UNSURE, smooth.argmax(axis=1))
        segments += [
            Segment(
                (first + start) / frame_rate,
                (first + end) / frame_rate,
                categories[category],
                round(float(smooth[start:end, category].mean()), 3),
            )
            for start, end, category in _merge_short_runs(winner, shortest)
            if category != UNSURE
        ]
    return tuple(segments)


def _merge_short_runs(winner: np.ndarray, shortest: int) -> list[tuple[int, int, int]]:
    """Runs of equal values as (start, end, value); runs that are too short go to their longer neighbour."""
    borders = [0, *(np.flatnonzero(np.diff(winner)) + 1).tolist(), len(winner)]
    runs = [(start, end, int(winner[start])) for start, end in itertools.pairwise(borders)]
    while len(runs) > 1:
        lengths = [end - start for start, end, _ in runs]
        place = int(np.argmin(lengths))
        if lengths[place] >= shortest:
            break
        neighbours = [index for index in (place - 1, place + 1) if 0 <= index < len(runs)]
        value = runs[max(neighbours, key=lambda index: lengths[index])][2]
        runs[place] = (*runs[place][:2], value)
        runs = _join_equal(runs)
    return runs


def _join_equal(runs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    joined = []
    for value, group in itertools.groupby(runs, key=lambda run: run[2]):
        members = list(group)
        joined.append((members[0][0], members[-1][1], value))
    return joined
