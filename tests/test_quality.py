import json
import re

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

from soundback.errors import DataContractError
from soundback.judging import quality
from soundback.judging.intervals import Bootstrap
from soundback.params import load_params
from stages.report_quality import report_quality
from tests.test_seeds import write_seed

EVALUATION = load_params().evaluation.model_copy(update={"bootstrap": 200})


@pytest.fixture
def scores(tmp_path) -> dict[str, pd.DataFrame]:
    """Clips of twelve videos, some of which have two; what is not defined is nan."""
    rng = np.random.default_rng(0)
    videos = [f"v{number:02d}" for number in range(12)]
    tables = {}
    for place, variant in enumerate(quality.MEANINGS):
        table = pd.DataFrame({"label": "Drum", "video_id": [*videos, *videos[:4]], "clip_index": [0] * 12 + [1] * 4})
        table["loudness_correlation"] = rng.uniform(0, 0.2, 16) + 0.15 * place if variant != "mean" else np.nan
        table["loudness_error_db"] = rng.uniform(2, 4, 16) - 0.3 * place
        table["hit_f1_100ms"] = np.where(np.arange(16) % 3 == 1, np.nan, rng.uniform(0, 0.2, 16) + 0.15 * place)
        tables[variant] = table
        (tmp_path / "spotter" / variant).mkdir(parents=True)
        table.to_csv(tmp_path / "spotter" / variant / "clips.csv", index=False)
    return tables


def report(root) -> dict:
    if not (root / "evaluations").exists():
        for seed in range(2):
            write_seed(root / "evaluations", seed)
    report_quality(root / "evaluations", root / "spotter", root / "quality.json", root / "report", params=EVALUATION)
    return json.loads((root / "quality.json").read_text())["spotter"]


def test_means_are_those_of_pandas_over_videos_not_clips(tmp_path, scores):
    found = report(tmp_path)
    assert found["n_videos"] == 12
    for variant, table in scores.items():
        by_video = table.groupby("video_id")[list(quality.COLUMNS)].mean()
        for column in quality.COLUMNS:
            cell = found["variants"][variant][column]
            assert cell["n"] == by_video[column].count()
            if cell["n"]:
                assert cell["mean"] == pytest.approx(by_video[column].mean(), abs=1e-5)
                assert cell["low"] < cell["mean"] < cell["high"]
            else:
                assert (cell["mean"], cell["low"], cell["high"]) == (None, None, None)
    assert found["variants"]["mean"]["loudness_correlation"]["n"] == 0


def test_differences_are_those_of_pandas_over_the_videos_that_both_have(tmp_path, scores):
    paired = report(tmp_path)["paired"]
    assert list(paired) == [f"both_minus_{variant}" for variant in ("mean", "energy", "appearance", "change")]
    for variant in ("energy", "appearance", "change"):
        one, other = (scores[each].groupby("video_id")[list(quality.COLUMNS)].mean() for each in ("both", variant))
        for column, expected in (one - other).mean().items():
            cell = paired[f"both_minus_{variant}"][column]
            assert cell["mean"] == pytest.approx(expected, abs=1e-5)
            assert cell["n"] == (one - other)[column].count()


def test_a_difference_that_every_video_shows_has_a_narrow_interval_around_it():
    table = pd.DataFrame({"label": "Drum", "video_id": list("abcdefgh"), "clip_index": 0})
    spread = np.linspace(0, 0.8, 8)
    tables = {
        variant: table.assign(**{column: spread + 0.1 * (variant == "both") for column in quality.COLUMNS})
        for variant in quality.MEANINGS
    }
    found = quality.compare(tables, Bootstrap(200, 0))
    own, difference = (found["variants"]["both"], found["paired"]["both_minus_energy"])
    for column in quality.COLUMNS:
        assert own[column]["high"] - own[column]["low"] > 0.2
        assert difference[column]["low"] == pytest.approx(0.1)
        assert difference[column]["high"] == pytest.approx(0.1)


def test_the_page_and_the_table_say_the_numbers_and_ask_nothing_of_a_network(tmp_path, scores):
    found = report(tmp_path)
    page, table = ((tmp_path / "report" / name).read_text() for name in ("index.html", "table.txt"))
    for variant, meaning in quality.MEANINGS.items():
        cell = found["variants"][variant]["loudness_error_db"]
        assert meaning in page
        assert f"{cell['mean']:.2f}<small>{cell['low']:.2f} to {cell['high']:.2f}</small>" in page
        assert re.search(rf"^{variant} .*{cell['mean']:.2f} \[{cell['low']:.2f} {cell['high']:.2f}\]", table, re.M)
    assert len(re.findall("^both - ", table, re.M)) == page.count("both \N{MINUS SIGN} ") == 4
    assert "not defined" in page
    loaded = re.findall(r"""(?:src|href)\s*=\s*["'](.{0,22})|url\(|@import|<script""", page)
    assert loaded == ["data:image/png;base64,"]


def test_seeds_and_claims_stand_on_the_page_and_in_the_table(tmp_path, scores):
    report(tmp_path)
    found = json.loads((tmp_path / "quality.json").read_text())
    assert (found["n_seeds"], found["n_videos"]) == (2, 10)
    page, table = ((tmp_path / "report" / name).read_text() for name in ("index.html", "table.txt"))
    assert "2 trainings of each system, 10 held-out videos" in page
    for claim in found["claims"].values():
        verdict = {True: "holds", False: "FAILED", None: "not measured"}[claim["holds"]]
        assert re.search(rf"{verdict} +{re.escape(claim['claim'])}", table)
        assert f"{escape(claim['claim'])}</th><td>{verdict}</td>" in page
    for row in found["rows"]:
        assert re.search(rf"^{row} ", table, re.M)


def test_the_same_scores_give_the_same_bytes(tmp_path, scores):
    report(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    report(tmp_path)
    assert before == {path: path.read_bytes() for path in (tmp_path / "report").iterdir()}


def test_a_variant_that_was_not_built_is_named_with_what_to_do(tmp_path, scores):
    (tmp_path / "spotter" / "energy" / "clips.csv").unlink()
    with pytest.raises(DataContractError, match=r"There is no .*energy.clips\.csv\. Build it with `make quality`"):
        report(tmp_path)
    assert not (tmp_path / "quality.json").exists()


@pytest.mark.parametrize(("content", "said"), [("", "is no table of clips"), ("label,video_id\n", "the column clip_")])
def test_what_is_no_table_of_clips_is_named(tmp_path, scores, content, said):
    (tmp_path / "spotter" / "change" / "clips.csv").write_text(content)
    with pytest.raises(DataContractError, match=rf"change.clips\.csv .*{said}"):
        report(tmp_path)
