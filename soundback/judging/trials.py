"""A trial: one held-out clip, the cue sheets written for it, and what is heard of any sound that claims to fit it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import librosa
import numpy as np

from soundback.cues import LOUDNESS_MIDDLE_DB, CueSheet, Segment
from soundback.judging import metrics
from soundback.judging.judge import Judge, Opinion
from soundback.media import audio
from soundback.params import Cues

ONSET_SPECTRUM_S = 0.064
ONSET_HOP_S = 0.01
ONSET_DELTA = 0.15
"""Twice librosa's own: real knocks keep their onsets, and a faint hiss between them (8-bit mu-law) gets none."""

Scores = dict[str, float | None]


@dataclass(frozen=True)
class Ear:
    """How every sound is heard, the real one like the others.

    Attributes:
      sample_rate: Hz.
      hop: samples per frame.
      cues: how loudness is measured.
    """

    sample_rate: int
    hop: int
    cues: Cues

    def find_onsets(self, waveform: np.ndarray) -> np.ndarray:
        """Onsets in seconds, by librosa's detector; none where nothing is audible.

        The spectra are shorter than librosa's own, which at low sample rates would span a quarter of a second.
        """
        if 20 * np.log10(np.abs(waveform).max(initial=1e-9)) < self.cues.loudness_floor_db:
            return np.zeros(0)
        hop_length = max(1, round(ONSET_HOP_S * self.sample_rate))
        n_fft = 2 ** round(np.log2(ONSET_SPECTRUM_S * self.sample_rate))
        strength = librosa.onset.onset_strength(
            y=waveform, sr=self.sample_rate, hop_length=hop_length, n_fft=n_fft, n_mels=40
        )
        return librosa.onset.onset_detect(
            onset_envelope=strength, sr=self.sample_rate, hop_length=hop_length, units="time", delta=ONSET_DELTA
        )

    def measure_loudness(self, waveform: np.ndarray) -> np.ndarray:
        """Loudness at every frame, float32 [n_frames], dBFS."""
        window_samples = round(self.cues.loudness_window_s * self.sample_rate)
        floor_db = self.cues.loudness_floor_db
        return audio.rms_db(waveform, hop=self.hop, window_samples=window_samples, floor_db=floor_db)


@dataclass(frozen=True, eq=False)
class Trial:
    """One held-out clip.

    Attributes:
      video_id: of the source.
      clip_index: which clip of that video.
      label: display name; what it truly is.
      waveform: float32 [time], its real sound, whole frames long.
      onsets_s: float [n], reference onsets.
      true_sheet: measured on its own sound, with its label.
      predicted_sheet: written by the watchers, as many frames long.
      probabilities: float32 [n_frames, n_categories], what the classifier says of each frame alone.
      first_sheet: the category of its first frame alone, from beginning to end.
      motion_s: float [n], when its picture moves most.
      seams_s: float [n], where a track that is made of stretches has its seams.
      sounds: what each row of the table sounds like, float32 [time], all as long as `waveform`.
    """

    video_id: str
    clip_index: int
    label: str
    waveform: np.ndarray
    onsets_s: np.ndarray
    true_sheet: CueSheet
    predicted_sheet: CueSheet
    probabilities: np.ndarray
    first_sheet: CueSheet
    motion_s: np.ndarray
    seams_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sounds: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Names the clip in files and tables."""
        return f"{self.video_id}_{self.clip_index:02d}"


@dataclass(frozen=True, eq=False)
class Heard:
    """What is heard of one sound.

    Attributes:
      onsets_s: float [n].
      loudness_db: float32 [n_frames].
      opinion: of the judge.
      category: what the judge takes it for.
    """

    onsets_s: np.ndarray
    loudness_db: np.ndarray
    opinion: Opinion
    category: str


def hear(waveform: np.ndarray, ear: Ear, judge: Judge) -> Heard:
    """Listens to one sound."""
    opinion = judge.listen(waveform)
    category = judge.categories[int(opinion.probabilities.argmax())]
    return Heard(ear.find_onsets(waveform), ear.measure_loudness(waveform), opinion, category)


def score_sound(trial: Trial, row: str, heard: Heard, real: Heard) -> Scores:
    """Scores the sound of a row by the columns of the table that one clip alone can tell.

    Args:
      trial: which has that sound.
      row: of the table.
      heard: what is heard of it.
      real: what is heard of the real sound.
    """
    right = float(heard.category == trial.label)
    sample_rate = len(trial.waveform) * trial.true_sheet.frame_rate // trial.true_sheet.n_frames
    return {
        "category_accuracy": right,
        # What the judge takes wrong even of the real sound says nothing of this one.
        "category_kept": right if real.category == trial.label else None,
        "category_divergence": metrics.category_divergence(real.opinion.probabilities, heard.opinion.probabilities),
        **metrics.evaluate(
            trial.onsets_s,
            heard.onsets_s,
            real.loudness_db,
            heard.loudness_db,
            frame_rate=trial.true_sheet.frame_rate,
            motion_s=trial.motion_s,
        ),
        "seam_discontinuity_db": metrics.seam_discontinuity_db(trial.sounds[row], trial.seams_s, sample_rate),
    }


def category_sheet(category: str, confidence: float, n_frames: int, frame_rate: int) -> CueSheet:
    """A sheet that says one category throughout; its flat curves are to be heard by nobody."""
    segment = Segment(0.0, n_frames / frame_rate, category, confidence)
    loudness_db = np.full(n_frames, LOUDNESS_MIDDLE_DB, np.float32)
    return CueSheet(frame_rate, (segment,), loudness_db, np.zeros(n_frames, np.float32))


def fit_length(sheet: CueSheet, n_frames: int) -> CueSheet:
    """Cuts or prolongs a sheet by the frame or two by which picture and sound differ in length."""
    if sheet.n_frames == n_frames or not sheet.n_frames:
        return sheet
    end_s = n_frames / sheet.frame_rate
    segments = [
        Segment(s.start_s, min(s.end_s, end_s), s.category, s.confidence) for s in sheet.segments if s.start_s < end_s
    ]
    if segments and sheet.frames_of(sheet.segments[-1]).stop == sheet.n_frames:
        last = segments[-1]
        segments[-1] = Segment(last.start_s, end_s, last.category, last.confidence)
    missing = max(0, n_frames - sheet.n_frames)
    loudness_db = np.pad(sheet.loudness_db[:n_frames], (0, missing), mode="edge")
    return CueSheet(sheet.frame_rate, tuple(segments), loudness_db, np.pad(sheet.hit[:n_frames], (0, missing)))


def mean_by_video(trials: list[Trial], scores: list[Scores]) -> dict[str, dict[str, float | None]]:
    """Means over the clips of each video, {column: {video_id: value}}: clips of one video are not independent."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for trial, row in zip(trials, scores, strict=True):
        for column, value in row.items():
            values = gathered.setdefault(column, {}).setdefault(trial.video_id, [])
            if value is not None:
                values.append(value)
    return {
        column: {video: float(np.mean(values)) if values else None for video, values in videos.items()}
        for column, videos in gathered.items()
    }


def embeddings_by_video(trials: list[Trial], heard: Mapping[int, Heard]) -> dict[str, np.ndarray]:
    """The judge's embedding of all windows of each video, {video_id: float32 [n_windows, n_dimensions]}."""
    gathered: dict[str, list[np.ndarray]] = {}
    for index, sound in heard.items():
        gathered.setdefault(trials[index].video_id, []).append(sound.opinion.embedding)
    return {video: np.concatenate(windows) for video, windows in gathered.items()}
