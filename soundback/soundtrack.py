"""From a silent video to the same video with sound, in constant memory: frames, cue sheet, waveform, mux."""

import itertools
import math
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np

from soundback import params as settings_of
from soundback.cues import CueSheet, Segment
from soundback.errors import DataContractError, MediaError, ModelError
from soundback.media import ffmpeg, muxing
from soundback.media.audio import write_wav_pieces
from soundback.media.containers import outline
from soundback.model_files import load_model
from soundback.outputs import check_free
from soundback.params import load_params
from soundback.progress import Progress, no_progress
from soundback.sounding.rendering import Renderer, only
from soundback.sounding.sampler import Sampler
from soundback.sounding.xla_sampler import open_sampler
from soundback.takes import Clock, Piece, Sounded, Take, WhenUnsure, choose_gain, cut_piece, stems_folder
from soundback.watching.classifier import Classifier
from soundback.watching.segments import Watched, find_segments
from soundback.watching.shots import split_shots
from soundback.watching.spotter import Spotter

PARAMS = "params.yaml"
OWN_CLIPS = "train on clips of your own (soundback table CLIPS, dvc repro, soundback generate)"
MOSTLY = 0.5
"""Of a video; where less than that is recognised, its user is told."""

SLACK_S = 0.5
"""By how much a cue sheet may be longer or shorter than the video it is said to be of: containers round."""


class Soundtrack:
    """The trained models, ready to give silent video its sound back."""

    def __init__(
        self, classifier: Classifier, spotter: Spotter, sampler: Sampler, card: dict, *, params: settings_of.Soundtrack
    ) -> None:
        self.classifier = classifier
        self.spotter = spotter
        self.sampler = sampler
        self.renderer = Renderer(sampler, card, params=params)
        self.params = params
        self.categories = self.renderer.categories
        self.sample_rate = self.renderer.sample_rate
        self.frame_rate = self.renderer.frame_rate
        self.hop = self.renderer.hop
        for what, one, other in (
            ("categories", classifier.categories, self.categories),
            ("frame rate", spotter.frame_rate, self.frame_rate),
            ("frame size and fit", (classifier.size, classifier.fit), (spotter.size, spotter.fit)),
        ):
            if one != other:
                raise ModelError(
                    f"Classifier, spotter and WaveNet come from different trainings: {what} {one} and {other}. "
                    "Train them again with `dvc repro`."
                )

    @classmethod
    def load(cls, models: Path | str, *, params: settings_of.Soundtrack | None = None) -> Self:
        """Loads classifier.keras, spotter.keras and wavenet.keras from a folder: data/models, or a bundle.

        Args:
          models: the folder.
          params: how to cut, join and draw; by default those of the folder's params.yaml, or else of the one here.

        Raises:
          ModelError: when one is missing, or they do not belong together.
          ParamsError: when the params cannot be read.
        """
        models = Path(models)
        network, card = load_model(models / "wavenet.keras", "wavenet")
        if params is None:
            beside = models / PARAMS
            params = load_params(beside if beside.is_file() else Path(PARAMS)).soundtrack
        return cls(
            Classifier.load(models / "classifier.keras"),
            Spotter.load(models / "spotter.keras"),
            open_sampler(network, params.weights),
            card,
            params=params,
        )

    def spot(self, video: Path | str, take: Take = Take(), progress: Progress = no_progress) -> CueSheet:
        """Watches a video and writes down what sounds when, and how loud.

        Args:
          video: any file that ffmpeg reads.
          take: its category and what to do where it is unsure are used.
          progress: called with frames.

        Raises:
          MediaError: when the file is not a readable video.
          DataContractError: when the models do not know the category.
        """
        video = Path(video)
        self._check_category(take.category)
        total = max(1, round((outline(video).duration_s or 0.0) * self.frame_rate))
        frames = ffmpeg.read_frames(
            video, frame_rate=self.frame_rate, size=self.classifier.size, fit=self.classifier.fit
        )
        watched = self.watch(_counted(frames, total, progress), when_unsure=take.when_unsure)
        if watched.sheet.n_frames == 0:
            raise MediaError("corrupt", f"{video} holds no picture that can be decoded.")
        return _all_of(watched, take.category) if take.category else watched.sheet

    def spot_frames(self, frames: np.ndarray | Iterable[np.ndarray]) -> CueSheet:
        """Watches frames.

        Args:
          frames: uint8 [n, size, size], grayscale, at the models' frame rate and size; or several of these in a row.

        Raises:
          DataContractError: when they are something else.
        """
        batches = [frames] if isinstance(frames, np.ndarray) else frames
        return self.watch(map(self._checked, batches)).sheet

    def watch(self, batches: Iterable[np.ndarray], *, when_unsure: WhenUnsure = "quiet") -> Watched:
        """As `spot_frames`, with what the cue sheet was written from.

        Args:
          batches: uint8 [n, size, size] each.
          when_unsure: as in `Take`.
        """
        # Two arrays that grow: many small ones would keep what lies between them from being given back.
        probabilities, known = array("f"), bytearray()
        curves = [np.zeros((2, 0), np.float32)]
        cuts: list[int] = []

        def classified(shot: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
            for _, frames in shot:
                seen, is_known = self.classifier.recognise(frames)
                probabilities.frombytes(seen.tobytes())
                known.extend(is_known.tobytes())
                yield frames

        # Each shot on its own: that a picture gives way to another is nothing that sounds.
        for number, shot in itertools.groupby(split_shots(batches), key=lambda numbered: numbered[0]):
            if number:
                cuts.append(sum(len(curve[0]) for curve in curves))
            curves.append(np.stack(self.spotter.predict(classified(shot))))
        all_seen = np.frombuffer(probabilities, np.float32).reshape(-1, len(self.categories))
        all_known = np.frombuffer(known, bool)
        loudness_db, hit = np.concatenate(curves, axis=1)
        for cut in cuts:
            # Where a shot is cut off, half a peak is seen at most: of 31 hits there 26 were none.
            hit[cut - 1 : cut + 1] = 0
        quiet = when_unsure == "quiet"
        segments = find_segments(
            np.where(all_known[:, None], all_seen, 0) if quiet else all_seen,
            cuts,
            categories=self.categories,
            unsure_below=self.classifier.unsure_below if quiet else 0.0,
            frame_rate=self.frame_rate,
            params=self.params,
        )
        return Watched(all_seen, all_known, tuple(cuts), CueSheet(self.frame_rate, segments, loudness_db, hit))

    def render(self, sheet: CueSheet, *, seed: int = 0, with_curves: bool = True) -> np.ndarray:
        """Sounds a whole cue sheet.

        Args:
          sheet: what to sound.
          seed: the same sheet and seed give the same waveform, bit for bit.
          with_curves: False lets the model hear the categories alone.

        Returns:
          float32 [n_frames * hop] in [-1, 1], at `sample_rate`.
        """
        return np.concatenate([np.zeros(0, np.float32), *self.stream(sheet, seed=seed, with_curves=with_curves)])

    def stream(
        self, sheet: CueSheet, *, seed: int, with_curves: bool = True, workers: int | None = None
    ) -> Iterator[np.ndarray]:
        """Sounds a cue sheet piece by piece, see `Renderer.stream`; in a row they are the waveform of `render`."""
        return self.renderer.stream(sheet, seed=seed, with_curves=with_curves, workers=workers)

    def generate(
        self,
        video: Path | str,
        out: Path | str,
        *,
        cues: CueSheet | None = None,
        take: Take = Take(),
        overwrite: bool = False,
        progress: Progress = no_progress,
    ) -> Sounded:
        """Writes the video again, its picture untouched, with the sound that fits it.

        Args:
          video: any file that ffmpeg reads.
          out: .mp4, .mov, .mkv, .webm, or .wav for the sound alone.
          cues: what to sound; by default what `spot` sees. With a stretch, it is still that of the whole video, and the
            stretch sounds as it does in the whole.
          take: how.
          overwrite: whether what is to be written may exist.
          progress: called with milliseconds of video: half of them are watched, half sounded.

        Returns:
          What was written, and what it was made from.

        Raises:
          SoundbackError: when the output exists, the video cannot be read, or what is asked for cannot be; nothing is
            written then.
        """
        video, out = Path(video), Path(out)
        muxing.check_output(out, video, overwrite=overwrite)
        if take.stems:
            check_free(stems_folder(out), overwrite=overwrite)
        self._check_category(take.category)
        if cues is not None:
            self.check_sheet(cues, video)
        clock = Clock()
        with tempfile.TemporaryDirectory() as scratch:
            piece = cut_piece(video, take, Path(scratch))
            half_ms = round(500 * piece.length_s)
            with clock.measure("watching"):
                sheet = cues or self.spot(
                    piece.path, take, lambda done, total: progress(half_ms * done // total, 2 * half_ms)
                )
            with clock.measure("sounding"):
                tracks = self._sound(
                    sheet,
                    piece if cues else replace(piece, start_s=0.0),
                    take,
                    Path(scratch),
                    lambda done, total: progress(half_ms + half_ms * done // total, 2 * half_ms),
                )
            with clock.measure("writing"):
                gain_db, notes = choose_gain(list(tracks.values()), take.loudness_lufs, self.sample_rate)
                wanted = muxing.Wanted(take.mix, gain_db)
                joined = muxing.join(piece.path, list(tracks.values()), out, wanted=wanted, overwrite=overwrite)
                stems: list[Path] = []
                if take.stems:
                    stems = muxing.write_stems(
                        piece.path, tracks, stems_folder(out), gain_db=gain_db, overwrite=overwrite
                    )
        if cues is None and take.category is None:
            notes += self.unrecognised(sheet, video)
        notes += [note for note in (piece.note, joined.note) if note]
        return Sounded(joined.path, sheet, tuple(stems), tuple(notes), piece.length_s, clock.spent_s)

    def check_sheet(self, sheet: CueSheet, video: Path) -> None:
        """Refuses a cue sheet that these models cannot sound, or that is not of this video.

        Raises:
          DataContractError: saying what does not fit.
        """
        for segment in sheet.segments:
            self._check_category(segment.category)
        if sheet.frame_rate != self.frame_rate:
            raise DataContractError(
                f"The cue sheet has {sheet.frame_rate} loudness rows per second; the models need {self.frame_rate}."
            )
        length_s, told_s = outline(video).duration_s, sheet.n_frames / sheet.frame_rate
        if abs(length_s - told_s) > max(SLACK_S, 2 / self.frame_rate):
            raise DataContractError(
                f"The cue sheet is {told_s:.2f} s long, {video.name} {length_s:.2f} s. Write its own with "
                f"`soundback cues`."
            )

    def _sound(self, sheet: CueSheet, piece: Piece, take: Take, scratch: Path, progress: Progress) -> dict[str, Path]:
        """Sounds a piece of a sheet into one wav file, or into one for each category."""
        renderer = self.renderer.at_temperature(take.temperature)
        first = round(piece.start_s * self.sample_rate)
        end = min(first + math.ceil(piece.length_s * self.sample_rate), sheet.n_frames * self.hop)
        gain = muxing.quiet_gain(piece.path, sample_rate=self.sample_rate) if take.mix == "fill" else None
        names = sorted({segment.category for segment in sheet.segments}) if take.stems else []
        parts = {name: only(sheet, name) for name in names} or {"": sheet}

        def heard(part: CueSheet, number: int) -> Iterator[np.ndarray]:
            position = 0

            def note(done: int, total: int) -> None:
                progress(number * total + done, len(parts) * total)

            for sound in renderer.stream(part, seed=take.seed, stretch=(first, end), progress=note):
                yield sound if gain is None else sound * gain(position, position + len(sound))
                position += len(sound)
            progress(number + 1, len(parts))

        tracks = {}
        for number, (name, part) in enumerate(parts.items()):
            tracks[name] = scratch / f"{number}.wav"
            write_wav_pieces(tracks[name], heard(part, number), self.sample_rate)
        return tracks

    def unrecognised(self, sheet: CueSheet, video: Path) -> list[str]:
        """What to tell the user of a video in which little was recognised: a sentence, or none."""
        if (share := quiet_share(sheet)) < MOSTLY:
            return []
        return [
            f"In {share:.0%} of {video.name} nothing was recognised, and it stays quiet there: the models know "
            f"{', '.join(self.categories)}. Either say what it is with --category (when it sounds and how loud is seen "
            f"whatever it is), or sound what is likeliest with --when-unsure best, or {OWN_CLIPS}."
        ]

    def _checked(self, frames: np.ndarray) -> np.ndarray:
        size = self.classifier.size
        if frames.dtype != np.uint8 or frames.shape[1:] != (size, size):
            raise DataContractError(
                f"Frames must be uint8 [n, {size}, {size}], found {frames.dtype} {list(frames.shape)}."
            )
        return frames

    def _check_category(self, category: str | None) -> None:
        if category is not None and category not in self.categories:
            raise DataContractError(
                f"The models do not know {category!r}. They know {', '.join(self.categories)}. To have "
                f"another, {OWN_CLIPS}."
            )


def quiet_share(sheet: CueSheet) -> float:
    """Share of a sheet's frames that no segment covers, in [0, 1]."""
    sounds = np.zeros(sheet.n_frames, bool)
    for segment in sheet.segments:
        sounds[sheet.frames_of(segment)] = True
    return 1 - float(sounds.mean())


def _all_of(watched: Watched, category: str) -> CueSheet:
    """What was seen, as if all of it were of one category: a segment for each shot."""
    sheet = watched.sheet
    borders = [0, *watched.cuts, sheet.n_frames]
    segments = tuple(
        Segment(start / sheet.frame_rate, end / sheet.frame_rate, category, 1.0)
        for start, end in itertools.pairwise(borders)
        if end > start
    )
    return replace(sheet, segments=segments)


def _counted(batches: Iterable[np.ndarray], total: int, progress: Progress) -> Iterator[np.ndarray]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress(min(done, total), total)
