"""The evaluation from end to end: held-out clips are watched, sounded, and heard beside their controls."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from soundback import attrition, training
from soundback import params as settings_of
from soundback.cues import Hearing
from soundback.dataset import audio_clips
from soundback.judging import report
from soundback.judging.curves import read_curves
from soundback.judging.held_out import Folders, HeldOut, Models, Watcher, commonest_label, training_sounds
from soundback.judging.intervals import Bootstrap, Cell
from soundback.judging.judge import Judge
from soundback.judging.plain_table import format_table
from soundback.judging.probes import probe
from soundback.judging.provenance import Provenance
from soundback.judging.rows import add_controls
from soundback.judging.sounds import Coded, hear_trials, sound_trials
from soundback.judging.table import Results, build_table
from soundback.judging.trials import Ear, Trial
from soundback.judging.watching import Watching, judge_watching
from soundback.progress import show_progress

log = logging.getLogger(__name__)


class Sections(NamedTuple):
    """What an evaluation needs to know of the params."""

    evaluation: settings_of.Evaluation
    soundtrack: settings_of.Soundtrack
    source: settings_of.Source
    audio: settings_of.Audio
    frames: settings_of.Frames
    cues: settings_of.Cues
    labels: Mapping[str, str]
    dataset: settings_of.Dataset


class Outputs(NamedTuple):
    """What an evaluation writes.

    Attributes:
      metrics: evaluation.json.
      plots: folder, see `report.write_plots`.
      report: folder, see `report.write_report`.
    """

    metrics: Path
    plots: Path
    report: Path


class Audition:
    """The held-out clips, and who listens to what is made of them.

    Attributes:
      held_out: the clips.
      hearing: how true cues are measured: an onset counts as 1 that is strong among those of the training sounds.
      sample_rate: Hz, of all sounds.
    """

    def __init__(self, folders: Folders, duplicates: Path, judge: Path, *, params: Sections) -> None:
        """Finds the clips, and reads the real sound of the training split that they are compared with.

        Args:
          folders: of all labels.
          duplicates: table of the clips to leave out.
          judge: .keras file of the listener.
          params: what to compute.

        Raises:
          DataContractError: when there is no held-out clip, or no training sound.
          ModelError: when there is no judge.
        """
        self.sample_rate = params.audio.sample_rate
        self._folders, self._duplicates, self._params = folders, duplicates, params
        self._ear = Ear(self.sample_rate, self.sample_rate // params.frames.frame_rate, params.cues)
        clips = audio_clips(folders.audio, duplicates, params.labels)
        self.held_out = HeldOut(folders, clips, params.evaluation.max_videos_per_label, params.source)
        self._known = training_sounds(clips)
        self.hearing = Hearing.of(
            self._training_sounds(), sample_rate=self.sample_rate, hop=self._ear.hop, cues=params.cues
        )
        self._commonest = commonest_label(clips)
        self._judge = Judge.load(judge)
        self._bootstrap = Bootstrap(params.evaluation.bootstrap, params.evaluation.seed)

    def watch(self, models: Watcher) -> list[Trial]:
        """Writes the cue sheets of every clip, the predicted and the true one."""
        with show_progress("Watching held-out videos") as progress:
            return self.held_out.watch(models, self.hearing, self._ear, progress)

    def judge_watching(self, trials: list[Trial], categories: Sequence[str]) -> Watching:
        """Scores the cue sheets themselves; `categories` in the order of their probabilities."""
        return judge_watching(trials, categories, self._commonest, self._bootstrap)

    def sound(self, trials: Sequence[Trial], models: Models) -> dict[str, Coded]:
        """Adds the rows that our WaveNet makes, and says how long that took: {row: what the real sound costs}."""
        with show_progress("Sounding them") as progress:
            coded = sound_trials(trials, models, seed=self._params.evaluation.seed, progress=progress)
        log_speed(coded, trials, self.sample_rate)
        return coded

    def probe(self, trials: Sequence[Trial], models: Watcher) -> dict[str, Cell]:
        """Alters some of the videos on purpose, and says what the watchers make of that."""
        source, drawn = self._params.source, self._params.evaluation
        with show_progress("Watching altered videos") as progress:
            return probe(
                trials,
                self.held_out.read_frames,
                source if isinstance(source, settings_of.DemoSource) else None,
                models.watch,
                stored=self._params.frames,
                videos_per_label=drawn.probe_videos_per_label,
                bootstrap=self._bootstrap,
                progress=progress,
            )

    def score(
        self,
        trials: list[Trial],
        categories: Sequence[str],
        coded: Mapping[str, Coded],
        probed: Mapping[str, Cell],
    ) -> Results:
        """Adds the controls, listens to every row, and draws up the table.

        Args:
          trials: with the sounds of the rows in `coded`.
          categories: in the order of the trials' probabilities.
          coded: of each row that a WaveNet made.
          probed: of `probe`.
        """
        add_controls(trials, self._known, self._ear)
        with show_progress("Listening to them") as progress:
            heard = hear_trials(trials, self._judge, self._ear, progress)
        return build_table(
            trials,
            heard,
            {row: each.bits for row, each in coded.items()},
            [self._judge.embed(waveform) for waveform in self._training_sounds()],
            self._bootstrap,
            watching=self.judge_watching(trials, categories),
            probes=probed,
        )

    def write(
        self,
        results: Results,
        trials: list[Trial],
        out: Outputs,
        *,
        curves: Mapping[str, Path],
        provenance: Provenance | None,
    ) -> None:
        """Writes the table, its plots and the report.

        Args:
          results: of `score`.
          trials: with all their sounds.
          out: where to.
          curves: folder that each training wrote, {what was trained: folder}.
          provenance: what all this was built from.
        """
        missed = [self.held_out.read_frames(one.trial)[one.frame] for one in results.watching.missed]
        chosen = report.choose_examples(
            trials, results.clips["local_predicted"], self._params.evaluation.examples_per_label
        )
        examples = [self._example(trials[index], results, index) for index in chosen]
        report.write_plots(results, examples, missed, out.plots, self.sample_rate)
        report.write_report(
            results,
            trials,
            examples,
            out.report,
            self.sample_rate,
            missed=missed,
            accounts=attrition.draw_up(
                attrition.Tables(self._folders.videos, self._folders.audio, duplicates=self._duplicates),
                self._params.labels,
                wanted=attrition.count_wanted(self._params.source, self._params.dataset),
            ),
            provenance=provenance,
            curves=read_curves(curves),
        )
        training.write_metrics(results.evaluation, out.metrics)
        log.info("%s", format_table(results.evaluation))

    def _example(self, trial: Trial, results: Results, index: int) -> report.Example:
        clip = self.held_out.clips[index]
        scores = {row: clips[index] for row, clips in results.clips.items() if clips[index]}
        video, slug = self.held_out.video(clip), clip.path.parent.name
        return report.Example(trial, scores, self.held_out.read_frames(trial), video, slug)

    def _training_sounds(self) -> list[np.ndarray]:
        return [waveform for waveforms in self._known.values() for waveform in waveforms]


def log_speed(coded: Mapping[str, Coded], trials: Sequence[Trial], sample_rate: int) -> None:
    """Says what each row took to render, one clip on each core.

    Printed only: a time in an output would change it with every run.
    """
    length_s = sum(len(trial.waveform) for trial in trials) / sample_rate
    for row, each in coded.items():
        log.info("%s: %.2f s to render a second of sound, on one core.", row, sum(each.spent_s) / length_s)
