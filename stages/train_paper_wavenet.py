"""Trains the paper's WaveNet: from what a clip shows, as a whole, to its waveform."""

import logging
import sys
from collections.abc import Collection
from functools import partial
from pathlib import Path

from soundback import model_files, training
from soundback.cues import Hearing
from soundback.dataset import audio_clips, frame_shards
from soundback.errors import ModelError
from soundback.logbook import open_logbook
from soundback.outputs import whole_folder
from soundback.paper import cue_globally, relevance_weights
from soundback.params import Audio, Cues, Frames, WaveNet
from soundback.progress import show_progress
from soundback.sounding.teaching import describe, teach
from soundback.watching.classifier import Classifier
from soundback.watching.frames import list_clips
from stages import load_params, stage_process

log = logging.getLogger(__name__)

LEARNT_FROM = ("train", "validation")
"""Splits; the third is held out."""


def train_paper_wavenet(
    frames: Path,
    audio: Path,
    duplicates: Path,
    classifier: Path,
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
    """Trains on the sound of all labels and on what the classifier says of its pictures.

    Args:
      frames: folder of all labels' shards.
      audio: folder of all labels' wavs.
      duplicates: table of the clips to leave out.
      classifier: .keras file of the paper's classifier.
      model: .keras file to write.
      metrics: JSON file to write.
      plots: folder to write the learning curves to.
      params: network and budget.
      sound: how the sound is stored.
      stored: how the frames are.
      cues: how loudness is measured; the network is not told it.
      labels: folder names.
    """
    clips, shards = audio_clips(audio, duplicates, labels), frame_shards(frames, duplicates, labels)
    recogniser = Classifier.load(classifier)
    told = (params, sound, stored, cues, sorted(labels))
    with open_logbook(model, inputs=(frames, audio, duplicates, classifier), told=told, plots=plots) as logbook:
        heard = {(clip.video_id, clip.clip_index): clip for clip in clips if clip.split in LEARNT_FROM}
        shown = [clip for split in LEARNT_FROM for clip in list_clips(shards, split) if clip.key in heard]
        with show_progress("Weighing what their pictures show") as progress:
            weights = relevance_weights(recogniser, shown, progress)
        seen = [clip for key, clip in heard.items() if key in weights]
        if len(seen) < len(heard):
            log.info("%d clips have sound and no frames, and are left out.", len(heard) - len(seen))
        if (categories := sorted({clip.label for clip in seen})) != list(recogniser.categories):
            raise ModelError(
                f"{classifier} tells {', '.join(recogniser.categories)} apart, and there is sound with frames of "
                f"{', '.join(categories) or 'nothing'}. Train it again with `make paper`."
            )
        hearing = Hearing.of_training(clips, sound, stored, cues)
        with show_progress("Training the paper's WaveNet") as progress:
            taught = teach(
                seen,
                hearing,
                params=params,
                cueing=partial(cue_globally, weights=weights),
                logbook=logbook.training,
                progress=progress,
            )
        if not logbook.is_chief:
            return
        with show_progress("Measuring it on validation clips") as progress:
            measured = taught.measure(progress)
        with whole_folder(plots) as folder:
            logbook.keep_curves(folder)
        training.write_metrics(measured, metrics)
        model_files.save_model(taught.model, model, taught.card)
    log.info("The paper's WaveNet, %s", describe(measured))


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        train_paper_wavenet(
            *map(Path, sys.argv[1:]),
            params=params.wavenet,
            sound=params.audio,
            stored=params.frames,
            cues=params.cues,
            labels=params.labels,
        )
