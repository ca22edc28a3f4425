import json

import numpy as np
import pandas as pd
import pytest

from soundback import dataset
from soundback.cues import Hearing
from soundback.errors import DataContractError
from soundback.media.audio import read_wav
from soundback.params import Spotter, load_params
from soundback.watching import spotter, spotter_teaching
from stages.train_spotter import train_spotter
from tests import watched

PARAMS = Spotter(
    picture_size=32, channels=(8, 16, 16), hidden=32, context_s=1.0, sees="both", crop_frames=48, double_speed=0.2,
    exposure=0.4,
    steps=150, max_minutes=2, batch_size=4, learning_rate=0.003, patience=99, seed=0,
)  # fmt: skip
STORED = load_params().frames.model_copy(update={"size": watched.SIZE})
SOUND = load_params().audio.model_copy(update={"sample_rate": watched.SAMPLE_RATE})
CUES = load_params().cues


def run(root, labels=watched.LABELS, params=PARAMS) -> None:
    outputs = [root / "spotter.keras", root / "spotter.json", root / "plots"]
    given = {"params": params, "stored": STORED, "sound": SOUND, "cues": CUES, "labels": labels}
    train_spotter(root / "frames", root / "audio", root / "duplicates.parquet", *outputs, **given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("spotter")
    watched.write_dataset(root, n_train=10, n_validation=4)
    run(root)
    return root


def test_what_moves_is_heard_as_loud_and_flashes_as_hits(trained):
    metrics = json.loads((trained / "spotter.json").read_text())
    assert metrics["loudness_correlation"] > 0.8
    assert metrics["hit_f1_100ms"] > 0.6
    assert (metrics["n_clips"], metrics["stopped_by"]) == (8, "steps")


def test_loudness_is_nearer_than_always_saying_the_mean_of_training(trained):
    hearing = Hearing(watched.SAMPLE_RATE, watched.HOP, CUES, hit_scale=1.0)
    heard = {
        split: [
            hearing.measure(read_wav(clip.path))[0]
            for clip in dataset.audio_clips(trained / "audio", trained / "duplicates.parquet", watched.LABELS, split)
        ]
        for split in ("train", "validation")
    }
    constant = np.median(np.concatenate(heard["train"]))
    baseline = np.mean([np.abs(curve - constant).mean() for curve in heard["validation"]])
    assert json.loads((trained / "spotter.json").read_text())["loudness_error_db"] < 0.5 * baseline


def test_the_model_file_spots_a_film_it_has_not_seen(trained):
    loaded = spotter.Spotter.load(trained / "spotter.keras")
    pixels, _ = watched.film("Disc", np.random.default_rng(77))
    loudness_db, hit = loaded.predict([pixels[:20], pixels[20:]])
    changes = np.abs(np.diff(pixels.astype(float), axis=0)).mean(axis=(1, 2))
    flashes = np.flatnonzero(changes > 30)[::2] + 1
    assert len(flashes) >= 3
    assert spotter_teaching.hit_f1([np.isin(np.arange(75), flashes)], [hit], 25) > 0.6
    low, high = loaded.loudness_range_db
    assert low <= loudness_db.min() < loudness_db.max() <= high


def test_the_plots_show_one_measured_and_predicted_curve_per_label(trained):
    curves = pd.read_csv(trained / "plots" / "loudness.csv")
    assert curves.groupby("label").size().to_dict() == {"Disc": 75, "Square": 75}
    disc = curves[curves.label == "Disc"]
    assert np.corrcoef(disc.measured_db, disc.predicted_db)[0, 1] > 0.6
    assert (trained / "plots" / "loudness.png").read_bytes().startswith(b"\x89PNG")
    assert (trained / "plots" / "plots" / "metrics" / "validation.tsv").read_text().startswith("step\tvalidation\n")


def test_labels_move_nothing(tmp_path):
    def spotted(labels: dict[str, str], folder: str) -> np.ndarray:
        monkey = {slug: labels[slug] for slug in watched.LABELS}
        watched.write_dataset(tmp_path / folder, n_train=3, n_validation=1, names=monkey)
        run(tmp_path / folder, params=PARAMS.model_copy(update={"steps": 5}))
        film, _ = watched.film("Disc", np.random.default_rng(5))
        return spotter.Spotter.load(tmp_path / folder / "spotter.keras").predict([film])[0]

    swapped = {"disc": "Square", "square": "Disc"}
    np.testing.assert_allclose(spotted(watched.LABELS, "right"), spotted(swapped, "swapped"), atol=1e-2)


def test_clips_without_usable_sound_are_left_out_and_a_stale_folder_is_refused(tmp_path):
    watched.write_dataset(tmp_path, n_train=3, n_validation=2)
    table = tmp_path / "audio" / "disc" / "audio.parquet"
    watched.silence(table, ["disc000", "disc003"])
    run(tmp_path, params=PARAMS.model_copy(update={"steps": 2}))
    assert json.loads((tmp_path / "spotter.json").read_text())["n_clips"] == 3
    with pytest.raises(DataContractError, match=r"holds square, which params.yaml does not name"):
        run(tmp_path, labels={"disc": "Disc"})
