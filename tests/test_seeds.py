"""Several seeds side by side: means against pandas, and what more seeds do to an interval."""

import json

import numpy as np
import pandas as pd
import pytest

from soundback.errors import DataContractError
from soundback.judging.claims import CLAIMS, PAIRS
from soundback.judging.intervals import Bootstrap
from soundback.judging.scores import SCORES, write_scores
from soundback.judging.seeds import Seeds, read_evaluations
from soundback.judging.table import CLIP_COLUMNS, COLUMNS, LEAST

ROWS = ("real", "local_predicted", "local_true", "category_only", "same_category_swap", "paper", "paper_stitched",
        "nearest_onset_paste")  # fmt: skip
VIDEOS = [f"v{number:02d}" for number in range(10)]
BOOTSTRAP = Bootstrap(n_resamples=400, seed=0)


def cell(mean, spread=0.1):
    return {"mean": mean, "low": mean - spread, "high": mean + spread, "n": len(VIDEOS)}


def write_seed(folder, seed, better=0.5):
    """An evaluation whose rows score 0.2, ours `better` more; videos and seeds move them."""
    generator = np.random.default_rng(seed)
    rows = [
        dict.fromkeys(SCORES.names)
        | {"row": row, "name": f"{video}_00", "video_id": video, "label": "Drum", "status": "ok"}
        | {column: 0.2 + better * (row == "local_predicted") + generator.uniform(0, 0.1) for column in CLIP_COLUMNS}
        for row in ROWS
        for video in VIDEOS
    ]
    rows[0]["onset_f1_100ms"] = None  # of the real sound of the first video
    (folder / str(seed) / "report").mkdir(parents=True)
    write_scores(rows, folder / str(seed) / "report" / "scores.parquet")
    pairs = {f"{a}_minus_{b}": {column: cell(0.01 * seed) for column in columns} for a, b, columns in PAIRS}
    evaluation = {
        "judge": {"accuracy": cell(1.0), "n_training_videos": 3},
        "claims": {name: {"mean": 0.1 * seed} for name in CLAIMS},
        "rows": {row: {column: cell(1.0 + seed) for column in COLUMNS} for row in ROWS},
        "paired": pairs,
    }
    (folder / str(seed) / "evaluation.json").write_text(json.dumps(evaluation))
    return pd.DataFrame(rows)


@pytest.fixture
def tables(tmp_path):
    return {str(seed): write_seed(tmp_path, seed) for seed in range(3)}


def describe(folder):
    return Seeds(*read_evaluations(folder), BOOTSTRAP).describe()


def test_means_are_those_of_pandas_over_seeds_and_videos(tmp_path, tables):
    found = describe(tmp_path)
    assert (found["n_seeds"], found["n_videos"]) == (3, 10)
    together = pd.concat(tables.values())
    for row in ROWS:
        told = together[together["row"] == row]["loudness_error_db"].astype(float)
        given = found["rows"][row]["loudness_error_db"]
        assert given["mean"] == pytest.approx(told.mean(), abs=1e-5)
        assert given["low"] < given["mean"] < given["high"]
        assert given["seeds"] == [1.0, 2.0, 3.0]
    # A video that one seed cannot tell of is left out of all.
    assert found["rows"]["real"]["onset_f1_100ms"]["n"] == 9


def test_differences_are_paired_and_claims_judged_by_them(tmp_path, tables):
    found = describe(tmp_path)
    claim = found["claims"]["onsets_over_paper"]
    together = pd.concat(tables.values()).astype({"onset_f1_100ms": float})
    means = together.groupby("row")["onset_f1_100ms"].mean()
    assert claim["mean"] == pytest.approx(means["local_predicted"] - means["paper"], abs=1e-5)
    assert claim["holds"] is True
    assert claim["seeds"] == pytest.approx([0.0, 0.1, 0.2])
    assert found["paired"]["local_predicted_minus_paper"]["onset_f1_100ms"]["mean"] == pytest.approx(claim["mean"])
    share = found["claims"]["category_of_real"]
    assert share["mean"] > 2


def test_what_no_video_has_alone_is_the_mean_over_seeds_between_their_furthest_ends(tmp_path, tables):
    found = describe(tmp_path)
    for column in LEAST:
        told = found["rows"]["paper"][column]
        assert (told["mean"], told["low"], told["high"]) == pytest.approx((2.0, 0.9, 3.1))
    # Told of ours minus what is pasted, and claimed the other way round.
    claim = found["claims"]["kernel_under_paste"]
    assert (claim["mean"], claim["low"], claim["high"]) == pytest.approx((-0.01, -0.12, 0.1))


def test_an_interval_over_seeds_is_wider_where_seeds_differ(tmp_path):
    for seed, better in enumerate((0.3, 0.5, 0.7)):
        write_seed(tmp_path / "apart", seed, better)
        write_seed(tmp_path / "alike", seed)
    widths = {}
    for name in ("apart", "alike"):
        told = describe(tmp_path / name)["rows"]["local_predicted"]["av_align"]
        widths[name] = told["high"] - told["low"]
    assert widths["apart"] > 3 * widths["alike"]


def test_seeds_of_different_videos_and_none_at_all_are_refused(tmp_path, tables):
    rows = tables["2"].astype(object).where(tables["2"].notna(), None).to_dict("records")
    write_scores([row for row in rows if row["video_id"] != "v03"], tmp_path / "2" / "report" / "scores.parquet")
    with pytest.raises(DataContractError, match="10 of seed 0, 10 of seed 1, 9 of seed 2"):
        describe(tmp_path)
    with pytest.raises(DataContractError, match=r"no evaluation in .*empty"):
        describe(tmp_path / "empty")
