"""Teaches the spotter with less to see, and measures it on the test split: what is each thing that it sees worth?"""

import logging
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from soundback.cues import Hearing
from soundback.dataset import audio_clips, frame_shards
from soundback.logbook import StageLogbook, open_logbook
from soundback.outputs import whole_folder
from soundback.params import Audio, Cues, Frames, Spotter, load_params
from soundback.progress import show_progress
from soundback.training import Logbook
from soundback.watching import ablations
from stages import stage_process

log = logging.getLogger(__name__)

NO_LOGBOOK = StageLogbook(is_chief=True, training=Logbook(), plots=None)
"""For what is fitted within seconds."""


def ablate_spotter(
    variant: str,
    frames: Path,
    audio: Path,
    duplicates: Path,
    folder: Path,
    *,
    params: Spotter,
    stored: Frames,
    sound: Audio,
    cues: Cues,
    labels: Mapping[str, str],
) -> None:
    """Makes one variant of the spotter; writes `folder`/`variant`/clips.csv, a line per test clip.

    Args:
      variant: what it sees, see `ablations`.
      frames: folder of all labels' shards.
      audio: folder of all labels' wavs.
      duplicates: table of the clips to leave out.
      folder: of all variants.
      params: network and budget.
      stored: how the frames are stored.
      sound: how the sound is stored.
      cues: how the truth is measured.
      labels: folder names and labels.
    """
    shards, sounds = frame_shards(frames, duplicates, labels), audio_clips(audio, duplicates, labels)
    hearing = Hearing.of_training(sounds, sound, stored, cues)
    told = (variant, params, stored, sound, cues, dict(labels))
    # No model is kept; its name says under which the training goes on and shows its curve.
    model = folder.parent / f"spotter_{variant}.keras"
    trains = variant in ablations.TRAINED
    opened = open_logbook(model, inputs=(frames, audio, duplicates), told=told) if trains else nullcontext(NO_LOGBOOK)
    with opened as logbook, show_progress(f"Training the spotter, variant {variant}") as progress:
        scores = ablations.ablate(
            variant,
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
        with whole_folder(folder / variant) as partial:
            table = pd.DataFrame(scores)
            table.to_csv(partial / "clips.csv", index=False, float_format="%.6f", lineterminator="\n")
    log.info("Spotter, variant %s: %d test clips measured.", variant, len(scores))


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        ablate_spotter(
            sys.argv[1],
            *map(Path, sys.argv[2:]),
            params=params.spotter,
            stored=params.frames,
            sound=params.audio,
            cues=params.cues,
            labels=params.labels,
        )
