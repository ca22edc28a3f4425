"""From a silent video to the same video with sound, in constant memory: frames, cue sheet, waveform, mux."""

import itertools
import logging
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import joblib
import numpy as np
import soundfile

from soundback import params as settings_of
from soundback.cues import CueSheet, Segment, conditioning
from soundback.errors import MediaError, ModelError
from soundback.media import audio, ffmpeg
from soundback.model_files import load_model
from soundback.progress import Progress, no_progress
from soundback.sounding import fader
from soundback.sounding.sampler import Part, Sampler
from soundback.sounding.wavenet import CUE_CONTEXT
from soundback.sounding.xla_sampler import open_sampler
from soundback.watching.classifier import Classifier
from soundback.watching.segments import Watched, find_segments
from soundback.watching.shots import split_shots
from soundback.watching.spotter import Spotter

log = logging.getLogger(__name__)

MOST_TOGETHER = 8
"""Units that a core sounds at once; the more, the fewer times each weight is read, and the more memory it takes."""


@dataclass(frozen=True)
class _Unit:
    """A stretch that is rendered on its own: frames [start, end) of one segment."""

    start: int
    end: int
    segment: Segment


@dataclass(frozen=True, eq=False)
class _Told:
    """What the network hears of a unit, and what the fader does.

    Attributes:
      first: frame at which its piece begins.
      pre_roll: frames that are sounded in front of that, for the network to find into it.
      part: for the sampler.
      loudness_db: float32 [n_frames] of the piece.
      hit: float32 [n_frames] of the piece.
    """

    first: int
    pre_roll: int
    part: Part
    loudness_db: np.ndarray
    hit: np.ndarray


class Soundtrack:
    """The trained models, ready to give silent video its sound back."""

    def __init__(
        self, classifier: Classifier, spotter: Spotter, sampler: Sampler, card: dict, *, params: settings_of.Soundtrack
    ) -> None:
        self.classifier = classifier
        self.spotter = spotter
        self.sampler = sampler
        self.params = params
        self.categories: tuple[str, ...] = tuple(card["categories"])
        self.sample_rate: int = card["sample_rate"]
        self.frame_rate: int = card["frame_rate"]
        self.hop: int = card["hop"]
        # As the curves of the training were measured, so the fader measures.
        self._measured = {
            "hop": self.hop,
            "window_samples": round(card["cues"]["loudness_window_s"] * self.sample_rate),
            "floor_db": card["cues"]["loudness_floor_db"],
        }
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
    def load(cls, models: Path, *, params: settings_of.Soundtrack) -> Self:
        """Loads classifier.keras, spotter.keras and wavenet.keras from a folder.

        Raises:
          ModelError: when one is missing, or they do not belong together.
        """
        network, card = load_model(models / "wavenet.keras", "wavenet")
        return cls(
            Classifier.load(models / "classifier.keras"),
            Spotter.load(models / "spotter.keras"),
            open_sampler(network, params.weights),
            card,
            params=params,
        )

    def spot(self, video: Path, progress: Progress = no_progress) -> CueSheet:
        """Watches a video and writes down what sounds when, and how loud.

        Raises:
          MediaError: when the file is not a readable video.
        """
        duration_s = ffmpeg.probe(video).duration_s or 0.0
        total = max(1, round(duration_s * self.frame_rate))
        frames = ffmpeg.read_frames(
            video, frame_rate=self.frame_rate, size=self.classifier.size, fit=self.classifier.fit
        )
        sheet = self.spot_frames(_counted(frames, total, progress))
        if sheet.n_frames == 0:
            raise MediaError("corrupt", f"{video} holds no picture that can be decoded.")
        return sheet

    def spot_frames(self, batches: Iterable[np.ndarray]) -> CueSheet:
        """Watches frames, however they are batched.

        Args:
          batches: uint8 [n, size, size] each, grayscale, at the models' frame rate.
        """
        return self.watch(batches).sheet

    def watch(self, batches: Iterable[np.ndarray]) -> Watched:
        """As `spot_frames`, with what the cue sheet was written from."""
        probabilities = [np.zeros((0, len(self.categories)), np.float32)]
        known = [np.zeros(0, bool)]
        curves = [np.zeros((2, 0), np.float32)]
        cuts: list[int] = []

        def classified(shot: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
            for _, frames in shot:
                seen, is_known = self.classifier.recognise(frames)
                probabilities.append(seen)
                known.append(is_known)
                yield frames

        # Each shot on its own: that a picture gives way to another is nothing that sounds.
        for number, shot in itertools.groupby(split_shots(batches), key=lambda numbered: numbered[0]):
            if number:
                cuts.append(sum(len(curve[0]) for curve in curves))
            curves.append(np.stack(self.spotter.predict(classified(shot))))
        all_seen, all_known = np.concatenate(probabilities), np.concatenate(known)
        loudness_db, hit = np.concatenate(curves, axis=1)
        for cut in cuts:
            # Where a shot is cut off, half a peak is seen at most: of 31 hits there 26 were none.
            hit[cut - 1 : cut + 1] = 0
        segments = find_segments(
            np.where(all_known[:, None], all_seen, 0),
            cuts,
            categories=self.categories,
            unsure_below=self.classifier.unsure_below,
            frame_rate=self.frame_rate,
            params=self.params,
        )
        return Watched(all_seen, all_known, tuple(cuts), CueSheet(self.frame_rate, segments, loudness_db, hit))

    def render(self, sheet: CueSheet, *, seed: int, with_curves: bool = True) -> np.ndarray:
        """Sounds a whole cue sheet.

        Args:
          sheet: what to sound.
          seed: the same sheet and seed give the same waveform, bit for bit.
          with_curves: False lets the model hear the categories alone.

        Returns:
          float32 [n_frames * hop].
        """
        return np.concatenate([np.zeros(0, np.float32), *self.stream(sheet, seed=seed, with_curves=with_curves)])

    def stream(
        self, sheet: CueSheet, *, seed: int, with_curves: bool = True, workers: int | None = None
    ) -> Iterator[np.ndarray]:
        """Sounds a cue sheet piece by piece; the pieces in a row are the waveform of `render`.

        Args:
          sheet: what to sound.
          seed: of the random numbers.
          with_curves: as for `render`.
          workers: threads, by default one per core. It does not change the sound.
        """
        units = self._units(sheet)
        n_workers = workers or joblib.cpu_count()
        n_together = min(MOST_TOGETHER, -(-len(units) // n_workers) or 1)
        batches = [units[first : first + n_together] for first in range(0, len(units), n_together)]

        def sound(batch: list[_Unit]) -> list[tuple[int, np.ndarray]]:
            return self._sound_units(sheet, batch, seed, with_curves)

        with ThreadPoolExecutor(n_workers) as executor:
            pieces = itertools.chain.from_iterable(_in_order(executor, sound, batches))
            yield from _overlap_add(pieces, sheet.n_frames * self.hop)

    def generate(
        self, video: Path, out: Path, *, seed: int = 0, overwrite: bool = False, progress: Progress = no_progress
    ) -> CueSheet:
        """Writes the video again, its picture untouched, with the sound that fits it.

        Args:
          video: any file that ffmpeg reads; its own sound, if any, is replaced.
          out: .mp4, .mov, .mkv or .webm.
          seed: the same video, models and seed give the same sound.
          overwrite: whether `out` may exist.
          progress: called while watching (first half) and sounding (second half).

        Returns:
          The cue sheet that was sounded.

        Raises:
          SoundbackError: when `out` exists or the video cannot be read; nothing is written then.
        """
        ffmpeg.check_output(out, overwrite=overwrite)
        started = time.monotonic()
        sheet = self.spot(video, lambda done, total: progress(done, 2 * total))
        if not sheet.segments:
            log.warning(
                "Nothing in %s looks like what the models know (%s), so the sound is silence.",
                video,
                ", ".join(self.categories),
            )
        with tempfile.TemporaryDirectory() as folder:
            track = Path(folder) / "track.wav"
            with soundfile.SoundFile(track, "w", samplerate=self.sample_rate, channels=1, subtype="PCM_16") as file:
                for piece in self.stream(sheet, seed=seed):
                    file.write(piece)
                    progress(sheet.n_frames + file.tell() // self.hop, 2 * sheet.n_frames)
            ffmpeg.mux(video, track, out)
        spent_s, length_s = time.monotonic() - started, sheet.n_frames / self.frame_rate
        log.info("%.1f s of video in %.1f s: %.2f times real time.", length_s, spent_s, length_s / spent_s)
        return sheet

    def _frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.frame_rate))

    def _units(self, sheet: CueSheet) -> list[_Unit]:
        """Cuts long segments where it is quiet."""
        longest = self._frames(self.params.max_segment_s)
        units = []
        for segment in sheet.segments:
            frames = sheet.frames_of(segment)
            start = frames.start
            while frames.stop - start > longest:
                second_half = slice(start + longest // 2, start + longest)
                cut = second_half.start + int(sheet.loudness_db[second_half].argmin())
                units.append(_Unit(start, cut, segment))
                start = cut
            units.append(_Unit(start, frames.stop, segment))
        return units

    def _sound_units(
        self, sheet: CueSheet, units: list[_Unit], seed: int, with_curves: bool
    ) -> list[tuple[int, np.ndarray]]:
        """Sounds some units, side by side, and half a crossfade on each side of each.

        What becomes of one depends neither on its neighbours nor on what is sounded beside it, so an edit changes its
        own unit and the two crossfades.

        Returns:
          Of each unit, the first sample of its piece, and the piece: float32 [time], faded where it meets others.
        """
        told = [self._tell(sheet, unit, seed, with_curves) for unit in units]
        params = self.params
        made = self.sampler.sample_together([each.part for each in told], params.temperature, params.top_p)
        return [
            self._finish(sheet, unit, each, classes, with_curves)
            for unit, each, classes in zip(units, told, made, strict=True)
        ]

    def _tell(self, sheet: CueSheet, unit: _Unit, seed: int, with_curves: bool) -> _Told:
        """What the network hears of a unit."""
        fade = self._frames(self.params.crossfade_s / 2)
        first, last = max(0, unit.start - fade), min(sheet.n_frames, unit.end + fade)
        pre_roll = -(-self.sampler.receptive_field // self.hop)
        loudness_db, hit = _curves_of_unit(
            sheet, unit, first - pre_roll - CUE_CONTEXT, last + CUE_CONTEXT, silence_db=self._measured["floor_db"]
        )
        projected = self.sampler.project(self._conditioning(unit, loudness_db, hit, with_curves))
        projected = projected[CUE_CONTEXT:-CUE_CONTEXT]
        # A counter-based generator: the numbers of a unit depend on seed and place alone.
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, unit.start], np.uint64)))
        uniforms = generator.random(len(projected) * self.hop)
        heard = slice(pre_roll + CUE_CONTEXT, -CUE_CONTEXT)
        return _Told(first, pre_roll, Part(self.sampler.start(), projected, uniforms), loudness_db[heard], hit[heard])

    def _finish(
        self, sheet: CueSheet, unit: _Unit, told: _Told, classes: np.ndarray, with_curves: bool
    ) -> tuple[int, np.ndarray]:
        """Brings a unit's sound to its loudness, and fades it where it meets others."""
        waveform = audio.mu_law_decode(classes[told.pre_roll * self.hop :]).astype(np.float32)
        if with_curves:
            waveform = fader.ride(waveform, told.loudness_db, told.hit, **self._measured)
        # Equal power, since the two sides of a crossfade are not correlated.
        n_faded = 2 * self._frames(self.params.crossfade_s / 2) * self.hop
        ramp = np.sin(np.linspace(0, np.pi / 2, n_faded, dtype=np.float32))
        if unit.start > 0:
            waveform[: len(ramp)] *= ramp[: len(waveform)]
        if unit.end < sheet.n_frames:
            waveform[-len(ramp) :] *= ramp[::-1][-len(waveform) :]
        return told.first * self.hop, waveform

    def _conditioning(self, unit: _Unit, loudness_db: np.ndarray, hit: np.ndarray, with_curves: bool) -> np.ndarray:
        """What the network hears: the category of the unit all the time."""
        length_s = len(loudness_db) / self.frame_rate
        alone = Segment(0.0, length_s, unit.segment.category, unit.segment.confidence)
        stretch = CueSheet(self.frame_rate, (alone,), loudness_db, hit)
        return conditioning(stretch, self.categories, with_curves=with_curves)


def _curves_of_unit(
    sheet: CueSheet, unit: _Unit, first: int, last: int, *, silence_db: float
) -> tuple[np.ndarray, np.ndarray]:
    """Loudness and hits over frames [first, last); beyond the unit its loudness stays and nothing hits.

    But what begins with a hit was silent before: or there would be nothing for it to rise from.
    """
    frames = np.arange(first, last)
    inside = np.clip(frames, unit.start, unit.end - 1)
    loudness_db, hit = sheet.loudness_db[inside], np.where(frames == inside, sheet.hit[inside], np.float32(0))
    if sheet.hit[unit.start]:
        loudness_db[frames < unit.start] = silence_db
    return loudness_db, hit


def _counted(batches: Iterable[np.ndarray], total: int, progress: Progress) -> Iterator[np.ndarray]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        progress(min(done, total), total)


def _in_order(
    executor: ThreadPoolExecutor,
    work: Callable[[list[_Unit]], list[tuple[int, np.ndarray]]],
    batches: list[list[_Unit]],
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Maps over batches with a few in flight, so that memory does not grow with the length of the video."""
    in_flight: deque[Future] = deque()
    waiting = iter(batches)
    for batch in itertools.islice(waiting, 2 * executor._max_workers):
        in_flight.append(executor.submit(work, batch))
    while in_flight:
        yield in_flight.popleft().result()
        in_flight.extend(executor.submit(work, batch) for batch in itertools.islice(waiting, 1))


def _overlap_add(pieces: Iterable[tuple[int, np.ndarray]], n_samples: int) -> Iterator[np.ndarray]:
    """Adds pieces up where they overlap, with silence where there are none.

    Args:
      pieces: first sample and waveform, in order of their first samples.
      n_samples: length of the whole.
    """
    position, pending = 0, np.zeros(0, np.float32)
    for start, waveform in itertools.chain(pieces, [(n_samples, np.zeros(0, np.float32))]):
        ready, pending = pending[: start - position], pending[start - position :]
        yield ready
        yield from _silence(start - position - len(ready))
        position = start
        longer, shorter = sorted((pending, waveform), key=len, reverse=True)
        pending = longer.copy()
        pending[: len(shorter)] += shorter


def _silence(n_samples: int, block: int = 65536) -> Iterator[np.ndarray]:
    for start in range(0, n_samples, block):
        yield np.zeros(min(block, n_samples - start), np.float32)
