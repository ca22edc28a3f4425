"""The rendered world: the same everywhere, no toy, and yet there is something to learn."""

import os
import subprocess
import sys
from itertools import combinations, pairwise

import mir_eval
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from soundback.errors import SourceError
from soundback.params import DemoSource
from soundback.sources.demo.world import DEFECTS, LOUDNESS_RATE, MIDS, SHARED, STRUCK, Scene, World

PARAMS = DemoSource(kind="demo", seed=2023, videos_per_label=60, duration_s=6.0)
WORLD = World(PARAMS)
FINGERPRINT = """
import hashlib, sys
import numpy as np
from soundback.params import DemoSource
from soundback.sources.demo.world import World
world = World(DemoSource(kind="demo", seed=2023, videos_per_label=60, duration_s=6.0))
digest = hashlib.sha256()
for video_id in sys.argv[1:]:
    scene = world.scene(video_id)
    for index in range(0, scene.n_frames, 3):
        digest.update(scene.frame(index).tobytes())
    digest.update(scene.waveform().tobytes())
print(len(np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])), digest.hexdigest())
"""


def scenes(label: str, n_scenes: int) -> list[Scene]:
    return [WORLD.scene(video.video_id) for video in WORLD.listed[label][:n_scenes]]


def thumbnail(picture: np.ndarray, size: int = 16) -> np.ndarray:
    rows, columns = (np.arange(size) * n // size for n in picture.shape)
    sums = np.add.reduceat(np.add.reduceat(picture.astype(float), rows, axis=0), columns, axis=1)
    return sums / sums.max()


def statistics(picture: np.ndarray) -> np.ndarray:
    down, across = np.gradient(picture.astype(float))
    strengths, _ = np.histogram(np.hypot(down, across), [0, 1, 2, 4, 6, 9, 13, 18, 25, 35, 500])
    return np.concatenate([[picture.mean(), picture.std()], strengths / picture.size])


def held_out_accuracy(features: np.ndarray, labels: np.ndarray, videos: np.ndarray) -> float:
    """Of a linear classifier that has never seen the videos it is asked about."""
    accuracies = []
    for fold in range(3):
        held_out = videos % 3 == fold
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=300))
        classifier.fit(features[~held_out], labels[~held_out])
        accuracies.append(classifier.score(features[held_out], labels[held_out]))
    return float(np.mean(accuracies))


@pytest.fixture(scope="module")
def stills() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Two frames of each of 42 videos per label, with their labels' and videos' numbers."""
    drawn = [
        (scene.frame(index), label, video)
        for label, name in enumerate(MIDS)
        for video, scene in enumerate(scenes(name, 42))
        for index in (20, 110)
    ]
    pictures, labels, videos = zip(*drawn, strict=True)
    return list(pictures), np.array(labels), np.array(videos)


def test_pictures_and_sound_are_the_same_bytes_in_another_process_on_an_older_processor():
    ids = [WORLD.listed[label][3].video_id for label in MIDS]
    extensions = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    older = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(extensions),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA,-FMA4",
    }
    told = []
    for settings in ({}, older):
        command = [sys.executable, "-W", "error", "-c", FINGERPRINT, *ids]
        there = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
        told.append(there.stdout.split())
    (found, now), (found_older, before) = told
    assert now == before
    assert (found, found_older) == (str(len(extensions)), "0")


def test_another_seed_is_another_world():
    other = World(PARAMS.model_copy(update={"seed": 2024}))
    assert not set(other.videos) & set(WORLD.videos)


def test_a_larger_world_keeps_the_videos_of_a_smaller_one():
    smaller = World(PARAMS.model_copy(update={"videos_per_label": 30}))
    for video_id in smaller.videos:
        assert smaller.videos[video_id] == WORLD.videos[video_id]


def test_ids_look_like_youtubes_and_are_all_different():
    assert all(len(short) == 4 and short.isalnum() for short in WORLD.by_short_id)
    assert all(len(video_id) == 11 for video_id in WORLD.videos)
    assert len(WORLD.by_short_id) == len(WORLD.videos) == 6 * 60 - len(SHARED)
    assert len({short.lower() for short in WORLD.by_short_id}) > 0.9 * len(WORLD.by_short_id)


def test_each_label_lists_as_many_videos_as_asked_and_some_videos_have_two_labels():
    assert all(len(videos) == 60 for videos in WORLD.listed.values())
    listings = [video.video_id for videos in WORLD.listed.values() for video in videos]
    assert sum(listings.count(video_id) == 2 for video_id in WORLD.videos) == len(SHARED)


def test_about_one_video_in_nine_is_broken_and_every_label_meets_every_defect():
    for videos in WORLD.listed.values():
        defects = [video.defect for video in videos if video.defect]
        assert 5 <= len(defects) <= 8
        assert len(set(defects)) >= len(DEFECTS) - 1


def test_an_unknown_video_is_named():
    with pytest.raises(SourceError, match="no video 'abc'"):
        WORLD.truth("abc")


def test_sound_is_as_long_as_the_picture():
    for label in MIDS:
        scene = WORLD.scene(WORLD.listed[label][5].video_id)
        assert len(scene.waveform()) == round(scene.n_frames / scene.frame_rate * scene.sample_rate)
        assert len(scene.truth().loudness_db) == int(scene.duration_s * LOUDNESS_RATE)


@pytest.mark.parametrize("label", STRUCK)
def test_struck_things_sound_at_least_four_times_in_every_five_seconds(label):
    for scene in scenes(label, 20):
        times = scene.impact_times_s()
        for start in np.arange(0, scene.duration_s - 5 + 0.01, 0.1):
            assert np.sum((times >= start) & (times < start + 5)) >= 4


@pytest.mark.parametrize("label", STRUCK)
def test_sound_rises_where_the_impact_is(label):
    for scene in scenes(label, 4):
        waveform = scene.waveform() / 32768
        rises = []
        for time_s in scene.impact_times_s():
            if 0.06 < time_s < scene.duration_s - 0.06:
                middle, reach = round(time_s * scene.sample_rate), round(0.04 * scene.sample_rate)
                before, after = waveform[middle - reach : middle], waveform[middle : middle + reach]
                rises.append(np.sqrt(np.mean(after**2)) / np.sqrt(np.mean(before**2)))
        assert np.median(rises) > (1.2 if label == "Bell" else 3)


def test_a_ball_touches_the_ground_when_it_sounds_and_only_then():
    for scene in scenes("Basketball", 3):
        heights = []
        for time_s in np.arange(0, scene.duration_s, 0.01):
            shape = np.abs(scene.canvas(time_s, movers=False) - scene.canvas(time_s, movers=False, thing=False)) > 12
            heights.append(np.flatnonzero(shape[:, :].any(axis=1))[0])
        lowest = np.array(heights)
        for time_s in scene.impact_times_s():
            if 0.2 < time_s < scene.duration_s - 0.2:
                at = round(time_s * 100)
                assert abs(int(np.argmax(lowest[at - 15 : at + 16])) - 15 - 2) <= 3


def test_thumbnails_do_not_tell_the_categories_apart_linearly(stills):
    pictures, labels, videos = stills
    accuracy = held_out_accuracy(np.array([thumbnail(each).ravel() for each in pictures]), labels, videos)
    assert accuracy <= 0.6


def test_at_least_two_pairs_of_categories_look_alike_in_a_stills_statistics(stills):
    pictures, labels, videos = stills
    features = np.array([statistics(each) for each in pictures])
    alike = []
    for pair in combinations(range(len(MIDS)), 2):
        chosen = np.isin(labels, pair)
        # Half of all answers are right by chance.
        if held_out_accuracy(features[chosen], labels[chosen], videos[chosen]) <= 0.7:
            alike.append(pair)
    assert len(alike) >= 2


def loudness_from_motion_alone(scene: Scene) -> float:
    frames = np.stack([scene.frame(index) for index in range(scene.n_frames)]).astype(np.int16)
    energy = np.sqrt(np.mean(np.square(np.diff(frames, axis=0), dtype=np.float32), axis=(1, 2)))
    times = (np.arange(scene.n_frames - 1) + 1) / scene.frame_rate
    true = scene.truth().loudness_db
    loudness = np.interp(times, np.arange(len(true)) / LOUDNESS_RATE, true)
    return float(max(np.corrcoef(curve, loudness)[0, 1] for curve in (energy, np.log(energy))))


def test_motion_alone_does_not_tell_the_loudness():
    correlations = [loudness_from_motion_alone(scene) for label in MIDS for scene in scenes(label, 5)]
    assert np.mean(correlations) <= 0.6


@pytest.mark.parametrize("label", STRUCK)
def test_another_videos_impacts_do_not_tell_when_this_one_sounds(label):
    times = [scene.impact_times_s() for scene in scenes(label, 24)]
    scores = [
        mir_eval.onset.f_measure(one[one < 5], other[other < 5], window=0.1)[0]
        for one, other in zip(times, times[1:] + times[:1], strict=True)
    ]
    assert np.mean(scores) <= 0.4


def motion(scene: Scene, **shown: bool) -> float:
    canvases = [scene.canvas(index / scene.frame_rate, **shown) for index in range(10, 50)]
    return float(np.mean([np.abs(b - a).sum() for a, b in pairwise(canvases)]))


def test_in_many_videos_something_silent_moves_more_than_what_sounds():
    outmoved = [
        motion(scene, thing=False) > motion(scene, movers=False) for label in MIDS for scene in scenes(label, 8)
    ]
    assert np.mean(outmoved) >= 0.3
