"""Pictures of an evaluation: frames, spectrograms, cue curves. The same input gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import librosa
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

if TYPE_CHECKING:
    from soundback.judging.trials import Trial

SPECTRUM_S = 0.032
RANGE_DB = 70.0
SHOWN = {
    "real": "real",
    "local_predicted": "generated from the frames",
    "category_only": "generated from the category alone",
}
REAL, GENERATED = "#8a5a00", "#0b5cad"


def strip(frames: np.ndarray, *, n_frames: int = 8, height: int = 96) -> Image.Image:
    """Evenly spaced frames side by side.

    Args:
      frames: uint8 [n, size, size].
      n_frames: how many are shown.
      height: pixels of each.
    """
    chosen = np.linspace(0, len(frames) - 1, n_frames).round().astype(int)
    whole = Image.new("L", (n_frames * height, height))
    for place, index in enumerate(chosen):
        whole.paste(
            Image.fromarray(frames[index]).resize((height, height), Image.Resampling.LANCZOS), (place * height, 0)
        )
    return whole


def jpeg(picture: Image.Image) -> bytes:
    """A picture as JPEG."""
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=80)
    return written.getvalue()


def jpeg_of(written: bytes) -> bytes:
    """A picture in any other format as JPEG: a third of its size where it is a photograph."""
    with Image.open(io.BytesIO(written)) as picture:
        return jpeg(picture.convert("RGB"))


def png(figure: Figure, dpi: int = 80) -> bytes:
    """A figure as PNG of 256 colours, half as large as with all of them, without date or program name."""
    drawn, written = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    with Image.open(drawn) as picture:
        colours = picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours.save(written, "PNG", optimize=True)
    return written.getvalue()


def draw_trial(trial: Trial, sample_rate: int) -> Figure:
    """Spectrograms of real and generated sound over one time axis, and below them the cue curves over the truth."""
    shown = [row for row in SHOWN if row in trial.sounds]
    figure = Figure(figsize=(9, 1.5 * len(shown) + 2.2), layout="constrained")
    panels = figure.subplots(len(shown) + 1, 1, sharex=True, height_ratios=[1.0] * len(shown) + [1.4])
    loudest = _loudest(trial, shown, sample_rate)
    for axes, row in zip(panels, shown, strict=False):
        draw_spectrogram(axes, trial.sounds[row], sample_rate, loudest)
        axes.set_title(SHOWN[row], loc="left", fontsize=10)
    _draw_cues(panels[-1], trial)
    # Its lines would leave a margin on both sides, and the spectrograms would shrink with it.
    panels[-1].set_xlim(0, len(trial.waveform) / sample_rate)
    return figure


def time_axis(figure: Figure) -> tuple[float, float]:
    """Where the time axis of a figure that has been drawn begins and ends, in per cent of its width."""
    across = figure.axes[0].get_position()
    return round(100 * across.x0, 2), round(100 * across.x1, 2)


def draw_grid(trials: Sequence[Trial], sample_rate: int) -> Figure:
    """Spectrograms of several trials, one column each, real above generated."""
    figure = Figure(figsize=(3 * len(trials), 5.5), layout="constrained")
    panels = figure.subplots(len(SHOWN), len(trials), squeeze=False, sharex=True, sharey=True)
    for column, trial in enumerate(trials):
        loudest = _loudest(trial, [row for row in SHOWN if row in trial.sounds], sample_rate)
        for axes, row in zip(panels[:, column], SHOWN, strict=True):
            if row in trial.sounds:
                draw_spectrogram(axes, trial.sounds[row], sample_rate, loudest)
            if not column:
                axes.set_ylabel(f"{SHOWN[row].replace(' from', chr(10) + 'from')}\nkHz", fontsize=8)
            else:
                axes.set_ylabel("")
        panels[0, column].set_title(trial.label)
        panels[-1, column].set_xlabel("seconds")
    return figure


def draw_strip(trial: Trial, frames: np.ndarray, sample_rate: int) -> Figure:
    """Frames over the spectrogram of the sound generated from them: the picture of what Soundback does."""
    figure = Figure(figsize=(10, 3.4))
    top = figure.add_axes((0.0, 0.63, 1.0, 0.37))
    top.imshow(np.asarray(strip(frames, n_frames=10, height=128)), cmap="gray", vmin=0, vmax=255, aspect="auto")
    top.axis("off")
    below = figure.add_axes((0.0, 0.0, 1.0, 0.62))
    sound = trial.sounds["local_predicted"]
    draw_spectrogram(below, sound, sample_rate, _loudest(trial, ["local_predicted"], sample_rate))
    below.axis("off")
    return figure


def draw_spectrogram(axes: Any, waveform: np.ndarray, sample_rate: int, loudest_db: float) -> None:
    """Draws dB over seconds and kHz, from RANGE_DB below `loudest_db` to `loudest_db`."""
    level_db = _spectrogram_db(waveform, sample_rate)
    extent = (0, len(waveform) / sample_rate, 0, sample_rate / 2000)
    axes.imshow(
        level_db,
        origin="lower",
        aspect="auto",
        extent=extent,
        cmap="magma",
        vmin=loudest_db - RANGE_DB,
        vmax=loudest_db,
    )
    axes.set_ylabel("kHz")


def _loudest(trial: Trial, rows: Sequence[str], sample_rate: int) -> float:
    """One scale for all sounds of a trial, or a faint sound would look like a loud one."""
    return max(float(_spectrogram_db(trial.sounds[row], sample_rate).max()) for row in rows)


def _spectrogram_db(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    n_fft = 2 ** round(np.log2(SPECTRUM_S * sample_rate))
    magnitude = np.abs(librosa.stft(waveform, n_fft=n_fft, hop_length=n_fft // 4))
    return 20 * np.log10(np.maximum(magnitude, 1e-6))


def _draw_cues(axes: Any, trial: Trial) -> None:
    """Loudness as lines; hits as marks along the bottom, reference onsets along the top."""
    times_s = (np.arange(trial.true_sheet.n_frames) + 0.5) / trial.true_sheet.frame_rate
    predicted = trial.predicted_sheet
    axes.plot(times_s, trial.true_sheet.loudness_db, color=REAL, label="real loudness")
    axes.plot(times_s, predicted.loudness_db, color=GENERATED, linestyle="--", label="loudness seen in the frames")
    low, high = axes.get_ylim()
    low -= 0.25 * (high - low)
    hits = np.flatnonzero(predicted.hit)
    axes.vlines(trial.onsets_s, high, high + 0.15 * (high - low), color=REAL, label="true onsets")
    axes.vlines(times_s[hits], low, low + predicted.hit[hits] * 0.2 * (high - low), color=GENERATED, label="hits seen")
    axes.set(ylim=(low, high + 0.15 * (high - low)), ylabel="dBFS", xlabel="seconds")
    # Beside the panel it would make all of them narrower.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=4, fontsize=8, frameon=False)
