"""Makes and hears the sound of every row of the table, several at once."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from soundback.cues import CueSheet
from soundback.judging.coding import bits_per_sample
from soundback.judging.held_out import Models
from soundback.judging.judge import Judge
from soundback.judging.rows import ROWS
from soundback.judging.trials import Ear, Heard, Trial, hear
from soundback.progress import Progress, no_progress
from soundback.settings import load_settings

SOUNDED = ("local_predicted", "local_true", "category_only")
"""The rows that the WaveNet makes."""


def sound_trials(
    trials: Sequence[Trial], models: Models, *, seed: int, progress: Progress = no_progress
) -> dict[str, list[float | None]]:
    """Adds to every trial the rows that the WaveNet makes.

    Args:
      trials: all of them.
      models: what is judged.
      seed: the rows of one trial share their random numbers.
      progress: called after every sound.

    Returns:
      Bits per sample of each trial's real sound, under the cues of each of these rows.
    """
    bits: dict[str, list[float | None]] = {row: [None] * len(trials) for row in SOUNDED}

    def work(row: str, index: int) -> None:
        trial = trials[index]
        sheet, with_curves = cues_of(trial, row)
        pieces = models.stream(sheet, seed=seed + index, with_curves=with_curves, workers=1)
        trial.sounds[row] = np.concatenate([np.zeros(0, np.float32), *pieces])
        bits[row][index] = bits_per_sample(
            models.sampler, trial.waveform, sheet, models.categories, with_curves=with_curves
        )

    _in_parallel(work, [(row, index) for index in range(len(trials)) for row in SOUNDED], progress)
    return bits


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
    found: dict[tuple[str, int], Heard] = {}

    def work(row: str, index: int) -> None:
        found[row, index] = hear(trials[index].sounds[row], ear, judge)

    jobs = [(row, index) for index, trial in enumerate(trials) for row in ROWS if row in trial.sounds]
    _in_parallel(work, jobs, progress)
    return {
        row: {index: found[row, index] for index in range(len(trials)) if (row, index) in found}
        for row in ROWS
        if any(row in trial.sounds for trial in trials)
    }


def _in_parallel(work: Callable[[str, int], None], jobs: Sequence[tuple[str, int]], progress: Progress) -> None:
    """Threads are enough: what takes long releases the GIL."""
    with ThreadPoolExecutor(load_settings().workers or os.cpu_count()) as executor:
        futures = [executor.submit(work, row, index) for row, index in jobs]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                progress(done, len(jobs))
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
