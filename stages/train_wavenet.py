"""Trains the WaveNet: from cues to waveform."""

import logging
import sys
from collections.abc import Collection
from pathlib import Path

from soundback import model_files, training
from soundback.cues import Hearing
from soundback.dataset import audio_clips
from soundback.logbook import open_logbook
from soundback.outputs import whole_folder
from soundback.params import Audio, Cues, Frames, WaveNet
from soundback.progress import show_progress
from soundback.sounding.teaching import describe, teach
from stages import load_params, stage_process

log = logging.getLogger(__name__)


def train_wavenet(
    audio: Path,
    duplicates: Path,
    model: Path,
    metrics: Path,
    plots: Path,
    *,
    params: WaveNet,
    sound: Audio,
    stored: Frames,
    cues: Cues,
    labels: Collection[str],
) -> None:
    """Trains on the sound of all labels; writes the model, its metrics and its learning curve.

    Args:
      audio: folder of all labels' wavs.
      duplicates: table of the clips to leave out.
      model: .keras file to write.
      metrics: JSON file to write.
      plots: folder to write the learning curves to.
      params: network and budget.
      sound: how the sound is stored.
      stored: how the frames are; their rate is that of the cues.
      cues: how the true cues are measured.
      labels: folder names.
    """
    clips = audio_clips(audio, duplicates, labels)
    hearing = Hearing.of_training(clips, sound, stored, cues)
    told = (params, sound, stored, cues, sorted(labels))
    with open_logbook(model, inputs=(audio, duplicates), told=told, plots=plots) as logbook:
        with show_progress("Training the WaveNet") as progress:
            taught = teach(clips, hearing, params=params, logbook=logbook.training, progress=progress)
        if not logbook.is_chief:
            return
        with show_progress("Measuring it on validation clips") as progress:
            measured = taught.measure(progress)
        with whole_folder(plots) as folder:
            logbook.keep_curves(folder)
        training.write_metrics(measured, metrics)
        model_files.save_model(taught.model, model, taught.card)
    log.info("WaveNet, %s", describe(measured))


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        train_wavenet(
            *map(Path, sys.argv[1:]),
            params=params.wavenet,
            sound=params.audio,
            stored=params.frames,
            cues=params.cues,
            labels=params.labels,
        )
