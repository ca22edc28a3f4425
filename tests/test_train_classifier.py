import csv
import json

import numpy as np
import pytest

from soundback.errors import DataContractError
from soundback.params import Classifier, load_params
from soundback.watching import classifier
from stages.train_classifier import train_classifier
from tests import watched

PARAMS = Classifier(
    architecture="residual", picture_size=32, channels=(8, 16), unsure_below=0.5,
    steps=150, max_minutes=2, batch_size=16, learning_rate=0.004, seed=0,
)  # fmt: skip
STORED = load_params().frames.model_copy(update={"size": watched.SIZE})


def run(root, labels=watched.LABELS) -> None:
    outputs = [root / "classifier.keras", root / "classifier.json", root / "plots"]
    train_classifier(
        root / "frames", root / "duplicates.parquet", *outputs, params=PARAMS, stored=STORED, labels=labels
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("classifier")
    watched.write_dataset(root, n_train=10, n_validation=5)
    run(root)
    return root


def test_two_shapes_are_told_apart_far_better_than_by_naming_the_commoner(trained):
    metrics = json.loads((trained / "classifier.json").read_text())
    assert metrics["majority_accuracy"] == 0.5
    assert metrics["accuracy"] > 0.85
    assert metrics["macro_f1"] > 0.85
    assert (metrics["stopped_by"], metrics["steps_done"], metrics["n_clips"]) == ("steps", 150, 10)


def test_the_model_file_knows_films_it_has_not_seen(trained):
    loaded = classifier.Classifier.load(trained / "classifier.keras")
    assert loaded.categories == ("Disc", "Square")
    rng = np.random.default_rng(123)
    for index, label in enumerate(loaded.categories * 3):
        mean = loaded.predict(watched.film(label, rng)[0]).mean(axis=0)
        assert mean.argmax() == index % 2


def test_the_plots_are_a_curve_and_one_confusion_per_clip(trained):
    with (trained / "plots" / "confusion.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["actual"] for row in rows] == ["Disc"] * 5 + ["Square"] * 5
    right = np.mean([row["actual"] == row["predicted"] for row in rows])
    assert right == json.loads((trained / "classifier.json").read_text())["accuracy"]
    assert (trained / "plots" / "curve.csv").read_text().startswith("step,loss,validation")


def test_a_folder_of_a_label_that_params_does_not_name_is_refused_before_training(trained):
    with pytest.raises(DataContractError, match=r"holds square, which params.yaml does not name"):
        run(trained, labels={"disc": "Disc"})
