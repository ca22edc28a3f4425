"""Trains the classifier: what is seen, from one frame."""

import csv
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from soundback import model_files, training
from soundback.dataset import frame_shards
from soundback.logbook import open_logbook
from soundback.outputs import whole_folder
from soundback.params import Classifier, Frames
from soundback.progress import show_progress
from soundback.watching import classifier_teaching
from stages import load_params, stage_process

log = logging.getLogger(__name__)


def train_classifier(
    frames: Path,
    duplicates: Path,
    model: Path,
    metrics: Path,
    plots: Path,
    *,
    params: Classifier,
    stored: Frames,
    labels: Mapping[str, str],
) -> None:
    """Trains on the frames of all labels; writes the model, its metrics, its learning curve and its confusions.

    Args:
      frames: folder of all labels' shards.
      duplicates: table of the clips to leave out.
      model: .keras file to write.
      metrics: JSON file to write.
      plots: folder to write: learning curves, confusion.csv.
      params: network and budget.
      stored: how the frames are stored.
      labels: folder names and labels.
    """
    shards = frame_shards(frames, duplicates, labels)
    told = (params, stored, dict(labels))
    with open_logbook(model, inputs=(frames, duplicates), told=told, plots=plots) as logbook:
        with show_progress("Training the classifier") as progress:
            trained = classifier_teaching.train_classifier(
                shards, params=params, stored=stored, logbook=logbook.training, progress=progress
            )
        if not logbook.is_chief:
            return
        with whole_folder(plots) as folder:
            logbook.keep_curves(folder)
            with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows([("actual", "predicted"), *trained.confusion])
        training.write_metrics(trained.metrics, metrics)
        model_files.save_model(trained.model, model, trained.card)
    log.info(
        "Classifier: %.0f %% of %d validation clips right (always the commonest: %.0f %%).",
        100 * trained.metrics["accuracy"],
        trained.metrics["n_clips"],
        100 * trained.metrics["majority_accuracy"],
    )


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        train_classifier(*map(Path, sys.argv[1:]), params=params.classifier, stored=params.frames, labels=params.labels)
