"""The evaluation for people: one page to look at and listen to, and what lies beside it."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from soundback import attrition
from soundback.judging import pictures, players, probes, scores, watching_pictures
from soundback.judging.columns import (
    COLUMNS,
    OF_A_CATEGORY,
    ROW_MEANINGS,
    WITH_INTERVALS,
    columns_of,
    format_difference,
    format_number,
    groups_of,
)
from soundback.judging.curves import draw_curve
from soundback.judging.plain_table import judge_sentence, outcome
from soundback.judging.provenance import read_versions
from soundback.judging.watching import MEANINGS as WATCHING_MEANINGS
from soundback.judging.watching import write_tables
from soundback.media import ffmpeg
from soundback.outputs import whole_folder

if TYPE_CHECKING:
    import numpy as np

    from soundback.attrition import Account
    from soundback.judging.curves import Curve
    from soundback.judging.provenance import Provenance
    from soundback.judging.table import Results
    from soundback.judging.trials import Scores, Trial
    from soundback.judging.watching import Watching

HEARD = (
    "real",
    "local_predicted",
    "local_true",
    "category_only",
    "paper",
    "paper_stitched",
    "nearest_onset_paste",
)
SEEN = ("real", "local_predicted")
EXAMPLE_SCORES = ("category_accuracy", "onset_f1_100ms", "loudness_correlation", "loudness_error_db")
OF_CATEGORIES = ("real", "local_predicted", "local_true", "paper")
"""The rows that are told category by category."""
HEADLINES = ("category_accuracy", "onset_f1_100ms", "loudness_correlation", "loudness_error_db")
"""What the page says first, of our row beside the ceiling and what is as real but belongs to another video."""
OURS, BESIDE = "local_predicted", {"real": "the real sound", "same_category_swap": "another video's"}
BAR_WIDTH, BAR_HEIGHT = 64, 12
SHORT_HASH = 10
"""Characters of a hash that tell any two here apart."""


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


def choose_examples(trials: Sequence[Trial], scored: Sequence[Scores], per_label: int) -> list[int]:
    """Picks trials to show: of each label the worst, the best, and evenly between; worst first over all.

    Args:
      trials: all of them.
      scored: scores of the row that is judged, one per trial.
      per_label: how many of each label.

    Returns:
      Indices into `trials`.
    """
    chosen: list[int] = []
    for label in sorted({trial.label for trial in trials}):
        of_label = sorted(
            (index for index, trial in enumerate(trials) if trial.label == label),
            key=lambda index: (quality(scored[index]), trials[index].name),
        )
        n_chosen = min(per_label, len(of_label))
        places = [round(place * (len(of_label) - 1) / max(1, n_chosen - 1)) for place in range(n_chosen)]
        chosen += [of_label[place] for place in places]
    return sorted(chosen, key=lambda index: (quality(scored[index]), trials[index].name))


def quality(of_clip: Scores) -> float:
    """One number to sort examples by: the mean of category, onsets and loudness, of those that can be told."""
    known = [value for key in WITH_INTERVALS if (value := of_clip.get(key)) is not None]
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
    provenance: Provenance | None = None,
    curves: Sequence[Curve] = (),
) -> None:
    """Writes the page and what lies beside it, whole or not at all.

    index.html, strip.png, scores.parquet (every clip), evaluation.csv (every row and column, with its interval), and
    examples/<slug>_<video>_silent.mp4.

    Args:
      results: the table and the scores of each clip.
      trials: the clips.
      examples: to look at and listen to, in this order.
      folder: data/report.
      sample_rate: Hz, of the sounds.
      missed: uint8 [size, size] of each frame in `results.watching.missed`; without them no picture of the watching.
      accounts: of each label, what was lost on the way to this dataset.
      provenance: what the models and the dataset were built from; without it the page says that nobody knows.
      curves: of the trainings.
    """
    with whole_folder(folder) as partial:
        (partial / "examples").mkdir()
        for example in examples:
            ffmpeg.strip_sound(example.video, partial / "examples" / f"{_file_name(example)}_silent.mp4")
        if examples:
            (partial / "strip.png").write_bytes(_draw_best(examples, sample_rate))
        scores.write_scores(list_scores(results, trials), partial / "scores.parquet")
        write_table(results, partial / "evaluation.csv")
        page = _page(results, examples, sample_rate, accounts, missed, provenance=provenance, curves=curves)
        (partial / "index.html").write_text(page, encoding="utf-8")


def write_plots(
    results: Results, examples: Sequence[Example], missed: Sequence[np.ndarray], folder: Path, sample_rate: int
) -> None:
    """Writes what `dvc plots` shows, whole or not at all.

    confusion.csv (a line per clip), reliability.csv (a line per bin), spectrograms.png, and the pictures of
    `draw_watching`. What dvc.yaml itself draws, the table with its intervals, lies beside the page.

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
        # One of each label: the last, since the worst come first.
        shown = {example.trial.label: example.trial for example in examples}
        if shown:
            picture = pictures.draw_grid([shown[label] for label in sorted(shown)], sample_rate)
            (partial / "spectrograms.png").write_bytes(pictures.png(picture))


def write_table(results: Results, path: Path) -> None:
    """Writes the table as CSV: a line per row and column that could be told."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "column", "mean", "low", "high", "n"])
        for column in COLUMNS:
            for row, cells in results.evaluation["rows"].items():
                if cells[column.key]["n"]:
                    writer.writerow([row, column.key, *cells[column.key].values()])


def list_scores(results: Results, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The scores of every row and clip, rows of `scores.SCORES`."""
    nothing = dict.fromkeys(scores.SCORES.names)
    return [
        nothing
        | {"row": row, "name": trial.name, "video_id": trial.video_id, "label": trial.label, "status": "ok"}
        | dict(of_clip)
        for row, clips in results.clips.items()
        for trial, of_clip in zip(trials, clips, strict=True)
        if of_clip
    ]


def _page(
    results: Results,
    examples: Sequence[Example],
    sample_rate: int,
    accounts: Sequence[Account] = (),
    missed: Sequence[np.ndarray] = (),
    *,
    provenance: Provenance | None = None,
    curves: Sequence[Curve] = (),
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": format_number,
        "signed": format_difference,
        "size": _format_size,
        "words": lambda name: name.replace("_", " "),
        "outcome": outcome,
    }
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    evaluation = results.evaluation
    return template.render(
        evaluation=evaluation,
        judge=judge_sentence(evaluation["judge"]),
        headlines=_describe_headlines(evaluation["rows"]),
        hero=players.embed("image/jpeg", pictures.jpeg_of(_draw_best(examples, sample_rate))) if examples else None,
        table=_describe_table(evaluation["rows"]),
        outcomes=Counter(outcome(claim) for claim in evaluation["claims"].values()),
        by_category=_describe_categories(results),
        meanings=ROW_MEANINGS,
        titles={column.key: column.title for column in COLUMNS},
        examples=[_describe(example, sample_rate) for example in examples],
        example_columns=[column for column in COLUMNS if column.key in EXAMPLE_SCORES],
        bar_width=BAR_WIDTH,
        bar_height=BAR_HEIGHT,
        attrition=_describe_attrition(accounts) if accounts else None,
        watching_meanings=WATCHING_MEANINGS,
        probe_meanings=probes.MEANINGS,
        watching=_describe_watching(results.watching, missed) if missed else None,
        curves=[{"picture": players.embed("image/png", draw_curve(curve)), "words": curve.words} for curve in curves],
        provenance=provenance,
        versions=read_versions(),
        short_hash=SHORT_HASH,
    )


def _describe_headlines(rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The numbers that come first, each beside those that say what it is worth."""
    beside = {words: rows[row] for row, words in BESIDE.items() if row in rows}
    return [
        {
            "column": column,
            "ours": rows[OURS][column.key],
            "beside": {words: cells.get(column.key) for words, cells in beside.items()},
        }
        for column in columns_of({OURS: rows[OURS]}, HEADLINES)
    ]


def _describe_table(rows: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the table, and where its bars lie."""
    columns = columns_of(rows)
    return {
        "rows": rows,
        "groups": groups_of(columns),
        "columns": columns,
        "bars": {column.key: _bars(column.key, rows) for column in columns},
        "counts": {column.key: _counts(column.key, rows) for column in columns},
    }


def _describe_categories(results: Results) -> dict[str, Any]:
    """The rows that matter, category by category under those of all."""
    everything = {"All of them": results.evaluation["rows"], **results.categories}
    chosen = {label: {row: rows[row] for row in OF_CATEGORIES if row in rows} for label, rows in everything.items()}
    # One scale for all, or the bars of two categories could not be compared.
    flat = {f"{label}/{row}": cells for label, rows in chosen.items() for row, cells in rows.items()}
    columns = columns_of(flat, OF_A_CATEGORY)
    return {"labels": chosen, "columns": columns, "bars": {column.key: _bars(column.key, flat) for column in columns}}


def _describe_watching(watching: Watching, missed: Sequence[np.ndarray]) -> dict[str, Any]:
    """What the page shows of the watching, and says to who does not see it."""
    return {
        "pictures": {
            name: players.embed("image/png", png)
            for name, png in watching_pictures.draw_watching(watching, missed).items()
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
        "figure": players.embed("image/png", pictures.png(attrition.draw(accounts))),
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
    waves = {row: players.encode_sound(trial.sounds[row], sample_rate, "WAV") for row in SEEN if row in trial.sounds}
    figure = pictures.draw_trial(trial, sample_rate)
    videos: dict[str, bytes | None] = {
        row: players.encode_video(example.video, waves[row]) for row in SEEN if row in waves
    }
    return {
        "label": trial.label,
        "video_id": trial.video_id,
        "seen": [f"{s.category} {s.start_s:.1f} to {s.end_s:.1f} s" for s in trial.predicted_sheet.segments],
        "scores": example.scores,
        "strip": players.embed("image/jpeg", pictures.jpeg(pictures.strip(example.frames))),
        "figure": players.embed("image/png", pictures.png(figure)),
        "time_axis": pictures.time_axis(figure),
        "length_s": len(trial.waveform) / sample_rate,
        "videos": {row: players.embed("video/mp4", content) for row, content in videos.items() if content is not None},
        "sounds": {
            row: players.embed("audio/flac", players.encode_sound(trial.sounds[row], sample_rate, "FLAC"))
            for row in HEARD
            if row in trial.sounds and videos.get(row) is None
        },
    }


def _file_name(example: Example) -> str:
    return f"{example.slug}_{example.trial.video_id}"


def _most_telling(example: Example) -> tuple[bool, float]:
    """A picture shows timing best where there are onsets to be seen."""
    scored = example.scores["local_predicted"]
    return scored.get("onset_f1_100ms") is not None, quality(scored)


def _draw_best(examples: Sequence[Example], sample_rate: int) -> bytes:
    """A PNG of the best example: its frames over the sound that was made for it."""
    best = max(examples, key=_most_telling)
    return pictures.png(pictures.draw_strip(best.trial, best.frames, sample_rate), dpi=100)


def _format_size(size_bytes: int) -> str:
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= step:
            return f"{size_bytes / step:.1f} {unit}"
    return f"{size_bytes} bytes"
