"""Videos altered on purpose, then watched: what carries no sound must move no cue, and what carries it must.

Scenes of the rendered world are drawn anew with one thing changed, encoded and decoded like every video, and set beside
the same scene unchanged, with the same camera and the same noise. Two clips joined need no world: any source has them.
"""

import copy
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from soundback.cues import CueSheet
from soundback.judging import metrics
from soundback.judging.intervals import Bootstrap, Cell
from soundback.judging.trials import Scores, Trial
from soundback.judging.watching import hit_times_s
from soundback.media import ffmpeg
from soundback.params import DemoSource, Frames
from soundback.progress import Progress, no_progress
from soundback.sources.demo import render
from soundback.sources.demo.drawing import Canvas
from soundback.sources.demo.world import LOUDNESS_RATE, Scene, Truth, Video, World
from soundback.watching.segments import Watched

Gain = Callable[[float], float]
Watch = Callable[[Iterable[np.ndarray]], Watched]

DIM, BRIGHT = 0.7, 1.3
"""What a picture's gray levels are multiplied with at least and at most where its exposure changes."""
SWING_S = 3.0
"""From one brightest moment to the next."""
NEAR_S = 0.1
"""A hit so near an exposure step or a cut is laid to it."""
HIT_WINDOW_S = 0.1
SWITCH_WITHIN_S = 0.3
JOINED_S = 1.5
"""Of each of two clips, up to the join and from it on."""
CROSSFADE_S = 0.4
MAX_JOINS = 30
"""All ordered pairs of six labels."""

SCENE_PROBES = {
    "distractor_rise_db": "predicted loudness, with what moves silently minus without it, in dB; 0 is right",
    "distractor_hits_per_s": "hits, with what moves silently minus without it, per second; 0 is right",
    "exposure_swing_change_db": "mean change of the predicted loudness under a slow swing of exposure, dB; 0 is right",
    "exposure_step_change_db": "mean change of the predicted loudness when exposure jumps halfway, in dB; 0 is right",
    "exposure_step_hit_share": "share of videos in which that jump is taken for a hit; 0 is right",
    "plain_hit_f1_100ms": "F1 of hits within 100 ms on the unaltered scenes, for comparison",
    "double_speed_hit_f1_100ms": "the same at double speed, where blows come twice as fast",
    "plain_loudness_correlation": "correlation of the loudness of what flows, on the unaltered scenes, for comparison",
    "double_speed_loudness_correlation": "the same at double speed, where its force changes twice as fast",
}
JOIN_PROBES = {
    "cut_switch_within_300ms": "share of hard cuts between two categories that are found within 0.3 s",
    "cut_switch_error_s": "mean distance in seconds of those that are found at all",
    "cut_false_hit_share": "share of hard cuts with a hit within 0.1 s that neither clip has on its own; 0 is right",
    "crossfade_switch_within_300ms": "share of crossfades of 0.4 s between two categories that are found within 0.3 s",
    "crossfade_switch_error_s": "mean distance in seconds of those that are found at all",
}
MEANINGS = SCENE_PROBES | JOIN_PROBES


class Altered(Scene):
    """A scene of the rendered world in which something is changed on purpose."""

    def __init__(self, source: DemoSource, video: Video, *, movers: bool = True) -> None:
        """Takes the scene of a video.

        Args:
          source: the world.
          video: of that world.
          movers: whether what moves silently is shown.
        """
        super().__init__(source.seed, video, source.duration_s)
        self.speed = 1
        self._shows_movers = movers
        self._gain: Gain | None = None

    def exposed(self, gain: Gain) -> Self:
        """The same with its gray levels multiplied by `gain` of the share (0 to 1) of the scene that is over."""
        other = copy.copy(self)
        other._gain = gain
        return other

    def played(self, speed: int) -> Self:
        """The same, `speed` times as fast."""
        other = copy.copy(self)
        other.speed, other.n_frames = speed, self.n_frames // speed
        return other

    @property
    def has_movers(self) -> bool:
        """Whether there is anything that moves silently."""
        return bool(self._movers)

    @cached_property
    def _canvases(self) -> list[Canvas]:
        # Kept, since painting them is most of the work, and the copies of a scene share them.
        n_frames = self.n_frames * self.speed
        return [self.canvas(index / self.frame_rate, movers=self._shows_movers) for index in range(n_frames)]

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """As of any scene, with what is changed."""
        shown = index * self.speed
        canvas = self._canvases[shown]
        if self._gain:
            canvas = canvas * np.float32(self._gain(index / self.n_frames))
        return self._camera.expose(canvas, shown / self.frame_rate, index)


@dataclass(frozen=True, eq=False)
class Joined:
    """Two clips, one after the other.

    Attributes:
      frames: uint8 [n, size, size].
      switch: frame at which the second takes over; half of a crossfade lies before it.
    """

    frames: np.ndarray
    switch: int


def probe(
    trials: Sequence[Trial],
    read_frames: Callable[[Trial], np.ndarray],
    source: DemoSource | None,
    watch: Watch,
    *,
    stored: Frames,
    videos_per_label: int,
    bootstrap: Bootstrap,
    progress: Progress = no_progress,
) -> dict[str, Cell]:
    """Probes the watchers.

    Args:
      trials: the held-out clips.
      read_frames: gives all frames of one, uint8 [n, size, size].
      source: the rendered world; None where there is none, and its probes are null.
      watch: the watchers.
      stored: how frames are made.
      videos_per_label: how many scenes of each label are drawn anew, the first by id.
      bootstrap: how the intervals are drawn: over videos, and over joins.
      progress: called after every video or join.

    Returns:
      {name of MEANINGS: {mean, low, high, n}}.
    """
    pairs = choose_pairs(trials)
    videos = choose_videos(trials, videos_per_label) if source else []
    n_all = len(videos) + len(pairs)
    found: dict[str, list[float | None]] = {name: [] for name in MEANINGS}

    def add(scores: Mapping[str, float | None], n_done: int) -> None:
        for name, value in scores.items():
            found[name].append(value)
        progress(n_done, n_all)

    if source:
        world = World(source)
        for place, video_id in enumerate(videos):
            add(probe_scene(source, world.videos[video_id], watch, stored), place + 1)
    for place, (first, second) in enumerate(pairs):
        add(probe_join(first, second, read_frames, watch), len(videos) + place + 1)
    return {name: bootstrap.mean(values).cell() for name, values in found.items()}


def choose_videos(trials: Sequence[Trial], per_label: int) -> list[str]:
    """The first videos of each label by id, whatever they score."""
    by_label: dict[str, list[str]] = {}
    for trial in sorted(trials, key=lambda trial: (trial.label, trial.name)):
        of_label = by_label.setdefault(trial.label, [])
        if trial.video_id not in of_label:
            of_label.append(trial.video_id)
    return [video_id for of_label in by_label.values() for video_id in of_label[:per_label]]


def choose_pairs(trials: Sequence[Trial]) -> list[tuple[Trial, Trial]]:
    """Clips to join: of every ordered pair of labels one, in turn another of each label; evenly chosen of too many."""
    by_label: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.name):
        by_label.setdefault(trial.label, []).append(trial)
    pairs = list(itertools.permutations(sorted(by_label), 2))
    chosen = pairs[:: -(-len(pairs) // MAX_JOINS)] if pairs else []
    return [
        (by_label[first][place % len(by_label[first])], by_label[second][place % len(by_label[second])])
        for place, (first, second) in enumerate(chosen)
    ]


def probe_scene(source: DemoSource, video: Video, watch: Watch, stored: Frames) -> Scores:
    """Watches one scene in all its alterations; the scores are named as in SCENE_PROBES."""
    plain = Altered(source, video)
    fast, truth = plain.played(2), plain.truth()
    own, swung, stepped, hasty = (
        watch(film(scene, stored)).sheet
        for scene in (plain, plain.exposed(_swing(plain.duration_s)), plain.exposed(_step), fast)
    )
    scores: Scores = {
        "exposure_swing_change_db": _change_db(swung, own),
        "exposure_step_change_db": _change_db(stepped, own),
        "exposure_step_hit_share": float(has_new_hit(stepped, np.flatnonzero(own.hit), own.n_frames // 2)),
        **{f"plain_{name}": value for name, value in _score(truth, own, plain.speed).items()},
        **{f"double_speed_{name}": value for name, value in _score(truth, hasty, fast.speed).items()},
        "distractor_rise_db": None,
        "distractor_hits_per_s": None,
    }
    if plain.has_movers:
        without = watch(film(Altered(source, video, movers=False), stored)).sheet
        n_frames = min(own.n_frames, without.n_frames)
        rise_db = own.loudness_db[:n_frames] - without.loudness_db[:n_frames]
        n_more = int(np.count_nonzero(own.hit)) - int(np.count_nonzero(without.hit))
        scores |= {"distractor_rise_db": float(rise_db.mean()), "distractor_hits_per_s": n_more / plain.duration_s}
    return scores


def film(scene: Scene, stored: Frames) -> Iterable[np.ndarray]:
    """Encodes a scene as the demo's site would and decodes it as every video is: uint8 [n, size, size] each."""
    with tempfile.TemporaryDirectory() as folder:
        # Without sound: nobody listens.
        render.render(scene, Path(folder) / scene.video_id, defect="no_audio")
        path = Path(folder) / scene.video_id / render.PLAIN
        yield from ffmpeg.read_frames(path, frame_rate=stored.frame_rate, size=stored.size, fit=stored.fit)


def probe_join(first: Trial, second: Trial, read_frames: Callable[[Trial], np.ndarray], watch: Watch) -> Scores:
    """Watches two clips joined, with a cut and with a crossfade; the scores are named as in JOIN_PROBES."""
    frame_rate = first.predicted_sheet.frame_rate
    n_each, pictures = round(JOINED_S * frame_rate), (read_frames(first), read_frames(second))
    scores: Scores = {}
    for name, fade_s in (("cut", 0.0), ("crossfade", CROSSFADE_S)):
        joined = join(*pictures, n_each, round(fade_s * frame_rate))
        sheet = watch([joined.frames]).sheet
        error_s = switch_error_s(sheet, first.label, second.label, joined.switch / frame_rate)
        scores[f"{name}_switch_within_300ms"] = float(error_s is not None and error_s <= SWITCH_WITHIN_S + 1e-9)
        scores[f"{name}_switch_error_s"] = error_s
        if not fade_s:
            # A sheet may be a frame longer than the pictures, as the sound is.
            hits = [each.predicted_sheet.hit[: len(seen)] for each, seen in zip((first, second), pictures, strict=True)]
            alone = join(hits[0], hits[1], n_each, 0).frames
            scores["cut_false_hit_share"] = float(has_new_hit(sheet, np.flatnonzero(alone), joined.switch))
    return scores


def join(first: np.ndarray, second: np.ndarray, n_each: int, n_fade: int) -> Joined:
    """The frames up to the middle of one clip, then those from the middle of another on.

    Args:
      first: [n_frames, ...], pictures or a curve.
      second: the same of another clip.
      n_each: frames taken of each clip, if it has as many.
      n_fade: frames over which one goes over into the other.
    """
    middles = len(first) // 2, len(second) // 2
    n_before, n_after = min(n_each, middles[0]), min(n_each, len(second) - middles[1])
    n_fade = min(n_fade, 2 * n_before, 2 * n_after, 2 * (len(first) - middles[0]), 2 * middles[1])
    before, after = first[middles[0] - n_before : middles[0]], second[middles[1] : middles[1] + n_after]
    joined = np.concatenate([before, after])
    half = n_fade // 2
    if half:
        share = ((np.arange(2 * half) + 0.5) / (2 * half)).reshape(-1, *[1] * (joined.ndim - 1))
        fading = first[middles[0] - half : middles[0] + half] * (1 - share)
        coming = second[middles[1] - half : middles[1] + half] * share
        joined[n_before - half : n_before + half] = np.round(fading + coming).astype(joined.dtype)
    return Joined(joined, n_before)


def switch_error_s(sheet: CueSheet, before: str, after: str, switch_s: float) -> float | None:
    """How far from `switch_s` the sheet goes over from one category to the other, in seconds; None where it does not.

    Between the two nothing but a gap may lie, whose middle counts; of several such switches the nearest.
    """
    errors = [
        abs((one.end_s + other.start_s) / 2 - switch_s)
        for one, other in itertools.pairwise(sheet.segments)
        if (one.category, other.category) == (before, after)
    ]
    return min(errors, default=None)


def has_new_hit(sheet: CueSheet, known: np.ndarray, frame: int) -> bool:
    """Whether a sheet has a hit near the start of a frame where none is known of.

    Args:
      sheet: the cue sheet.
      known: frames of the hits that it would have anyway.
      frame: near which it is looked for.
    """
    near = round(NEAR_S * sheet.frame_rate)
    first = max(0, frame - near)
    around = np.flatnonzero(sheet.hit[first : frame + near]) + first
    return any(not (np.abs(known - hit) <= near).any() for hit in around)


def _score(truth: Truth, sheet: CueSheet, speed: int) -> Scores:
    """Hits of what is struck, loudness of what flows, against the truth of a scene played `speed` times as fast."""
    if truth.impact_times_s.size:
        enough = truth.impact_times_s.size >= metrics.MIN_REFERENCE_ONSETS
        f1 = metrics.onset_scores(truth.impact_times_s / speed, hit_times_s(sheet), HIT_WINDOW_S)[2]
        return {"hit_f1_100ms": f1 if enough else None, "loudness_correlation": None}
    times_s = (np.arange(sheet.n_frames) + 0.5) / sheet.frame_rate * speed
    known_db = np.interp(times_s, np.arange(len(truth.loudness_db)) / LOUDNESS_RATE, truth.loudness_db)
    return {"hit_f1_100ms": None, "loudness_correlation": metrics.loudness_correlation(known_db, sheet.loudness_db)}


def _change_db(sheet: CueSheet, other: CueSheet) -> float:
    n_frames = min(sheet.n_frames, other.n_frames)
    return float(np.abs(sheet.loudness_db[:n_frames] - other.loudness_db[:n_frames]).mean())


def _swing(duration_s: float) -> Gain:
    middle, reach = (DIM + BRIGHT) / 2, (BRIGHT - DIM) / 2
    return lambda share: middle + reach * math.sin(2 * math.pi * share * duration_s / SWING_S)


def _step(share: float) -> float:
    return DIM if share < 0.5 else BRIGHT
