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
from soundback.judging.judge import Judge
from soundback.judging.trials import hear
from soundback.media.audio import read_wav
from soundback.media.shards import read_clip
from soundback.model_files import load_model, save_model
from soundback.paper import PaperSystem
from soundback.params import Params, load_params
from stages.evaluate_paper import Sections, evaluate_paper
from stages.train_classifier import train_classifier
from stages.train_paper_wavenet import train_paper_wavenet
from tests import heard, watched
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
    "frames": {"size": watched.SIZE, "encoding": "png", "row_group_frames": 64},
    "evaluation": {"bootstrap": 50, "max_videos_per_label": 2},
}  # fmt: skip
PAPERS = "paper.yaml"


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
    for slug, label in watched.LABELS.items():
        rows = [
            {"video_id": f"{slug}{number:03d}", "clip_index": 0, "label": label, "split": "test", "status": "ok"}
            | {"path": f"{slug}{number:03d}_00.mp4", "clip_start_s": 0.0}
            for number in range(4, 7)
        ]
        (root / "data" / "videos" / slug).mkdir(parents=True)
        schemas.write_table(rows, schemas.DOWNLOADS, root / "data" / "videos" / slug / "downloads.parquet")
    (root / "data" / "models").mkdir()
    write_judge(root / "data", root / "data" / "models" / "judge.keras")
    paper, params = root / "data" / "paper", load_params(root / PAPERS)
    train_classifier(
        root / "data" / "frames",
        root / "data" / "duplicates.parquet",
        *(paper / "models" / "classifier.keras", paper / "metrics" / "classifier.json", paper / "plots" / "classifier"),
        params=params.classifier,
        stored=params.frames,
        labels=params.labels,
    )
    return root


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
    data = Path("data")
    ours = root / "data" / "metrics" / "evaluation.json"
    ours.parent.mkdir()
    ours.write_text("{}\n")
    run(
        root, "evaluate_paper", data / "videos", data / "audio", data / "frames", data / "duplicates.parquet",
        data / "models" / "judge.keras", data / "paper" / "models", data / "metrics" / "paper.json",
    )  # fmt: skip
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
    # Nothing of it is where a training of ours would look for its own.
    assert not (root / "data" / ".checkpoints").exists()
    assert not (root / "data" / "tensorboard").exists()


def test_its_rows_have_the_form_of_ours(evaluation):
    ours = heard.make_results(heard.make_trials()).evaluation
    assert set(evaluation) == {"n_videos", "watching", "watching_intervals", "rows"} < set(ours)
    assert list(evaluation["rows"]) == ["paper", "paper_stitched"]
    for cells in evaluation["rows"].values():
        assert list(cells) == list(ours["rows"]["local_predicted"])
        assert {tuple(cell) for cell in cells.values()} == {("mean", "low", "high", "n")}
    assert list(evaluation["watching"]) == list(ours["watching"])


def test_they_are_of_the_same_held_out_videos(evaluation):
    assert evaluation["n_videos"] == 4
    assert {cells["loudness_error_db"]["n"] for cells in evaluation["rows"].values()} == {4}


def test_bits_are_told_of_the_whole_track_alone(evaluation):
    rows = evaluation["rows"]
    # A network that has taken four steps knows little more than the histogram.
    assert 1 < rows["paper"]["bits_per_sample"]["mean"] < 8
    assert rows["paper"]["bits_per_sample"]["n"] == 4
    assert rows["paper_stitched"]["bits_per_sample"] == {"mean": None, "low": None, "high": None, "n": 0}


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
    inputs = [data / name for name in ("videos", "audio", "frames", "duplicates.parquet", "models/judge.keras")]
    evaluate_paper(*inputs, data / "paper" / "models", tmp_path / "paper.json", params=told)
    assert (tmp_path / "paper.json").read_bytes() == (data / "metrics" / "paper.json").read_bytes()


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


def test_a_file_that_is_missing_or_not_named_is_said(command):
    command("--params", "absent.yaml")
    with pytest.raises(ParamsError, match=r"absent\.yaml cannot be read"):
        stages.load_params()
    command("--params")
    with pytest.raises(ParamsError, match="--params names no file"):
        stages.load_params()
