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
    architecture="residual", picture_size=32, channels=(8, 16), unsure_below=0.5, odd_share=0.02,
    steps=300, max_minutes=2, batch_size=16, learning_rate=0.004, patience=99, seed=0,
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
    assert (metrics["stopped_by"], metrics["steps_done"], metrics["n_clips"]) == ("steps", 300, 10)


def test_the_model_file_knows_films_it_has_not_seen(trained):
    loaded = classifier.Classifier.load(trained / "classifier.keras")
    assert loaded.categories == ("Disc", "Square")
    rng = np.random.default_rng(123)
    for index, label in enumerate(loaded.categories * 3):
        mean = loaded.recognise(watched.film(label, rng)[0])[0].mean(axis=0)
        assert mean.argmax() == index % 2


def test_films_it_has_not_seen_are_known_and_another_world_is_not(trained):
    loaded = classifier.Classifier.load(trained / "classifier.keras")
    rng = np.random.default_rng(7)
    seen = np.concatenate([watched.film(label, rng)[0] for label in ("Disc", "Square") * 5])
    assert loaded.recognise(seen)[1].mean() > 0.9
    other = rng.integers(0, 256, (100, watched.SIZE // 4, watched.SIZE // 4)).repeat(4, 1).repeat(4, 2)
    assert loaded.recognise(other.astype(np.uint8))[1].mean() < 0.1


def test_with_the_labels_of_the_training_split_shuffled_the_accuracy_is_that_of_chance(tmp_path):
    """What could still be told then would come from the validation clips themselves."""
    rng = np.random.default_rng(0)
    accuracy = {}
    for way in ("as they are", "shuffled"):
        clips = []
        for number in range(72):
            shape, split = ("Disc", "Square")[number % 2], "train" if number < 32 else "validation"
            # Of each shape, half the training clips get each label: nothing is left to be learnt.
            other = way == "shuffled" and split == "train" and number % 4 >= 2
            label = {"Disc": "Square", "Square": "Disc"}[shape] if other else shape
            clips.append((f"v{number:03d}", label, split, watched.film(shape, rng)[0]))
        root = tmp_path / way.replace(" ", "_")
        for slug, label in watched.LABELS.items():
            watched.write_frames([clip for clip in clips if clip[1] == label], root / "frames" / slug)
        watched.write_duplicates(root)
        run(root)
        metrics = json.loads((root / "classifier.json").read_text())
        assert metrics["n_clips"] == 40
        accuracy[way] = metrics["accuracy"]
    assert accuracy["as they are"] > 0.9
    # Of 40 throws of a coin 9 to 31 are heads, but for one time in 3,000.
    assert 9 / 40 <= accuracy["shuffled"] <= 31 / 40


def test_the_plots_are_a_curve_and_one_confusion_per_clip(trained):
    with (trained / "plots" / "confusion.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["actual"] for row in rows] == ["Disc"] * 5 + ["Square"] * 5
    right = np.mean([row["actual"] == row["predicted"] for row in rows])
    assert right == json.loads((trained / "classifier.json").read_text())["accuracy"]
    assert (trained / "plots" / "plots" / "metrics" / "validation.tsv").read_text().startswith("step\tvalidation\n")


def test_a_folder_of_a_label_that_params_does_not_name_is_refused_before_training(trained):
    with pytest.raises(DataContractError, match=r"holds square, which params.yaml does not name"):
        run(trained, labels={"disc": "Disc"})
