"""The evaluation for people: a table in plain text, and one page to look at and listen to."""

from __future__ import annotations

import base64
import csv
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import soundfile

from soundback import attrition
from soundback.judging import pictures, probes, watching_pictures
from soundback.judging.watching import MEANINGS as WATCHING_MEANINGS
from soundback.judging.watching import write_tables
from soundback.media import ffmpeg
from soundback.outputs import whole_folder

if TYPE_CHECKING:
    import numpy as np

    from soundback.attrition import Account
    from soundback.judging.table import Results
    from soundback.judging.trials import Scores, Trial
    from soundback.judging.watching import Watching

LARGEST_VIDEO_BYTES = 400_000
"""A page should open on a phone; larger videos are left out of it, their sound stays."""

HEARD = ("real", "local_predicted", "local_true", "category_only", "nearest_onset_paste")
SEEN = ("real", "local_predicted")
EXAMPLE_SCORES = ("category_accuracy", "onset_f1_100ms", "loudness_correlation", "loudness_error_db")
BAR_WIDTH, BAR_HEIGHT = 80, 12


@dataclass(frozen=True)
class Column:
    """How a column of the table is shown.

    Attributes:
      key: its name in evaluation.json.
      title: short name.
      better: "higher" or "lower".
      meaning: what it says, and in which unit.
    """

    key: str
    title: str
    better: str
    meaning: str


@dataclass(frozen=True, eq=False)
class Example:
    """One clip to look at and listen to.

    Attributes:
      trial: with its sounds.
      scores: of each row that has one.
      frames: uint8 [n, size, size].
      video: the clip's file.
      slug: folder name of its label.
    """

    trial: Trial
    scores: Mapping[str, Scores]
    frames: np.ndarray
    video: Path
    slug: str


COLUMNS = (
    Column(
        "category_accuracy", "category", "higher", "share of videos whose sound the judge takes for the right category"
    ),
    Column("category_kept", "kept", "higher", "the same, of the videos whose real sound it takes for the right one"),
    Column("onset_f1_50ms", "onsets 50 ms", "higher", "F1 of onsets, right within 50 ms"),
    Column("onset_f1_100ms", "onsets 100 ms", "higher", "F1 of onsets, right within 100 ms"),
    Column("onset_f1_300ms", "onsets 300 ms", "higher", "F1 of onsets, right within 300 ms"),
    Column("loudness_correlation", "loudness", "higher", "correlation of the loudness curve with the real one"),
    Column("loudness_error_db", "error dB", "lower", "mean difference of the loudness curves in dB"),
    Column("noise_floor_db", "noise dB", "lower", "level in dBFS where the real sound is silent; of few clips"),
    Column("kernel_distance", "kernel", "lower", "kernel distance to real training sound, in the judge's embedding"),
    Column("frechet_distance", "Fréchet", "lower", "Fréchet distance to real training sound, in the judge's embedding"),
    Column(
        "bits_per_sample", "bits", "lower", "bits per sample that the real sound costs the WaveNet under these cues"
    ),
)
WITH_INTERVALS = ("category_accuracy", "onset_f1_100ms", "loudness_correlation")

ROW_MEANINGS = {
    "real": "the real sound: the ceiling, as the same detector and judge hear it",
    "real_shifted": "the real sound, 0.2 s late",
    "same_category_swap": "another video's real sound of the same category",
    "local_predicted": "Soundback: the WaveNet, told by the cue sheet that the watchers wrote",
    "local_true": "the WaveNet, told by the cue sheet measured on the real sound",
    "category_only": "the same WaveNet, told only what the first frame shows",
    "nearest_onset_paste": "training sounds of the category pasted at the predicted hits",
    "envelope_noise": "white noise with the real loudness curve",
    "silence": "nothing",
    "paper": "the paper's own system",
    "paper_stitched": "the paper's system, short clips stitched",
}


def format_table(evaluation: Mapping[str, Any]) -> str:
    """The evaluation as plain text: a line per row, 95 % intervals in brackets, then paired differences."""
    rows = evaluation["rows"]
    columns = [column for column in COLUMNS if column.key != "onset_f1_300ms"]
    cells = [["", *(column.title for column in columns)]]
    cells += [[row, *(_text(rows[row].get(column.key), column.key) for column in columns)] for row in rows]
    widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
    lines = [f"Held-out videos: {evaluation['n_videos']}", ""]
    lines += ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines += ["", "Cue sheets against the truth, before any sound is made:"]
    intervals = evaluation.get("watching_intervals", {})
    lines += [
        f"  {key.ljust(34)} {_cell_text(intervals.get(key) or {'mean': value})}"
        for key, value in evaluation["watching"].items()
    ]
    if evaluation.get("probes"):
        lines += ["", "Videos altered on purpose:"]
    lines += [f"  {key.ljust(34)} {_cell_text(cell)}" for key, cell in evaluation.get("probes", {}).items()]
    if evaluation.get("paired"):
        lines += ["", "Paired differences over the same videos, with 95 % intervals:"]
    for name, differences in evaluation.get("paired", {}).items():
        lines += [f"  {name.replace('_minus_', ' - ')}"]
        lines += [f"    {key.ljust(22)} {_signed(cell)}  (n {cell['n']})" for key, cell in differences.items()]
    return "\n".join(lines)


def choose_examples(trials: Sequence[Trial], scores: Sequence[Scores], per_label: int) -> list[int]:
    """Picks trials to show: of each label the worst, the best, and evenly between; worst first over all.

    Args:
      trials: all of them.
      scores: of the row that is judged, one per trial.
      per_label: how many of each label.

    Returns:
      Indices into `trials`.
    """
    chosen: list[int] = []
    for label in sorted({trial.label for trial in trials}):
        of_label = sorted(
            (index for index, trial in enumerate(trials) if trial.label == label),
            key=lambda index: (quality(scores[index]), trials[index].name),
        )
        n_chosen = min(per_label, len(of_label))
        places = [round(place * (len(of_label) - 1) / max(1, n_chosen - 1)) for place in range(n_chosen)]
        chosen += [of_label[place] for place in places]
    return sorted(chosen, key=lambda index: (quality(scores[index]), trials[index].name))


def quality(scores: Scores) -> float:
    """One number to sort examples by: the mean of category, onsets and loudness, of those that can be told."""
    known = [value for key in WITH_INTERVALS if (value := scores.get(key)) is not None]
    return sum(known) / len(known) if known else 0.0


def write_report(
    results: Results,
    trials: Sequence[Trial],
    examples: Sequence[Example],
    folder: Path,
    sample_rate: int,
    *,
    missed: Sequence[np.ndarray] = (),
    accounts: Sequence[Account] = (),
) -> None:
    """Writes index.html, strip.png, clips.csv and examples/<slug>_<video>_silent.mp4, whole or not at all.

    Args:
      results: the table and the scores of each clip.
      trials: the clips.
      examples: to look at and listen to, in this order.
      folder: data/report.
      sample_rate: Hz, of the sounds.
      missed: uint8 [size, size] of each frame in `results.watching.missed`; without them no picture of the watching.
      accounts: of each label, what was lost on the way to this dataset.
    """
    with whole_folder(folder) as partial:
        (partial / "examples").mkdir()
        for example in examples:
            ffmpeg.strip_sound(example.video, partial / "examples" / f"{_file_name(example)}_silent.mp4")
        if examples:
            best = max(examples, key=_most_telling)
            picture = pictures.draw_strip(best.trial, best.frames, sample_rate)
            (partial / "strip.png").write_bytes(pictures.png(picture, dpi=100))
        write_clips(results, trials, partial / "clips.csv")
        (partial / "index.html").write_text(_page(results, examples, sample_rate, accounts, missed), encoding="utf-8")


def write_plots(
    results: Results, examples: Sequence[Example], missed: Sequence[np.ndarray], folder: Path, sample_rate: int
) -> None:
    """Writes what `dvc plots` shows, whole or not at all.

    evaluation.csv (a line per row, means only), confusion.csv (a line per clip), reliability.csv (a line per bin),
    spectrograms.png, and the pictures of `draw_watching`.

    Args:
      results: the table, and what was found of the cue sheets.
      examples: of which spectrograms are drawn.
      missed: uint8 [size, size] of each frame in `results.watching.missed`.
      folder: data/plots/evaluation.
      sample_rate: Hz, of the sounds.
    """
    with whole_folder(folder) as partial:
        write_tables(results.watching, partial)
        for name, drawn in watching_pictures.draw_watching(results.watching, missed).items():
            (partial / f"{name}.png").write_bytes(drawn)
        with (partial / "evaluation.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["row", *(column.key for column in COLUMNS)])
            for row, cells in results.evaluation["rows"].items():
                writer.writerow([row, *(cells[column.key]["mean"] for column in COLUMNS)])
        # One of each label: the last, since the worst come first.
        shown = {example.trial.label: example.trial for example in examples}
        if shown:
            picture = pictures.draw_grid([shown[label] for label in sorted(shown)], sample_rate)
            (partial / "spectrograms.png").write_bytes(pictures.png(picture))


def write_clips(results: Results, trials: Sequence[Trial], path: Path) -> None:
    """Writes the scores of every row and clip as CSV; what cannot be told is empty."""
    columns = [key for scores in results.clips["real"][:1] for key in scores]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "label", "video_id", "clip_index", *columns])
        for row, clips in results.clips.items():
            for trial, scores in zip(trials, clips, strict=True):
                if scores:
                    values = [scores[key] for key in columns]
                    rounded = ["" if value is None else round(value, 4) for value in values]
                    writer.writerow([row, trial.label, trial.video_id, trial.clip_index, *rounded])


def _page(
    results: Results,
    examples: Sequence[Example],
    sample_rate: int,
    accounts: Sequence[Account] = (),
    missed: Sequence[np.ndarray] = (),
) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"number": _number, "signed": _signed, "words": lambda name: name.replace("_", " ")}
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    evaluation = results.evaluation
    return template.render(
        evaluation=evaluation,
        columns=COLUMNS,
        meanings=ROW_MEANINGS,
        bars={column.key: _bars(column.key, evaluation["rows"]) for column in COLUMNS},
        counts={column.key: _counts(column.key, evaluation["rows"]) for column in COLUMNS},
        examples=[_describe(example, sample_rate) for example in examples],
        example_columns=[column for column in COLUMNS if column.key in EXAMPLE_SCORES],
        bar_width=BAR_WIDTH,
        bar_height=BAR_HEIGHT,
        attrition=_describe_attrition(accounts) if accounts else None,
        watching_meanings=WATCHING_MEANINGS,
        probe_meanings=probes.MEANINGS,
        watching=_describe_watching(results.watching, missed) if missed else None,
    )


def _describe_watching(watching: Watching, missed: Sequence[np.ndarray]) -> dict[str, Any]:
    """What the page shows of the watching, and says to who does not see it."""
    return {
        "pictures": {
            name: _data("image/png", png) for name, png in watching_pictures.draw_watching(watching, missed).items()
        },
        "categories": watching.categories,
        "confusions": [[int(count) for count in row] for row in watching.confusions],
        "missed": watching.missed,
        "curves": [trial.label for trial in watching.curves],
    }


def _describe_attrition(accounts: Sequence[Account]) -> dict[str, Any]:
    """What the page says of the videos that were lost."""
    together = attrition.summarise(accounts)
    return {
        "accounts": [*accounts, together],
        "causes": list(together.lost),
        "words": together.words,
        "figure": _data("image/png", pictures.png(attrition.draw(accounts))),
    }


def _bars(key: str, rows: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Where each row's mean and interval lie on a common scale, in pixels; rows without a mean have none."""
    cells = {row: cell for row, columns in rows.items() if (cell := columns.get(key)) and cell["mean"] is not None}
    ends = [cell[end] for cell in cells.values() for end in ("mean", "low", "high") if cell[end] is not None]
    low, high = min([0.0, *ends]), max([1.0 if key in WITH_INTERVALS else 1e-9, *ends])

    def place(value: float | None, default: float) -> float:
        return round(3 + (BAR_WIDTH - 6) * ((default if value is None else value) - low) / (high - low), 1)

    return {
        row: {end: place(cell[end], cell["mean"]) for end in ("mean", "low", "high")} | {"zero": place(0.0, 0.0)}
        for row, cell in cells.items()
    }


def _counts(key: str, rows: Mapping[str, Any]) -> str:
    counts = sorted({cell["n"] for columns in rows.values() if (cell := columns.get(key)) and cell["n"]})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"


def _describe(example: Example, sample_rate: int) -> dict[str, Any]:
    """What the page says and shows of one example."""
    trial = example.trial
    waves = {row: _encode(trial.sounds[row], sample_rate, "WAV") for row in SEEN if row in trial.sounds}
    videos: dict[str, bytes | None] = {row: _video(example.video, waves[row]) for row in SEEN if row in waves}
    return {
        "label": trial.label,
        "video_id": trial.video_id,
        "seen": [f"{s.category} {s.start_s:.1f} to {s.end_s:.1f} s" for s in trial.predicted_sheet.segments],
        "scores": example.scores,
        "strip": _data("image/jpeg", pictures.jpeg(pictures.strip(example.frames))),
        "figure": _data("image/png", pictures.png(pictures.draw_trial(trial, sample_rate))),
        "videos": {row: _data("video/mp4", content) for row, content in videos.items() if content is not None},
        "sounds": {
            row: _data("audio/flac", _encode(trial.sounds[row], sample_rate, "FLAC"))
            for row in HEARD
            if row in trial.sounds and videos.get(row) is None
        },
    }


def _encode(waveform: np.ndarray, sample_rate: int, kind: str) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, waveform, sample_rate, format=kind, subtype="PCM_16")
    return written.getvalue()


def _video(video: Path, wave: bytes) -> bytes | None:
    """The clip with a sound, or None where it is too large for a page."""
    if video.stat().st_size > LARGEST_VIDEO_BYTES:
        return None
    with tempfile.TemporaryDirectory() as folder:
        track, out = Path(folder) / "track.wav", Path(folder) / "out.mp4"
        track.write_bytes(wave)
        ffmpeg.mux(video, track, out)
        return out.read_bytes() if out.stat().st_size <= LARGEST_VIDEO_BYTES else None


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _file_name(example: Example) -> str:
    return f"{example.slug}_{example.trial.video_id}"


def _most_telling(example: Example) -> tuple[bool, float]:
    """A picture shows timing best where there are onsets to be seen."""
    scores = example.scores["local_predicted"]
    return scores.get("onset_f1_100ms") is not None, quality(scores)


def _text(cell: Mapping[str, Any] | None, key: str) -> str:
    if cell is None or cell["mean"] is None:
        return "-"
    interval = f" [{_number(cell['low'])} {_number(cell['high'])}]" if key in WITH_INTERVALS else ""
    return f"{_number(cell['mean'])}{interval}"


def _cell_text(cell: Mapping[str, Any]) -> str:
    interval = f" [{_number(cell['low'])} {_number(cell['high'])}]  (n {cell['n']})" if cell.get("n") else ""
    return f"{_number(cell['mean'])}{interval}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _signed(cell: Mapping[str, Any]) -> str:
    if cell["mean"] is None:
        return "-"
    return f"{cell['mean']:+.2f} [{cell['low']:+.2f} {cell['high']:+.2f}]"
