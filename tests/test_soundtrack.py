"""From a cue sheet to one waveform, and from frames to a cue sheet."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from soundback.cues import CueSheet, Segment
from soundback.errors import DataContractError, ModelError
from soundback.sounding.rendering import _curves_of_unit, only, overlap_add
from soundback.soundtrack import Soundtrack
from tests.tiny import CARD, FRAME_RATE, HOP, SETTINGS, BrightIsBell, ConstantSpotter, make_soundtrack


@pytest.fixture(scope="module")
def soundtrack():
    return make_soundtrack()


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
    units = soundtrack.renderer._units(sheet)
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
        (unit,) = soundtrack.renderer._units(sheet)
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


@pytest.mark.parametrize(("first", "end"), [(0, 15), (3, 15), (6, 13), (7, 8), (9, 11)])
def test_overlapping_pieces_add_up_and_gaps_are_silent(first, end):
    pieces = [(2, np.ones(5, np.float32)), (5, np.ones(3, np.float32)), (12, np.ones(2, np.float32))]
    expected = np.zeros(15, np.float32)
    for start, piece in pieces:
        expected[start : start + len(piece)] += piece
    heard = [piece for piece in pieces if piece[0] < end]
    np.testing.assert_array_equal(np.concatenate(list(overlap_add(iter(heard), first, end))), expected[first:end])


@pytest.mark.parametrize("stretch", [(0, 4000), (0, 1), (1599, 1601), (777, 2950), (3999, 4000), (1000, 1000)])
def test_a_stretch_sounds_as_it_does_in_the_whole(soundtrack, stretch):
    sheet = sheet_of(*THREE)
    whole = soundtrack.render(sheet, seed=5)
    pieces = list(soundtrack.renderer.stream(sheet, seed=5, stretch=stretch))
    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *pieces]), whole[slice(*stretch)])


def test_the_categories_of_a_sheet_add_up_to_it(soundtrack):
    sheet = sheet_of(*THREE)
    parts = [soundtrack.render(only(sheet, category), seed=5) for category in ("Bell", "Drum")]
    np.testing.assert_array_equal(sum(parts), soundtrack.render(sheet, seed=5))


def test_temperature_can_be_another_than_that_of_the_params(soundtrack):
    sheet = sheet_of(*THREE)
    cold = soundtrack.renderer.at_temperature(0.05)
    assert soundtrack.renderer.params.temperature == SETTINGS.temperature
    assert soundtrack.renderer.at_temperature(None) is soundtrack.renderer
    expected = make_soundtrack(temperature=0.05).render(sheet, seed=1)
    np.testing.assert_array_equal(np.concatenate(list(cold.stream(sheet, seed=1))), expected)


def test_unsure_stretches_are_quiet_or_of_the_likeliest_category(soundtrack):
    frames = [np.full((20, 8, 8), level, np.uint8) for level in (255, 120, 250)]  # A bell, unsure, and unknown.
    quiet, best = (soundtrack.watch(frames, when_unsure=how).sheet for how in ("quiet", "best"))
    assert [segment.category for segment in quiet.segments] == ["Bell"]
    assert [segment.category for segment in best.segments] == ["Bell", "Drum", "Bell"]
    assert best.segments[-1].end_s == 60 / FRAME_RATE
    np.testing.assert_array_equal(quiet.loudness_db, best.loudness_db)


def test_frames_of_another_kind_are_refused_with_what_was_found(soundtrack):
    for wrong in (np.zeros((3, 9, 9), np.uint8), np.zeros((3, 8, 8), np.float32), np.zeros((8, 8), np.uint8)):
        with pytest.raises(DataContractError, match=r"uint8 \[n, 8, 8\], found"):
            soundtrack.spot_frames(wrong)
