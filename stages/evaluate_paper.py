"""Gives the held-out videos their sound back as the paper does, and measures it as `evaluate` measures ours."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from soundback import params as settings_of
from soundback import training
from soundback.dataset import audio_clips
from soundback.judging.coding import bits_per_sample
from soundback.judging.held_out import Folders, HeldOut, commonest_label, training_sounds
from soundback.judging.intervals import Bootstrap
from soundback.judging.judge import Judge
from soundback.judging.table import describe_row, score_row
from soundback.judging.trials import Ear, Trial, category_sheet, embeddings_by_video, hear, mean_by_video
from soundback.judging.watching import describe, judge_watching
from soundback.paper import PaperSystem
from soundback.progress import Progress, no_progress, show_progress
from soundback.settings import load_settings
from stages import load_params, stage_process

log = logging.getLogger(__name__)

WHOLE, STITCHED = "paper", "paper_stitched"
"""The rows of the table."""


class Sections(NamedTuple):
    """What the evaluation needs to know of the params."""

    evaluation: settings_of.Evaluation
    soundtrack: settings_of.Soundtrack
    source: settings_of.Source
    audio: settings_of.Audio
    frames: settings_of.Frames
    cues: settings_of.Cues
    labels: Mapping[str, str]


def evaluate_paper(
    videos: Path,
    audio: Path,
    frames: Path,
    duplicates: Path,
    judge: Path,
    models: Path,
    metrics: Path,
    *,
    params: Sections,
) -> None:
    """Watches, sounds and scores the clips that `evaluate` does; writes rows that stand beside its own.

    Args:
      videos: folder of all labels' clips.
      audio: folder of all labels' wavs.
      frames: folder of all labels' shards.
      duplicates: table of the clips to leave out.
      judge: .keras file of the listener that judges ours too.
      models: folder of the paper's classifier and WaveNet.
      metrics: paper.json to write, in the form of evaluation.json.
      params: what to compute.
    """
    sample_rate, drawn = params.audio.sample_rate, params.evaluation
    ear = Ear(sample_rate, sample_rate // params.frames.frame_rate, params.cues)
    clips = audio_clips(audio, duplicates, params.labels)
    held_out = HeldOut(Folders(videos, audio, frames), clips, drawn.max_videos_per_label, params.source)
    training_waveforms = [waveform for waveforms in training_sounds(clips).values() for waveform in waveforms]
    system, listener = PaperSystem.load(models, params=params.soundtrack), Judge.load(judge)

    with show_progress("Watching held-out videos") as progress:
        trials = held_out.watch(system, training_waveforms, ear, progress)
    with show_progress("Sounding them as the paper does") as progress:
        bits = sound_trials(trials, held_out, system, seed=drawn.seed, progress=progress)

    bootstrap = Bootstrap(drawn.bootstrap, drawn.seed)
    watching = judge_watching(trials, system.categories, commonest_label(clips), bootstrap)
    embeddings = [listener.embed(waveform) for waveform in training_waveforms]
    real = {index: hear(trial.waveform, ear, listener) for index, trial in enumerate(trials)}
    rows = {}
    for row in (WHOLE, STITCHED):
        heard = {index: hear(trial.sounds[row], ear, listener) for index, trial in enumerate(trials)}
        means = mean_by_video(trials, score_row(trials, real, heard, bits.get(row)))
        rows[row] = describe_row(means, embeddings_by_video(trials, heard), embeddings, bootstrap)
    evaluation = {"n_videos": len({trial.video_id for trial in trials}), **describe(watching), "rows": rows}
    training.write_metrics(evaluation, metrics)
    accuracy = [rows[row]["category_accuracy"]["mean"] for row in (WHOLE, STITCHED)]
    log.info(
        "The paper's system on %d held-out videos: right in category in %.2f, stitched in %.2f.",
        evaluation["n_videos"],
        *accuracy,
    )


def sound_trials(
    trials: Sequence[Trial], held_out: HeldOut, system: PaperSystem, *, seed: int, progress: Progress = no_progress
) -> dict[str, list[float | None]]:
    """Adds to every trial what the paper's system makes of it, whole and stitched.

    Args:
      trials: all of them.
      held_out: has their frames.
      system: what is judged.
      seed: the rows of one trial share it, and share it with ours.
      progress: called after every trial.

    Returns:
      Bits per sample of each trial's real sound, told the category of the first frame. The stitched tracks have none:
      each begins without a past, and a real sound does not.
    """

    def work(index: int) -> float | None:
        trial = trials[index]
        frames, n_frames = held_out.read_frames(trial), trial.true_sheet.n_frames
        trial.sounds[WHOLE] = system.sound(frames, n_frames=n_frames, seed=seed + index)
        trial.sounds[STITCHED] = system.sound_stitched(frames, n_frames=n_frames, seed=seed + index)
        (seen,) = trial.first_sheet.segments
        told = category_sheet(seen.category, 1.0, n_frames, system.frame_rate)
        return bits_per_sample(system.sampler, trial.waveform, told, system.categories, with_curves=False)

    bits = []
    # Threads are enough: what takes long releases the GIL.
    with ThreadPoolExecutor(load_settings().workers or os.cpu_count()) as executor:
        for each in executor.map(work, range(len(trials))):
            bits.append(each)
            progress(len(bits), len(trials))
    return {WHOLE: bits}


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
        )
        evaluate_paper(*map(Path, sys.argv[1:]), params=sections)
