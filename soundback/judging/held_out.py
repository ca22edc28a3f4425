"""The held-out clips: which they are, what is true of them, and the cue sheets written for them."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from soundback import schemas
from soundback.cues import CueSheet, Hearing, Segment
from soundback.dataset import Clip
from soundback.errors import DataContractError
from soundback.judging.metrics import find_motion_peaks
from soundback.judging.trials import Ear, Trial, category_sheet, fit_length
from soundback.media.audio import read_wav
from soundback.media.shards import RowGroup, list_row_groups, read_row_group
from soundback.params import DemoSource, Source
from soundback.progress import Progress, no_progress
from soundback.sounding.sampler import Sampler
from soundback.sources.demo.world import World
from soundback.watching.segments import Watched

MAX_TRAINING_CLIPS = 500
"""Real training sound to compare with, and to paste from."""


class Watcher(Protocol):
    """What watches: `Soundtrack`, `soundback.paper.PaperSystem`, or anything that does the same."""

    categories: tuple[str, ...]

    def watch(self, batches: Iterable[np.ndarray]) -> Watched:
        """Watches frames, uint8 [n, size, size] each."""
        ...


class Models(Watcher, Protocol):
    """What is judged: `soundback.soundtrack.Soundtrack`, or anything that does the same."""

    sample_rate: int
    sampler: Sampler

    def stream(
        self, sheet: CueSheet, *, seed: int, with_curves: bool = True, workers: int | None = None
    ) -> Iterator[np.ndarray]:
        """Sounds a cue sheet piece by piece."""
        ...


@dataclass(frozen=True)
class Folders:
    """Where all labels' data is.

    Attributes:
      videos: clips.
      audio: wavs.
      frames: shards.
    """

    videos: Path
    audio: Path
    frames: Path


class HeldOut:
    """The held-out clips and all that is known of them.

    Attributes:
      clips: in the order of label and id.
    """

    def __init__(self, folders: Folders, sounds: Sequence[Clip], max_videos_per_label: int, source: Source) -> None:
        """Finds the test clips that have both sound and frames.

        Args:
          folders: where the clips and their frames are.
          sounds: clips of all splits whose sound is usable.
          max_videos_per_label: how many videos of each label are enough.
          source: where the videos come from; of the rendered world the truth is known.

        Raises:
          DataContractError: when there is none.
        """
        self._folders = folders
        self._source = source
        self._groups = _test_row_groups(folders.frames)
        usable = [clip for clip in sounds if clip.split == "test" and (clip.video_id, clip.clip_index) in self._groups]
        self.clips = choose_clips(usable, max_videos_per_label)
        if not self.clips:
            raise DataContractError(
                "No test video has both sound and frames. "
                "Raise dataset.videos_per_label or dataset.test_share in params.yaml."
            )
        self._downloads = {
            (row["video_id"], row["clip_index"]): row
            for folder in sorted({self._folder(clip) for clip in self.clips})
            for row in schemas.read_table(folder / "downloads.parquet", schemas.DOWNLOADS).to_pylist()
        }

    def watch(self, models: Watcher, hearing: Hearing, ear: Ear, progress: Progress = no_progress) -> list[Trial]:
        """Writes the cue sheets of every clip, the predicted and the true one.

        Args:
          models: what is judged.
          hearing: how true cues are measured.
          ear: how sounds are measured.
          progress: called after every clip.
        """
        trials = []
        for clip in self.clips:
            trials.append(self._watch(clip, models, ear, hearing))
            progress(len(trials), len(self.clips))
        return trials

    def read_frames(self, clip: Clip | Trial) -> np.ndarray:
        """All frames of a clip, uint8 [n, size, size]."""
        return np.concatenate([read_row_group(group) for group in self._groups[clip.video_id, clip.clip_index]])

    def video(self, clip: Clip) -> Path:
        """The file of a clip."""
        return self._folder(clip) / self._downloads[clip.video_id, clip.clip_index]["path"]

    def _folder(self, clip: Clip) -> Path:
        """Where the videos of a clip's label are."""
        return self._folders.videos / clip.path.parent.relative_to(self._folders.audio)

    def _watch(self, clip: Clip, models: Watcher, ear: Ear, hearing: Hearing) -> Trial:
        waveform = read_wav(clip.path)
        n_frames = len(waveform) // ear.hop
        waveform = waveform[: n_frames * ear.hop]
        frames = self.read_frames(clip)
        watched = models.watch([frames])
        predicted = watched.sheet
        segment = Segment(0.0, n_frames / predicted.frame_rate, clip.label, 1.0)
        first = watched.probabilities[0]
        seen = models.categories[int(first.argmax())]
        return Trial(
            video_id=clip.video_id,
            clip_index=clip.clip_index,
            label=clip.label,
            waveform=waveform,
            onsets_s=self._reference_onsets(clip, waveform, ear),
            true_sheet=CueSheet(predicted.frame_rate, (segment,), *hearing.measure(waveform)),
            predicted_sheet=fit_length(predicted, n_frames),
            probabilities=watched.probabilities,
            first_sheet=category_sheet(seen, float(first.max()), n_frames, predicted.frame_rate),
            motion_s=find_motion_peaks(frames, predicted.frame_rate),
        )

    def _reference_onsets(self, clip: Clip, waveform: np.ndarray, ear: Ear) -> np.ndarray:
        """The rendered world's truth where there is one, else what is found on the real sound."""
        if not isinstance(self._source, DemoSource):
            return ear.find_onsets(waveform)
        start_s = self._downloads[clip.video_id, clip.clip_index]["clip_start_s"] or 0.0
        times_s = World(self._source).scene(clip.video_id).impact_times_s() - start_s
        return np.sort(times_s[(times_s >= 0) & (times_s < len(waveform) / ear.sample_rate)])


def choose_clips(clips: Iterable[Clip], max_videos_per_label: int) -> list[Clip]:
    """The clips of the first videos of each label, by id: which these are does not depend on how they score."""
    chosen: list[Clip] = []
    by_label = sorted(clips, key=lambda clip: (clip.label, clip.video_id, clip.clip_index))
    for _, of_label in itertools.groupby(by_label, key=lambda clip: clip.label):
        by_video = itertools.groupby(of_label, key=lambda clip: clip.video_id)
        for _, of_video in itertools.islice(by_video, max_videos_per_label):
            chosen += of_video
    return chosen


def training_sounds(clips: Iterable[Clip]) -> Mapping[str, list[np.ndarray]]:
    """Real training sound by label; evenly chosen where there is more than is needed.

    Raises:
      DataContractError: when there is none.
    """
    train = sorted((clip for clip in clips if clip.split == "train"), key=lambda clip: (clip.video_id, clip.clip_index))
    if not train:
        raise DataContractError("There is no usable training sound to compare with. See data/audio/*/audio.parquet.")
    sounds: dict[str, list[np.ndarray]] = {}
    for clip in train[:: -(-len(train) // MAX_TRAINING_CLIPS)]:
        sounds.setdefault(clip.label, []).append(read_wav(clip.path))
    return sounds


def commonest_label(clips: Iterable[Clip]) -> str | None:
    """The label of most training clips, of several the first by name; None where there are none."""
    counts = Counter(clip.label for clip in clips if clip.split == "train")
    return min(counts, key=lambda label: (-counts[label], label)) if counts else None


def _test_row_groups(frames: Path) -> dict[tuple[str, int], list[RowGroup]]:
    groups: dict[tuple[str, int], list[RowGroup]] = {}
    for group in sorted(list_row_groups(frames), key=lambda group: group.first_frame):
        if group.split == "test":
            groups.setdefault((group.video_id, group.clip_index), []).append(group)
    return groups
