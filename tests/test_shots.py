"""Scene cuts: hard ones are found to the frame; what light, camera and crossfades do is none."""

import itertools

import numpy as np
import pytest

from soundback.params import DemoSource
from soundback.sources.demo.world import World
from soundback.watching.shots import BESIDE, SHIFT, STILL_LEVELS, _Windows, split_shots

WORLD = World(DemoSource(kind="demo", seed=7, videos_per_label=4, duration_s=3.0))
SIZE, N_FRAMES = 96, 40


def texture(seed, size=SIZE, cell=12):
    """A picture of random smooth patches, float [size, size], some 40 to 200."""
    coarse = np.random.default_rng(seed).uniform(40, 200, (size // cell + 2, size // cell + 2))
    places = np.arange(size) / cell
    low, share = places.astype(int), places % 1
    rows = coarse[low] * (1 - share)[:, None] + coarse[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


def shot(seed, n_frames=N_FRAMES):
    """A still picture with camera noise and a disc that wanders over it, float [n_frames, size, size]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    frames = np.repeat(texture(seed)[None], n_frames, axis=0)
    for k, frame in enumerate(frames):
        frame[(x - 20 - 1.5 * k) ** 2 + (y - 50) ** 2 < 150] = 230
    return frames + rng.normal(0, 3, frames.shape)


def rendered(label, number):
    """A scene of the demo's world, shrunk to whole pixels, float [n_frames, size, size]."""
    scene = WORLD.scene(WORLD.listed[label][number].video_id)
    rows, columns = (np.linspace(0, n - 1, SIZE).astype(int) for n in (scene.height, scene.width))
    return np.stack([frame[np.ix_(rows, columns)] for frame in scene.frames()]).astype(float)


def gray(frames):
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def cuts_of(frames, batch=16):
    """The frames at which a shot begins; also checks that nothing is lost or reordered."""
    batches = [frames[start : start + batch] for start in range(0, len(frames), batch)]
    shots = list(split_shots(batches))
    np.testing.assert_array_equal(np.concatenate([part for _, part in shots]), frames)
    numbers = np.concatenate([np.full(len(part), number) for number, part in shots])
    assert set(np.diff(numbers).tolist()) <= {0, 1}
    assert numbers[0] == 0
    return (np.flatnonzero(np.diff(numbers)) + 1).tolist()


def test_a_cut_is_found_to_the_frame_however_the_frames_are_batched():
    frames = gray(np.concatenate([shot(1), shot(2), shot(3, 25)]))
    for batch in (1, 2, 5, 16, 1000):
        assert cuts_of(frames, batch) == [40, 80]


def test_a_cut_between_two_scenes_of_one_category_is_one():
    for label in ("Basketball", "Rain", "Waterfall"):
        first, second = rendered(label, 0), rendered(label, 1)
        assert cuts_of(gray(np.concatenate([first, second]))) == [len(first)]


def test_a_scene_of_the_world_has_no_cut():
    for label in WORLD.listed:
        assert cuts_of(gray(rendered(label, 2))) == []


@pytest.mark.parametrize("strengths", [(0.9,), (0.9, 0.9), (0.9, 0.5), (0.5, 0.9)])
def test_a_flash_of_a_frame_or_two_is_no_cut(strengths):
    """All becomes bright, or something bright that looks like nothing before fills the picture."""
    for light in (255, 100 + texture(99) / 2):
        frames = shot(4)
        for place, strength in enumerate(strengths, 20):
            frames[place] = strength * light + (1 - strength) * frames[place]
        assert cuts_of(gray(frames)) == []


def test_a_change_of_exposure_is_no_cut():
    frames = shot(5)
    step = np.where(np.arange(N_FRAMES) < 20, 0.7, 1.3)
    swing = 1 + 0.3 * np.sin(np.arange(N_FRAMES) / 3)
    for gain in (step, step[::-1], swing):
        assert cuts_of(gray(frames * gain[:, None, None])) == []


def test_fades_and_crossfades_are_no_cut():
    frames, others = shot(6), shot(7)
    share = np.clip((np.arange(N_FRAMES) - 14) / 10, 0, 1)[:, None, None]
    for faded in (
        frames * share,
        frames * (1 - share),
        frames + (255 - frames) * share,
        frames + (others - frames) * share,
    ):
        assert cuts_of(gray(faded)) == []


def test_a_cut_to_black_and_back_is_two_cuts():
    dark = np.random.default_rng(0).normal(3, 1.5, (15, SIZE, SIZE))
    assert cuts_of(gray(np.concatenate([shot(8), dark, shot(9)]))) == [40, 55]


def test_darkness_and_a_plain_wall_have_no_cut_whatever_their_noise():
    noise = np.random.default_rng(1).normal(0, 4, (N_FRAMES, SIZE, SIZE))
    for level in (3, 128, 250):
        assert cuts_of(gray(level + noise)) == []


def test_a_pan_and_a_shaking_camera_are_no_cut():
    wide, rng = texture(10, size=6 * SIZE, cell=6), np.random.default_rng(2)
    pan = np.stack([wide[:SIZE, 6 * k : 6 * k + SIZE] for k in range(N_FRAMES)])
    shaken = np.stack([wide[a : a + SIZE, b : b + SIZE] for a, b in rng.integers(100, 107, (N_FRAMES, 2)).tolist()])
    assert cuts_of(gray(pan)) == []
    assert cuts_of(gray(shaken)) == []


def test_the_distance_is_one_minus_the_best_correlation_of_any_shift():
    rng = np.random.default_rng(3)
    small = rng.uniform(0, 255, (4, 12, 12)).astype(np.uint8)
    for lag in (1, 3):
        found = _Windows(small).distance(lag)
        for place, (before, after) in enumerate(zip(small[:-lag], small[lag:], strict=True)):
            middle = after[SHIFT:-SHIFT, SHIFT:-SHIFT].ravel().astype(float)
            best = -1.0
            for down, across in itertools.product(range(2 * SHIFT + 1), repeat=2):
                shifted = before[down : down + 8, across : across + 8].ravel().astype(float)
                covariance, noise = np.cov(shifted, middle, bias=True), STILL_LEVELS**2
                spread = np.sqrt((covariance[0, 0] + noise) * (covariance[1, 1] + noise))
                best = max(best, (covariance[0, 1] + noise) / spread)
            assert found[place] == pytest.approx(1 - best, abs=1e-4)


def test_pictures_that_are_new_at_every_frame_are_no_row_of_cuts():
    assert cuts_of(gray(np.stack([texture(seed) for seed in range(N_FRAMES)]))) == []


def test_no_shot_is_shorter_than_what_is_compared():
    frames = gray(np.concatenate([shot(1, BESIDE - 1), shot(2)]))
    assert cuts_of(frames) == []
    assert cuts_of(gray(shot(3, 2))) == []
    assert list(split_shots([])) == []


def test_no_more_than_two_frames_are_held_back():
    frames = gray(shot(11))
    given = told = 0

    def stream():
        nonlocal given
        for frame in frames:
            given += 1
            yield frame[None]

    for _, part in split_shots(stream()):
        told += len(part)
        assert given - told < BESIDE
