"""From frame-wise probabilities to segments, on probabilities made by hand."""

import numpy as np
import pytest

from soundback.params import Soundtrack
from soundback.watching.segments import find_segments

CATEGORIES = ("Bell", "Drum", "Rain")
FRAME_RATE = 25
PARAMS = Soundtrack(
    smoothing_s=0.4,
    min_segment_s=0.6,
    max_segment_s=10.0,
    crossfade_s=0.08,
    temperature=1.0,
    top_p=1.0,
    weights="float32",
)


def seen(*stretches, certainty=0.9):
    """Probabilities of (category or None, n_frames) stretches; None is unsure: nothing is likely."""
    rows = []
    for category, n_frames in stretches:
        row = np.full(len(CATEGORIES), 0.05)
        if category:
            row[CATEGORIES.index(category)] = certainty
        rows.append(np.tile(row, (n_frames, 1)))
    return np.concatenate(rows).astype(np.float32)


def segments_of(probabilities, cuts=(), unsure_below=0.5):
    found = find_segments(
        probabilities, cuts, categories=CATEGORIES, unsure_below=unsure_below, frame_rate=FRAME_RATE, params=PARAMS
    )
    return [(each.category, round(each.start_s * FRAME_RATE), round(each.end_s * FRAME_RATE)) for each in found]


def test_every_frame_of_a_sure_video_is_in_one_segment():
    assert segments_of(seen(("Bell", 100))) == [("Bell", 0, 100)]
    assert segments_of(np.zeros((0, 3), np.float32)) == []


def test_without_a_cut_the_switch_is_found_within_a_frame():
    (first, _, end), (second, start, _) = segments_of(seen(("Bell", 60), ("Rain", 60)))
    assert (first, second) == ("Bell", "Rain")
    assert end == start == pytest.approx(60, abs=1)


def test_doubt_and_errors_around_a_crossfade_do_not_move_the_switch_by_three_tenths_of_a_second():
    """Over the 10 frames of a crossfade the classifier says anything; 5 % of the other frames are wrong too."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        probabilities = seen(("Bell", 62), ("Drum", 63))
        probabilities[57:67] = rng.dirichlet(np.ones(3), 10)
        wrong = rng.random(125) < 0.05
        probabilities[wrong] = rng.dirichlet(np.ones(3), int(wrong.sum()))
        (first, _, end), (second, start, _) = segments_of(probabilities)
        assert (first, second) == ("Bell", "Drum")
        assert abs((start + end) / 2 - 62) <= 0.3 * FRAME_RATE


def test_at_a_cut_the_switch_is_exact_and_nothing_is_smoothed_across():
    """With one frame of doubt right at the cut, which smoothing across it would give to the wrong side."""
    probabilities = seen(("Bell", 50), ("Drum", 5), ("Rain", 50))
    assert segments_of(probabilities, [50, 55]) == [("Bell", 0, 50), ("Drum", 50, 55), ("Rain", 55, 105)]
    # The same without the cuts: too short to be a segment.
    assert [category for category, _, _ in segments_of(probabilities)] == ["Bell", "Rain"]


def test_two_shots_of_one_category_are_two_segments():
    assert segments_of(seen(("Bell", 80)), [30]) == [("Bell", 0, 30), ("Bell", 30, 80)]


def test_short_runs_are_merged_within_their_shot_alone():
    probabilities = seen(("Bell", 40), ("Drum", 14), ("Bell", 6), ("Bell", 40))
    # 6 frames of bell before the cut go to the drum beside them, not to the bell beyond it.
    assert segments_of(probabilities, [40, 60]) == [("Bell", 0, 40), ("Drum", 40, 60), ("Bell", 60, 100)]


def test_a_flicker_is_taken_for_what_is_around_it():
    assert segments_of(seen(("Bell", 40), ("Drum", 6), ("Bell", 40))) == [("Bell", 0, 86)]


def test_where_no_category_is_likely_there_is_no_segment():
    """Rows need not add up to 1: all of them small is how a classifier says that it knows nothing of the kind."""
    found = segments_of(seen(("Bell", 50), (None, 50), ("Drum", 50)))
    assert [category for category, _, _ in found] == ["Bell", "Drum"]
    assert found[0][2] == pytest.approx(50, abs=5)
    assert found[1][1] == pytest.approx(100, abs=5)
    assert segments_of(seen((None, 50))) == []
    assert segments_of(seen(("Bell", 50)), unsure_below=0.95) == []


def test_the_confidence_is_the_mean_probability_of_the_segment():
    (segment,) = find_segments(
        seen(("Drum", 40), certainty=0.72),
        (),
        categories=CATEGORIES,
        unsure_below=0.5,
        frame_rate=FRAME_RATE,
        params=PARAMS,
    )
    assert segment.confidence == pytest.approx(0.72)
