"""Gives the held-out videos their sound back as the paper does and as we do, and measures both alike."""

import dataclasses
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from soundback.judging.audition import Audition, Outputs, Sections, log_speed
from soundback.judging.coding import real_sound_bits
from soundback.judging.held_out import Folders, HeldOut
from soundback.judging.provenance import read_provenance
from soundback.judging.sounds import Coded
from soundback.judging.together import in_parallel
from soundback.judging.trials import Trial, category_sheet
from soundback.judging.watching import describe
from soundback.paper import PaperSystem, cut_stretches
from soundback.progress import Progress, no_progress, show_progress
from soundback.soundtrack import Soundtrack
from stages import LOCKS, load_params, stage_process

WHOLE, STITCHED = "paper", "paper_stitched"
"""The rows of the table."""


def evaluate_paper(
    videos: Path,
    audio: Path,
    frames: Path,
    duplicates: Path,
    models: Path,
    judge: Path,
    paper_models: Path,
    wavenet_plots: Path,
    paper_plots: Path,
    metrics: Path,
    plots: Path,
    report: Path,
    *,
    params: Sections,
    locks: Sequence[Path] = LOCKS,
) -> None:
    """Watches, sounds and scores the held-out clips; writes what `evaluate` does, with the paper's rows beside ours.

    Args:
      videos: folder of all labels' clips.
      audio: folder of all labels' wavs.
      frames: folder of all labels' shards.
      duplicates: table of the clips to leave out.
      models: folder of our classifier, spotter and wavenet.
      judge: .keras file of the listener that judges both.
      paper_models: folder of the paper's classifier and WaveNet.
      wavenet_plots: what the training of our WaveNet wrote.
      paper_plots: what the training of the paper's wrote.
      metrics: paper.json to write.
      plots: folder to write.
      report: folder to write.
      params: what to compute.
      locks: DVC's files that say what all this was built from.
    """
    audition = Audition(Folders(videos, audio, frames), duplicates, judge, params=params)
    soundtrack = Soundtrack.load(models, params=params.soundtrack)
    system = PaperSystem.load(paper_models, params=params.soundtrack)
    trials, theirs = audition.watch(soundtrack), audition.watch(system)
    coded = audition.sound(trials, soundtrack)
    with show_progress("Sounding them as the paper does") as progress:
        coded |= sound_as_the_paper(theirs, audition.held_out, system, seed=params.evaluation.seed, progress=progress)
    log_speed({row: coded[row] for row in (WHOLE, STITCHED)}, theirs, audition.sample_rate)
    trials = [
        dataclasses.replace(ours, sounds=ours.sounds | paper.sounds, seams_s=find_seams(paper, system))
        for ours, paper in zip(trials, theirs, strict=True)
    ]
    results = audition.score(trials, soundtrack.categories, coded, audition.probe(trials, soundtrack))
    watching = describe(audition.judge_watching(theirs, system.categories))
    results.evaluation.update({f"paper_{name}": told for name, told in watching.items()})
    audition.write(
        results,
        trials,
        Outputs(metrics, plots, report),
        curves={"wavenet": wavenet_plots, "the paper's wavenet": paper_plots},
        provenance=read_provenance((videos, audio, frames, duplicates, models, judge, paper_models), locks),
    )


def sound_as_the_paper(
    trials: Sequence[Trial], held_out: HeldOut, system: PaperSystem, *, seed: int, progress: Progress = no_progress
) -> dict[str, Coded]:
    """Adds to every trial what the paper's system makes of it, whole and stitched.

    Args:
      trials: all of them, watched by that system.
      held_out: has their frames.
      system: what is judged.
      seed: the rows of one trial share it, and share it with ours.
      progress: called after every sound.

    Returns:
      Of each row; bits of the whole track under the category of the first frame. The stitched tracks have none: each
      begins without a past, and a real sound does not.
    """
    sound = {WHOLE: system.sound, STITCHED: system.sound_stitched}
    coded = {row: Coded.empty(len(trials)) for row in sound}

    def work(row: str, index: int) -> None:
        trial = trials[index]
        frames, n_frames = held_out.read_frames(trial), trial.true_sheet.n_frames
        started = time.perf_counter()
        trial.sounds[row] = sound[row](frames, n_frames=n_frames, seed=seed + index)
        coded[row].spent_s[index] = time.perf_counter() - started
        if row == WHOLE:
            (seen,) = trial.first_sheet.segments
            told = category_sheet(seen.category, 1.0, n_frames, system.frame_rate)
            coded[row].bits[index] = real_sound_bits(
                system.sampler, trial.waveform, told, system.categories, with_curves=False
            )

    jobs = [partial(work, row, index) for index in range(len(trials)) for row in sound]
    in_parallel(jobs, lambda done: progress(done, len(jobs)))
    return coded


def find_seams(trial: Trial, system: PaperSystem) -> np.ndarray:
    """Where the stitched track has its seams, float64 [n], seconds."""
    stretches = cut_stretches(trial.true_sheet.n_frames, system.frame_rate)
    return np.array([first for first, _ in stretches[1:]], np.float64) / system.frame_rate


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        sections = Sections(
            params.evaluation,
            params.soundtrack,
            params.source,
            params.audio,
            params.frames,
            params.cues,
            params.labels,
            params.dataset,
        )
        evaluate_paper(*map(Path, sys.argv[1:]), params=sections)
