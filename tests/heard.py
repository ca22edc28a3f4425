"""Trials made by hand for the tests of the judging: knocks whose sounds and cue sheets are known."""

from dataclasses import replace

import numpy as np

from soundback.cues import CueSheet, Segment
from soundback.judging.intervals import Bootstrap
from soundback.judging.judge import Opinion
from soundback.judging.probes import MEANINGS
from soundback.judging.report import Example, choose_examples
from soundback.judging.rows import add_controls
from soundback.judging.table import Results, build_table
from soundback.judging.trials import Ear, Heard, Trial, category_sheet
from soundback.judging.watching import judge_watching
from soundback.params import Cues

SAMPLE_RATE, FRAME_RATE = 8000, 25
HOP = SAMPLE_RATE // FRAME_RATE
CUES = Cues(loudness_window_s=0.16, loudness_floor_db=-60.0, hit_quantile=0.99, hit_threshold=0.2)
EAR = Ear(SAMPLE_RATE, HOP, CUES)
CATEGORIES = ("Bell", "Drum")


def knocks(times_s, hz, seconds=4.0, seed=0):
    """Decaying tones over a faint hiss, float32 [time]."""
    time_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    decays = [np.where(time_s >= start, np.exp(-15 * (time_s - start).clip(0)), 0) for start in times_s]
    hiss = 3e-4 * np.random.default_rng(seed).normal(size=len(time_s))
    return (0.5 * np.sum(decays, axis=0) * np.sin(2 * np.pi * hz * time_s) + hiss).astype(np.float32)


def make_trial(label, number, predicted_label=None):
    """A trial whose predicted sheet is true, apart from the category where one is given."""
    generator = np.random.default_rng(number)
    # At least 0.25 s apart, anywhere.
    times_s = 0.2 + np.arange(6) * 0.25 + np.sort(generator.uniform(0, 2.0, 6))
    waveform = knocks(times_s, {"Bell": 880, "Drum": 150}[label], seed=number)
    n_frames = len(waveform) // HOP
    loudness_db, hit = EAR.measure_loudness(waveform), np.zeros(n_frames, np.float32)
    hit[(times_s * FRAME_RATE).astype(int)] = 1.0

    def sheet(category):
        return CueSheet(FRAME_RATE, (Segment(0.0, n_frames / FRAME_RATE, category, 0.9),), loudness_db, hit)

    seen = {"Bell": np.float32([0.9, 0.1]), "Drum": np.float32([0.1, 0.9])}
    return Trial(
        video_id=f"{label.lower()}{number:02d}",
        clip_index=0,
        label=label,
        waveform=waveform,
        onsets_s=times_s,
        true_sheet=sheet(label),
        predicted_sheet=sheet(predicted_label or label),
        probabilities=np.tile(seen[predicted_label or label], (n_frames, 1)),
        first_sheet=category_sheet(label, 0.9, n_frames, FRAME_RATE),
        motion_s=times_s,
    )


def make_trials(n_per_label=3):
    """Trials of two labels with all their sounds; what the models made is the real sound, softer and with a hiss."""
    trials = [make_trial(label, 10 * place + n) for place, label in enumerate(CATEGORIES) for n in range(n_per_label)]
    add_controls(trials, {label: [make_trial(label, 90 + n).waveform for n in range(2)] for label in CATEGORIES}, EAR)
    for index, trial in enumerate(trials):
        hiss = 1e-3 * np.random.default_rng(index).normal(size=len(trial.waveform))
        for row in ("local_predicted", "local_true"):
            trial.sounds[row] = (0.8 * trial.waveform + hiss).astype(np.float32)
        trial.sounds["category_only"] = np.roll(trial.waveform, 7 * SAMPLE_RATE // 10)
    return trials


def pitch_judge(waveform):
    """A judge that needs no training: a high centre of the spectrum is a bell."""
    power = np.abs(np.fft.rfft(waveform)) ** 2
    hertz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    centre = float((power * hertz).sum() / max(power.sum(), 1e-9))
    is_bell = float(400 < centre < 1500)
    # As many windows as six videos need for a distance of two dimensions to be told.
    windows = np.array_split(waveform, 4)
    embedding = np.array([[np.log(np.abs(window).mean() + 1e-4), centre / 1000] for window in windows])
    return Opinion(np.array([is_bell, 1 - is_bell], np.float32), embedding.astype(np.float32))


def hear(waveform):
    """What is heard, by the pitch judge."""
    opinion = pitch_judge(waveform)
    category = CATEGORIES[int(opinion.probabilities.argmax())]
    return Heard(EAR.find_onsets(waveform), EAR.measure_loudness(waveform), opinion, category)


def make_results(trials) -> Results:
    """The table of such trials."""
    heard = {
        row: {index: hear(trial.sounds[row]) for index, trial in enumerate(trials) if row in trial.sounds}
        for row in trials[0].sounds
    }
    known = [pitch_judge(make_trial(label, 90 + n).waveform).embedding for label in CATEGORIES for n in range(3)]
    bits = {"local_true": [2.5] * len(trials)}
    bootstrap = Bootstrap(n_resamples=100, seed=0)
    watching = judge_watching(trials, CATEGORIES, "Bell", bootstrap)
    probes = {name: bootstrap.mean([0.25, 0.75]).cell() for name in MEANINGS}
    return build_table(trials, heard, bits, known, bootstrap, watching=watching, probes=probes)


def make_examples(trials, results, video, per_label=1) -> list[Example]:
    """Examples of such trials, all with the picture of one video."""
    frames = np.random.default_rng(0).integers(0, 255, (100, 32, 32), dtype=np.uint8)
    return [
        Example(trials[index], {row: clips[index] for row, clips in results.clips.items()}, frames, video, "slug")
        for index in choose_examples(trials, results.clips["local_predicted"], per_label)
    ]


def with_every_outcome(results) -> Results:
    """The same with three claims instead: one that holds, one that fails and one that nothing was measured of."""
    cell = results.evaluation["paired"]["local_predicted_minus_same_category_swap"]["onset_f1_100ms"]
    nothing = {"mean": None, "low": None, "high": None, "n": 0}
    claims = {
        "timing": {"claim": "Its onsets are no chance", "needed": "at least 0.3", **cell, "holds": True},
        "paste": {"claim": "It beats real sounds", "needed": "at least 2", **cell, "holds": False},
        "paper": {"claim": "It beats the paper", "needed": "at least 0.1", **nothing, "holds": None},
    }
    return replace(results, evaluation=results.evaluation | {"claims": claims})
