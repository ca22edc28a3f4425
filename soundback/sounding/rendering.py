"""From a cue sheet to one waveform: its segments are sounded apart, several at once, and joined by crossfades."""

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import joblib
import numpy as np

from soundback import params as settings_of
from soundback.cues import CueSheet, Segment, conditioning
from soundback.media import audio
from soundback.progress import Progress, no_progress
from soundback.sounding import fader
from soundback.sounding.sampler import Part, Sampler
from soundback.sounding.wavenet import CUE_CONTEXT

FRAMES_AT_ONCE = 16
"""Between two looks at whether anybody still listens."""

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
      projected: float32 [pre_roll + n_frames, layers, 2 * gate channels], for the sampler.
      chances: draws the chance of each sample.
      loudness_db: float32 [n_frames] of the piece.
      hit: float32 [n_frames] of the piece.
    """

    first: int
    pre_roll: int
    projected: np.ndarray
    chances: np.random.Generator
    loudness_db: np.ndarray
    hit: np.ndarray


class Renderer:
    """A trained WaveNet that sounds cue sheets.

    Attributes:
      sampler: the network.
      params: how segments are cut and joined, and what is drawn.
      categories: which it knows, in its order.
      sample_rate: Hz.
      frame_rate: frames per second.
      hop: samples per frame.
    """

    def __init__(self, sampler: Sampler, card: dict[str, Any], *, params: settings_of.Soundtrack) -> None:
        """Takes the network and what its file says of it."""
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

    def at_temperature(self, temperature: float | None) -> "Renderer":
        """The same network with another temperature; None keeps that of the params."""
        if temperature is None:
            return self
        twin = copy.copy(self)
        twin.params = self.params.model_copy(update={"temperature": temperature})
        return twin

    def stream(
        self,
        sheet: CueSheet,
        *,
        seed: int,
        with_curves: bool = True,
        workers: int | None = None,
        stretch: tuple[int, int] | None = None,
        progress: Progress = no_progress,
    ) -> Iterator[np.ndarray]:
        """Sounds a cue sheet piece by piece, in constant memory.

        Args:
          sheet: what to sound.
          seed: the same sheet and seed give the same waveform, bit for bit.
          with_curves: False lets the model hear the categories alone.
          workers: threads, by default one per core. It does not change the sound.
          stretch: first sample, and the first one that is wanted no more; by default all. It does not change them.
          progress: called with samples, from the threads that make them; what it raises ends all of them within
            `FRAMES_AT_ONCE` frames.

        Yields:
          float32 [time]; n_frames * hop samples in all, or those of the stretch.
        """
        first, end = stretch or (0, sheet.n_frames * self.hop)
        units = [unit for unit in self._units(sheet) if self._touches(unit, first, end)]
        n_workers = workers or joblib.cpu_count()
        n_together = min(MOST_TOGETHER, -(-len(units) // n_workers) or 1)
        batches = [units[start : start + n_together] for start in range(0, len(units), n_together)]

        n_all = sum(self._n_samples(unit, sheet) for unit in units)
        n_done, lock = 0, Lock()

        def note(n_samples: int) -> None:
            nonlocal n_done
            with lock:
                n_done += n_samples
                progress(n_done, n_all)

        def sound(batch: list[_Unit]) -> list[tuple[int, np.ndarray]]:
            return self._sound_units(sheet, batch, seed, with_curves, note)

        with ThreadPoolExecutor(n_workers) as executor:
            # One more than there are threads: none of them waits while the first of what is made is taken away.
            pieces = itertools.chain.from_iterable(_in_order(executor, sound, batches, n_workers + 1))
            yield from overlap_add(pieces, first, end)

    def _frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.frame_rate))

    @property
    def _half_fade(self) -> int:
        """Frames by which a unit's piece reaches over each of its ends."""
        return self._frames(self.params.crossfade_s / 2)

    def _touches(self, unit: _Unit, first: int, end: int) -> bool:
        return (unit.start - self._half_fade) * self.hop < end and (unit.end + self._half_fade) * self.hop > first

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
        self, sheet: CueSheet, units: list[_Unit], seed: int, with_curves: bool, note: Callable[[int], None]
    ) -> list[tuple[int, np.ndarray]]:
        """Sounds some units, side by side, and half a crossfade on each side of each.

        What becomes of one depends neither on its neighbours nor on what is sounded beside it, so an edit changes its
        own unit and the two crossfades.

        Returns:
          Of each unit, the first sample of its piece, and the piece: float32 [time], faded where it meets others.
        """
        told = [self._tell(sheet, unit, seed, with_curves) for unit in units]
        made = self._sample(told, note)
        return [
            self._finish(sheet, unit, each, classes, with_curves)
            for unit, each, classes in zip(units, told, made, strict=True)
        ]

    def _sample(self, told: list[_Told], note: Callable[[int], None]) -> list[np.ndarray]:
        """Samples streams side by side, some frames at a time: in one go nobody could be told, or could stop it."""
        states = [self.sampler.start() for _ in told]
        made: list[list[np.ndarray]] = [[] for _ in told]
        for first in range(0, max(len(each.projected) for each in told), FRAMES_AT_ONCE):
            parts = []
            for state, each in zip(states, told, strict=True):
                projected = each.projected[first : first + FRAMES_AT_ONCE]
                parts.append(Part(state, projected, each.chances.random(len(projected) * self.hop)))
            pieces = self.sampler.sample_together(parts, self.params.temperature, self.params.top_p)
            for whole, piece in zip(made, pieces, strict=True):
                whole.append(piece)
            note(sum(map(len, pieces)))
        return [np.concatenate(pieces) for pieces in made]

    def _reach(self, unit: _Unit, sheet: CueSheet) -> tuple[int, int, int]:
        """First and last frame of a unit's piece, half a crossfade on each side included; frames of its pre-roll."""
        first, last = max(0, unit.start - self._half_fade), min(sheet.n_frames, unit.end + self._half_fade)
        return first, last, -(-self.sampler.receptive_field // self.hop)

    def _n_samples(self, unit: _Unit, sheet: CueSheet) -> int:
        """How many samples it takes to sound a unit."""
        first, last, pre_roll = self._reach(unit, sheet)
        return (last - first + pre_roll) * self.hop

    def _tell(self, sheet: CueSheet, unit: _Unit, seed: int, with_curves: bool) -> _Told:
        """What the network hears of a unit."""
        first, last, pre_roll = self._reach(unit, sheet)
        loudness_db, hit = _curves_of_unit(
            sheet, unit, first - pre_roll - CUE_CONTEXT, last + CUE_CONTEXT, silence_db=self._measured["floor_db"]
        )
        projected = self.sampler.project(self._conditioning(unit, loudness_db, hit, with_curves))
        projected = projected[CUE_CONTEXT:-CUE_CONTEXT]
        # A counter-based generator: the numbers of a unit depend on seed and place alone.
        chances = np.random.Generator(np.random.Philox(key=np.array([seed, unit.start], np.uint64)))
        heard = slice(pre_roll + CUE_CONTEXT, -CUE_CONTEXT)
        return _Told(first, pre_roll, projected, chances, loudness_db[heard], hit[heard])

    def _finish(
        self, sheet: CueSheet, unit: _Unit, told: _Told, classes: np.ndarray, with_curves: bool
    ) -> tuple[int, np.ndarray]:
        """Brings a unit's sound to its loudness, and fades it where it meets others."""
        waveform = audio.mu_law_decode(classes[told.pre_roll * self.hop :]).astype(np.float32)
        if with_curves:
            waveform = fader.ride(waveform, told.loudness_db, told.hit, **self._measured)
        # Equal power, since the two sides of a crossfade are not correlated.
        n_faded = 2 * self._half_fade * self.hop
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


def only(sheet: CueSheet, category: str) -> CueSheet:
    """What of a sheet is of one category: the sounds of all of them add up to that of the whole."""
    return replace(sheet, segments=tuple(each for each in sheet.segments if each.category == category))


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


def _in_order(
    executor: ThreadPoolExecutor,
    work: Callable[[list[_Unit]], list[tuple[int, np.ndarray]]],
    batches: list[list[_Unit]],
    n_in_flight: int,
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Maps over batches with a few in flight, so that memory does not grow with the length of the video."""
    in_flight: deque[Future] = deque()
    waiting = iter(batches)
    for batch in itertools.islice(waiting, n_in_flight):
        in_flight.append(executor.submit(work, batch))
    try:
        while in_flight:
            yield in_flight.popleft().result()
            in_flight.extend(executor.submit(work, batch) for batch in itertools.islice(waiting, 1))
    finally:
        # Whoever stops listening is not made to wait for what nobody hears.
        for future in in_flight:
            future.cancel()


def overlap_add(pieces: Iterable[tuple[int, np.ndarray]], first: int, end: int) -> Iterator[np.ndarray]:
    """Adds pieces up where they overlap, with silence where there are none.

    Args:
      pieces: first sample and waveform, in order of their first samples; all of them begin before `end`.
      first: the first sample that is wanted.
      end: the first one that is wanted no more.

    Yields:
      float32 [time], end - first samples in all.
    """
    position, pending = first, np.zeros(0, np.float32)
    for start, waveform in itertools.chain(pieces, [(end, np.zeros(0, np.float32))]):
        start, waveform = max(start, first), waveform[max(0, first - start) :]
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
