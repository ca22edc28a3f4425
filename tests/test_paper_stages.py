"""The stages of paper/dvc.yaml, run as DVC runs them: from a params file of their own to rows beside those of ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import stages
from soundback import schemas
from soundback.errors import ModelError, ParamsError
from soundback.judging.audition import Sections
from soundback.judging.judge import Judge
from soundback.judging.rows import ROWS
from soundback.judging.trials import hear
from soundback.media.audio import read_wav
from soundback.media.shards import read_clip
from soundback.model_files import load_model, save_model
from soundback.paper import PaperSystem
from soundback.params import Params, load_params
from stages.evaluate_paper import evaluate_paper
from stages.train_classifier import train_classifier
from stages.train_paper_wavenet import train_paper_wavenet
from stages.train_spotter import train_spotter
from stages.train_wavenet import train_wavenet
from tests import heard, watched
from tests.synthetic import Film
from tests.test_evaluate import write_judge

PROJECT = Path(__file__).parents[1]
ELSEWHERE = {"kind": "youtube8m", "vocabulary": "x", "label_index": "x", "id_map": "x", "watch": "x"}
TINY = {
    "wavenet": {
        "layers": 4, "residual_channels": 8, "gate_channels": 8, "skip_channels": 8, "cue_channels": 4, "steps": 4,
        "crop_frames": 3,
    },
    "classifier": {
        "picture_size": 32, "channels": [4, 8], "steps": 4, "batch_size": 8,
    },
    "spotter": {
        "picture_size": 32, "channels": [4, 8], "hidden": 8, "crop_frames": 25, "steps": 4, "batch_size": 2,
    },
    "frames": {"size": watched.SIZE, "encoding": "png", "row_group_frames": 64},
    "evaluation": {"bootstrap": 50, "max_videos_per_label": 2},
}  # fmt: skip
PAPERS = "paper.yaml"
INPUTS = (
    "videos", "audio", "frames", "duplicates.parquet", "models", "models/judge.keras", "paper/models", "plots/wavenet",
    "paper/plots/wavenet",
)  # fmt: skip
"""Of evaluate_paper, in data/."""


def write_params(path, source, **changes):
    values = yaml.safe_load(source.read_text()) | {"labels": watched.LABELS, "source": ELSEWHERE}
    for section, told in [*TINY.items(), *changes.items()]:
        values[section] |= told
    path.write_text(yaml.safe_dump(values))


def run(root, stage, *paths):
    """As paper/dvc.yaml does, in the folder of a project."""
    command = [sys.executable, "-m", f"stages.{stage}", "--params", PAPERS, *(str(path) for path in paths)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "SOUNDBACK_PROGRESS": "lines"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project whose data was made, and a judge taught, before anybody thought of the paper."""
    root = tmp_path_factory.mktemp("project")
    write_params(root / "params.yaml", PROJECT / "params.yaml")
    write_params(root / PAPERS, PROJECT / "paper" / "params.yaml")
    watched.write_dataset(root / "data", n_train=3, n_validation=1, n_test=3)
    film = Film(duration_s=3.0).write(root / "film.mp4").read_bytes()
    for slug, label in watched.LABELS.items():
        rows = [
            {"video_id": f"{slug}{number:03d}", "clip_index": 0, "label": label, "split": "test", "status": "ok"}
            | {"path": f"{slug}{number:03d}_00.mp4", "clip_start_s": 0.0}
            for number in range(4, 7)
        ]
        (root / "data" / "videos" / slug).mkdir(parents=True)
        for row in rows:
            (root / "data" / "videos" / slug / row["path"]).write_bytes(film)
        schemas.write_table(rows, schemas.DOWNLOADS, root / "data" / "videos" / slug / "downloads.parquet")
    (root / "data" / "models").mkdir()
    write_judge(root / "data", root / "data" / "models" / "judge.keras")
    train_classifiers_and_ours(root)
    return root


def train_classifiers_and_ours(root):
    """The classifiers of both, and our spotter and WaveNet, in a few steps each."""
    data, ours, papers = root / "data", load_params(root / "params.yaml"), load_params(root / PAPERS)
    shards, sounds, duplicates = data / "frames", data / "audio", data / "duplicates.parquet"
    for folder, params in ((data, ours), (data / "paper", papers)):
        made = outputs(folder, "classifier")
        told = {"params": params.classifier, "stored": params.frames, "labels": params.labels}
        train_classifier(shards, duplicates, *made, **told)
    told = {"stored": ours.frames, "sound": ours.audio, "cues": ours.cues, "labels": ours.labels}
    train_spotter(shards, sounds, duplicates, *outputs(data, "spotter"), params=ours.spotter, **told)
    train_wavenet(sounds, duplicates, *outputs(data, "wavenet"), params=ours.wavenet, **told)


def outputs(folder, model):
    return folder / "models" / f"{model}.keras", folder / "metrics" / f"{model}.json", folder / "plots" / model


@pytest.fixture(scope="module")
def trained(root):
    data, paper = Path("data"), Path("data/paper")
    printed = run(
        root, "train_paper_wavenet", data / "frames", data / "audio", data / "duplicates.parquet",
        paper / "models" / "classifier.keras", paper / "models" / "wavenet.keras", paper / "metrics" / "wavenet.json",
        paper / "plots" / "wavenet",
    )  # fmt: skip
    return root, printed


@pytest.fixture(scope="module")
def evaluation(trained):
    root, _ = trained
    ours = root / "data" / "metrics" / "evaluation.json"
    ours.write_text("{}\n")
    inputs, paper = [Path("data") / path for path in INPUTS], Path("data/paper")
    made = [Path("data/metrics/paper.json"), paper / "plots" / "evaluation", paper / "report"]
    run(root, "evaluate_paper", *inputs, *made)
    assert ours.read_text() == "{}\n"
    return json.loads((root / "data" / "metrics" / "paper.json").read_text())


def test_its_wavenet_is_written_with_the_metrics_of_ours(trained):
    root, printed = trained
    _, card = load_model(root / "data" / "paper" / "models" / "wavenet.keras", "wavenet")
    assert card["categories"] == ["Disc", "Square"]
    assert (card["params"]["steps"], card["params"]["cue_dropout"]) == (4, 0.0)
    metrics = json.loads((root / "data" / "paper" / "metrics" / "wavenet.json").read_text())
    assert metrics["n_clips"] == 2
    assert metrics["steps_done"] == 4
    assert metrics["linear_prediction_bits"] < metrics["histogram_bits"]
    assert f"{metrics['bits_per_sample']:.3f} bits per sample" in printed
    assert (root / "data" / "paper" / "plots" / "wavenet" / "plots" / "metrics" / "validation.tsv").is_file()
    # Nothing of it is where a training of ours looks for its own.
    assert len(list((root / "data" / "tensorboard").iterdir())) == 3


def test_its_rows_stand_beside_ours_in_the_same_form(evaluation):
    ours = heard.make_results(heard.make_trials()).evaluation
    assert set(evaluation) == {*ours, "paper_watching", "paper_watching_intervals"}
    assert tuple(evaluation["rows"]) == ROWS
    for cells in evaluation["rows"].values():
        assert list(cells) == list(ours["rows"]["local_predicted"])
        assert {tuple(cell) for cell in cells.values()} == {("mean", "low", "high", "n")}
    assert list(evaluation["paper_watching"]) == list(ours["watching"])
    assert evaluation["paper_watching"]["loudness_correlation"] is None  # it sees none


def test_they_are_of_the_same_held_out_videos(evaluation):
    assert evaluation["n_videos"] == 4
    assert {cells["loudness_error_db"]["n"] for cells in evaluation["rows"].values()} == {4}


def test_differences_to_ours_are_measured_and_so_are_the_claims(evaluation):
    paired = evaluation["paired"]["local_predicted_minus_paper"]["category_accuracy"]
    rows = evaluation["rows"]
    apart = rows["local_predicted"]["category_accuracy"]["mean"] - rows["paper"]["category_accuracy"]["mean"]
    assert paired["mean"] == pytest.approx(apart)
    assert evaluation["claims"]["category_over_paper"]["mean"] == pytest.approx(apart)


def test_seams_are_told_of_every_sound_where_the_stitched_one_has_them(evaluation):
    told = {row: cells["seam_discontinuity_db"] for row, cells in evaluation["rows"].items()}
    assert {cell["n"] for cell in told.values()} == {4}
    assert told["silence"]["mean"] == 0


def test_bits_are_told_of_the_whole_track_alone(evaluation):
    rows = evaluation["rows"]
    # A network that has taken four steps knows little more than the histogram.
    assert 1 < rows["paper"]["bits_per_sample"]["mean"] < 8
    assert rows["paper"]["bits_per_sample"]["n"] == 4
    assert rows["paper_stitched"]["bits_per_sample"] == {"mean": None, "low": None, "high": None, "n": 0}


def test_the_report_shows_both(trained, evaluation):
    root, _ = trained
    page = (root / "data" / "paper" / "report" / "index.html").read_text(encoding="utf-8")
    assert "paper_stitched" in page
    assert "local_predicted" in page


def test_a_row_is_the_score_of_what_the_system_sounds(trained, evaluation):
    root, _ = trained
    params, data = load_params(root / PAPERS), root / "data"
    system = PaperSystem.load(data / "paper" / "models", params=params.soundtrack)
    judge = Judge.load(data / "models" / "judge.keras")
    videos = ["disc004", "disc005", "square004", "square005"]
    for row, make in (("paper", system.sound), ("paper_stitched", system.sound_stitched)):
        errors_db, right = [], []
        for index, video in enumerate(videos):
            slug = video[:-3]
            frames = read_clip(data / "frames" / slug, video, 0)
            waveform = make(frames, n_frames=75, seed=params.evaluation.seed + index)
            real = heard.EAR.measure_loudness(read_wav(data / "audio" / slug / f"{video}_00.wav"))
            errors_db.append(np.abs(heard.EAR.measure_loudness(waveform) - real).mean())
            right.append(hear(waveform, heard.EAR, judge).category == watched.LABELS[slug])
        cells = evaluation["rows"][row]
        assert cells["loudness_error_db"]["mean"] == pytest.approx(np.mean(errors_db), abs=1e-3)
        assert cells["category_accuracy"]["mean"] == np.mean(right)


def test_a_second_evaluation_writes_the_same_bytes(trained, evaluation, tmp_path):
    root, _ = trained
    params, data = load_params(root / PAPERS), root / "data"
    told = Sections(**{name: getattr(params, name) for name in Sections._fields})
    made = tmp_path / "paper.json", tmp_path / "plots", tmp_path / "report"
    evaluate_paper(*(data / path for path in INPUTS), *made, params=told, locks=[])
    assert made[0].read_bytes() == (data / "metrics" / "paper.json").read_bytes()
    for path in (data / "paper" / "report").rglob("*"):
        if path.is_file():
            assert (made[2] / path.relative_to(data / "paper" / "report")).read_bytes() == path.read_bytes(), path.name


def train_again(root, out, classifier):
    params, data = load_params(root / PAPERS), root / "data"
    train_paper_wavenet(
        *(data / "frames", data / "audio", data / "duplicates.parquet", classifier),
        *(out / "models" / "wavenet.keras", out / "wavenet.json", out / "plots"),
        params=params.wavenet,
        sound=params.audio,
        stored=params.frames,
        cues=params.cues,
        labels=params.labels,
    )


def test_a_classifier_of_other_categories_is_refused_in_words(root, tmp_path):
    model, card = load_model(root / "data" / "paper" / "models" / "classifier.keras", "classifier")
    save_model(model, tmp_path / "classifier.keras", card | {"categories": ["Disc", "Rain"]})
    with pytest.raises(ModelError, match=r"tells Disc, Rain apart, and there is sound with frames of Disc, Square\."):
        train_again(root, tmp_path, tmp_path / "classifier.keras")


def test_clips_without_frames_are_counted_and_left_out(root, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("stages.train_paper_wavenet.relevance_weights", lambda *_: {})
    with caplog.at_level("INFO"), pytest.raises(ModelError, match="of nothing"):
        train_again(root, tmp_path, root / "data" / "paper" / "models" / "classifier.keras")
    assert "8 clips have sound and no frames, and are left out." in caplog.text


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Makes a command of a stage, run where there are two params files."""
    write_params(tmp_path / "params.yaml", PROJECT / "params.yaml")
    write_params(tmp_path / PAPERS, PROJECT / "paper" / "params.yaml")
    monkeypatch.chdir(tmp_path)

    def make(*arguments):
        monkeypatch.setattr(sys, "argv", ["stage", *arguments])

    return make


def test_a_stage_reads_params_yaml_unless_its_command_names_another_file(command):
    command("data/in", "data/out")
    assert stages.load_params() == load_params(Path("params.yaml"))
    assert sys.argv == ["stage", "data/in", "data/out"]
    command("--params", PAPERS, "data/in", "data/out")
    assert stages.load_params() == load_params(Path(PAPERS)) != load_params(Path("params.yaml"))
    assert sys.argv == ["stage", "data/in", "data/out"]


def test_another_file_may_differ_in_the_networks_alone(command, tmp_path):
    different = {
        "spotter": {"steps": 3},
        "audio": {"loudness_lufs": -30.0},
        "soundtrack": {"temperature": 0.1},
        "evaluation": {"seed": 9},
    }
    write_params(tmp_path / PAPERS, PROJECT / "paper" / "params.yaml", **different)
    command("--params", PAPERS)
    with pytest.raises(ParamsError, match=r"paper\.yaml and params\.yaml differ in audio, soundtrack, evaluation\. "):
        stages.load_params()
    assert set(stages.NETWORKS) < set(Params.model_fields)


def test_settings_of_a_command_differ_from_the_file_that_it_names(command):
    command("--set", "wavenet.seed=7", "--set", "evaluation.max_videos_per_label=100", "data/in")
    changed = stages.load_params()
    assert sys.argv == ["stage", "data/in"]
    plain = load_params(Path("params.yaml"))
    assert (changed.wavenet.seed, changed.evaluation.max_videos_per_label) == (7, 100)
    assert changed.wavenet == plain.wavenet.model_copy(update={"seed": 7})
    assert changed.classifier == plain.classifier
    command("--params", PAPERS, "--set", "classifier.channels=[2, 2]", "data/in")
    assert stages.load_params().classifier.channels == (2, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("wavenet.sed=7", "wavenet.sed: there is no such setting; did you mean seed"),
        ("wavenet.seed", "sets nothing: expected SECTION.NAME=VALUE"),
        ("wavnet.seed=7", "sets nothing: expected SECTION.NAME=VALUE"),
        ("wavenet.seed=-1", "wavenet.seed: Input should be greater than or equal to 0"),
        ("wavenet.seed=[", "the value is not YAML"),
    ],
)
def test_a_wrong_setting_of_a_command_stops_it(command, change, said):
    command("--set", change)
    with pytest.raises(ParamsError, match=said):
        stages.load_params()


def test_a_file_that_is_missing_or_not_named_is_said(command):
    command("--params", "absent.yaml")
    with pytest.raises(ParamsError, match=r"absent\.yaml cannot be read"):
        stages.load_params()
    command("--params")
    with pytest.raises(ParamsError, match="--params names no file"):
        stages.load_params()
    command("--set")
    with pytest.raises(ParamsError, match="--set names no setting"):
        stages.load_params()
