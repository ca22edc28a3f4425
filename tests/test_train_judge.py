"""The stage that trains the judge: real sound of the training split in, a model and its accuracy out."""

import json
import logging

import pytest

from soundback.errors import DataContractError
from soundback.judging.judge import Judge
from soundback.media.audio import read_wav
from soundback.params import load_params
from stages.train_judge import train_judge
from tests import watched

PARAMS = load_params().judge.model_copy(
    update={"channels": (8, 8), "embedding": 4, "window_s": 0.5, "steps": 30, "batch_size": 8}
)
STORED = load_params().audio


def run(root, model, params=PARAMS, labels=watched.LABELS):
    inputs = root / "audio", root / "duplicates.parquet"
    train_judge(*inputs, model, model.with_suffix(".json"), params=params, stored=STORED, labels=labels)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    watched.write_dataset(root, n_train=3, n_validation=1)
    run(root, root / "judge.keras")
    return root


def test_metrics_say_accuracy_and_budget(root):
    metrics = json.loads((root / "judge.json").read_text())
    assert set(metrics) == {"accuracy", "n_clips", "steps_done", "stopped_by"}
    assert metrics["accuracy"] in (0.0, 0.5, 1.0)
    assert (metrics["n_clips"], metrics["steps_done"], metrics["stopped_by"]) == (2, 30, "steps")


def test_the_judge_knows_all_labels_by_their_names(root):
    judge = Judge.load(root / "judge.keras")
    assert judge.categories == ("Disc", "Square")
    probabilities = judge.predict(read_wav(root / "audio" / "disc" / "disc003_00.wav"))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_without_validation_clips_there_is_no_accuracy(root, tmp_path):
    watched.write_dataset(tmp_path, n_train=1, n_validation=0)
    few = PARAMS.model_copy(update={"steps": 2})
    run(tmp_path, tmp_path / "judge.keras", params=few)
    assert json.loads((tmp_path / "judge.json").read_text())["accuracy"] is None


def test_a_video_that_resembles_a_held_out_one_is_not_heard(root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    watched.write_dataset(tmp_path, n_train=3, n_validation=1)
    watched.write_duplicates(tmp_path, "disc000", "square002")
    run(tmp_path, tmp_path / "judge.keras", params=PARAMS.model_copy(update={"steps": 2}))
    assert "after 4 training clips" in caplog.text


def test_a_label_that_is_not_there_is_named_before_any_work(root):
    with pytest.raises(DataContractError, match="lacks bell"):
        run(root, root / "x.keras", labels={**watched.LABELS, "bell": "Bell"})
    assert not (root / "x.keras").exists()
