"""What is said of the cue sheets of held-out clips: clips whose sheets and probabilities are made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from soundback.cues import CueSheet, Segment
from soundback.judging import watching_pictures
from soundback.judging.intervals import Bootstrap
from soundback.judging.watching import (
    MISSED_SHOWN,
    choose_curves,
    find_missed_frames,
    hit_times_s,
    judge_watching,
    score_watching,
)
from tests import heard

BOOTSTRAP = Bootstrap(n_resamples=100, seed=0)


def trial_of(label, number, predicted_label=None, segments=None):
    trial = heard.make_trial(label, number, predicted_label)
    if segments is None:
        return trial
    sheet = trial.predicted_sheet
    return replace(trial, predicted_sheet=CueSheet(sheet.frame_rate, segments, sheet.loudness_db, sheet.hit))


def test_numbers_are_known_where_the_answers_are():
    trials = [trial_of("Bell", 1), trial_of("Bell", 2, "Drum"), trial_of("Drum", 3), trial_of("Drum", 4)]
    found = judge_watching(trials, heard.CATEGORIES, "Drum", BOOTSTRAP)
    assert found.numbers["category_accuracy"] == 0.75
    assert found.numbers["majority_accuracy"] == 0.5
    assert found.numbers["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2, abs=1e-6)
    assert found.numbers["calibration_error"] == pytest.approx(0.9 - 0.75, abs=1e-6)
    assert found.confusions.tolist() == [[1, 1, 0], [0, 2, 0]]
    assert found.frame_confusions.tolist() == [[100, 100, 0], [0, 200, 0]]
    for name, cell in found.intervals.items():
        assert cell["mean"] == found.numbers[name]
        assert cell["low"] <= cell["mean"] <= cell["high"]
        assert cell["n"] == 4


def test_unsure_time_is_a_share_and_a_column_of_its_own():
    half = (Segment(0.0, 1.0, "Bell", 0.9), Segment(3.0, 4.0, "Drum", 0.9))
    trials = [trial_of("Bell", 1, segments=half), trial_of("Drum", 2, segments=())]
    assert score_watching(trials[0])["unsure_share"] == 0.5
    found = judge_watching(trials, heard.CATEGORIES, None, BOOTSTRAP)
    assert found.numbers["unsure_share"] == 0.75
    assert found.numbers["category_accuracy"] == 0
    assert found.numbers["majority_accuracy"] is None
    assert found.confusions.tolist() == [[0, 0, 1], [0, 0, 1]]
    assert found.frame_confusions.tolist() == [[25, 25, 50], [0, 0, 100]]


def test_clips_of_one_video_weigh_as_one_in_what_is_a_mean():
    twin = replace(trial_of("Bell", 1, "Drum"), clip_index=1)
    found = judge_watching([trial_of("Bell", 1), twin, trial_of("Drum", 3)], heard.CATEGORIES, "Bell", BOOTSTRAP)
    assert found.numbers["category_accuracy"] == 0.75
    assert found.intervals["category_accuracy"]["n"] == found.intervals["macro_f1"]["n"] == 2


def test_hits_are_the_middles_of_their_frames():
    sheet = CueSheet(25, (), np.zeros(50, np.float32), np.isin(np.arange(50), (0, 10)).astype(np.float32))
    np.testing.assert_allclose(hit_times_s(sheet), [0.02, 0.42])


def test_the_most_wrong_frames_are_found_one_of_each_clip_the_worst_first():
    trials = [trial_of("Bell", number) for number in range(MISSED_SHOWN + 3)]
    trials[4].probabilities[17] = [0.05, 0.95]
    trials[9].probabilities[3] = [0.02, 0.98]
    trials[9].probabilities[8] = [0.03, 0.97]
    found = find_missed_frames(trials, heard.CATEGORIES, MISSED_SHOWN)
    assert len(found) == MISSED_SHOWN
    assert [(one.trial, one.frame, one.said) for one in found[:2]] == [(trials[9], 3, "Drum"), (trials[4], 17, "Drum")]
    assert (found[0].true_probability, found[0].said_probability) == pytest.approx((0.02, 0.98))
    # Where nothing is wrong, the least sure is shown.
    assert (found[2].said, found[2].true_probability) == ("Bell", pytest.approx(0.9))


def test_of_each_label_the_worst_loudness_is_shown_the_worst_first():
    trials = [trial_of(label, number) for number, label in enumerate(["Bell", "Drum", "Bell", "Drum"])]
    scores = [{"loudness_correlation": c, "loudness_error_db": 1.0} for c in (0.9, 0.2, 0.5, 0.7)]
    assert choose_curves(trials, scores) == [trials[1], trials[2]]
    scores[0]["loudness_correlation"] = None
    assert choose_curves(trials, scores) == [trials[0], trials[1]]


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_confusion_matrix_says_counts_and_shares():
    figure = watching_pictures.draw_confusion(np.array([[3.0, 1, 0], [0, 0, 5]]), ("Bell", "Drum"), "clips")
    assert texts(figure) == ["3\n75 %", "1\n25 %", "5\n100 %"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["Bell", "Drum", "unsure"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Bell (4)", "Drum (5)"]


def test_of_hundreds_of_categories_the_most_missed_are_drawn():
    names = [f"Label {k}" for k in range(300)]
    confusions = np.hstack([np.eye(300) * 4, np.zeros((300, 1))])
    confusions[250, 250], confusions[250, -1] = 0, 4
    figure = watching_pictures.draw_confusion(confusions, names, "clips")
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(shown) == watching_pictures.MOST_CATEGORIES
    assert "Label 250 (4)" in shown
    assert max(figure.get_size_inches()) < 20
