"""Pictures of what the watchers saw, and how wrong: narrow enough for a phone. The same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from soundback.judging.classification import N_BINS
from soundback.judging.pictures import GENERATED, REAL, png

if TYPE_CHECKING:
    from soundback.judging.classification import Array, Reliability
    from soundback.judging.trials import Scores, Trial
    from soundback.judging.watching import MissedFrame, Watching

MOST_CATEGORIES = 24
MOST_CURVES = 12
MISSED_PER_ROW = 3
DARK_SHARE = 0.55
"""Above it a cell is so dark that it is written on in white."""


def draw_watching(watching: Watching, missed: Sequence[np.ndarray]) -> dict[str, bytes]:
    """Pictures of what the watchers saw: PNG by name.

    Args:
      watching: what was found.
      missed: uint8 [size, size] of each frame in `watching.missed`.
    """
    scores = dict(zip(watching.trials, watching.scores, strict=True))
    drawn = {
        "confusion": draw_confusion(watching.confusions, watching.categories, "clips"),
        "confusion_frames": draw_confusion(watching.frame_confusions, watching.categories, "frames"),
        "reliability": draw_reliability(watching.reliability),
        "loudness": draw_curves(watching.curves, [scores[trial] for trial in watching.curves]),
        "missed": draw_missed(watching.missed, missed),
    }
    return {name: png(figure, dpi=110) for name, figure in drawn.items()}


def draw_confusion(confusions: Array, categories: Sequence[str], unit: str) -> Figure:
    """What was named (columns, the last unsure) of what it is (rows): each row's shares, and counts where few.

    Of many categories those that are missed most are shown; what they were named else is then in no column.

    Args:
      confusions: [n_categories, n_categories + 1].
      categories: names.
      unit: what was counted, "clips" or "frames".
    """
    totals = confusions.sum(axis=1)
    shares = confusions / np.maximum(totals, 1)[:, None]
    recall = np.where(totals > 0, np.diagonal(shares), 2)
    shown = np.sort(np.argsort(recall, kind="stable")[:MOST_CATEGORIES])
    columns = [*shown.tolist(), len(categories)]
    size = 2.2 + 0.62 * len(shown)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares[np.ix_(shown, columns)], cmap="Blues", vmin=0, vmax=1)
    for row, category in enumerate(shown):
        for place, column in enumerate(columns):
            if count := confusions[category, column]:
                share = shares[category, column]
                text = f"{100 * share:.0f} %" if unit == "frames" else f"{count:.0f}\n{100 * share:.0f} %"
                ink = "white" if share > DARK_SHARE else "black"
                axes.text(place, row, text, ha="center", va="center", color=ink, fontsize=9)
    names = [categories[category] for category in shown]
    axes.set_xticks(range(len(columns)), [*names, "unsure"], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), [f"{name} ({totals[i]:.0f})" for name, i in zip(names, shown, strict=True)])
    # Unsure is no category: a line keeps it apart.
    axes.axvline(len(shown) - 0.5, color="#57606a", linewidth=1)
    what = f"the {len(shown)} most missed of {len(categories)}" if len(shown) < len(categories) else unit
    axes.set(xlabel="named in the cue sheet", ylabel=f"is ({unit})", title=f"Confusions, {what}")
    return figure


def draw_reliability(reliability: Reliability) -> Figure:
    """How often the likeliest category is right, over the probability it was given; below it how many frames."""
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="#57606a", linestyle=":", label="means what it says")
    known = reliability.n_frames > 0
    upper.plot(reliability.confidence[known], reliability.accuracy[known], marker="o", color=GENERATED, label="frames")
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
    upper.set_title(f"Reliability: calibration error {reliability.error:.3f}")
    upper.legend(loc="upper left", frameon=False)
    middles = (np.arange(N_BINS) + 0.5) / N_BINS
    bars = lower.bar(middles, reliability.n_frames, width=0.9 / N_BINS, color=GENERATED)
    lower.bar_label(bars, labels=[f"{count:d}" if count else "" for count in reliability.n_frames], fontsize=7)
    lower.margins(y=0.25)
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    lower.set(xlabel="probability of the likeliest category", ylabel="frames")
    return figure


def draw_curves(trials: Sequence[Trial], scores: Sequence[Scores]) -> Figure:
    """Loudness seen over loudness measured, a panel for each clip.

    Args:
      trials: which clips, in this order.
      scores: of the watching, of each of them.
    """
    trials = trials[:MOST_CURVES]
    figure = Figure(figsize=(6.4, 1.55 * len(trials) + 0.7), layout="constrained")
    panels = figure.subplots(len(trials), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, trial, score in zip(panels, trials, scores, strict=False):
        _draw_curve(axes, trial)
        told = [
            f"{name} {value:.2f}{unit}"
            for name, key, unit in (
                ("correlation", "loudness_correlation", ""),
                ("error", "loudness_error_db", " dB"),
                ("hits F1", "hit_f1_100ms", ""),
            )
            if (value := score[key]) is not None
        ]
        axes.set_title(f"{trial.label}, {trial.video_id}: {', '.join(told)}", loc="left", fontsize=10)
        axes.set_ylabel("dBFS", fontsize=8)
    panels[-1].set_xlabel("seconds")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    return figure


def draw_missed(missed: Sequence[MissedFrame], frames: Sequence[np.ndarray]) -> Figure:
    """The frames that are most wrong, side by side: what it is, and what was said.

    Args:
      missed: which, in this order.
      frames: uint8 [size, size] of each.
    """
    n_rows = -(-len(missed) // MISSED_PER_ROW)
    figure = Figure(figsize=(6.4, 2.75 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, MISSED_PER_ROW, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, one, frame in zip(panels, missed, frames, strict=False):
        axes.imshow(frame, cmap="gray", vmin=0, vmax=255)
        is_wrong = one.said != one.trial.label
        axes.set_title(
            f"is {one.trial.label} ({one.true_probability:.2f})\nsaid {one.said} ({one.said_probability:.2f})",
            fontsize=11,
            color="#a40e26" if is_wrong else "black",
        )
    return figure


def _draw_curve(axes: Any, trial: Trial) -> None:
    times_s = (np.arange(trial.true_sheet.n_frames) + 0.5) / trial.true_sheet.frame_rate
    axes.plot(times_s, trial.true_sheet.loudness_db, color=REAL, label="measured on the real sound")
    axes.plot(times_s, trial.predicted_sheet.loudness_db, color=GENERATED, linestyle="--", label="seen in the frames")
    axes.grid(alpha=0.3)
