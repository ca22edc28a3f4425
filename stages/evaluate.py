"""Gives held-out videos their sound back and measures it beside its controls."""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from soundback import attrition, training
from soundback import params as settings_of
from soundback.dataset import audio_clips
from soundback.judging import report
from soundback.judging.held_out import Folders, HeldOut, commonest_label, training_sounds
from soundback.judging.intervals import Bootstrap
from soundback.judging.judge import Judge
from soundback.judging.probes import probe
from soundback.judging.rows import add_controls
from soundback.judging.sounds import SOUNDED, hear_trials, sound_trials
from soundback.judging.table import build_table
from soundback.judging.trials import Ear
from soundback.judging.watching import judge_watching
from soundback.params import load_params
from soundback.progress import show_progress
from soundback.soundtrack import Soundtrack
from stages import stage_process

log = logging.getLogger(__name__)


class Sections(NamedTuple):
    """What the evaluation needs to know of the params."""

    evaluation: settings_of.Evaluation
    soundtrack: settings_of.Soundtrack
    source: settings_of.Source
    audio: settings_of.Audio
    frames: settings_of.Frames
    cues: settings_of.Cues
    labels: Mapping[str, str]
    dataset: settings_of.Dataset


def evaluate(
    videos: Path,
    audio: Path,
    frames: Path,
    duplicates: Path,
    models: Path,
    metrics: Path,
    plots: Path,
    out: Path,
    *,
    params: Sections,
) -> None:
    """Watches, sounds and scores the held-out clips; writes the table, its plots and the report.

    Args:
      videos: folder of all labels' clips.
      audio: folder of all labels' wavs.
      frames: folder of all labels' shards.
      duplicates: table of the clips to leave out.
      models: folder of classifier, spotter, wavenet and judge.
      metrics: evaluation.json to write.
      plots: folder to write, see `report.write_plots`.
      out: folder of the report to write.
      params: what to compute.
    """
    sample_rate, drawn = params.audio.sample_rate, params.evaluation
    ear = Ear(sample_rate, sample_rate // params.frames.frame_rate, params.cues)
    clips = audio_clips(audio, duplicates, params.labels)
    held_out = HeldOut(Folders(videos, audio, frames), clips, drawn.max_videos_per_label, params.source)
    known = training_sounds(clips)
    training_waveforms = [waveform for waveforms in known.values() for waveform in waveforms]
    soundtrack, judge = Soundtrack.load(models, params=params.soundtrack), Judge.load(models / "judge.keras")

    with show_progress("Watching held-out videos") as progress:
        trials = held_out.watch(soundtrack, training_waveforms, ear, progress)
    started = time.monotonic()
    with show_progress("Sounding them") as progress:
        bits = sound_trials(trials, soundtrack, seed=drawn.seed, progress=progress)
    spent_s = time.monotonic() - started
    length_s = len(SOUNDED) * sum(len(trial.waveform) for trial in trials) / sample_rate
    # Printed only: a clock time in an output would change it with every run.
    log.info("Made and coded %.0f s of sound in %.0f s: %.2f times real time.", length_s, spent_s, length_s / spent_s)
    add_controls(trials, known, ear)
    with show_progress("Listening to them") as progress:
        heard = hear_trials(trials, judge, ear, progress)

    bootstrap = Bootstrap(drawn.bootstrap, drawn.seed)
    with show_progress("Watching altered videos") as progress:
        probed = probe(
            trials,
            held_out.read_frames,
            params.source if isinstance(params.source, settings_of.DemoSource) else None,
            soundtrack.watch,
            stored=params.frames,
            videos_per_label=drawn.probe_videos_per_label,
            bootstrap=bootstrap,
            progress=progress,
        )
    watching = judge_watching(trials, soundtrack.categories, commonest_label(clips), bootstrap)
    missed = [held_out.read_frames(one.trial)[one.frame] for one in watching.missed]
    embeddings = [judge.embed(waveform) for waveform in training_waveforms]
    results = build_table(trials, heard, bits, embeddings, bootstrap, watching=watching, probes=probed)
    chosen = report.choose_examples(trials, results.clips["local_predicted"], drawn.examples_per_label)
    examples = [
        report.Example(
            trials[index],
            {row: scores[index] for row, scores in results.clips.items() if scores[index]},
            held_out.read_frames(trials[index]),
            held_out.video(held_out.clips[index]),
            held_out.clips[index].path.parent.name,
        )
        for index in chosen
    ]
    report.write_plots(results, examples, missed, plots, sample_rate)
    accounts = attrition.draw_up(
        attrition.Tables(videos, audio, duplicates=duplicates),
        params.labels,
        wanted=attrition.count_wanted(params.source, params.dataset),
    )
    report.write_report(results, trials, examples, out, sample_rate, missed=missed, accounts=accounts)
    training.write_metrics(results.evaluation, metrics)
    log.info("%s", report.format_table(results.evaluation))


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
        evaluate(*map(Path, sys.argv[1:]), params=sections)
