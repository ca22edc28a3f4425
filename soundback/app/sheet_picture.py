"""The picture of a cue sheet: over a strip of frames, and over the spectrogram of the sound on the same time axis."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.figure import Figure
from PIL import Image

from soundback.cues import CueSheet
from soundback.judging.pictures import RANGE_DB, SPECTRUM_S, png
from soundback.media.containers import open_media, picture_stream, start_time_s

WIDTH_IN, DPI = 12.0, 100
LEFT, RIGHT = 0.055, 0.945
STRIP_IN, SPECTRUM_IN, TOP_IN, BETWEEN_IN, BOTTOM_IN = 1.45, 1.6, 0.28, 0.12, 0.5
COLOURS = ("#ffd166", "#8ecae6", "#95d5b2", "#f4a6c0", "#cdb4db", "#f8b878", "#b5c99a", "#d0d0d0")
CURVE, HIT = "#00e5ff", "#d00000"
SILENT_DB = -60.0
"""What a spectrogram shows at least as its loudest: silence stays dark."""
N_COLUMNS = 1000
"""Of a spectrogram: as many as the picture has pixels for."""
LETTER_IN = 0.085
SEQUENTIAL_S = 2.0
"""Where frames of the strip are nearer, all pictures are decoded; else a key frame is looked for."""
MOST_TOLD = 12
"""Segments, and hits, that the text in place of the picture names one by one."""


def draw_sheet(
    sheet: CueSheet,
    frames: Sequence[Image.Image],
    waveform: np.ndarray | None,
    sample_rate: int,
    categories: Sequence[str],
) -> Figure:
    """Draws segments, hits and loudness over frames, and below them the spectrogram of the sound.

    Args:
      sheet: what sounds when.
      frames: evenly spaced over its length.
      waveform: float32 [time], the sound; None where there is none yet.
      sample_rate: of the sound, Hz.
      categories: those that the models know; each has its colour.
    """
    sounded_in = 0.0 if waveform is None else SPECTRUM_IN + BETWEEN_IN
    height_in = TOP_IN + STRIP_IN + sounded_in + BOTTOM_IN
    figure = Figure(figsize=(WIDTH_IN, height_in))
    length_s = sheet.n_frames / sheet.frame_rate

    def panel(bottom_in: float, panel_in: float) -> Any:
        return figure.add_axes((LEFT, bottom_in / height_in, RIGHT - LEFT, panel_in / height_in))

    above = panel(BOTTOM_IN + sounded_in, STRIP_IN)
    _draw_strip(above, frames, length_s)
    _draw_segments(above, sheet, categories)
    _draw_curve(above.twinx(), sheet)
    last = above
    if waveform is not None:
        above.set_xticklabels([])
        last = panel(BOTTOM_IN, SPECTRUM_IN)
        _draw_spectrogram(last, waveform, sample_rate)
        _draw_curve(last.twinx(), sheet)
    last.set_xlabel("seconds")
    for axes in figure.axes:
        axes.set_xlim(0, length_s)
    return figure


def as_html(figure: Figure, said: str) -> str:
    """The picture as HTML, what it shows in words for those who cannot see it, and a line that follows the sound."""
    data = base64.b64encode(png(figure, dpi=DPI)).decode()
    return (
        '<div class="drawn" tabindex="0" role="group" aria-label="The cue sheet over the frames"><div class="sheet">'
        f'<img alt="{escape(said)}" src="data:image/png;base64,{data}">'
        f'<div class="playhead" data-start="{100 * LEFT:g}" data-end="{100 * RIGHT:g}" hidden></div></div></div>'
    )


def tell(sheet: CueSheet) -> str:
    """What sounds when, in words."""
    if not sheet.segments:
        return "Nothing sounds: there is no segment."
    told = [
        f"{segment.category} from {segment.start_s:.2f} to {segment.end_s:.2f} s, {segment.confidence:.0%} sure"
        for segment in sheet.segments[:MOST_TOLD]
    ]
    if (n_more := len(sheet.segments) - MOST_TOLD) > 0:
        told.append(f"and {n_more} more, all in the table")
    hits_s = np.flatnonzero(sheet.hit) / sheet.frame_rate
    hits = f"{len(hits_s)} hits"
    if 0 < len(hits_s) <= MOST_TOLD:
        hits = f"hits at {', '.join(f'{time_s:.2f}' for time_s in hits_s)} s"
    levels = f"loudness from {sheet.loudness_db.min():.0f} to {sheet.loudness_db.max():.0f} dB"
    return f"What sounds when: {'; '.join(told)}; {hits}; {levels}."


def read_strip(video: Path, *, n_frames: int | None = None) -> list[Image.Image]:
    """Evenly spaced pictures of a video, as a player shows them.

    Args:
      video: a video file.
      n_frames: how many; by default as many as fill the strip side by side, at their own shape.

    Returns:
      RGB pictures. Of a long video each is of a key frame near its place, or the first one after that.

    Raises:
      MediaError: as `probe`.
    """
    with open_media(video) as container:
        stream = picture_stream(container, video)
        begin_s = start_time_s(container)
        picture = next(container.decode(stream))
        first = _upright(picture)
        wanted = n_frames or max(1, round(WIDTH_IN * (RIGHT - LEFT) / STRIP_IN * first.height / first.width))
        length_s = float((stream.duration or 0) * stream.time_base) or (container.duration or 0) / 1e6
        between_s = length_s / wanted
        found, at_s = [], 0.0
        for place in range(wanted):
            centre_s = (place + 0.5) * between_s
            if between_s > SEQUENTIAL_S:
                container.seek(round((centre_s + begin_s) / stream.time_base), stream=stream)
                wanted_s = centre_s - between_s / 2
            else:
                wanted_s = centre_s
            while at_s < wanted_s or between_s > SEQUENTIAL_S:
                later = next(container.decode(stream), None)
                if later is None:
                    break
                picture, at_s = later, (later.time or 0.0) - begin_s
                if at_s >= wanted_s:
                    break
            found.append(_upright(picture))
    return found


def _upright(picture: Any) -> Image.Image:
    """A decoded picture at the size of the strip, turned as a player turns it."""
    scale = STRIP_IN * DPI / max(picture.height, 1)
    small = picture.reformat(width=max(2, round(picture.width * scale)), height=round(STRIP_IN * DPI), format="rgb24")
    return Image.fromarray(np.rot90(small.to_ndarray(), picture.rotation // 90))


def _draw_strip(axes: Any, frames: Sequence[Image.Image], length_s: float) -> None:
    width_s = length_s / len(frames)
    for place, frame in enumerate(frames):
        axes.imshow(np.asarray(frame), extent=(place * width_s, (place + 1) * width_s, 0, 1), aspect="auto")
    axes.set(ylim=(0, 1), yticks=[])


def _draw_segments(axes: Any, sheet: CueSheet, categories: Sequence[str]) -> None:
    """A band of colour and name for each, and a line for each hit."""
    axes_in = WIDTH_IN * (RIGHT - LEFT)
    length_s = sheet.n_frames / sheet.frame_rate
    for segment in sheet.segments:
        colour = COLOURS[categories.index(segment.category) % len(COLOURS)]
        axes.axvspan(segment.start_s, segment.end_s, 0, 0.17, facecolor=colour, edgecolor="black", linewidth=0.8)
        axes.axvspan(segment.start_s, segment.end_s, 0.17, 1, facecolor=colour, alpha=0.15, linewidth=0)
        room = int((segment.end_s - segment.start_s) / length_s * axes_in / LETTER_IN)
        text = f"{segment.category} {segment.confidence:.0%}"
        text = text if len(text) <= room else segment.category[:room] if room > 2 else ""
        middle_s = (segment.start_s + segment.end_s) / 2
        axes.text(middle_s, 0.085, text, ha="center", va="center", fontsize=9, color="black", clip_on=True)
    hits = np.flatnonzero(sheet.hit)
    outlined = [patheffects.withStroke(linewidth=4, foreground="white")]
    for strength, time_s in zip(sheet.hit[hits], (hits + 0.5) / sheet.frame_rate, strict=True):
        axes.plot([time_s, time_s], [0.17, 0.17 + 0.5 * strength], color=HIT, linewidth=2, path_effects=outlined)
    axes.set_title(
        "frames, segments (colour), hits (red), loudness (blue, dB at the right)", loc="left", fontsize=9, pad=4
    )


def _draw_curve(axes: Any, sheet: CueSheet) -> None:
    times_s = (np.arange(sheet.n_frames) + 0.5) / sheet.frame_rate
    outlined = [patheffects.withStroke(linewidth=3.5, foreground="black")]
    axes.plot(times_s, sheet.loudness_db, color=CURVE, linewidth=1.5, path_effects=outlined)
    axes.set_ylim(-70, 5)
    axes.set_ylabel("dB", fontsize=9)
    axes.tick_params(labelsize=8)


def _draw_spectrogram(axes: Any, waveform: np.ndarray, sample_rate: int) -> None:
    """Draws the loudest of each stretch that is a pixel wide, so that no hit is lost in a long video."""
    n_fft = 2 ** round(np.log2(SPECTRUM_S * sample_rate))
    padded = np.pad(waveform, (n_fft // 2, n_fft))
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[:: n_fft // 4]
    hann = np.hanning(n_fft).astype(np.float32)
    stretches = np.array_split(np.arange(len(windows)), min(N_COLUMNS, len(windows)))
    levels = [np.abs(np.fft.rfft(windows[each[0] : each[-1] + 1] * hann)).max(axis=0) for each in stretches]
    full_scale = hann.sum() / 2
    level_db = 20 * np.log10(np.maximum(np.stack(levels, axis=1) / full_scale, 1e-6))
    loudest_db = max(float(level_db.max()), SILENT_DB)
    axes.imshow(
        level_db,
        origin="lower",
        aspect="auto",
        extent=(0, len(waveform) / sample_rate, 0, sample_rate / 2000),
        cmap="magma",
        vmin=loudest_db - RANGE_DB,
        vmax=loudest_db,
    )
    axes.set_ylabel("kHz", fontsize=9)
    axes.tick_params(labelsize=8)
