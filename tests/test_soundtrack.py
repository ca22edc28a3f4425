"""From a cue sheet to one waveform, and from frames to a cue sheet."""

from dataclasses import replace
from itertools import pairwise

import keras
import numpy as np
import pytest

from soundback import params as settings_of
from soundback.cues import N_CURVE_FEATURES, CueSheet, Segment
from soundback.errors import ModelError
from soundback.params import load_params
from soundback.sounding.sampler import Sampler
from soundback.sounding.wavenet import build_wavenet
from soundback.soundtrack import Soundtrack, _curves_of_unit, _overlap_add

CATEGORIES = ("Bell", "Drum")
FRAME_RATE, HOP = 25, 40
SETTINGS = settings_of.Soundtrack(
    smoothing_s=0.12,
    min_segment_s=0.2,
    max_segment_s=1.0,
    crossfade_s=0.08,
    temperature=1.0,
    top_p=1.0,
    weights="float32",
)
CARD = {
    "categories": list(CATEGORIES),
    "sample_rate": 1000,
    "frame_rate": FRAME_RATE,
    "hop": HOP,
    "cues": {"loudness_window_s": 0.16, "loudness_floor_db": -60.0},
}


class BrightIsBell:
    """Stands in for the classifier: bright frames are bells, dark ones drums, gray ones unsure, 250 is unknown."""

    categories, size, fit, unsure_below = CATEGORIES, 8, "stretch", 0.6

    def recognise(self, frames):
        bell = frames.mean(axis=(1, 2)) / 255
        return np.stack([bell, 1 - bell], axis=1).astype(np.float32), bell != 250 / 255


class ConstantSpotter:
    """Stands in for the spotter."""

    size, fit, frame_rate = 8, "stretch", FRAME_RATE

    def predict(self, batches):
        n_frames = sum(len(batch) for batch in batches)
        return np.full(n_frames, -20, np.float32), np.zeros(n_frames, np.float32)


@pytest.fixture(scope="module")
def soundtrack():
    keras.utils.set_random_seed(1)
    tiny = load_params().wavenet.model_copy(
        update={"layers": 4, "cycles": 2, "residual_channels": 8, "gate_channels": 8, "skip_channels": 8}
    )
    network = build_wavenet(tiny, n_cues=len(CATEGORIES) + N_CURVE_FEATURES, hop=HOP)
    # Random weights that are loud enough for every input to matter.
    network.set_weights(
        [weight + np.random.default_rng(0).normal(0, 0.2, weight.shape) for weight in network.get_weights()]
    )
    return Soundtrack(BrightIsBell(), ConstantSpotter(), Sampler.from_model(network), CARD, params=SETTINGS)


def sheet_of(*segments, n_frames=100):
    generator = np.random.default_rng(3)
    loudness_db = generator.uniform(-40, -10, n_frames).astype(np.float32)
    hit = (generator.random(n_frames) < 0.1).astype(np.float32)
    return CueSheet(FRAME_RATE, tuple(segments), loudness_db, hit)


THREE = (Segment(0.0, 1.6, "Bell", 0.9), Segment(1.6, 2.4, "Drum", 0.8), Segment(2.4, 4.0, "Bell", 0.7))


def test_the_sound_is_as_long_as_the_frames_and_repeats_bit_for_bit(soundtrack):
    sheet = sheet_of(*THREE)
    first, second = soundtrack.render(sheet, seed=5), soundtrack.render(sheet, seed=5)
    assert first.shape == (100 * HOP,)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, soundtrack.render(sheet, seed=6))


def test_pieces_in_a_row_are_the_whole_however_many_workers_sound_them(soundtrack):
    sheet = sheet_of(*THREE)
    whole = soundtrack.render(sheet, seed=5)
    for workers in (1, 3):
        pieces = list(soundtrack.stream(sheet, seed=5, workers=workers))
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_an_edit_changes_its_segment_and_two_crossfades_and_nothing_else(soundtrack):
    before = soundtrack.render(sheet_of(*THREE), seed=5)
    edited = (THREE[0], replace(THREE[1], category="Bell"), THREE[2])
    changed = np.flatnonzero(before != soundtrack.render(sheet_of(*edited), seed=5))
    half_fade = round(SETTINGS.crossfade_s / 2 * FRAME_RATE) * HOP
    assert changed.min() >= 1.6 * FRAME_RATE * HOP - half_fade
    assert changed.max() < 2.4 * FRAME_RATE * HOP + half_fade
    assert len(changed) > 0.5 * 0.8 * FRAME_RATE * HOP


def test_so_does_an_edit_of_the_curves(soundtrack):
    sheet, inside = sheet_of(*THREE), slice(40, 60)
    loudness_db, hit = sheet.loudness_db.copy(), sheet.hit.copy()
    loudness_db[inside] += 15
    hit[inside] = 1 - hit[inside]
    edited = CueSheet(FRAME_RATE, sheet.segments, loudness_db, hit)
    changed = np.flatnonzero(soundtrack.render(sheet, seed=5) != soundtrack.render(edited, seed=5))
    half_fade = round(SETTINGS.crossfade_s / 2 * FRAME_RATE) * HOP
    assert changed.min() >= inside.start * HOP - half_fade
    assert changed.max() < inside.stop * HOP + half_fade
    assert len(changed) > 0.5 * 20 * HOP


def test_where_nothing_is_known_nothing_sounds(soundtrack):
    sheet = sheet_of(Segment(1.0, 2.0, "Bell", 1.0))
    waveform = soundtrack.render(sheet, seed=0)
    half_fade = round(SETTINGS.crossfade_s / 2 * FRAME_RATE) * HOP
    assert not waveform[: 1000 - half_fade].any()
    assert not waveform[2000 + half_fade :].any()
    assert np.abs(waveform[1000:2000]).max() > 0
    assert not soundtrack.render(sheet_of(), seed=0).any()


def test_long_segments_are_cut_where_it_is_quiet(soundtrack):
    sheet = sheet_of(Segment(0.0, 4.0, "Bell", 1.0))
    units = soundtrack._units(sheet)
    assert [units[0].start, units[-1].end] == [0, 100]
    assert all(before.end == after.start for before, after in pairwise(units))
    assert all(unit.end - unit.start <= 25 for unit in units)
    first_cut = units[0].end
    assert sheet.loudness_db[first_cut] == sheet.loudness_db[12:25].min()


def test_curves_are_heard_only_when_told(soundtrack):
    sheet = sheet_of(*THREE)
    louder = CueSheet(FRAME_RATE, sheet.segments, sheet.loudness_db + 10, sheet.hit)
    assert not np.array_equal(soundtrack.render(sheet, seed=1), soundtrack.render(louder, seed=1))
    np.testing.assert_array_equal(
        soundtrack.render(sheet_of(THREE[1]), seed=1, with_curves=False),
        soundtrack.render(
            CueSheet(FRAME_RATE, (THREE[1],), sheet.loudness_db + 10, sheet.hit), seed=1, with_curves=False
        ),
    )


def test_several_scenes_give_several_segments_and_unsure_frames_none(soundtrack):
    frames = np.concatenate([np.full((20, 8, 8), level, np.uint8) for level in (255, 0, 128, 255)])
    sheet = soundtrack.spot_frames(np.array_split(frames, 7))
    assert [segment.category for segment in sheet.segments] == ["Bell", "Drum", "Bell"]
    times = [(segment.start_s, segment.end_s) for segment in sheet.segments]
    # Smoothing over three frames may move a border by one.
    np.testing.assert_allclose(times, [(0.0, 0.8), (0.8, 1.6), (2.4, 3.2)], atol=0.041)
    assert sheet.n_frames == len(sheet.loudness_db) == len(sheet.hit) == 80
    assert sheet == soundtrack.spot_frames([frames])


def test_frames_like_nothing_known_have_no_segment_however_probable_a_category_is(soundtrack):
    levels = np.repeat([255, 250, 255], (20, 30, 20))
    watched = soundtrack.watch([np.broadcast_to(levels[:, None, None], (70, 8, 8)).astype(np.uint8)])
    times = [(segment.start_s, segment.end_s) for segment in watched.sheet.segments]
    np.testing.assert_allclose(times, [(0.0, 0.8), (2.0, 2.8)], atol=0.041)
    assert (watched.probabilities.argmax(axis=1) == 0).all()
    np.testing.assert_array_equal(watched.known, levels != 250)


def test_a_flicker_shorter_than_a_segment_is_taken_for_its_neighbour(soundtrack):
    levels = [255] * 30 + [0] * 3 + [255] * 30
    sheet = soundtrack.spot_frames([np.stack([np.full((8, 8), level, np.uint8) for level in levels])])
    assert [segment.category for segment in sheet.segments] == ["Bell"]


class EagerSpotter:
    """Stands in for a spotter that takes the first and the last picture it is given for hits."""

    size, fit, frame_rate = 8, "stretch", FRAME_RATE

    def __init__(self):
        self.lengths = []

    def predict(self, batches):
        n_frames = sum(len(batch) for batch in batches)
        hit = np.zeros(n_frames, np.float32)
        hit[[0, n_frames // 2, n_frames - 1]] = 1
        self.lengths.append(n_frames)
        return np.full(n_frames, -len(self.lengths), np.float32), hit


def test_each_shot_is_watched_on_its_own_and_a_cut_is_no_hit(soundtrack):
    pictures = np.random.default_rng(0).integers(140, 255, (3, 16, 16)).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    frames = np.repeat(pictures, (30, 7, 50), axis=0)
    spotter = EagerSpotter()
    eager = Soundtrack(BrightIsBell(), spotter, soundtrack.sampler, CARD, params=SETTINGS)
    for n_batches in (1, 9, 87):
        spotter.lengths.clear()
        watched = eager.watch(np.array_split(frames, n_batches))
        assert watched.cuts == (30, 37)
        assert spotter.lengths == [30, 7, 50]
        np.testing.assert_array_equal(watched.sheet.loudness_db, np.repeat([-1, -2, -3], (30, 7, 50)))
        assert np.flatnonzero(watched.sheet.hit).tolist() == [0, 15, 33, 62, 86]
        segments = [(s.category, round(s.start_s * 25), round(s.end_s * 25)) for s in watched.sheet.segments]
        assert segments == [("Bell", 0, 30), ("Bell", 30, 37), ("Bell", 37, 87)]
        assert watched.probabilities.shape == (87, 2)


def test_a_video_without_a_picture_gives_an_empty_sheet(soundtrack):
    watched = soundtrack.watch([])
    assert (watched.sheet.n_frames, watched.sheet.segments, watched.cuts) == (0, (), ())


def test_what_begins_with_a_hit_was_silent_before(soundtrack):
    def heard(hit_strength: float) -> tuple[np.ndarray, np.ndarray]:
        hit = np.zeros(20, np.float32)
        hit[0] = hit_strength
        sheet = CueSheet(FRAME_RATE, (Segment(0.0, 0.8, "Bell", 1.0),), np.full(20, -20, np.float32), hit)
        (unit,) = soundtrack._units(sheet)
        return _curves_of_unit(sheet, unit, -5, 25, silence_db=-60.0)

    loudness_db, hit = heard(0.4)
    np.testing.assert_array_equal(loudness_db, np.repeat([-60, -20], (5, 25)))
    np.testing.assert_array_equal(np.flatnonzero(hit), [5])
    np.testing.assert_array_equal(heard(0.0)[0], np.full(30, -20))


def test_models_that_do_not_belong_together_are_refused(soundtrack):
    def load(spotter, card):
        return Soundtrack(BrightIsBell(), spotter, soundtrack.sampler, CARD | card, params=SETTINGS)

    with pytest.raises(ModelError, match=r"different trainings: categories .*Bell.*Drum.* and .*Rain"):
        load(ConstantSpotter(), {"categories": ["Rain"]})
    with pytest.raises(ModelError, match="frame rate 25 and 50"):
        load(ConstantSpotter(), {"frame_rate": 50})
    padding = ConstantSpotter()
    padding.fit = "pad"
    with pytest.raises(ModelError, match="frame size and fit"):
        load(padding, {})


def test_overlapping_pieces_add_up_and_gaps_are_silent():
    pieces = [(2, np.ones(5, np.float32)), (5, np.ones(3, np.float32)), (12, np.ones(2, np.float32))]
    expected = np.zeros(15, np.float32)
    for start, piece in pieces:
        expected[start : start + len(piece)] += piece
    np.testing.assert_array_equal(np.concatenate(list(_overlap_add(iter(pieces), 15))), expected)
