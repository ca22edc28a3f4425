"""Folders of other people's sound are scored by name, whatever their format and level, and nothing goes missing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from scipy.signal import resample_poly
from typer.testing import CliRunner

from soundback.cli import app
from soundback.errors import DataContractError, ModelError, SoundbackError
from soundback.judging import folders, judge, pairs, scores
from soundback.judging.folders import evaluate_folders
from soundback.judging.intervals import Bootstrap
from soundback.judging.judge import Example, Judge
from soundback.params import Judge as JudgeParams
from tests import synthetic
from tests.heard import CATEGORIES, SAMPLE_RATE, knocks

TIMES_S = np.array([0.3, 0.7, 1.15, 1.5, 2.0, 2.45, 2.9, 3.4])
HZ = {"Bell": 880, "Drum": 150}
NAMES = [f"{label.lower()}/{label.lower()}{number}" for label in CATEGORIES for number in range(3)]
PARAMS = JudgeParams(
    channels=(8, 16), embedding=4, window_s=0.5, steps=60, max_minutes=1.0, batch_size=16, learning_rate=0.01,
    patience=99, seed=0,
)  # fmt: skip
NO_JUDGE = Path("none")


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])


def sound(name, times_s=TIMES_S):
    """Knocks of the category that a name begins with, the same for the same name."""
    label, number = name.split("/")[0].capitalize(), int(name[-1])
    return knocks(times_s + 0.02 * number, HZ[label], seed=number)


def write(folder, name, waveform, *, sample_rate=SAMPLE_RATE, suffix=".wav"):
    path = folder / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, sample_rate)
    return path


def write_all(folder, change=lambda waveform: waveform, **how):
    for name in NAMES:
        write(folder, name, change(sound(name)), **how)
    return folder


def row_of(results, name, row="generated"):
    return next(each for each in results.scores if (each["row"], each["name"]) == (row, name))


def statuses(results):
    return {each["name"]: each["status"] for each in results.scores if each["row"] == "generated"}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def judge_file(tmp_path_factory):
    examples = [
        Example(judge.hear(knocks(TIMES_S + 0.01 * number, HZ[label], seed=50 + number), SAMPLE_RATE), place)
        for number in range(6)
        for place, label in enumerate(CATEGORIES)
    ]
    path = tmp_path_factory.mktemp("models") / "judge.keras"
    Judge(judge.train_judge(examples, [], 2, params=PARAMS).model, CATEGORIES, SAMPLE_RATE).save(path)
    return path


@pytest.fixture(scope="module")
def judged(reference, judge_file, tmp_path_factory):
    """The command's words and both of its files, of a folder scored against itself."""
    folder = tmp_path_factory.mktemp("out")
    result = run(
        "--generated", reference, "--reference", reference, "--judge", judge_file,
        "--out", folder / "out.json", "--scores", folder / "scores.parquet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return result.output, json.loads((folder / "out.json").read_text()), folder / "scores.parquet"


def evaluate_plainly(generated, reference, **how):
    return evaluate_folders(generated, reference, judge=NO_JUDGE, sample_rate=SAMPLE_RATE, **how)


def test_identical_folders_score_perfectly(judged):
    _, evaluation, _ = judged
    cells = {column: cell["mean"] for column, cell in evaluation["rows"]["generated"].items()}
    assert all(cells[column] == 1 for column in cells if column.startswith("onset") or column == "category_accuracy")
    assert cells["loudness_correlation"] == pytest.approx(1)
    for column in ("loudness_error_db", "loudness_lag_ms", "category_divergence", "frechet_distance"):
        assert cells[column] == pytest.approx(0, abs=1e-4)
    assert evaluation["rows"]["generated"] == evaluation["rows"]["reference"]
    assert evaluation["rows"]["silence"]["onset_f1_100ms"]["mean"] == 0
    assert evaluation["rows"]["silence"]["frechet_distance"]["mean"] > 0.1
    assert (evaluation["n_files"], evaluation["lost"]) == (6, {})


def test_the_judge_comes_first_with_its_ceiling(judged):
    output, evaluation, _ = judged
    told = [line for line in output.splitlines() if not line.startswith("PROGRESS")]
    assert told[0].startswith("The judge names 1.000 [1.000 1.000] of the reference sounds rightly (n 6)")
    assert evaluation["judge"]["accuracy"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 6}
    assert "Distances are to the reference sounds themselves" in told[2]


def test_every_category_stands_beside_the_total(judged):
    output, evaluation, _ = judged
    assert list(evaluation["categories"]) == ["Bell", "Drum"]
    assert evaluation["categories"]["Bell"]["generated"]["onset_f1_50ms"]["n"] == 3
    assert [line.split()[0] for line in output.splitlines()[-3:]] == ["all", "Bell", "Drum"]


def test_the_table_is_the_bootstrap_of_the_written_scores(judged):
    _, evaluation, path = judged
    frame = pd.read_parquet(path)
    assert list(frame.columns) == scores.SCORES.names
    for row, cells in evaluation["rows"].items():
        of_row = frame[frame["row"] == row]
        assert len(of_row) == 6
        for column in scores.CLIP_COLUMNS:
            known = of_row[column].dropna()
            assert cells[column] == Bootstrap(2000, 0).mean(list(known)).cell()


def test_distances_are_to_training_sound_where_it_is_given(reference, judge_file, tmp_path):
    write_all(tmp_path / "any/tree", lambda waveform: waveform[::-1])
    (tmp_path / "any/notes.wav").write_text("not a sound")
    results = evaluate_folders(reference, reference, judge=judge_file, training=tmp_path / "any")
    told = results.evaluation["judge"]
    assert (told["distances_to"], told["n_training"], told["n_training_lost"]) == ("training", 6, 1)
    assert results.evaluation["rows"]["reference"]["frechet_distance"]["mean"] > 0.01
    assert "Distances are to 6 training sounds (1 more" in scores.format_evaluation(results.evaluation)


def test_a_folder_that_is_late_gets_its_lag_and_the_scores_of_the_shifted_reference(reference, tmp_path):
    late = write_all(
        tmp_path / "late",
        lambda waveform: np.concatenate([np.zeros(SAMPLE_RATE // 5, np.float32), waveform])[: len(waveform)],
    )
    rows = evaluate_plainly(late, reference).evaluation["rows"]
    assert rows["generated"]["loudness_lag_ms"]["mean"] == pytest.approx(200, abs=8)
    assert rows["reference"]["loudness_lag_ms"]["mean"] == pytest.approx(0, abs=1e-6)
    for column in ("onset_f1_50ms", "onset_f1_100ms", "onset_f1_300ms"):
        assert rows["generated"][column]["mean"] == pytest.approx(rows["reference_shifted"][column]["mean"], abs=0.02)
    assert rows["generated"]["onset_f1_100ms"]["mean"] < 0.2


@pytest.mark.parametrize("rate", [16000, 44100])
def test_level_and_sample_rate_of_a_file_change_nothing(reference, tmp_path, rate):
    def change(waveform):
        return 0.1 * resample_poly(waveform, rate // 100, SAMPLE_RATE // 100)

    other = write_all(tmp_path / "other", change, sample_rate=rate, suffix=".flac")
    rows = evaluate_plainly(other, reference).evaluation["rows"]
    assert rows["generated"]["onset_f1_50ms"]["mean"] == 1
    assert rows["generated"]["loudness_correlation"]["mean"] > 0.999
    assert rows["generated"]["loudness_error_db"]["mean"] < 0.3


def test_one_of_eight_onsets_is_a_recall_of_an_eighth(reference, tmp_path):
    write(tmp_path, NAMES[0], sound(NAMES[0], TIMES_S[:1]))
    told = row_of(evaluate_plainly(tmp_path, reference), NAMES[0])
    assert (told["onset_precision_50ms"], told["onset_recall_50ms"]) == (1, 0.125)


def test_an_onset_at_the_very_end_leaves_the_reference_at_one_with_itself(tmp_path):
    waveform = sound(NAMES[0])
    waveform[-16:] += 0.5 * np.sin(np.arange(16))
    path = write(tmp_path, "a", waveform)
    assert (
        folders.Listener(None, SAMPLE_RATE).ear.find_onsets(soundfile.read(path)[0])[-1] == len(waveform) / SAMPLE_RATE
    )
    told = row_of(evaluate_plainly(tmp_path, tmp_path), "a", "reference")
    assert (told["onset_precision_50ms"], told["onset_recall_50ms"]) == (1, 1)


def test_every_file_gets_a_row_that_says_what_became_of_it(tmp_path):
    ours, theirs, waveform = tmp_path / "ours", tmp_path / "theirs", sound(NAMES[0])
    for folder in (ours, theirs):
        write(folder, "deep/er/nested.1", waveform, suffix=".WAV" if folder is ours else ".flac")
        (folder / ".hidden.wav").write_text("")
        (folder / "list.json").write_text("[]")
    write(ours, "alone", waveform)
    write(theirs, "wanted", waveform)
    for name in ("cut", "broken", "mute", "hushed", "quiet", "blip", "two", "empty"):
        write(theirs, name, waveform)
        write(ours, name, waveform)
    write(ours, "cut", waveform[: 3 * SAMPLE_RATE])
    (ours / "broken.wav").write_text("not a sound")
    (ours / "dangling.wav").symlink_to(ours / "nothing.wav")
    write(theirs, "dangling", waveform)
    (ours / "mute.wav").unlink()
    synthetic.Film(has_sound=False).write(ours / "mute.mp4")
    write(ours, "hushed", 1e-4 * waveform)
    write(theirs, "quiet", 0 * waveform)
    write(ours, "blip", waveform[: SAMPLE_RATE // 10])
    write(ours, "two", waveform, suffix=".flac")
    write(ours, "empty", waveform[:0])
    results = evaluate_plainly(ours, theirs)
    assert statuses(results) == {
        "deep/er/nested.1": "ok",
        "alone": "no_reference",
        "wanted": "no_generated",
        "cut": "ok",
        "broken": "unreadable",
        "dangling": "unreadable",
        "mute": "no_sound",
        "hushed": "silent",
        "quiet": "silent_reference",
        "blip": "too_short",
        "two": "ambiguous",
        "empty": statuses(results)["empty"],
        "list.json": "other_kind",
    }
    assert statuses(results)["empty"] in ("no_sound", "unreadable")
    assert set(statuses(results).values()) <= set(scores.STATUSES)
    assert all((each["reason"] is None) == (each["status"] == "ok") for each in results.scores)
    assert not any(str(tmp_path) in str(each["reason"]) for each in results.scores)
    # A silent answer is scored, or a system would do best by not answering.
    assert row_of(results, "hushed")["onset_f1_100ms"] == 0
    assert row_of(results, "cut")["length_difference_s"] == pytest.approx(-1)
    assert row_of(results, "cut")["onset_f1_50ms"] == 1
    evaluation = results.evaluation
    assert (evaluation["n_files"], evaluation["n_silent"], evaluation["n_other_length"]) == (3, 1, 1)
    assert evaluation["rows"]["generated"]["onset_f1_100ms"]["n"] == 3
    assert sum(evaluation["lost"].values()) == len(statuses(results)) - 3
    words = scores.format_evaluation(evaluation)
    assert "1 no_reference, 1 no_generated" in words
    assert "1 of them are silent" in words


def test_sound_is_aligned_with_the_picture_that_either_side_has(tmp_path):
    film = synthetic.Film(duration_s=5.0, events_s=(1.0, 2.0, 3.0, 4.0), flash_s=0.5)
    (tmp_path / "sound").mkdir(), (tmp_path / "film").mkdir()
    film.write(tmp_path / "film/a.mp4")
    clicks = synthetic.clicks(film.events_s, duration_s=5.0, sample_rate=16000)
    write(tmp_path / "sound", "a", clicks, sample_rate=16000)
    # Each flash is two motions, on and off, and one click; 0.2 s later it meets neither.
    for ours, theirs in (("sound", "film"), ("film", "sound")):
        rows = evaluate_folders(tmp_path / ours, tmp_path / theirs, judge=NO_JUDGE).evaluation["rows"]
        assert [rows[row]["av_align"]["mean"] for row in scores.ROWS] == [0.5, 0.5, 0, 0]


def test_what_the_judge_hears_is_held_against_the_folder_and_the_reference(judge_file, tmp_path):
    bell, drum = sound("bell/bell0"), sound("drum/drum0")
    for name, ours, theirs in (("bell/wrong", drum, bell), ("bell/right", bell, drum)):
        write(tmp_path / "ours", name, ours)
        write(tmp_path / "theirs", name, theirs)
    results = evaluate_folders(tmp_path / "ours", tmp_path / "theirs", judge=judge_file)
    wrong, right = row_of(results, "bell/wrong"), row_of(results, "bell/right")
    assert (wrong["category_accuracy"], wrong["category_kept"]) == (0, 0)
    # Of a sound that it takes wrong even when it is real, the judge has nothing to say.
    assert (right["category_accuracy"], right["category_kept"]) == (1, None)
    said = [np.maximum(Judge.load(judge_file).predict(waveform), 1e-6) for waveform in (bell, drum)]
    for told, (real, generated) in ((wrong, said), (right, reversed(said))):
        expected = float(np.sum(real * np.log(real / generated)))
        assert told["category_divergence"] == pytest.approx(expected, rel=0.05)
    assert wrong["category_divergence"] != pytest.approx(right["category_divergence"], rel=0.1)


def test_people_are_believed_rather_than_the_detector(reference, judge_file, tmp_path):
    flat = tmp_path / "flat"
    for name in NAMES:
        write(flat, name.split("/")[1], sound(name))
    rows = [
        {"name": name.split("/")[1], "category": name.split("/")[0].upper(), "onsets_s": [0.3, 1.15, 5.5, 9.0]}
        for name in NAMES[1:]
    ]
    rows.append({"name": "bell0", "onsets_s": [0.3, 0.7, 1.15, 1.3, 1.8, 2.3, 2.6, 3.0]})
    (tmp_path / "truth.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "truth.parquet")
    by_json, by_parquet = (
        evaluate_folders(flat, flat, judge=judge_file, truth=tmp_path / f"truth.{kind}") for kind in ("json", "parquet")
    )
    assert by_json.scores == by_parquet.scores
    told = row_of(by_json, "bell0")
    assert (told["label"], told["category_accuracy"]) == (None, None)
    assert told["onset_recall_50ms"] == 3 / 8
    told = row_of(by_json, "drum1")
    # Two onsets lie within the sound: too few to score it by.
    assert (told["label"], told["category_accuracy"], told["onset_f1_50ms"]) == ("Drum", 1, None)


def test_every_fault_of_a_truth_is_named_and_nothing_computed(reference, tmp_path):
    faulty = [
        {"name": "drum/drum9"},
        {"name": NAMES[0], "onsets_s": [1.0, 0.5]},
        {"name": NAMES[0], "onsets_s": [1.0, "2"]},
        {"name": NAMES[1], "onsets_s": 3},
        {"name": NAMES[2], "onsets_s": [-1.0]},
        {"name": 7, "category": 8},
        {"name": NAMES[3], "onset_s": [1.0]},
        "drum",
    ]
    (tmp_path / "truth.json").write_text(json.dumps(faulty))
    result = run(
        "--generated", reference, "--reference", reference, "--judge", "none",
        "--truth", tmp_path / "truth.json", "--out", tmp_path / "out.json",
    )  # fmt: skip
    assert result.exit_code == 2
    assert not (tmp_path / "out.json").exists()
    for words in (
        "10 fault(s)",
        "row 1: no file is named 'drum/drum9'; names are paths below the folder without ending, such as 'bell/bell0'",
        "row 2: onsets_s must be in rising order",
        "row 3: onsets_s must hold numbers, found '2'",
        "row 3: 'bell/bell0' stands there twice",
        "row 4: onsets_s must be a list of seconds, found 3",
        "row 5: onsets_s must be finite seconds from 0 on",
        "row 6: name must be a string, found 7",
        "row 6: category must be a string, found 8",
        "row 7: there is no 'onset_s'",
        "row 8: found 'drum'",
    ):
        assert words in result.output


def test_a_truth_that_contradicts_a_folder_of_the_judges_category_is_a_fault(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps([{"name": "bell/bell0", "category": "Drum"}]))
    with pytest.raises(DataContractError, match="bell/bell0 is said to be Drum, but lies in a folder of Bell"):
        pairs.read_truth(tmp_path / "truth.json", NAMES, CATEGORIES)
    for content in ("{", '{"name": 1}'):
        (tmp_path / "truth.json").write_text(content)
        with pytest.raises(DataContractError, match=r"truth\.json (cannot be read|holds dict)"):
            pairs.read_truth(tmp_path / "truth.json", NAMES, CATEGORIES)


@pytest.mark.parametrize(
    ("name", "told", "label"),
    [
        ("Drum/a", None, "Drum"),
        ("air_horn/a", None, "Air Horn"),
        ("air-horn/b/a", "Drum", "Air Horn"),
        ("b/a", "air horn", "Air Horn"),
        ("b/a", "Violin", "Violin"),
        ("Drum", None, None),
    ],
)
def test_a_category_is_that_of_the_folder_else_what_people_say(name, told, label):
    assert pairs.find_label(name, ("Drum", "Air Horn"), told) == label


def test_names_are_one_however_their_accents_are_written(tmp_path):
    write(tmp_path / "ours", "caf\u00e9", sound(NAMES[0]))
    write(tmp_path / "theirs", "cafe\u0301", sound(NAMES[0]))
    assert [pair.status for pair in pairs.find_pairs(tmp_path / "ours", tmp_path / "theirs")] == ["ok"]


def test_differences_to_an_earlier_run_are_those_of_pandas(reference, tmp_path):
    noisy = write_all(tmp_path / "noisy", lambda waveform: waveform + synthetic.noise(duration_s=4, sample_rate=8000))
    late = write_all(tmp_path / "late", lambda waveform: np.roll(waveform, 400))
    (late / f"{NAMES[0]}.wav").unlink()
    both = []
    for folder in (noisy, late):
        path = tmp_path / f"{folder.name}.parquet"
        result = run("--generated", folder, "--reference", reference, "--judge", "none", "--scores", path,
                     *(["--against", both[0]] if both else []))  # fmt: skip
        assert result.exit_code == 0, result.output
        both.append(path)
    first, second = (pd.read_parquet(path).query("row == 'generated'").set_index("name") for path in reversed(both))
    differences = scores.compare(*map(scores.read_scores, reversed(both)), Bootstrap(200, 0))
    found = differences["generated"]
    for column in scores.CLIP_COLUMNS:
        expected = (first[column] - second[column]).dropna()
        assert found[column].n == len(expected)
        assert found[column].mean == (pytest.approx(expected.mean()) if len(expected) else None)
    assert found["loudness_error_db"].n == 5
    line = next(line for line in result.output.split("generated, this minus")[1].splitlines() if "error_db" in line)
    assert line.split()[1] == f"{found['loudness_error_db'].mean:+.3f}"
    assert "not measured alike" not in result.output
    assert all(each.mean in (None, 0) for each in differences["reference_shifted"].values())


def test_scores_that_were_measured_in_another_way_are_not_compared_unsaid(reference, tmp_path):
    path = tmp_path / "earlier.parquet"
    scores.write_scores(evaluate_folders(reference, reference, judge=NO_JUDGE, sample_rate=16000).scores, path)
    asked = ("--generated", reference, "--reference", reference, "--judge", "none", "--against", path)
    assert "not measured alike" in run(*asked, "--sample-rate", 8000).output
    assert "not measured alike" not in run(*asked).output
    frame = pd.read_parquet(path).assign(name="other", video_id="other")
    scores.write_scores(frame[:1].replace({np.nan: None}).to_dict("records"), path)
    assert "there is nothing to compare" in run(*asked).output


def test_scores_are_read_back_as_they_were_written_and_checked(judged, tmp_path):
    rows = scores.read_scores(judged[2])
    scores.write_scores(rows, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == judged[2].read_bytes()
    for wrong, words in (
        ([rows[0], rows[0]], "2 rows generated of bell/bell0"),
        ([rows[0] | {"status": "fine"}], "status fine; expected one of ok, silent"),
        ([rows[0] | {"av_align": np.nan}], "av_align that is not finite"),
    ):
        with pytest.raises(DataContractError, match=words):
            scores.write_scores(wrong, tmp_path / "wrong.parquet")
    pq.write_table(pa.table({"row": ["generated"]}), tmp_path / "wrong.parquet")
    with pytest.raises(DataContractError, match="does not follow its schema"):
        scores.read_scores(tmp_path / "wrong.parquet")
    with pytest.raises(DataContractError, match="cannot be read as Parquet"):
        scores.read_scores(tmp_path / "none.parquet")


def test_without_a_judge_its_columns_are_null_and_one_line_says_so(reference, tmp_path):
    result = run("--generated", reference, "--reference", reference, "--judge", tmp_path / "none.keras",
                 "--out", tmp_path / "out.json")  # fmt: skip
    told = [line for line in result.output.splitlines() if not line.startswith("PROGRESS")]
    assert told[0].startswith("There is no judge")
    assert "dvc repro train_judge" in told[0]
    evaluation = json.loads((tmp_path / "out.json").read_text())
    assert (evaluation["judge"], evaluation["categories"], evaluation["sample_rate"]) == (None, {}, 16000)
    nothing = {"mean": None, "low": None, "high": None, "n": 0}
    for column in ("category_accuracy", "category_kept", "category_divergence", "kernel_distance", "diversity"):
        assert evaluation["rows"]["generated"][column] == nothing
    assert evaluation["rows"]["generated"]["onset_f1_50ms"]["n"] == 6


def test_what_excludes_each_other_is_refused(reference, judge_file, tmp_path):
    with pytest.raises(SoundbackError, match="hears 8000 Hz, not 16000"):
        evaluate_folders(reference, reference, judge=judge_file, sample_rate=16000)
    with pytest.raises(SoundbackError, match="multiple of 25"):
        evaluate_folders(reference, reference, judge=NO_JUDGE, sample_rate=8001)
    with pytest.raises(SoundbackError, match="for a judge to hear"):
        evaluate_plainly(reference, reference, training=reference)
    (tmp_path / "judge.keras").write_text("no model")
    with pytest.raises(ModelError, match="not a model"):
        evaluate_folders(reference, reference, judge=tmp_path / "judge.keras")


def test_folders_without_a_common_name_are_refused_with_one_of_each(reference, tmp_path):
    write(tmp_path, "other/x", sound(NAMES[0]))
    result = run("--generated", tmp_path, "--reference", reference)
    assert result.exit_code == 2
    assert "other/x.wav in" in result.output
    assert "bell/bell0.wav in" in result.output
    result = run("--generated", tmp_path / "none", "--reference", reference)
    assert f"There is no folder {tmp_path / 'none'}." in result.output


def test_folders_of_which_nothing_can_be_scored_are_refused_with_the_first_reason(tmp_path):
    write(tmp_path / "ours", "a", sound(NAMES[0])).write_text("not a sound")
    write(tmp_path / "theirs", "a", sound(NAMES[0]))
    with pytest.raises(SoundbackError, match=r"Not one of 1 files could be scored: 1 unreadable\. The first is a: gen"):
        evaluate_plainly(tmp_path / "ours", tmp_path / "theirs")


def test_an_existing_output_is_kept_unless_overwrite_is_said(reference, tmp_path):
    (tmp_path / "out.json").write_text("precious")
    asked = ("--generated", reference, "--reference", reference, "--judge", "none", "--out", tmp_path / "out.json")
    result = run(*asked)
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert (tmp_path / "out.json").read_text() == "precious"
    assert run(*asked, "--overwrite").exit_code == 0
    first = (tmp_path / "out.json").read_bytes()
    assert run(*asked, "--overwrite").exit_code == 0
    assert (tmp_path / "out.json").read_bytes() == first


def test_of_a_large_set_files_and_windows_are_evenly_chosen():
    assert folders._thin(range(1200), 500) == list(range(0, 1200, 3))
    assert folders._thin([1, 2], 500) == [1, 2]
    windows = [np.arange(5000.0)[:, None]] * 3
    thinned = folders._thin_windows(windows)
    assert [len(each) for each in thinned] == [folders.MAX_WINDOWS // 3] * 3
    assert (thinned[0][0, 0], thinned[0][-1, 0]) == (0, 4999)
