"""Gives held-out videos their sound back and measures it beside its controls."""

import sys
from collections.abc import Sequence
from pathlib import Path

from soundback.judging.audition import Audition, Outputs, Sections
from soundback.judging.held_out import Folders
from soundback.judging.provenance import read_provenance
from soundback.soundtrack import Soundtrack
from stages import LOCKS, load_params, stage_process


def evaluate(
    videos: Path,
    audio: Path,
    frames: Path,
    duplicates: Path,
    models: Path,
    classifier_plots: Path,
    spotter_plots: Path,
    wavenet_plots: Path,
    metrics: Path,
    plots: Path,
    report: Path,
    *,
    params: Sections,
    locks: Sequence[Path] = LOCKS,
) -> None:
    """Watches, sounds and scores the held-out clips; writes the table, its plots and the report.

    Args:
      videos: folder of all labels' clips.
      audio: folder of all labels' wavs.
      frames: folder of all labels' shards.
      duplicates: table of the clips to leave out.
      models: folder of classifier, spotter, wavenet and judge.
      classifier_plots: what its training wrote.
      spotter_plots: what its training wrote.
      wavenet_plots: what its training wrote.
      metrics: evaluation.json to write.
      plots: folder to write.
      report: folder to write.
      params: what to compute.
      locks: DVC's files that say what all this was built from.
    """
    audition = Audition(Folders(videos, audio, frames), duplicates, models / "judge.keras", params=params)
    soundtrack = Soundtrack.load(models, params=params.soundtrack)
    trials = audition.watch(soundtrack)
    coded, probed = audition.sound(trials, soundtrack), audition.probe(trials, soundtrack)
    results = audition.score(trials, soundtrack.categories, coded, probed)
    curves = {"classifier": classifier_plots, "spotter": spotter_plots, "wavenet": wavenet_plots}
    audition.write(
        results,
        trials,
        Outputs(metrics, plots, report),
        curves=curves,
        provenance=read_provenance((videos, audio, frames, duplicates, models, *curves.values()), locks),
    )


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
