"""Scores a folder of generated sounds against a folder of real ones, whatever system made them.

All sounds, real and generated, are brought to one sample rate, cut to the shorter of the two and then brought to one
loudness. Otherwise a system would gain or lose by its format and its level, which anyone can change afterwards, and an
ear with a floor would hear more in the louder one.

What is measured how is fixed here, not in params.yaml: two people's numbers are to be comparable, whatever they train.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from soundback.errors import MediaError, SoundbackError
from soundback.judging import metrics, scores
from soundback.judging.distances import diversities, frechet_distances, kernel_distances
from soundback.judging.intervals import Cell, Interval
from soundback.judging.judge import Judge, Opinion
from soundback.judging.pairs import Pair, Truth, find_label, find_pairs, is_media, list_files, read_truth
from soundback.judging.rows import SHIFT_S, shift
from soundback.judging.together import in_parallel
from soundback.judging.trials import Ear, Scores
from soundback.media import ffmpeg, loudness
from soundback.media.audio import PIECE_SAMPLES
from soundback.params import Audio, Cues
from soundback.progress import Progress, no_progress

T = TypeVar("T")

SAMPLE_RATE, FRAME_RATE = 16000, 25
"""Hz, where no judge says otherwise; frames of loudness and of pictures per second."""

LOUDNESS_LUFS, TRUE_PEAK_DB, SILENCE_DB = -20.0, -1.0, -60.0
NEVER_LOUDER = f"never louder than {SILENCE_DB:g} dBFS"
SHORTEST_S = loudness.GATING_BLOCK_S
"""Shorter sound has no loudness."""

CUES = Cues(loudness_window_s=0.16, loudness_floor_db=-60.0, hit_quantile=0.99, hit_threshold=0.2)
"""How loudness is measured; of hits nothing is asked."""

PICTURE_SIZE = 112

MAX_FILES, MAX_WINDOWS = 500, 4000
"""Of a set, to tell its distances from, evenly chosen: memory grows with the square of the windows."""

NOT_TOLD = Interval(None, None, None, 0)


@dataclass(frozen=True, eq=False)
class Heard:
    """What is heard of one sound.

    Attributes:
      onsets_s: float [n].
      loudness_db: float32 [n_frames].
      opinion: of the judge; None where there is none.
    """

    onsets_s: np.ndarray
    loudness_db: np.ndarray
    opinion: Opinion | None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one name.

    Attributes:
      name: of the pair.
      label: its category, None where nobody says.
      status: one of `scores.STATUSES`.
      reason: why it is not ok.
      length_difference_s: generated minus reference, before both were cut; None where not both were read.
      scores: of every row, {row: scores}; empty where it could not be scored.
      embeddings: of the judge, {row: float32 [n_windows, n_dimensions]}; empty without one.
    """

    name: str
    label: str | None
    status: str
    reason: str | None = None
    length_difference_s: float | None = None
    scores: Mapping[str, Scores] = field(default_factory=dict)
    embeddings: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Results:
    """What `evaluate_folders` found.

    Attributes:
      evaluation: of the whole set, as it goes to JSON.
      scores: of every file, rows of `scores.SCORES`.
    """

    evaluation: dict[str, Any]
    scores: list[dict[str, Any]]


class _Lost(Exception):
    """A pair cannot be scored; `status` is one of `scores.STATUSES`."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def evaluate_folders(
    generated: Path,
    reference: Path,
    *,
    judge: Path,
    sample_rate: int | None = None,
    training: Path | None = None,
    truth: Path | None = None,
    progress: Progress = no_progress,
) -> Results:
    """Scores every file of a folder against the one of its name in another.

    Args:
      generated: the sounds or videos in question.
      reference: the real ones.
      judge: model file; where there is none, what a judge hears is not told.
      sample_rate: Hz, at which all is heard; None for the judge's, or `SAMPLE_RATE` without one.
      training: any tree of real sound to tell distances to; None for the references.
      truth: what people say of the files, see `pairs.read_truth`.
      progress: called after every file.

    Raises:
      SoundbackError: when a folder is missing, no file has a partner, none could be scored, or two arguments exclude
        each other.
      DataContractError: when the truth has faults.
      ModelError: when the judge cannot be read.
    """
    pairs = find_pairs(generated, reference)
    known = _known_sounds(training) if training is not None else []
    listener = Listener.load(judge, sample_rate)
    if known and listener.judge is None:
        raise SoundbackError(f"--training is for a judge to hear, and there is none at {judge}. Say --judge FILE.")
    told = _read_truth(truth, pairs, listener)

    n_files = len(pairs) + len(known)
    outcomes = in_parallel(
        [partial(listener.compare, pair, told.get(pair.name, Truth())) for pair in pairs],
        lambda done: progress(done, n_files),
    )
    _check_any(outcomes)
    embeddings = in_parallel(
        [partial(listener.embed_file, path) for path in known], lambda done: progress(len(pairs) + done, n_files)
    )
    if known and all(embedding is None for embedding in embeddings):
        raise SoundbackError(f"Not one of the {len(known)} sounds in {training} can be heard. Give another --training.")
    return Results(_summarise(outcomes, embeddings, listener, judge), _to_rows(outcomes))


class Listener:
    """Reads and hears every sound alike.

    Attributes:
      judge: who says what it is; None where there is none.
      ear: what hears onsets and loudness.
    """

    def __init__(self, judge: Judge | None, sample_rate: int) -> None:
        self.judge = judge
        self.ear = Ear(sample_rate, sample_rate // FRAME_RATE, CUES)
        self._audio = Audio(
            sample_rate=sample_rate,
            loudness_lufs=LOUDNESS_LUFS,
            true_peak_db=TRUE_PEAK_DB,
            min_duration_s=SHORTEST_S,
            silence_db=SILENCE_DB,
        )

    @classmethod
    def load(cls, judge: Path, sample_rate: int | None) -> Self:
        """Takes the judge of a file, where there is one.

        Raises:
          SoundbackError: when the rate is not the judge's, or no frame would be whole samples long.
          ModelError: when the judge cannot be read.
        """
        known = Judge.load(judge) if judge.is_file() else None
        if known is not None and sample_rate not in (None, known.sample_rate):
            raise SoundbackError(
                f"The judge at {judge} hears {known.sample_rate} Hz, not {sample_rate}. Leave --sample-rate away, or "
                "say --judge none to do without."
            )
        rate = known.sample_rate if known is not None else SAMPLE_RATE if sample_rate is None else sample_rate
        if rate <= 0 or rate % FRAME_RATE:
            raise SoundbackError(
                f"Sound of {rate} Hz cannot be cut into {FRAME_RATE} frames a second: give a --sample-rate that is a "
                f"multiple of {FRAME_RATE}."
            )
        return cls(known, rate)

    @property
    def categories(self) -> tuple[str, ...]:
        """Those of the judge; none without one."""
        return () if self.judge is None else self.judge.categories

    def compare(self, pair: Pair, truth: Truth) -> Outcome:
        """Scores the sound of a pair, and its controls."""
        label = find_label(pair.name, self.categories, truth.category)
        if pair.status != "ok":
            return Outcome(pair.name, label, pair.status, pair.reason)
        try:
            generated, reference, length_difference_s = self._read_pair(pair)
        except _Lost as lost:
            return Outcome(pair.name, label, lost.status, str(lost))
        heard = {row: self.hear(waveform) for row, waveform in self._sounds(generated, reference).items()}
        length_s = len(reference) / self.ear.sample_rate
        # What people heard after the cut nobody could have sounded. The ear's own onsets stay as they are: one may lie
        # at the very end, and the reference is to agree with itself.
        told_s = None if truth.onsets_s is None else truth.onsets_s[truth.onsets_s < length_s]
        onsets_s = heard["reference"].onsets_s if told_s is None else told_s
        motion_s = _motion(pair, length_s)
        silent = not generated.any()
        return Outcome(
            pair.name,
            label,
            "silent" if silent else "ok",
            f"generated: {NEVER_LOUDER}; scored as silence." if silent else None,
            length_difference_s,
            {row: self._score(each, heard["reference"], onsets_s, label, motion_s) for row, each in heard.items()},
            {row: each.opinion.embedding for row, each in heard.items() if each.opinion is not None},
        )

    def hear(self, waveform: np.ndarray) -> Heard:
        """Listens to one sound, float32 [time] at the ear's sample rate."""
        opinion = None if self.judge is None else self.judge.listen(waveform)
        return Heard(self.ear.find_onsets(waveform), self.ear.measure_loudness(waveform), opinion)

    def embed_file(self, path: Path) -> np.ndarray | None:
        """The judge's embedding of a file, float32 [n_windows, n_dimensions]; None where nothing is heard."""
        try:
            waveform = self._match(self._read(path, "training"))
        except _Lost:
            return None
        return self.judge.embed(waveform) if self.judge is not None and waveform.any() else None

    def _read(self, path: Path | None, side: str) -> np.ndarray:
        """The sound of a file at the ear's sample rate."""
        if path is None:
            raise _Lost(f"no_{side}", f"{side}: there is no file of this name.")
        try:
            waveform = ffmpeg.read_waveform(path, sample_rate=self.ear.sample_rate)
        except MediaError as error:
            # The folder may be anywhere; the table must be the same everywhere.
            reason = f"{side}: {str(error).replace(str(path), path.name)}"
            raise _Lost("no_sound" if error.status == "no_audio" else "unreadable", reason) from error
        if not waveform.size:
            raise _Lost("no_sound", f"{side}: {path.name} has a sound track of no length.")
        return waveform

    def _read_pair(self, pair: Pair) -> tuple[np.ndarray, np.ndarray, float]:
        """Both sounds as they are heard, equally long, whole frames; and by how many seconds the first was longer."""
        generated, reference = self._read(pair.generated, "generated"), self._read(pair.reference, "reference")
        difference_s = (len(generated) - len(reference)) / self.ear.sample_rate
        n_samples = min(len(generated), len(reference)) // self.ear.hop * self.ear.hop
        if n_samples < SHORTEST_S * self.ear.sample_rate:
            shared_s = n_samples / self.ear.sample_rate
            raise _Lost("too_short", f"{shared_s:.2f} s are in both; {SHORTEST_S:g} s have a loudness.")
        # Loudness after cutting: what is compared is what must be equally loud.
        generated, reference = self._match(generated[:n_samples]), self._match(reference[:n_samples])
        if not reference.any():
            raise _Lost("silent_reference", f"reference: {NEVER_LOUDER}.")
        return generated, reference, difference_s

    def _sounds(self, generated: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
        """What is heard in each row of `scores.ROWS`."""
        return {
            "generated": generated,
            "reference": reference,
            "reference_shifted": shift(reference, round(SHIFT_S * self.ear.sample_rate)),
            "silence": np.zeros_like(reference),
        }

    def _match(self, waveform: np.ndarray) -> np.ndarray:
        """The sound at the loudness of all, by a linear gain as in `extract_audio`; zeros where it is silent."""
        pieces = (waveform[start : start + PIECE_SAMPLES] for start in range(0, len(waveform), PIECE_SAMPLES))
        measured = loudness.measure(pieces, sample_rate=self.ear.sample_rate, silence_db=SILENCE_DB)
        # A gain would make a roar of what nobody hears.
        if measured.silence_share == 1:
            return np.zeros_like(waveform)
        return loudness.choose_gain(measured, self._audio).apply(waveform)

    def _score(
        self, heard: Heard, reference: Heard, onsets_s: np.ndarray, label: str | None, motion_s: np.ndarray | None
    ) -> Scores:
        """Scores what is heard of one row by all columns that one file can tell."""
        curves = reference.loudness_db, heard.loudness_db
        told = metrics.evaluate(onsets_s, heard.onsets_s, *curves, frame_rate=FRAME_RATE, motion_s=motion_s)
        right = kept = divergence = None
        if heard.opinion is not None and reference.opinion is not None:
            divergence = metrics.category_divergence(reference.opinion.probabilities, heard.opinion.probabilities)
            if label in self.categories:
                right = float(self._name(heard.opinion) == label)
                # What the judge takes wrong even of the real sound says nothing of this one.
                kept = right if self._name(reference.opinion) == label else None
        return {"category_accuracy": right, "category_kept": kept, "category_divergence": divergence, **told}

    def _name(self, opinion: Opinion) -> str:
        return self.categories[int(opinion.probabilities.argmax())]


def _motion(pair: Pair, length_s: float) -> np.ndarray | None:
    """When the picture of the reference changes most, or else that of the generated file; None where none has one."""
    for path in (pair.reference, pair.generated):
        if path is None:
            continue
        try:
            frames = list(ffmpeg.read_frames(path, frame_rate=FRAME_RATE, size=PICTURE_SIZE, fit="stretch"))
        except MediaError:
            # Whether there is none or none can be decoded: the n of the column tells.
            continue
        peaks_s = metrics.find_motion_peaks(np.concatenate(frames), FRAME_RATE)
        return peaks_s[peaks_s < length_s]
    return None


def _read_truth(path: Path | None, pairs: Sequence[Pair], listener: Listener) -> dict[str, Truth]:
    if path is None:
        return {}
    return read_truth(path, [pair.name for pair in pairs if pair.status != "other_kind"], listener.categories)


def _known_sounds(training: Path) -> list[Path]:
    """Sounds to tell distances to, evenly chosen where there are more than are needed.

    Raises:
      SoundbackError: when there are none.
    """
    files = [path for paths in list_files(training).values() for path in paths if is_media(path)]
    if not files:
        raise SoundbackError(
            f"There is no sound in {training} to tell distances to. Give another folder to --training."
        )
    return _thin(files, MAX_FILES)


def _check_any(outcomes: Sequence[Outcome]) -> None:
    """Refuses a set of which nothing could be scored."""
    if any(outcome.scores for outcome in outcomes):
        return
    lost = ", ".join(f"{n} {status}" for status, n in Counter(outcome.status for outcome in outcomes).items())
    first = next(outcome for outcome in outcomes if outcome.reason)
    raise SoundbackError(
        f"Not one of {len(outcomes)} files could be scored: {lost}. The first is {first.name}: {first.reason}"
    )


def _summarise(
    outcomes: Sequence[Outcome], training: Sequence[np.ndarray | None], listener: Listener, judge: Path
) -> dict[str, Any]:
    """The evaluation as it goes to JSON."""
    table = _to_rows(outcomes)
    scored = [outcome for outcome in outcomes if outcome.scores]
    known = [embedding for embedding in training if embedding is not None]
    rows = scores.describe(table, scores.BOOTSTRAP)
    for row, cells in rows.items():
        cells |= _set_cells(scored, row, known)
    labels = sorted({outcome.label for outcome in scored if outcome.label is not None})
    lost = Counter(outcome.status for outcome in outcomes if not outcome.scores)
    return {
        "n_files": len(scored),
        "n_silent": sum(outcome.status == "silent" for outcome in scored),
        "n_other_length": sum(abs(outcome.length_difference_s or 0) > 1 / FRAME_RATE for outcome in scored),
        "sample_rate": listener.ear.sample_rate,
        "loudness_lufs": LOUDNESS_LUFS,
        "judge": None
        if listener.judge is None
        else {
            "accuracy": rows["reference"]["category_accuracy"],
            "categories": list(listener.categories),
            "sha256": hashlib.sha256(judge.read_bytes()).hexdigest(),
            "distances_to": "training" if training else "reference",
            "n_training": len(known),
            "n_training_lost": len(training) - len(known),
        },
        "rows": rows,
        "categories": {
            label: scores.describe([row for row in table if row["label"] == label], scores.BOOTSTRAP)
            for label in labels
        },
        "lost": {status: lost[status] for status in scores.STATUSES if lost[status]},
    }


def _set_cells(outcomes: Sequence[Outcome], row: str, known: Sequence[np.ndarray]) -> dict[str, Cell]:
    """What is told of a whole set in the judge's embedding: distances to real sound, and how different its sounds are.

    Args:
      outcomes: those that were scored.
      row: which of their sounds.
      known: the judge's embedding of real training sounds; when empty, the references are taken.
    """
    heard = _thin([outcome for outcome in outcomes if outcome.embeddings], MAX_FILES)
    of_set = _thin_windows([outcome.embeddings[row] for outcome in heard])
    real = _thin_windows(known or [outcome.embeddings["reference"] for outcome in heard])
    labelled = [index for index, outcome in enumerate(heard) if outcome.label is not None]
    labels, of_labelled = [str(heard[index].label) for index in labelled], [of_set[index] for index in labelled]

    def told(embeddings: Sequence[np.ndarray], of_counts: Callable[[np.ndarray], np.ndarray], least: float) -> Cell:
        return (scores.BOOTSTRAP.statistic(len(embeddings), of_counts, least=least) if embeddings else NOT_TOLD).cell()

    least = scores.SET_COLUMNS
    return {
        column: told(embeddings, of_counts, least[column])
        for column, embeddings, of_counts in (
            ("frechet_distance", of_set, lambda counts: frechet_distances(real, of_set, counts)),
            ("kernel_distance", of_set, lambda counts: kernel_distances(real, of_set, counts)),
            ("diversity", of_labelled, lambda counts: diversities(of_labelled, labels, counts)),
        )
    }


def _thin(things: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly chosen."""
    return list(things[:: -(-len(things) // most) or 1])


def _thin_windows(embeddings: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The windows of a set, evenly chosen where there are more than `MAX_WINDOWS`."""
    each = MAX_WINDOWS // max(1, len(embeddings))
    return [windows[np.linspace(0, len(windows) - 1, min(len(windows), each)).astype(int)] for windows in embeddings]


def _to_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Rows of `scores.SCORES`: of every name one, and its controls where it was scored."""
    nothing = dict.fromkeys((*scores.CLIP_COLUMNS, *scores.MODEL_COLUMNS))
    found = []
    for row in scores.ROWS:
        for outcome in outcomes:
            if row == "generated":
                told = {
                    "status": outcome.status,
                    "reason": outcome.reason,
                    "length_difference_s": outcome.length_difference_s,
                }
            elif outcome.scores:
                told = {"status": "ok", "reason": None, "length_difference_s": None}
            else:
                continue
            named = {"row": row, "name": outcome.name, "video_id": outcome.name, "label": outcome.label}
            found.append(named | told | nothing | outcome.scores.get(row, {}))
    return found
