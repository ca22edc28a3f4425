"""Claims hold, fail, or were not measured, and the table compares the rows that they speak of."""

import dataclasses

import numpy as np
import pytest

from soundback.judging.claims import CLAIMS, PAIRS, Claim
from soundback.judging.intervals import Bootstrap, Interval
from soundback.judging.rows import ROWS
from soundback.judging.table import COLUMNS, Table, score_row
from soundback.judging.trials import embeddings_by_video
from tests import heard

NOTHING = Interval(None, None, None, 0)


@pytest.mark.parametrize(
    ("mean", "low", "found", "holds"),
    [
        (0.3, 0.2, Interval(0.3, 0.21, 0.4, 9), True),
        (0.3, 0.2, Interval(0.29, 0.21, 0.4, 9), False),
        (0.3, 0.2, Interval(0.4, 0.2, 0.5, 9), False),
        (0.0, None, Interval(0.0, -0.1, 0.1, 9), True),
        (None, 0.0, Interval(0.1, 0.0, 0.2, 9), False),
        (None, 0.0, Interval(0.1, None, None, 1), False),
        (0.3, 0.2, NOTHING, None),
    ],
)
def test_a_claim_holds_only_when_all_that_it_needs_was_found(mean, low, found, holds):
    claim = Claim("x", "local_predicted", "paper", "onset_f1_100ms", mean=mean, low=low)
    assert claim.describe(found)["holds"] is holds
    assert claim.describe(found)["n"] == found.n


def test_what_a_claim_needs_is_said_in_words():
    assert CLAIMS["onsets_over_paper"].needed == "at least 0.3, its interval above 0.2"


def test_every_claim_speaks_of_rows_and_columns_of_the_table():
    for claim in CLAIMS.values():
        assert {claim.first, claim.second} <= set(ROWS)
        assert claim.column in COLUMNS
    for first, second, columns in PAIRS:
        assert {first, second} <= set(ROWS)
        assert set(columns) <= set(COLUMNS)


@pytest.fixture(scope="module")
def trials():
    """With two rows more: a paper that is as good as the real sound, and one that is silent."""
    trials = heard.make_trials()
    for trial in trials:
        trial.sounds["paper"] = trial.waveform
        trial.sounds["paper_stitched"] = np.zeros_like(trial.waveform)
    return [dataclasses.replace(trial, seams_s=np.array([1.0, 2.0, 3.0])) for trial in trials]


def test_a_claim_over_a_paper_that_is_perfect_fails_and_over_a_silent_one_holds(trials):
    claims = heard.make_results(trials).evaluation["claims"]
    assert claims["onsets_over_paper"]["holds"] is False
    assert claims["onsets_over_paper"]["mean"] <= 0
    paired = heard.make_results(trials).evaluation["paired"]
    assert paired["local_predicted_minus_paper_stitched"]["onset_f1_100ms"]["low"] > 0.5
    assert claims["onsets_of_real"]["mean"] == pytest.approx(1, abs=0.05)


def test_without_the_paper_its_claims_were_not_measured():
    claims = heard.make_results(heard.make_trials()).evaluation["claims"]
    assert claims["onsets_over_paper"] == {
        "claim": CLAIMS["onsets_over_paper"].sentence, "needed": CLAIMS["onsets_over_paper"].needed,
        "mean": None, "low": None, "high": None, "n": 0, "holds": None,
    }  # fmt: skip


def test_differences_of_sets_are_of_the_same_videos_and_turn_with_the_rows(trials):
    sounds = {
        row: {index: heard.hear(trial.sounds[row]) for index, trial in enumerate(trials)}
        for row in ("real", "envelope_noise", "silence")
    }
    clips = {row: score_row(trials, row, sounds, None) for row in sounds}
    known = list(embeddings_by_video(trials, sounds["real"]).values())
    table = Table(trials, clips, sounds, known, Bootstrap(n_resamples=100, seed=0))
    forth = table.compare("envelope_noise", "silence", "kernel_distance")
    back = table.compare("silence", "envelope_noise", "kernel_distance")
    apart = table.mean("envelope_noise", "kernel_distance").mean - table.mean("silence", "kernel_distance").mean
    assert forth.mean == pytest.approx(apart)
    assert (back.mean, back.low, back.high) == pytest.approx((-forth.mean, -forth.high, -forth.low))
    assert table.compare("real", "absent", "kernel_distance") == NOTHING


def test_categories_are_rows_of_their_own_videos(trials):
    results = heard.make_results(trials)
    for row in ("real", "silence"):
        values = {label: cells[row]["loudness_error_db"] for label, cells in results.categories.items()}
        assert sum(cell["n"] for cell in values.values()) == results.evaluation["n_videos"]
        whole = np.mean([cell["mean"] for cell in values.values()])  # as many videos of each
        assert whole == pytest.approx(results.evaluation["rows"][row]["loudness_error_db"]["mean"], abs=1e-5)
