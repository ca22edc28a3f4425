"""What there is to say of trained models: data, figures beside their controls, limits, licence; as text and Markdown.

For whoever gets the models and was not there when they were trained. What is not known is said to be not known.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from soundback.judging.columns import COLUMNS, ROW_MEANINGS, format_cell, format_number
from soundback.judging.plain_table import format_table
from soundback.schemas import SPLITS

WIDTH = 100
"""Characters of a line on a terminal."""

PURPOSES = {"train": "to learn from", "validation": "to choose the best weights by", "test": "held out"}
"""Of the videos of each split, in the order of `SPLITS`."""

DATA = {
    "demo": "a world that Soundback renders: drawn things that move, and synthesised sound",
    "youtube8m": "YouTube videos, found by the labels of YouTube-8M",
    "table": "videos of the trainer's own choice, each under one label",
}
"""By kind of source, as in params.yaml."""

LICENCE = "Soundback's code is under the MIT licence. What may be done with these weights is for their trainer to say."
LICENCE_OF_DATA = {
    "demo": "They have seen and heard rendered videos alone, nobody's footage. Category names and MIDs are those of "
    "YouTube-8M's labels, CC BY 4.0.",
    "youtube8m": "YouTube-8M's labels are CC BY 4.0, and that covers the labels only: the videos belong to the people "
    "who made them, and downloading them is subject to YouTube's terms of service. What that allows is for you to find "
    "out.",
    "table": "The videos belong to whoever made them: what may be done with models made from them is between their "
    "makers and the trainer.",
}

ROWS = {
    "real": "the real sound",
    "same_category_swap": "another real one, same category",
    "local_predicted": "THESE MODELS, silent video",
    "local_true": "these models, true cues",
    "category_only": "these models, category alone",
    "nearest_onset_paste": "real sounds pasted at hits seen",
    "envelope_noise": "noise of the real loudness",
    "silence": "silence",
    "paper": "the paper's own system",
}
"""Rows of the evaluation that say most, in few words; the last is measured by `make paper` alone."""

HEADLINE = {
    "category_accuracy": "right by judge",
    "onset_f1_100ms": "onset F1",
    "loudness_correlation": "loudness corr.",
    "loudness_error_db": "error in dB",
}
"""Columns that say most."""


@dataclass(frozen=True)
class Category:
    """What the models can tell apart and sound.

    Attributes:
      name: as on a cue sheet.
      folder: of the label under data/; None where that is not known.
      label_mid: of YouTube-8M; None where there is none, or it is not known.
      n_videos: with usable sound, {split: how many}; empty where that is not known.
    """

    name: str
    folder: str | None
    label_mid: str | None
    n_videos: Mapping[str, int]


@dataclass(frozen=True)
class ModelCard:
    """What is known of a folder of models.

    Attributes:
      categories: in the models' order.
      sample_rate: Hz.
      frame_rate: frames per second that are watched.
      frame_size: their pixels, square.
      unsure_below: probability below which a frame is nothing they know.
      source: kind of source, as in params.yaml; None where that is not known.
      figures: what evaluate and the trainings measured, {"evaluation", "classifier" ...: the JSON each wrote}.
      gaps: what is not known and why, a sentence each.
      versions: of what decides how they load and sound, {what: version}.
    """

    categories: tuple[Category, ...]
    sample_rate: int
    frame_rate: int
    frame_size: int
    unsure_below: float
    source: str | None
    figures: Mapping[str, Any]
    gaps: tuple[str, ...]
    versions: Mapping[str, str]


def as_text(card: ModelCard) -> str:
    """The essentials, for a terminal: about a screen of lines, at most `WIDTH` wide where they are sentences."""
    names = ", ".join(category.name for category in card.categories)
    parts = [
        [
            *_hung("Knows", names),
            *_hung("Sounds at", f"{card.sample_rate} Hz, mono"),
            *_hung("Watches", _watches(card)),
            *_hung("Trained on", _data(card)),
            *_hung("Versions", _versions(card)),
        ],
        _headline(card),
        *(
            [title, *(line for each in sentences for line in _item(each))]
            for title, sentences in (
                ("How the trainings went, on validation clips:", _trainings(card)),
                ("Not known:", card.gaps),
                ("Limits:", _limits(card)),
                ("Licence:", _licence(card)),
            )
            if sentences
        ),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def as_markdown(card: ModelCard) -> str:
    """The whole card, as README.md of a folder that is taken elsewhere."""
    return "\n".join(line for part in _sections(card) for line in (*part, "")).rstrip() + "\n"


def _sections(card: ModelCard) -> Iterator[list[str]]:
    head = yaml.safe_dump({"library_name": "keras", "tags": ["soundback", "video-to-audio", "wavenet"]})
    yield ["---", *head.splitlines(), "---"]
    yield ["# Models for Soundback"]
    yield [
        f"They give silent video its sound back: a classifier and a spotter watch the picture ({_watches(card)}) and "
        "write a cue sheet (what sounds when, and how loud); a WaveNet sounds it.",
        "",
        f"Sound: mono, {card.sample_rate} Hz. Categories: {', '.join(_plain(each.name) for each in card.categories)}.",
    ]
    yield ["## How to use them"]
    yield [f"Install Soundback {card.versions.get('Soundback', '')} or newer; then, where FOLDER is this folder:"]
    yield [
        "```",
        "soundback info FOLDER     # checks every file",
        "soundback generate SILENT.mp4 -o WITH_SOUND.mp4 --models FOLDER",
        "```",
    ]
    yield [
        "```python",
        "from soundback import Soundtrack",
        "",
        'Soundtrack.load("FOLDER").generate("SILENT.mp4", "WITH_SOUND.mp4")',
        "```",
    ]
    yield [
        "params.yaml says how they were trained and how a track is cut and joined; labels.csv names the categories; "
        "bundle.json has the sha256 of every file and all figures. Nothing else is needed. Keras loads the models in "
        f"safe mode: they hold no code. They were tried, when they were exported, under {_versions(card)}."
    ]
    yield ["## What they were trained on"]
    yield [f"{_data(card)[0].upper()}{_data(card)[1:]}."]
    yield _categories(card)
    yield ["## How well they do"]
    yield from _measured(card)
    if trainings := _trainings(card):
        yield ["How the trainings went, on validation clips:"]
        yield [f"* {sentence}" for sentence in trainings]
    if card.gaps:
        yield ["Not known:"]
        yield [f"* {sentence}" for sentence in card.gaps]
    yield ["## Limits"]
    yield [f"* {sentence}" for sentence in _limits(card)]
    yield ["## Licence"]
    yield [" ".join(_licence(card))]


def _watches(card: ModelCard) -> str:
    return f"{card.frame_rate} frames per second of {card.frame_size}x{card.frame_size} pixels, grayscale"


def _versions(card: ModelCard) -> str:
    return ", ".join(f"{what} {version}" for what, version in card.versions.items())


def _data(card: ModelCard) -> str:
    """Kind of source and number of videos."""
    source = DATA.get(card.source or "", "videos of a source that is not known")
    totals = {split: sum(each.n_videos.get(split, 0) for each in card.categories) for split in SPLITS}
    if not any(totals.values()):
        return f"{source}; how many is not known"
    counted = ", ".join(f"{totals[split]} {purpose}" for split, purpose in PURPOSES.items())
    return f"{source}; {sum(totals.values())} videos with usable sound: {counted}"


def _categories(card: ModelCard) -> list[str]:
    rows = [
        [
            _plain(each.name),
            each.folder or "not known",
            each.label_mid or "-",
            *(str(each.n_videos.get(split, 0)) if each.n_videos else "-" for split in SPLITS),
        ]
        for each in card.categories
    ]
    return _markdown_table(["category", "folder", "YouTube-8M MID", *SPLITS], *rows)


def _headline(card: ModelCard) -> list[str]:
    """The rows that say most, beside their controls."""
    evaluation = card.figures.get("evaluation")
    if not evaluation:
        return []
    cells = _headline_cells(evaluation)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        f"On {evaluation['n_videos']} held-out videos, 95 % intervals in brackets; the judge is a listener that was "
        "trained on real",
        "sound alone, and a number says nothing without its controls, the other rows:",
        *("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells),
    ]


def _headline_cells(evaluation: Mapping[str, Any]) -> list[list[str]]:
    """A table, its head first; a column that fewer videos can tell says of how many it is."""
    rows, titles = evaluation["rows"], []
    for key, title in HEADLINE.items():
        n_told = rows["local_predicted"][key]["n"]
        titles.append(title if n_told == evaluation["n_videos"] else f"{title}, n {n_told}")
    told = {row: words for row, words in ROWS.items() if row in rows}
    return [
        ["", *titles],
        *([words, *(format_cell(rows[row][key]) for key in HEADLINE)] for row, words in told.items()),
    ]


def _measured(card: ModelCard) -> Iterator[list[str]]:
    evaluation = card.figures.get("evaluation")
    if not evaluation:
        yield ["Not evaluated: no table of these very models is known."]
        return
    yield [
        f"On {evaluation['n_videos']} held-out videos that no training saw, with 95 % intervals over them. Read the "
        "row of these models beside the others: a number without its controls says nothing."
    ]
    yield _markdown_table(*_headline_cells(evaluation))
    meanings = {column.key: column.meaning for column in COLUMNS}
    yield [f"* {title}: {meanings[key]}" for key, title in HEADLINE.items()]
    yield ["All of it, as `soundback metrics` prints it:"]
    yield ["```", *format_table(evaluation).splitlines(), "```"]
    yield [f"* `{row}`: {meaning}" for row, meaning in ROW_MEANINGS.items() if row in evaluation["rows"]]


def _trainings(card: ModelCard) -> list[str]:
    """What each training measured, beside what simpler predictors reach."""

    def told(kind: str, *keys: str) -> list[str]:
        return [format_number(card.figures[kind].get(key)) for key in keys]

    sentences = []
    if "classifier" in card.figures:
        right, f1, commonest = told("classifier", "accuracy", "macro_f1", "majority_accuracy")
        sentences.append(f"classifier: {right} right, macro F1 {f1} (always naming the commonest: {commonest} right)")
    if "spotter" in card.figures:
        correlation, error_db, f1 = told("spotter", "loudness_correlation", "loudness_error_db", "hit_f1_100ms")
        sentences.append(f"spotter: loudness correlation {correlation}, off by {error_db} dB, hits F1 at 100 ms {f1}")
    if "wavenet" in card.figures:
        bits = told("wavenet", "bits_per_sample", "linear_prediction_bits", "previous_sample_bits", "histogram_bits")
        sentences.append(
            "WaveNet: {} bits per sample (linear prediction {}, the previous sample {}, a histogram {})".format(*bits)
        )
    if "judge" in card.figures:
        sentences.append(f"judge, which scores sounds and makes none: {told('judge', 'accuracy')[0]} right")
    return sentences


def _limits(card: ModelCard) -> list[str]:
    """What they cannot do, and what their figures do not say."""
    limits = [
        f"They know these {len(card.categories)} categories and no others. What shows anything else should be unsure, "
        "and may be taken for one of them.",
        f"Where a frame is like nothing they know, or no category is {card.unsure_below:.0%} likely, they are unsure: "
        "such a stretch stays silent.",
        "One category sounds at a time; sounds that overlap in life are not mixed.",
        f"Nothing above {card.sample_rate / 2:g} Hz sounds, and 8-bit samples leave a faint hiss.",
    ]
    if card.source == "demo":
        limits.append(
            "They have seen nothing but a rendered world, and all figures are of it: these say that the method works, "
            "and nothing of how it does on YouTube or on camera video."
        )
    limits += [
        f"The {kind}'s training was cut off by its time limit (max_minutes) after {figures['steps_done']} steps."
        for kind, figures in card.figures.items()
        if figures.get("stopped_by") == "max_minutes"
    ]
    if "evaluation" not in card.figures:
        return [*limits, "How they do on videos that no training saw is not known."]
    claims = card.figures["evaluation"].get("claims", {}).values()
    limits += [
        f"FAILED, of what Soundback claims for itself: {claim['claim']} ({format_cell(claim)}; needed: "
        f"{claim['needed']})."
        for claim in claims
        if claim["holds"] is False
    ]
    if unknown := [claim["claim"] for claim in claims if claim["holds"] is None]:
        limits.append(f"Not measured, of the same: {'; '.join(unknown)}.")
    return limits


def _licence(card: ModelCard) -> list[str]:
    return [LICENCE, *([LICENCE_OF_DATA[card.source]] if card.source in LICENCE_OF_DATA else [])]


def _plain(text: str) -> str:
    """The text with what would be Markdown's or HTML's made harmless: names are others' words."""
    for mark in "\\`*_|<[":
        text = text.replace(mark, f"\\{mark}")
    return text


def _markdown_table(head: Sequence[str], *rows: Sequence[str]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _hung(title: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=title.ljust(12), subsequent_indent=" " * 12) if text else []


def _item(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, WIDTH, initial_indent="  - ", subsequent_indent="    ")
