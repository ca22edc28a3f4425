"""The table and the page: every row is there, nothing is fetched, and the same input gives the same bytes."""

import csv
import html.parser
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from soundback.judging import pictures, players, report
from soundback.judging.plain_table import format_table, judge_sentence
from soundback.judging.probes import MEANINGS
from soundback.judging.rows import ROWS as ALL_ROWS
from soundback.judging.scores import read_scores
from soundback.judging.table import COLUMNS
from soundback.judging.trials import score_sound
from soundback.judging.watching import COLUMNS as WATCHING
from soundback.media import ffmpeg
from tests import heard
from tests.synthetic import Film

ROWS = tuple(row for row in ALL_ROWS if not row.startswith("paper"))
"""Without those that the paper's own evaluation adds."""


@pytest.fixture(scope="module")
def trials():
    return heard.make_trials()


@pytest.fixture(scope="module")
def results(trials):
    return heard.with_every_outcome(heard.make_results(trials))


@pytest.fixture(scope="module")
def examples(trials, results, tmp_path_factory):
    video = Film(duration_s=4.0).write(tmp_path_factory.mktemp("videos") / "clip.mp4")
    return heard.make_examples(trials, results, video)


@pytest.fixture(scope="module")
def missed(results):
    return [np.full((32, 32), 10 * place, np.uint8) for place in range(len(results.watching.missed))]


@pytest.fixture(scope="module")
def folder(results, trials, examples, missed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "report"
    report.write_report(results, trials, examples, folder, heard.SAMPLE_RATE, missed=missed)
    return folder


def test_rows_come_out_in_the_order_that_common_sense_demands(results):
    rows = results.evaluation["rows"]

    def mean(row, column):
        return rows[row][column]["mean"]

    assert mean("real", "onset_f1_100ms") == 1
    assert mean("local_predicted", "onset_f1_100ms") > 0.9 > 0.5 > mean("same_category_swap", "onset_f1_100ms")
    assert mean("real_shifted", "onset_f1_100ms") < 0.3 < 0.6 < mean("real_shifted", "onset_f1_300ms")
    assert mean("nearest_onset_paste", "onset_f1_100ms") > 0.9
    assert mean("silence", "onset_f1_300ms") == 0
    assert mean("envelope_noise", "loudness_correlation") > 0.8 > mean("real_shifted", "loudness_correlation")
    assert mean("silence", "loudness_correlation") is None
    assert mean("real", "category_accuracy") == mean("local_predicted", "category_accuracy") == 1
    assert mean("envelope_noise", "category_accuracy") == 0.5
    assert mean("real", "loudness_error_db") == 0 < mean("local_predicted", "loudness_error_db")
    assert mean("real", "frechet_distance") < mean("envelope_noise", "frechet_distance")


def test_the_evaluation_has_the_promised_form(results):
    evaluation = json.loads(json.dumps(results.evaluation, allow_nan=False))
    assert evaluation["n_videos"] == 6
    assert tuple(evaluation["watching"]) == tuple(evaluation["watching_intervals"]) == WATCHING
    assert {"category_accuracy", "loudness_correlation", "loudness_error_db", "hit_f1_100ms"} < set(WATCHING)
    for name, value in evaluation["watching"].items():
        assert evaluation["watching_intervals"][name]["mean"] == value
    assert tuple(evaluation["rows"]) == ROWS
    for cells in evaluation["rows"].values():
        assert tuple(cells) == COLUMNS
        assert all(set(cell) == {"mean", "low", "high", "n"} for cell in cells.values())
    assert evaluation["rows"]["local_true"]["bits_per_sample"] == {"mean": 2.5, "low": 2.5, "high": 2.5, "n": 6}
    assert evaluation["rows"]["real"]["bits_per_sample"] == {"mean": None, "low": None, "high": None, "n": 0}
    gain = evaluation["paired"]["local_predicted_minus_same_category_swap"]["onset_f1_100ms"]
    assert gain["low"] > 0.3


@pytest.mark.parametrize(("real", "made", "kept"), [("Bell", "Bell", 1), ("Bell", "Drum", 0), ("Drum", "Bell", None)])
def test_a_category_is_kept_or_lost_only_where_the_judge_knows_it_in_the_real_sound(trials, real, made, kept):
    trial = trials[0]
    assert trial.label == "Bell"
    scores = score_sound(trial, "real", *(replace(heard.hear(trial.waveform), category=name) for name in (made, real)))
    assert scores["category_kept"] == kept
    assert scores["category_accuracy"] == (made == "Bell")


def test_cue_sheets_are_scored_before_any_sound_is_made(results):
    assert results.evaluation["watching"] == {
        "category_accuracy": 1.0,
        "macro_f1": 1.0,
        "majority_accuracy": 0.5,
        "loudness_correlation": 1.0,
        "loudness_error_db": 0.0,
        "hit_f1_100ms": 1.0,
        "unsure_share": 0.0,
        "calibration_error": pytest.approx(0.1, abs=1e-6),
    }


def test_the_plain_table_shows_every_row_and_every_difference(results):
    text = format_table(results.evaluation)
    lines = text.splitlines()
    for row in ROWS:
        assert sum(line.startswith(f"{row} ") for line in lines) == 2, "once in each block"
    assert "local_predicted - category_only" in text
    assert next(line for line in lines if line.startswith("silence")).split()[1] == "0.50"
    assert "nan" not in text
    assert max(map(len, lines)) < 200


def test_the_plain_table_says_first_what_the_judge_is_worth(results):
    cell = {"mean": 0.979, "low": 0.9375, "high": 1.0, "n": 48}
    evaluation = results.evaluation | {"judge": {"accuracy": cell, "n_training_videos": 190}}
    first, *_ = format_table(evaluation).splitlines()
    assert first == (
        "The judge names 0.98 [0.94 1.00] of the real test sounds rightly (n 48): that is the ceiling of every row."
    )


def test_the_plain_table_says_of_every_claim_in_words_whether_it_holds(results):
    lines = format_table(results.evaluation).splitlines()
    claims = [claim["claim"] for claim in results.evaluation["claims"].values()]
    said = {claim: line.split("  ")[1] for claim in claims for line in lines if claim in line}
    assert list(said.values()) == ["holds", "FAILED", "not measured"]


def test_the_plain_table_takes_an_older_evaluation_and_rows_without_columns():
    cell = {"mean": 0.5, "low": None, "high": None, "n": 1}
    rows = {"paper": {"category_accuracy": cell}, "paper_stitched": {"seam_discontinuity_db": cell}}
    lines = format_table({"n_videos": 1, "watching": {"x": None}, "rows": rows}).splitlines()
    assert [line.split() for line in lines if line.startswith("paper")] == [
        ["paper", "0.50"],
        ["paper_stitched", "-"],
        ["paper", "-"],
        ["paper_stitched", "0.50"],
    ]


class _Page(html.parser.HTMLParser):
    """Every address on a page, every tag, and the text of the row headers."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.open, self.unnamed = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.addresses += [given[name] for name in ("src", "href", "poster", "data") if name in given]
        if (tag == "img" and not given.get("alt")) or (tag in ("audio", "video") and not given.get("aria-label")):
            self.unnamed.append(tag)
        if tag not in ("meta", "img", "line", "circle", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_fetches_nothing_and_shows_every_row(folder, examples):
    text = (folder / "index.html").read_text(encoding="utf-8").replace("<wbr>", "")
    page = _Page(text)
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert all(f'id="{address[1:]}"' in text for address in page.addresses if address.startswith("#"))
    assert not re.search(r"https?://|url\(|@import", text)
    assert not page.open
    assert not page.unnamed
    for row in ROWS:
        assert f'<th scope="row">{row}<' in text
    for example in examples:
        assert example.trial.video_id in text
    for name in (*WATCHING, *MEANINGS):
        assert f'<th scope="row">{name.replace("_", " ")}<' in text
    assert text.count("<video") == 2 * len(examples)


def text_of(page):
    """What is said on a page between two of its tags, without the tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def section(page, name):
    return page[page.index(f'<section aria-labelledby="{name}">') :].partition("</section>")[0]


def test_the_page_says_what_the_judge_is_worth_and_in_words_what_holds(results, folder):
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert judge_sentence(results.evaluation["judge"]) in text_of(section(page, "table"))
    claims = text_of(section(page, "claims"))
    assert "1 holds, 1 FAILED, 1 not measured." in claims
    for claim, told in zip(results.evaluation["claims"].values(), ("holds", "FAILED", "not measured"), strict=True):
        assert re.search(rf"{claim['claim']} . {told}", claims)


def test_the_page_tells_each_category_beside_the_whole(results, folder):
    page = section((folder / "index.html").read_text(encoding="utf-8").replace("<wbr>", ""), "categories")
    groups = {text_of(part).split(" real ")[0]: part for part in page.split('<tbody class="label">')[1:]}
    assert list(groups) == ["All of them", *heard.CATEGORIES]
    for label in heard.CATEGORIES:
        assert re.findall(r'<th scope="row">(\w+)', groups[label]) == ["real", "local_predicted", "local_true"]
        accuracy = results.categories[label]["local_predicted"]["category_accuracy"]
        assert f"{accuracy['mean']:.2f} {accuracy['low']:.2f} to {accuracy['high']:.2f}, n 3" in text_of(groups[label])


def test_a_row_that_lacks_columns_and_a_column_of_one_row_alone_are_shown(results):
    cell = {"mean": 7.25, "low": 6.0, "high": 8.5, "n": 6}
    rows = results.evaluation["rows"] | {"paper_stitched": {"seam_discontinuity_db": cell}}
    told = replace(results, evaluation=results.evaluation | {"rows": rows})
    page = text_of(section(report._page(told, [], heard.SAMPLE_RATE), "table"))
    assert "seams dB lower n 6" in page
    assert page.count("7.25 6.00 to 8.50") == 1


def test_what_the_paper_made_can_be_heard_where_there_is_such_a_row(results, trials, examples):
    odd = heard.make_trial("Bell", 5)
    odd.sounds.update(trials[0].sounds | {"paper": trials[1].waveform})
    page = report._page(results, [replace(examples[0], trial=odd)], heard.SAMPLE_RATE)
    assert page.count("<audio") == 1 + report._page(results, examples[:1], heard.SAMPLE_RATE).count("<audio")
    assert f'aria-label="Bell, video {odd.video_id}, paper"' in page


def test_the_line_of_the_playhead_begins_and_ends_with_the_sound(trials):
    figure = pictures.draw_trial(trials[0], heard.SAMPLE_RATE)
    pictures.png(figure)
    width = figure.get_size_inches()[0] * figure.dpi
    end_s = len(trials[0].waveform) / heard.SAMPLE_RATE
    for axes in figure.axes:
        drawn = [100 * axes.transData.transform((time_s, 0))[0] / width for time_s in (0, end_s)]
        assert pictures.time_axis(figure) == pytest.approx(drawn, abs=0.01)


def test_a_video_that_is_too_large_for_the_page_is_made_smaller_and_else_left_out(tmp_path, monkeypatch):
    video = Film(duration_s=1.0, size=(960, 720)).write(tmp_path / "clip.mp4")
    wave = players.encode_sound(heard.knocks([0.5], 300, seconds=1.0), heard.SAMPLE_RATE, "WAV")
    whole = players.encode_video(video, wave)
    monkeypatch.setattr(players, "LARGE_VIDEO_BYTES", len(whole) - 1)
    small = players.encode_video(video, wave)
    assert small == players.encode_video(video, wave)
    (tmp_path / "small.mp4").write_bytes(small)
    facts = ffmpeg.probe(tmp_path / "small.mp4")
    assert (facts.has_audio, len(small) < len(whole)) == (True, True)
    monkeypatch.setattr(players, "LARGEST_VIDEO_BYTES", 100)
    assert players.encode_video(video, wave) is None


def test_without_a_lock_the_page_says_that_it_was_built_outside_dvc(results):
    assert "Built outside DVC" in section(report._page(results, [], heard.SAMPLE_RATE), "provenance")


def test_examples_are_silent_and_named_after_label_and_video(folder, examples):
    names = {f"slug_{example.trial.video_id}_silent.mp4" for example in examples}
    assert {path.name for path in (folder / "examples").iterdir()} == names
    assert not any(ffmpeg.probe(folder / "examples" / name).has_audio for name in names)


def test_the_strip_is_a_picture_without_date_or_program(folder):
    with Image.open(folder / "strip.png") as picture:
        assert picture.size == (1000, 340)
        assert set(picture.info) <= {"dpi"}


def test_scores_of_every_clip_are_there_to_be_read(folder, trials):
    lines = read_scores(folder / "scores.parquet")
    assert len(lines) == len(ROWS) * len(trials)
    silent = next(line for line in lines if line["row"] == "silence")
    assert (silent["onset_f1_50ms"], silent["loudness_correlation"]) == (0, None)
    assert {(line["name"], line["video_id"]) for line in lines} == {(each.name, each.video_id) for each in trials}


def test_the_same_input_gives_the_same_bytes(results, trials, examples, missed, folder, tmp_path):
    report.write_report(results, trials, examples, tmp_path / "report", heard.SAMPLE_RATE, missed=missed)
    report.write_plots(results, examples, missed, tmp_path / "plots", heard.SAMPLE_RATE)
    report.write_plots(results, examples, missed, tmp_path / "again", heard.SAMPLE_RATE)
    first, second = (
        {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (folder, tmp_path / "report")
    )
    assert first == second
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names >= {"confusion.csv", "missed.png"}
    for name in names:
        assert (tmp_path / "plots" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_table_that_dvc_draws_has_what_the_evaluation_says(results, folder):
    with (folder / "evaluation.csv").open(encoding="utf-8") as file:
        lines = {(line["row"], line["column"]): line for line in csv.DictReader(file)}
    assert tuple(dict.fromkeys(row for row, _ in lines)) == ROWS
    for row, cells in results.evaluation["rows"].items():
        for column in ("onset_f1_100ms", "loudness_correlation", "kernel_distance"):
            told, cell = lines.get((row, column)), cells[column]
            assert (told is None) == (cell["n"] == 0)
            if told:
                assert [float(told[key]) for key in cell] == list(cell.values())


def test_plots_hold_a_line_for_every_clip_and_bin(results, examples, missed, tmp_path):
    report.write_plots(results, examples, missed, tmp_path / "plots", heard.SAMPLE_RATE)
    with (tmp_path / "plots" / "confusion.csv").open(encoding="utf-8") as file:
        assert [tuple(line.values()) for line in csv.DictReader(file)] == [("Bell", "Bell")] * 3 + [
            ("Drum", "Drum")
        ] * 3
    with (tmp_path / "plots" / "reliability.csv").open(encoding="utf-8") as file:
        assert [tuple(line.values()) for line in csv.DictReader(file)] == [("0.9", "1.0", "600")]


def test_examples_are_the_worst_and_the_best_of_each_label_worst_first(trials):
    qualities = [0.9, 0.1, 0.5, 0.8, 0.2, 0.3]
    scores = [{"category_accuracy": value, "onset_f1_100ms": None} for value in qualities]
    chosen = report.choose_examples(trials, scores, 2)
    assert chosen == [1, 4, 3, 0]
    assert report.choose_examples(trials, scores, 9) == [1, 4, 5, 2, 3, 0]


def test_names_from_outside_cannot_break_the_page(results, trials, examples, tmp_path):
    odd = heard.make_trial("Bell", 5)
    object.__setattr__(odd, "video_id", "<script>")
    odd.sounds.update(trials[0].sounds)
    example = report.Example(
        odd, {"local_predicted": {"category_accuracy": 1.0}}, examples[0].frames, examples[0].video, "x"
    )
    page = report._page(results, [example], heard.SAMPLE_RATE)
    assert page.count("<script>") == 1, "the page's own"
    assert page.count("&lt;script&gt;") > 5
