"""Trains the judge: a listener that has heard real training sound only."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from soundback import training
from soundback.dataset import Clip, audio_clips
from soundback.judging import judge
from soundback.logbook import open_logbook
from soundback.media.audio import read_wav
from soundback.params import Audio, Judge, load_params
from soundback.progress import show_progress
from stages import stage_process

log = logging.getLogger(__name__)


def train_judge(
    audio: Path,
    duplicates: Path,
    model: Path,
    metrics: Path,
    *,
    params: Judge,
    stored: Audio,
    labels: Mapping[str, str],
) -> None:
    """Trains on the real sound of the training split; writes the model and its accuracy on the validation split.

    Args:
      audio: folder of all labels' wavs.
      duplicates: table of the clips to leave out.
      model: .keras file to write.
      metrics: JSON file to write.
      params: network and budget.
      stored: how the sound is stored.
      labels: folder names and labels.
    """
    clips = audio_clips(audio, duplicates, labels)
    categories = sorted({clip.label for clip in clips})
    examples, validation = (_hear(clips, split, categories, stored.sample_rate) for split in ("train", "validation"))
    told = (params, stored, dict(labels))
    with open_logbook(model, inputs=(audio, duplicates), told=told) as logbook:
        with show_progress("Training the judge") as progress:
            fit = judge.train_judge(
                examples, validation, len(categories), params=params, logbook=logbook.training, progress=progress
            )
        if not logbook.is_chief:
            return
        trained = judge.Judge(fit.model, categories, stored.sample_rate)
        accuracy = trained.accuracy(validation)
        training.write_metrics({"accuracy": accuracy, "n_clips": len(validation), **fit.budget()}, metrics)
        trained.save(model)
    known = "no validation clips" if accuracy is None else f"{accuracy:.0%} of {len(validation)} validation clips right"
    log.info("Judge: %s, after %d training clips.", known, len(examples))


def _hear(clips: Sequence[Clip], split: str, categories: Sequence[str], sample_rate: int) -> list[judge.Example]:
    return [
        judge.Example(judge.hear(read_wav(clip.path), sample_rate), categories.index(clip.label))
        for clip in clips
        if clip.split == split
    ]


if __name__ == "__main__":
    with stage_process():
        params = load_params()
        train_judge(*map(Path, sys.argv[1:]), params=params.judge, stored=params.audio, labels=params.labels)
