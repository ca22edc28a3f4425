"""The rows of the evaluation: what the models sound like, and the controls without which no number says anything."""

from collections.abc import Mapping, Sequence

import numpy as np

from soundback.judging.trials import Ear, Trial

ROWS = (
    "real",
    "real_shifted",
    "same_category_swap",
    "local_predicted",
    "local_true",
    "category_only",
    "paper",
    "paper_stitched",
    "nearest_onset_paste",
    "envelope_noise",
    "silence",
)
"""In the order of the table."""

SHIFT_S = 0.2
PASTE_S = 0.8
PASTE_RELEASE_S = 0.1
PASTE_LEAD_S = 0.03
"""An onset is found when a sound has set in; it begins a little before."""


def add_controls(trials: Sequence[Trial], bank: Mapping[str, Sequence[np.ndarray]], ear: Ear) -> None:
    """Adds to every trial the rows that no model makes.

    Args:
      trials: all of them.
      bank: real training sounds of each category.
      ear: how sounds are measured.
    """
    snippets = {category: _find_snippets(waveforms, ear) for category, waveforms in bank.items()}
    for index, trial in enumerate(trials):
        n_samples = len(trial.waveform)
        trial.sounds["real"] = trial.waveform
        trial.sounds["real_shifted"] = shift(trial.waveform, round(SHIFT_S * ear.sample_rate))
        if (other := _next_of_category(trials, index)) is not None:
            trial.sounds["same_category_swap"] = np.resize(other.waveform, n_samples)
        trial.sounds["nearest_onset_paste"] = paste_onsets(trial, snippets, ear)
        trial.sounds["envelope_noise"] = shape_noise(trial.true_sheet.loudness_db, ear, seed=index)
        trial.sounds["silence"] = np.zeros(n_samples, np.float32)


def shift(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """The sound `n_samples` late, as long as before."""
    return np.concatenate([np.zeros(n_samples, np.float32), waveform])[: len(waveform)]


def shape_noise(loudness_db: np.ndarray, ear: Ear, *, seed: int) -> np.ndarray:
    """White noise with a given loudness at every frame: right in time and level, wrong in kind."""
    n_samples = len(loudness_db) * ear.hop
    middles = (np.arange(len(loudness_db)) + 0.5) * ear.hop
    level_db = np.interp(np.arange(n_samples), middles, loudness_db)
    gain = np.where(level_db <= ear.cues.loudness_floor_db, 0, 10 ** (level_db / 20))
    return (gain * np.random.default_rng(seed).normal(size=n_samples)).clip(-1, 1).astype(np.float32)


def paste_onsets(trial: Trial, snippets: Mapping[str, "_Snippets"], ear: Ear) -> np.ndarray:
    """Training sound of the predicted category, pasted at each predicted hit: the one that is nearest in loudness.

    Without hits, a whole training sound of the category, again the nearest in loudness. Simple and hard to beat: real
    sound, right in kind, at the right time. (Du et al., Conditional Generation of Audio from Video, 2023, as baseline.)
    """
    sheet, lead = trial.predicted_sheet, round(PASTE_LEAD_S * ear.sample_rate)
    pasted = np.zeros(len(trial.waveform), np.float32)
    for segment in sheet.segments:
        frames = sheet.frames_of(segment)
        loudness_db = sheet.loudness_db[frames]
        if segment.category not in snippets:
            continue
        known = snippets[segment.category]
        hits = np.flatnonzero(sheet.hit[frames])
        if not hits.size or not known.struck:
            whole = known.nearest_whole(float(loudness_db.mean()))
            stretch = slice(frames.start * ear.hop, min(frames.stop * ear.hop, len(pasted)))
            pasted[stretch] += np.resize(whole, max(0, stretch.stop - stretch.start))
            continue
        for hit in hits:
            start = max(0, (frames.start + int(hit)) * ear.hop + (ear.hop // 2) - lead)
            sound = known.nearest_struck(float(loudness_db[hit : hit + 3].max()))[: len(pasted) - start]
            pasted[start : start + len(sound)] += sound
    return pasted.clip(-1, 1)


class _Snippets:
    """Training sounds of one category, cut at their onsets and whole, by loudness."""

    def __init__(self, struck: list[tuple[float, np.ndarray]], whole: list[tuple[float, np.ndarray]]) -> None:
        self.struck = struck
        self.whole = whole

    def nearest_struck(self, loudness_db: float) -> np.ndarray:
        return min(self.struck, key=lambda snippet: abs(snippet[0] - loudness_db))[1]

    def nearest_whole(self, loudness_db: float) -> np.ndarray:
        return min(self.whole, key=lambda snippet: abs(snippet[0] - loudness_db))[1]


def _find_snippets(waveforms: Sequence[np.ndarray], ear: Ear) -> _Snippets:
    struck, whole = [], []
    for waveform in waveforms:
        loudness_db = ear.measure_loudness(waveform)
        whole.append((float(loudness_db.mean()), waveform))
        onsets_s = np.maximum(ear.find_onsets(waveform) - PASTE_LEAD_S, 0)
        starts = np.round(onsets_s * ear.sample_rate).astype(int).tolist()
        for start, end in zip(starts, [*starts[1:], len(waveform)], strict=True):
            sound = _release(waveform[start : min(end, start + round(PASTE_S * ear.sample_rate))], ear)
            frame = min(start // ear.hop, len(loudness_db) - 1)
            struck.append((float(loudness_db[frame : frame + 3].max()), sound))
    return _Snippets(struck, whole)


def _release(sound: np.ndarray, ear: Ear) -> np.ndarray:
    """Fades the end out, so that pasting makes no second click."""
    n_faded = min(len(sound), round(PASTE_RELEASE_S * ear.sample_rate))
    faded = sound.copy()
    faded[len(sound) - n_faded :] *= np.linspace(1, 0, n_faded, dtype=np.float32)
    return faded


def _next_of_category(trials: Sequence[Trial], index: int) -> Trial | None:
    """The next trial of the same label and another video, around the end if need be."""
    for other in [*trials[index + 1 :], *trials[:index]]:
        if other.label == trials[index].label and other.video_id != trials[index].video_id:
            return other
    return None
