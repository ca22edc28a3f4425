import mir_eval
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.signal import find_peaks

from soundback import dataset
from soundback.cues import Hearing
from soundback.errors import DataContractError, ParamsError
from soundback.judging import quality
from soundback.media.audio import read_wav
from soundback.media.shards import read_clip
from soundback.params import Cues, Spotter, load_params
from soundback.watching import ablations, frames, spotter, spotter_teaching
from stages.ablate_spotter import ablate_spotter
from tests import watched
from tests.test_dvc_yaml import PROJECT

PARAMS = Spotter(
    picture_size=watched.SIZE, channels=(4, 8), hidden=8, context_s=1.0, sees="both", crop_frames=32, double_speed=0.2,
    exposure=0.4, steps=3, max_minutes=2, batch_size=2, learning_rate=0.003, patience=99, seed=0,
)  # fmt: skip
STORED = load_params().frames.model_copy(update={"size": watched.SIZE})
SOUND = load_params().audio.model_copy(update={"sample_rate": watched.SAMPLE_RATE})
CUES = Cues(loudness_window_s=0.16, loudness_floor_db=-60, hit_quantile=0.99, hit_threshold=0.2)
SCORES = ["loudness_correlation", "loudness_error_db", "hit_f1_100ms"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablations") / "data"
    watched.write_dataset(root, n_train=5, n_validation=2, n_test=3)
    return root


def run(root, variant: str) -> pd.DataFrame:
    folder = root / "quality" / "spotter"
    given = {"params": PARAMS, "stored": STORED, "sound": SOUND, "cues": CUES, "labels": watched.LABELS}
    ablate_spotter(variant, root / "frames", root / "audio", root / "duplicates.parquet", folder, **given)
    return pd.read_csv(folder / variant / "clips.csv").set_index("video_id")


def sounds_of(root, split: str | None = None) -> list[dataset.Clip]:
    return dataset.audio_clips(root / "audio", root / "duplicates.parquet", watched.LABELS, split)


def hearing_of(root) -> Hearing:
    waveforms = [read_wav(clip.path) for clip in sounds_of(root, "train")]
    return Hearing.of(waveforms, sample_rate=watched.SAMPLE_RATE, hop=watched.HOP, cues=CUES)


def pictures_and_truth(root, split: str) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pictures, loudness and hits of each video of a split, read without what is tested."""
    hearing = hearing_of(root)
    return {
        clip.video_id: (
            read_clip(root / "frames", clip.video_id, 0).astype(float),
            *hearing.measure(read_wav(clip.path)),
        )
        for clip in sounds_of(root, split)
    }


def change_of(pictures: np.ndarray) -> np.ndarray:
    changes = [np.abs(pictures[k] - pictures[k - 1]).mean() for k in range(1, len(pictures))]
    return np.array([changes[0], *changes])


def log_average(change: np.ndarray) -> np.ndarray:
    """Over 0.16 s, 4 frames at 25 per second: two changes before the middle of a picture and two after it."""
    at = [np.clip(np.arange(k - 1, k + 3), 0, len(change) - 1) for k in range(len(change))]
    return np.log([change[places].mean() for places in at])


def f1(true: np.ndarray, strength: np.ndarray, threshold: float) -> float | None:
    reference_s, found_s = (
        find_peaks(np.pad(curve, 1), height=least, distance=3)[0] / 25 - 0.04
        for curve, least in ((true, 1e-9), (strength, threshold))
    )
    if len(reference_s) < 3:
        return None
    return mir_eval.onset.f_measure(reference_s, found_s, 0.1)[0] if len(found_s) else 0.0


def test_energy_is_a_line_from_the_change_of_pictures_and_its_peaks(root):
    train, validation, test = (pictures_and_truth(root, split) for split in ("train", "validation", "test"))
    changes = {video: change_of(pictures) for video, (pictures, _, _) in train.items()}
    heard_db = np.concatenate([loudness_db for _, loudness_db, _ in train.values()])
    slope, offset = np.polyfit(np.concatenate([log_average(change) for change in changes.values()]), heard_db, 1)
    scale = np.quantile(np.concatenate(list(changes.values())), 0.99)

    def mean_f1(threshold: float) -> float:
        told = [f1(hit, change_of(pictures) / scale, threshold) for pictures, _, hit in validation.values()]
        return float(np.mean([score for score in told if score is not None]))

    threshold = max(spotter_teaching.THRESHOLDS, key=mean_f1)
    found = run(root, "energy")
    assert set(found.index) == set(test)
    for video, (pictures, loudness_db, hit) in test.items():
        seen_db = np.clip(slope * log_average(change_of(pictures)) + offset, heard_db.min(), heard_db.max())
        correlation, error_db = np.corrcoef(seen_db, loudness_db)[0, 1], np.abs(seen_db - loudness_db).mean()
        expected = [correlation, error_db, f1(hit, change_of(pictures) / scale, threshold)]
        np.testing.assert_allclose(found.loc[video, SCORES].astype(float), np.array(expected, float), atol=1e-3)


def test_the_mean_has_no_correlation_no_hits_and_the_error_of_a_constant(root):
    mean_db = np.concatenate([loudness_db for _, loudness_db, _ in pictures_and_truth(root, "train").values()]).mean()
    found = run(root, "mean")
    assert found.loudness_correlation.isna().all()
    for video, (_, loudness_db, hit) in pictures_and_truth(root, "test").items():
        assert found.loudness_error_db[video] == pytest.approx(np.abs(loudness_db - mean_db).mean(), abs=1e-3)
        assert found.hit_f1_100ms[video] == 0 if np.count_nonzero(hit) >= 3 else np.isnan(found.hit_f1_100ms[video])


def test_a_network_that_sees_pictures_alone_is_the_spotter_trained_so_and_at_a_quarter_of_the_rate(root):
    shards = dataset.frame_shards(root / "frames", root / "duplicates.parquet", watched.LABELS)
    params = PARAMS.model_copy(update={"sees": "appearance", "learning_rate": 0.25 * PARAMS.learning_rate})
    trained = spotter_teaching.train_spotter(
        shards, sounds_of(root), params=params, hearing=hearing_of(root), stored=STORED
    )
    watcher = spotter.Spotter(trained.model, trained.card)
    found = run(root, "appearance")
    for video, (pictures, loudness_db, _) in pictures_and_truth(root, "test").items():
        seen_db, _ = watcher.predict([pictures.astype(np.uint8)])
        assert found.loudness_error_db[video] == pytest.approx(np.abs(seen_db - loudness_db).mean(), abs=1e-3)


def test_a_killed_training_goes_on_and_one_that_is_done_leaves_only_its_curve(root, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("SOUNDBACK_CHECKPOINT_S", "0")
    with monkeypatch.context() as patch:
        patch.setattr(ablations, "_score", killed)
        with pytest.raises(KeyboardInterrupt):
            run(root, "change")
    found = run(root, "change")
    assert "Going on after step 3 of 3" in caplog.text
    assert not list((root / ".checkpoints").iterdir())
    assert [path.name for path in (root / "tensorboard").glob("*_change")] == ["spotter_change"]
    run(root, "mean")
    assert not (root / "tensorboard" / "spotter_mean").exists()
    pd.testing.assert_frame_equal(run(root, "change"), found)


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_every_test_clip_has_a_line_that_says_which_it_is(root):
    found = run(root, "mean").reset_index()
    assert list(found) == ["video_id", "label", "clip_index", *SCORES]
    assert sorted(found.video_id) == [f"{slug}{number:03d}" for slug in watched.LABELS for number in (7, 8, 9)]
    assert found.groupby("label").size().to_dict() == {"Disc": 3, "Square": 3}


def test_a_picture_that_never_changes_has_a_finite_loudness_and_no_hits(root):
    shards = dataset.frame_shards(root / "frames", root / "duplicates.parquet", watched.LABELS)
    hearing = hearing_of(root)
    clips = spotter_teaching.hear(frames.list_clips(shards, "train"), sounds_of(root), hearing)
    motion = ablations.Motion.fit(clips, clips, frames.Pictures(watched.SIZE, watched.SIZE), hearing)
    for n_frames in (1, 2, 40):
        loudness_db, hit = motion.predict(np.full((n_frames, 8, 8), 7, np.uint8))
        assert (len(loudness_db), hit.tolist()) == (n_frames, [0.0] * n_frames)
        assert loudness_db.min() >= motion.loudness_range_db[0]


def test_an_unknown_variant_is_refused_with_those_there_are(root):
    with pytest.raises(ParamsError, match="no variant 'sound'; there are mean, energy, appearance, change, both"):
        run(root, "sound")


def test_a_dataset_without_test_clips_is_refused_before_a_training(tmp_path):
    watched.write_dataset(tmp_path, n_train=2, n_validation=1)
    with pytest.raises(DataContractError, match="no clip of the test split"):
        run(tmp_path, "both")


def test_the_pipeline_the_stage_and_the_page_name_the_same_variants():
    described = yaml.safe_load((PROJECT / "quality" / "dvc.yaml").read_text())["stages"]["ablate_spotter"]["foreach"]
    assert list(described.items()) == list(quality.MEANINGS.items())
    assert list(described) == [*ablations.FITTED, *ablations.TRAINED]
