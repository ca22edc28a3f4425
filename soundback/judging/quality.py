"""The quality page: what each part of the system is worth, shown by what is lost without it."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from soundback.errors import DataContractError
from soundback.judging import plain_table
from soundback.judging.columns import ROW_MEANINGS, columns_of
from soundback.judging.intervals import Bootstrap
from soundback.outputs import whole_file, whole_folder

MEANINGS = {
    "mean": "the mean loudness of training at every frame, and no hits",
    "energy": "how much the picture changes, one number per frame: a line to loudness, its peaks as hits",
    "appearance": "the network, shown pictures without what changes between them; a quarter of the learning rate",
    "change": "the network, shown what changes between pictures without the pictures",
    "both": "the spotter: pictures, and what changes between them",
}
"""Variants of the spotter, in the order of the page."""

WHOLE = "both"

INK, SOFT, OURS, OTHERS = "#1c2128", "#57606a", "#0b5cad", "#d9b56c"


@dataclass(frozen=True)
class Column:
    """How a column of clips.csv is shown.

    Attributes:
      title: short name, with the unit.
      better: "higher" or "lower".
      meaning: what it says.
    """

    title: str
    better: str
    meaning: str


COLUMNS = {
    "loudness_correlation": Column(
        "loudness correlation", "higher", "of the loudness curve with that of the real sound; not of a constant curve"
    ),
    "loudness_error_db": Column("loudness error, dB", "lower", "mean difference of the two curves"),
    "hit_f1_100ms": Column(
        "hit F1, 100 ms", "higher", "of hits, right within 100 ms, where the real sound has three or more"
    ),
}
KEYS = ("label", "video_id", "clip_index")


def read_scores(folder: Path) -> dict[str, pd.DataFrame]:
    """Reads folder/VARIANT/clips.csv of every variant: a line per test clip, empty where a score is not defined.

    Raises:
      DataContractError: when one is missing, or is no such table.
    """
    tables = {}
    for variant in MEANINGS:
        path = folder / variant / "clips.csv"
        try:
            table = pd.read_csv(path, dtype={"video_id": str})
        except FileNotFoundError as error:
            raise DataContractError(f"There is no {path}. Build it with `make quality`.") from error
        except ValueError as error:
            raise DataContractError(
                f"{path} is no table of clips ({error}). Build it anew with `make quality`."
            ) from error
        if missing := [name for name in (*KEYS, *COLUMNS) if name not in table]:
            raise DataContractError(f"{path} lacks the column {missing[0]}. Build it anew with `make quality`.")
        tables[variant] = table
    return tables


def compare(tables: Mapping[str, pd.DataFrame], bootstrap: Bootstrap) -> dict[str, Any]:
    """Means of every variant, and differences of the whole spotter to each other one over the same videos.

    Args:
      tables: of `read_scores`.
      bootstrap: how the intervals are drawn.

    Returns:
      as it goes to quality.json: {"n_videos", "variants": {VARIANT: {COLUMN: cell}},
      "paired": {"both_minus_VARIANT": {COLUMN: cell}}}.
    """
    means = {variant: _means_by_video(table) for variant, table in tables.items()}
    return {
        "n_videos": int(tables[WHOLE]["video_id"].nunique()),
        "variants": {
            variant: {column: bootstrap.mean(list(of_video.values())).cell() for column, of_video in columns.items()}
            for variant, columns in means.items()
        },
        "paired": {
            f"{WHOLE}_minus_{variant}": {
                column: bootstrap.paired(means[WHOLE][column], columns[column]).cell() for column in COLUMNS
            }
            for variant, columns in means.items()
            if variant != WHOLE
        },
    }


def _means_by_video(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """{column: {video_id: mean of its clips}}: clips of one video are not independent."""
    means = table.groupby("video_id")[list(COLUMNS)].mean()
    return {
        column: {str(video): None if pd.isna(value) else float(value) for video, value in means[column].items()}
        for column in COLUMNS
    }


def format_table(compared: Mapping[str, Any]) -> str:
    """The comparison as plain text: a line per variant, 95 % intervals in brackets, then the differences."""
    blocks = [(f"Held-out videos: {compared['n_videos']}", "variant", compared["variants"], _number)]
    blocks += [("Differences over the same videos:", "difference", compared["paired"], _signed)]
    lines = []
    for title, first, rows, shown in blocks:
        cells = [[first, *(column.title for column in COLUMNS.values())]]
        cells += [
            [name.replace("_minus_", " - "), *(_with_interval(columns[key], shown) for key in COLUMNS)]
            for name, columns in rows.items()
        ]
        widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
        lines += [title, ""]
        lines += ["  ".join(t.ljust(width) for t, width in zip(line, widths, strict=True)).rstrip() for line in cells]
        lines += [""]
    return "\n".join(lines)


def write_quality(seeds: Mapping[str, Any], spotter: Mapping[str, Any], metrics: Path, report: Path) -> None:
    """Writes the numbers as JSON, and a folder with index.html, which asks nothing of any network, and table.txt.

    Args:
      seeds: of `Seeds.describe`.
      spotter: of `compare`.
      metrics: JSON file to write.
      report: folder to write.
    """
    with whole_folder(report) as partial:
        (partial / "index.html").write_text(_page(seeds, spotter), encoding="utf-8")
        table = "\n\n".join([plain_table.format_table(seeds), "What the spotter sees", format_table(spotter)])
        (partial / "table.txt").write_text(table, encoding="utf-8")
    with whole_file(metrics) as partial:
        partial.write_text(json.dumps({**seeds, "spotter": spotter}, indent=2) + "\n", encoding="utf-8")


def _page(seeds: Mapping[str, Any], spotter: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"number": _number, "signed": _signed, "verdict": plain_table.outcome}
    template = environment.from_string(Path(__file__).with_name("quality.html").read_text(encoding="utf-8"))
    figure = io.BytesIO()
    draw_variants(spotter["variants"]).savefig(figure, format="png", dpi=110, metadata={"Software": None})
    picture = f"data:image/png;base64,{base64.b64encode(figure.getvalue()).decode('ascii')}"
    return template.render(
        seeds=seeds,
        seed_columns=columns_of(seeds["rows"]),
        row_meanings=ROW_MEANINGS,
        spotter=spotter,
        columns=COLUMNS,
        meanings=MEANINGS,
        whole=WHOLE,
        picture=picture,
    )


def draw_variants(variants: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A bar with its interval for each variant, a panel for each column."""
    # One above the other: beside each other they are too small for a phone.
    figure = Figure(figsize=(5.5, (0.7 + 0.28 * len(variants)) * len(COLUMNS)), layout="constrained")
    for axes, (key, column) in zip(figure.subplots(len(COLUMNS)), COLUMNS.items(), strict=True):
        for place, (variant, cells) in enumerate(variants.items()):
            cell = cells[key]
            if cell["mean"] is None:
                axes.text(0, place, " not defined", va="center", color=SOFT, fontsize=9)
                continue
            axes.barh(place, cell["mean"], height=0.6, color=OURS if variant == WHOLE else OTHERS)
            axes.hlines(place, cell["low"], cell["high"], color=INK, linewidth=1.5)
        axes.set_title(f"{column.title} ({column.better} is better)", loc="left", fontsize=10)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks(range(len(variants)), list(variants))
        # The first on top, and room for one that has no bar.
        axes.set_ylim(len(variants) - 0.5, -0.5)
    return figure


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _with_interval(cell: Mapping[str, Any], shown: Any) -> str:
    return "-" if cell["mean"] is None else f"{shown(cell['mean'])} [{shown(cell['low'])} {shown(cell['high'])}]"
