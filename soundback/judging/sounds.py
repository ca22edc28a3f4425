"""Makes and hears the sound of every row of the table, several at once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from soundback.cues import CueSheet
from soundback.judging.coding import real_sound_bits
from soundback.judging.held_out import Models
from soundback.judging.judge import Judge
from soundback.judging.rows import ROWS
from soundback.judging.together import in_parallel
from soundback.judging.trials import Ear, Heard, Trial, hear
from soundback.progress import Progress, no_progress

SOUNDED = ("local_predicted", "local_true", "category_only")
"""The rows that the WaveNet makes."""


@dataclass(eq=False)
class Coded:
    """What it takes to make a row, and what the real sound costs under its cues.

    Attributes:
      bits: bits per sample of each trial's real sound; None where that makes no sense.
      spent_s: seconds that sounding each trial took, beside others that were sounded at once.
    """

    bits: list[float | None]
    spent_s: list[float]

    @classmethod
    def empty(cls, n_trials: int) -> Self:
        """Before anything is made."""
        return cls([None] * n_trials, [0.0] * n_trials)


def sound_trials(
    trials: Sequence[Trial], models: Models, *, seed: int, progress: Progress = no_progress
) -> dict[str, Coded]:
    """Adds to every trial the rows that the WaveNet makes.

    Args:
      trials: all of them.
      models: what is judged.
      seed: the rows of one trial share their random numbers.
      progress: called after every sound.

    Returns:
      Of each of these rows.
    """
    coded = {row: Coded.empty(len(trials)) for row in SOUNDED}

    def work(row: str, index: int) -> None:
        trial = trials[index]
        sheet, with_curves = cues_of(trial, row)
        started = time.perf_counter()
        pieces = models.stream(sheet, seed=seed + index, with_curves=with_curves, workers=1)
        trial.sounds[row] = np.concatenate([np.zeros(0, np.float32), *pieces])
        coded[row].spent_s[index] = time.perf_counter() - started
        coded[row].bits[index] = real_sound_bits(
            models.sampler, trial.waveform, sheet, models.categories, with_curves=with_curves
        )

    jobs = [partial(work, row, index) for index in range(len(trials)) for row in SOUNDED]
    in_parallel(jobs, lambda done: progress(done, len(jobs)))
    return coded


def cues_of(trial: Trial, row: str) -> tuple[CueSheet, bool]:
    """What the WaveNet is told for one of the rows `SOUNDED`, and whether loudness and hits are part of it."""
    sheets = {
        "local_predicted": (trial.predicted_sheet, True),
        "local_true": (trial.true_sheet, True),
        "category_only": (trial.first_sheet, False),
    }
    return sheets[row]


def hear_trials(
    trials: Sequence[Trial], judge: Judge, ear: Ear, progress: Progress = no_progress
) -> dict[str, dict[int, Heard]]:
    """Hears every sound of every trial.

    Returns:
      {row: {index of the trial: what is heard}}, in the order of the table and of the trials.
    """
    keys = [(row, index) for index, trial in enumerate(trials) for row in ROWS if row in trial.sounds]
    jobs = [partial(hear, trials[index].sounds[row], ear, judge) for row, index in keys]
    found = dict(zip(keys, in_parallel(jobs, lambda done: progress(done, len(jobs))), strict=True))
    return {
        row: {index: found[row, index] for index in range(len(trials)) if (row, index) in found}
        for row in ROWS
        if any(row in trial.sounds for trial in trials)
    }
