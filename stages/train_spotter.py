"""Trains the spotter: when it sounds and how loud, from consecutive frames."""

import csv
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from soundback import model_files, training
from soundback.cues import Hearing
from soundback.dataset import audio_clips, frame_shards
from soundback.logbook import open_logbook
from soundback.outputs import whole_folder
from soundback.params import Audio, Cues, Frames, Spotter
from soundback.progress import show_progress
from soundback.watching import spotter_teaching
from stages import load_params, stage_process

log = logging.getLogger(__name__)


def train_spotter(
    frames: Path,
    audio: Path,
    duplicates: Path,
    model: Path,
    metrics: Path,
    plots: Path,
    *,
    params: Spotter,
    stored: Frames,
    sound: Audio,
    cues: Cues,
    labels: Mapping[str, str],
) -> None:
    """Trains on the frames and the sound of all labels; writes the model, its metrics and its plots.

    Args:
      frames: folder of all labels' shards.
      audio: folder of all labels' wavs.
      duplicates: table of the clips to leave out.
      model: .keras file to write.
      metrics: JSON file to write.
      plots: folder to write: learning curves, loudness.csv, loudness.png.
      params: network and budget.
      stored: how the frames are stored.
      sound: how the sound is stored.
      cues: how the truth is measured.
      labels: folder names and labels.
    """
    shards, sounds = frame_shards(frames, duplicates, labels), audio_clips(audio, duplicates, labels)
    hearing = Hearing.of_training(sounds, sound, stored, cues)
    told = (params, stored, sound, cues, dict(labels))
    with open_logbook(model, inputs=(frames, audio, duplicates), told=told, plots=plots) as logbook:
        with show_progress("Training the spotter") as progress:
            trained = spotter_teaching.train_spotter(
                shards,
                sounds,
                params=params,
                hearing=hearing,
                stored=stored,
                logbook=logbook.training,
                progress=progress,
            )
        if not logbook.is_chief:
            return
        with whole_folder(plots) as folder:
            logbook.keep_curves(folder)
            write_loudness(trained.curves, hearing.frame_rate, folder)
        training.write_metrics(trained.metrics, metrics)
        model_files.save_model(trained.model, model, trained.card)
    log.info(
        "Spotter, on %(n_clips)d validation clips: loudness off by %(loudness_error_db).1f dB, "
        "correlation %(loudness_correlation)s, hit F1 at 100 ms %(hit_f1_100ms)s.",
        trained.metrics,
    )


def write_loudness(curves: Sequence[spotter_teaching.LoudnessCurves], frame_rate: int, folder: Path) -> None:
    """Writes measured and predicted loudness side by side, as numbers and as a picture."""
    figure = Figure(figsize=(8, 1.8 * len(curves)), layout="constrained")
    with (folder / "loudness.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "video_id", "time_s", "measured_db", "predicted_db"])
        for curve, axes in zip(curves, figure.subplots(len(curves), squeeze=False)[:, 0], strict=True):
            times_s = [index / frame_rate for index in range(len(curve.measured_db))]
            for row in zip(times_s, curve.measured_db, curve.predicted_db, strict=True):
                writer.writerow([curve.label, curve.video_id, *(f"{value:.2f}" for value in row)])
            axes.plot(times_s, curve.measured_db, label="measured on the sound")
            axes.plot(times_s, curve.predicted_db, label="seen in the frames")
            axes.set(title=f"{curve.label}, video {curve.video_id}", ylabel="dBFS")
    figure.axes[0].legend(loc="lower right")
    figure.axes[-1].set_xlabel("seconds")
    figure.savefig(folder / "loudness.png", dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        train_spotter(
            *map(Path, sys.argv[1:]),
            params=params.spotter,
            stored=params.frames,
            sound=params.audio,
            cues=params.cues,
            labels=params.labels,
        )
