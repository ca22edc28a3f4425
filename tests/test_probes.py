"""Altered videos, shown to watchers whose faults are known: each fault is caught, and where there is none, none."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from soundback.cues import CueSheet, Segment
from soundback.judging import probes
from soundback.judging.intervals import Bootstrap
from soundback.judging.probes import Altered, film, has_new_hit, join, probe, probe_scene, switch_error_s
from soundback.params import DemoSource, load_params
from soundback.sources.demo.world import World
from soundback.watching.segments import Watched
from tests import heard

SOURCE = DemoSource(kind="demo", seed=11, videos_per_label=6, duration_s=2.5)
WORLD = World(SOURCE)
STORED = load_params().frames.model_copy(update={"size": 48})
FRAME_RATE = STORED.frame_rate


def video_of(label, has_movers=True):
    """The first video of a label that has, or has not, something in it that moves silently."""
    return next(v for v in WORLD.listed[label] if Altered(SOURCE, v).has_movers == has_movers)


def sheet_of(loudness_db, hit_frames=(), segments=()):
    hit = np.zeros(len(loudness_db), np.float32)
    hit[list(hit_frames)] = 1
    return CueSheet(FRAME_RATE, segments, np.asarray(loudness_db, np.float32), hit)


def watcher(look):
    """A watcher that writes what `look` says of all frames: loudness and frames of hits."""

    def watch(batches):
        frames = np.concatenate(list(batches)).astype(float)
        return Watched(np.zeros((len(frames), 1), np.float32), np.ones(len(frames), bool), (), sheet_of(*look(frames)))

    return watch


def follow_brightness(frames):
    """60 dB between black and white, and a hit where it becomes brighter at once."""
    brightness = frames.mean(axis=(1, 2))
    return brightness / 255 * 60 - 60, np.flatnonzero(np.diff(brightness, prepend=brightness[0]) > 15)


def follow_motion(frames):
    """Whatever moves is loud, by 10 dB per gray level of mean change."""
    change = np.abs(np.diff(frames, axis=0, prepend=frames[:1])).mean(axis=(1, 2))
    return 10 * change - 60, ()


def look_away(frames):
    return np.full(len(frames), -20.0), ()


def test_a_watcher_that_follows_brightness_is_caught_by_exposure():
    scores = probe_scene(SOURCE, video_of("Bell"), watcher(follow_brightness), STORED)
    # A mean gray of 100 or so, times 0.3 up and down, is 7 dB at such a watcher's rate.
    assert scores["exposure_step_change_db"] > 4
    assert scores["exposure_swing_change_db"] > 2
    assert scores["exposure_step_hit_share"] == 1


def test_a_watcher_that_follows_motion_is_caught_by_what_moves_without_a_sound():
    scores = probe_scene(SOURCE, video_of("Bell"), watcher(follow_motion), STORED)
    assert scores["distractor_rise_db"] > 3
    assert scores["distractor_hits_per_s"] == 0


def test_a_watcher_that_nothing_moves_is_caught_by_nothing_but_the_truth():
    scores = probe_scene(SOURCE, video_of("Drum"), watcher(look_away), STORED)
    for name in ("exposure_step_change_db", "exposure_swing_change_db", "exposure_step_hit_share"):
        assert scores[name] == 0
    assert (scores["distractor_rise_db"], scores["distractor_hits_per_s"]) == (0, 0)
    assert (scores["plain_hit_f1_100ms"], scores["double_speed_hit_f1_100ms"]) == (0, 0)


def test_a_scene_in_which_nothing_moves_silently_says_nothing_of_it():
    scores = probe_scene(SOURCE, video_of("Rain", has_movers=False), watcher(look_away), STORED)
    assert set(scores) == set(probes.SCENE_PROBES)
    assert scores["distractor_rise_db"] is scores["distractor_hits_per_s"] is None
    # A flat curve has no correlation.
    assert scores["plain_loudness_correlation"] is None


@pytest.mark.parametrize("speed", [1, 2])
def test_blows_are_expected_as_often_as_the_picture_shows_them(speed):
    """A watcher that knows the blows of one speed is right at that speed alone."""
    video = video_of("Drum")
    times_s = WORLD.truth(video.video_id).impact_times_s / speed

    def know(frames):
        hits = (times_s * FRAME_RATE).astype(int)
        return np.zeros(len(frames)), hits[hits < len(frames)]

    scores = probe_scene(SOURCE, video, watcher(know), STORED)
    right, wrong = ("double_speed", "plain") if speed == 2 else ("plain", "double_speed")
    assert scores[f"{right}_hit_f1_100ms"] == 1
    assert scores[f"{wrong}_hit_f1_100ms"] < 0.7


@pytest.mark.parametrize("speed", [1, 2])
def test_loudness_is_expected_as_fast_as_the_picture_shows_it(speed):
    video = video_of("Rain")
    truth_db = WORLD.truth(video.video_id).loudness_db

    def know(frames):
        points = ((np.arange(len(frames)) + 0.5) / FRAME_RATE * speed * 100).astype(int)
        return truth_db[np.minimum(points, len(truth_db) - 1)], ()

    scores = probe_scene(SOURCE, video, watcher(know), STORED)
    right, wrong = ("double_speed", "plain") if speed == 2 else ("plain", "double_speed")
    assert scores[f"{right}_loudness_correlation"] > 0.98
    assert scores[f"{wrong}_loudness_correlation"] < 0.8


def test_double_speed_shows_every_second_picture():
    video = video_of("Basketball")
    plain = Altered(SOURCE, video)
    fast = plain.played(2)
    assert fast.n_frames == plain.n_frames // 2
    for index in (3, 10, 20):
        shown, expected = fast.frame(index).astype(float), plain.frame(2 * index).astype(float)
        # The noise of the camera is another one.
        assert abs((shown - expected).mean()) < 0.5
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.9


def test_an_unaltered_scene_is_the_scene_itself_and_is_decoded_as_long():
    video = video_of("Engine")
    scene = Altered(SOURCE, video)
    np.testing.assert_array_equal(scene.frame(7), WORLD.scene(video.video_id).frame(7))
    decoded = np.concatenate(list(film(scene, STORED)))
    assert decoded.shape[1:] == (48, 48)
    assert abs(len(decoded) - scene.duration_s * FRAME_RATE) <= 1


def test_without_movers_only_they_are_missing():
    video = video_of("Bell")
    index = 12
    difference = np.abs(
        Altered(SOURCE, video).frame(index).astype(int) - Altered(SOURCE, video, movers=False).frame(index)
    )
    assert difference.max() > 20
    # The same noise and the same light everywhere else.
    assert (difference == 0).mean() > 0.3


def test_joined_clips_switch_where_they_say():
    first, second = np.zeros((100, 2, 2), np.uint8), np.full((90, 2, 2), 200, np.uint8)
    cut = join(first, second, 30, 0)
    assert cut.frames[:, 0, 0].tolist() == [0] * 30 + [200] * 30
    assert cut.switch == 30
    faded = join(first, second, 30, 10).frames[:, 0, 0].astype(int)
    assert faded[:25].tolist() == [0] * 25
    assert faded[35:].tolist() == [200] * 25
    np.testing.assert_array_equal(np.diff(faded[25:35]), 20)
    assert faded[29] + faded[30] == 200
    short = join(first[:20], second[:7], 30, 10)
    assert (len(short.frames), short.switch) == (10 + 4, 10)


def test_a_crossfade_shows_both_clips_as_they_go_on():
    first, second = (np.arange(100.0)[:, None] + start for start in (0, 500))
    faded = join(first, second, 30, 10).frames[:, 0]
    assert faded[25] == pytest.approx(0.95 * 45 + 0.05 * 545, abs=0.51)
    assert faded[34] == pytest.approx(0.05 * 54 + 0.95 * 554, abs=0.51)


def segments(*stretches):
    return tuple(Segment(start, end, category, 0.9) for category, start, end in stretches)


def test_the_distance_of_a_switch_is_that_of_the_nearest_and_gaps_count_with_their_middle():
    def error(*stretches):
        return switch_error_s(sheet_of(np.zeros(100), segments=segments(*stretches)), "A", "B", 2.0)

    assert error(("A", 0, 2), ("B", 2, 4)) == 0
    assert error(("A", 0, 1.8), ("B", 2.4, 4)) == pytest.approx(0.1)
    assert error(("A", 0, 1), ("B", 1, 1.5), ("A", 1.5, 2.2), ("B", 2.2, 4)) == pytest.approx(0.2)
    assert error(("A", 0, 1.8), ("C", 1.8, 2.2), ("B", 2.2, 4)) is None
    assert error(("B", 0, 2), ("A", 2, 4)) is None
    assert error() is None


def test_a_hit_is_new_where_none_was_near():
    sheet = sheet_of(np.zeros(60), [29])
    assert has_new_hit(sheet, np.array([], int), 30)
    assert not has_new_hit(sheet, np.array([28]), 30)
    assert has_new_hit(sheet, np.array([20]), 30)
    assert not has_new_hit(sheet, np.array([], int), 40)


def test_pairs_are_all_ordered_ones_and_evenly_chosen_of_too_many():
    trials = [heard.make_trial("Bell", 1), heard.make_trial("Bell", 2), heard.make_trial("Drum", 3)]
    assert [(a.label, b.label) for a, b in probes.choose_pairs(trials)] == [("Bell", "Drum"), ("Drum", "Bell")]
    assert probes.choose_pairs(trials[:2]) == []
    many = [replace(trials[0], label=f"Label {n:02d}") for n in range(20)]
    pairs = probes.choose_pairs(many)
    assert 20 < len(pairs) <= probes.MAX_JOINS
    assert len({a.label for a, _ in pairs}) > 15


def test_probes_are_cells_and_joins_need_no_world():
    """A watcher that takes dark clips for bells and bright ones for drums, and every cut for a hit."""
    trials = [heard.make_trial(label, number) for number, label in enumerate(["Bell", "Bell", "Drum", "Drum"])]
    level = {"Bell": 30, "Drum": 200}

    def watch(batches):
        bright = np.concatenate(list(batches)).mean(axis=(1, 2)) > 115
        borders = [0, *(np.flatnonzero(np.diff(bright)) + 1).tolist(), len(bright)]
        named = segments(*(("Drum" if bright[a] else "Bell", a / 25, b / 25) for a, b in itertools.pairwise(borders)))
        sheet = sheet_of(np.zeros(len(bright)), borders[1:-1], named)
        return Watched(np.zeros((len(bright), 2), np.float32), np.ones(len(bright), bool), (), sheet)

    calls = []
    found = probe(
        trials,
        lambda trial: np.full((100, 8, 8), level[trial.label], np.uint8),
        None,
        watch,
        stored=STORED,
        videos_per_label=1,
        bootstrap=Bootstrap(50, 0),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert tuple(found) == tuple(probes.MEANINGS)
    assert found["cut_switch_within_300ms"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert found["cut_switch_error_s"]["mean"] == found["crossfade_switch_error_s"]["mean"] == 0
    assert found["cut_false_hit_share"]["mean"] == 1
    assert found["distractor_rise_db"]["n"] == 0
    assert calls == [(1, 2), (2, 2)]


def test_scenes_are_the_first_videos_of_each_label():
    trials = [heard.make_trial(label, number) for label in ("Drum", "Bell") for number in (5, 2, 8)]
    assert probes.choose_videos(trials, 2) == ["bell02", "bell05", "drum02", "drum05"]
