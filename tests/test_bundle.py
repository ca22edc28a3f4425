"""Models in one folder to take away: it is whole, loads elsewhere, and says what is known of the models and no more."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import yaml

from soundback import schemas
from soundback.bundle import packing
from soundback.bundle.evidence import Evidence
from soundback.bundle.packing import describe, export, read
from soundback.cues import N_CURVE_FEATURES, CueSheet, Segment
from soundback.errors import DataContractError, ModelError, SoundbackError
from soundback.judging.columns import COLUMNS
from soundback.judging.judge import Judge, build_judge
from soundback.model_files import load_model, save_model
from soundback.params import Params, load_params
from soundback.sounding.wavenet import build_wavenet
from soundback.soundtrack import Soundtrack
from soundback.watching import classifier, oddness, spotter

CATEGORIES = ["Bell", "Drum"]
FRAME_RATE, HOP, SIZE = 25, 40, 32
SMALL = {
    "labels": {"bell": "Bell", "drum": "/m/026t6"},
    "audio": {"sample_rate": FRAME_RATE * HOP},
    "frames": {"frame_rate": FRAME_RATE, "size": SIZE, "fit": "stretch"},
    "classifier": {"picture_size": 16, "channels": [4, 8]},
    "spotter": {"picture_size": 8, "channels": [4, 8], "hidden": 8},
    "wavenet": {"layers": 4, "cycles": 2, "residual_channels": 8, "gate_channels": 8, "skip_channels": 8},
    "judge": {"channels": [4], "embedding": 4},
}
TRAININGS = {
    "classifier": {"accuracy": 0.75, "macro_f1": 0.7, "majority_accuracy": 0.5, "steps_done": 9, "stopped_by": "steps"},
    "spotter": {"loudness_correlation": 0.8, "loudness_error_db": 3.0, "hit_f1_100ms": None, "stopped_by": "patience"},
    "wavenet": {
        "bits_per_sample": 4.25, "linear_prediction_bits": 5.5, "previous_sample_bits": 6.25, "histogram_bits": 7.5,
        "steps_done": 1234, "stopped_by": "max_minutes",
    },
    "judge": {"accuracy": 1.0},
}  # fmt: skip


def write_params(path: Path, **changes: dict) -> Params:
    """The demo's, made small."""
    told = yaml.safe_load(Path("params.yaml").read_text())
    for section, values in (SMALL | changes).items():
        told[section] = values if section in ("labels", "source") else told[section] | values
    path.write_text(yaml.safe_dump(told))
    return load_params(path)


def write_models(folder: Path, params: Params) -> None:
    """Untrained ones that belong together."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (30, 16, 16), np.uint8)
    plain = classifier.build_classifier(params.classifier, len(CATEGORIES), SIZE)
    sight = oddness.add_oddness(plain, pictures[:20], np.arange(20) % 2, pictures[20:])
    watched = {"size": SIZE, "fit": "stretch", "frame_rate": FRAME_RATE}
    save_model(
        sight,
        folder / "classifier.keras",
        watched | {"kind": "classifier", "categories": CATEGORIES, "temperature": 1.0, "odd_above": 1e9,
                   "params": params.classifier.model_dump(mode="json")},
    )  # fmt: skip
    save_model(
        spotter.build_spotter(params.spotter, FRAME_RATE, SIZE),
        folder / "spotter.keras",
        watched | {"kind": "spotter", "loudness_low_db": -40.0, "loudness_high_db": -10.0, "hit_threshold": 0.3,
                   "params": params.spotter.model_dump(mode="json")},
    )  # fmt: skip
    network = build_wavenet(params.wavenet, n_cues=len(CATEGORIES) + N_CURVE_FEATURES, hop=HOP)
    network.set_weights([weight + rng.normal(0, 0.2, weight.shape) for weight in network.get_weights()])
    save_model(
        network,
        folder / "wavenet.keras",
        {"kind": "wavenet", "categories": CATEGORIES, "sample_rate": FRAME_RATE * HOP, "frame_rate": FRAME_RATE,
         "hop": HOP, "cues": {"loudness_window_s": 0.16, "loudness_floor_db": -60.0},
         "params": params.wavenet.model_dump(mode="json")},
    )  # fmt: skip
    Judge(build_judge(params.judge, len(CATEGORIES)), CATEGORIES, FRAME_RATE * HOP).save(folder / "judge.keras")


def write_figures(folder: Path) -> None:
    """What the trainings and evaluate would write."""
    folder.mkdir()
    for kind, figures in TRAININGS.items():
        (folder / f"{kind}.json").write_text(json.dumps(figures))
    rows = {
        row: {column.key: {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": n} for column in COLUMNS}
        for row, mean, n in (("real", 1.0, 7), ("local_predicted", 0.625, 7), ("silence", 0.25, 7))
    }
    rows["local_predicted"]["onset_f1_100ms"]["n"] = 3
    claims = {
        name: {"claim": f"{name} is claimed", "needed": "at least 0.9", "mean": 0.5, "low": 0.4, "high": 0.6, "n": 7,
               "holds": holds}
        for name, holds in (("this", True), ("that", False), ("other", None))
    }  # fmt: skip
    evaluation = {"n_videos": 7, "rows": rows, "claims": claims}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_tables(data: Path) -> None:
    """Three bells to train on, one to validate with; of the drums one is also among the bells, one has no sound."""
    heard = {
        "bell": [("a", "train", "ok"), ("b", "train", "ok"), ("c", "validation", "ok"), ("both", "train", "ok")],
        "drum": [("d", "train", "ok"), ("both", "train", "ok"), ("mute", "test", "silent"), ("e", "test", "ok")],
    }
    for (folder, videos), label, mid in zip(heard.items(), CATEGORIES, ("/m/0395lw", "/m/026t6"), strict=True):
        rows = [
            {"video_id": name, "clip_index": 0, "label": label, "split": split, "status": status, "path": f"{name}.wav",
             "n_samples": 100}
            for name, split, status in videos
        ]  # fmt: skip
        rows.append(rows[0] | {"clip_index": 1})
        schemas.write_table(rows, schemas.AUDIO, data / "audio" / folder / "audio.parquet")
        listed = {"video_id": "a", "label": label, "label_mid": mid, "split": "train", "status": "ok"}
        schemas.write_table([listed], schemas.CATALOG, data / "catalog" / folder / "catalog.parquet")
    schemas.write_table([], schemas.DUPLICATES, data / "duplicates.parquet")


def write_lock(root: Path, models_md5: str) -> Path:
    """As DVC would, after all stages were run."""
    data = root / "data"
    sizes = [path.stat().st_size for path in (data / "audio").rglob("*.parquet")]
    read = [
        {"path": "data/audio", "md5": "0.dir", "size": sum(sizes), "nfiles": len(sizes)},
        {"path": "data/duplicates.parquet", "md5": md5(data / "duplicates.parquet")},
    ]
    stages = {
        f"train_{kind}": {
            "deps": read[1:] if kind == "classifier" else read,
            "outs": [
                {"path": f"data/{path}", "md5": md5(data / path)}
                for path in (f"models/{kind}.keras", f"metrics/{kind}.json")
            ],
        }
        for kind in TRAININGS
    }
    evaluated = {"path": "data/metrics/evaluation.json", "md5": md5(data / "metrics" / "evaluation.json")}
    stages["evaluate"] = {"deps": [{"path": "data/models", "md5": models_md5}], "outs": [evaluated]}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    return root / "dvc.lock"


def dvc_md5(folder: Path, scratch: Path) -> str:
    """What DVC itself calls a folder."""
    shutil.copytree(folder, scratch / folder.name)
    environment = os.environ | {"DVC_SITE_CACHE_DIR": str(scratch / ".site"), "DVC_NO_ANALYTICS": "1"}
    for command in (["init", "--no-scm", "--quiet"], ["add", "--quiet", folder.name]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=scratch, env=environment, check=True)
    return yaml.safe_load((scratch / f"{folder.name}.dvc").read_text())["outs"][0]["md5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder after `dvc repro`; not to be changed."""
    root = tmp_path_factory.mktemp("project")
    write_models(root / "data" / "models", write_params(root / "params.yaml"))
    write_figures(root / "data" / "metrics")
    write_tables(root / "data")
    write_lock(root, dvc_md5(root / "data" / "models", tmp_path_factory.mktemp("dvc")))
    return root


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return shutil.copytree(trained, tmp_path / "project")


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle; not to be changed."""
    out = tmp_path_factory.mktemp("exported") / "bundle"
    export_from(trained, out)
    return out


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of it to change, as if on another machine."""
    return shutil.copytree(exported, tmp_path / "elsewhere" / "bundle")


def export_from(root: Path, out: Path, **changes: object) -> None:
    data = root / "data"
    given = {"models": data / "models", "params": root / "params.yaml", "metrics": data / "metrics"}
    export(out, **given | {"lock": root / "dvc.lock"} | changes)


def test_a_bundle_sounds_and_watches_bit_for_bit_as_the_models_did_where_nothing_else_is(trained, bundle, monkeypatch):
    settings = load_params(trained / "params.yaml").soundtrack
    here = Soundtrack.load(trained / "data" / "models", params=settings)
    monkeypatch.chdir(bundle.parent)
    there = Soundtrack.load("bundle")
    assert there.params == settings
    loudness_db = np.random.default_rng(1).uniform(-40, -10, 50).astype(np.float32)
    segments = (Segment(0.0, 1.2, "Bell", 0.9), Segment(1.2, 2.0, "Drum", 0.8))
    sheet = CueSheet(FRAME_RATE, segments, loudness_db, (loudness_db > -15).astype(np.float32))
    np.testing.assert_array_equal(there.render(sheet, seed=3), here.render(sheet, seed=3))
    frames = np.random.default_rng(2).integers(0, 256, (30, SIZE, SIZE), np.uint8)
    seen, expected = there.spot_frames(frames), here.spot_frames(frames)
    assert seen.segments == expected.segments
    np.testing.assert_array_equal(seen.loudness_db, expected.loudness_db)
    waveform = np.random.default_rng(4).uniform(-1, 1, 500).astype(np.float32)
    heard, expected = (Judge.load(folder / "judge.keras") for folder in (bundle, trained / "data" / "models"))
    np.testing.assert_array_equal(heard.predict(waveform), expected.predict(waveform))


def test_two_exports_of_the_same_are_the_same_bytes_whatever_they_are_called(trained, exported, tmp_path):
    export_from(trained, tmp_path / "other_name")
    names = sorted(path.name for path in exported.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "other_name").iterdir())
    for name in names:
        assert (exported / name).read_bytes() == (tmp_path / "other_name" / name).read_bytes(), name


def test_nothing_in_a_bundle_says_where_it_was_made(trained, exported):
    for path in exported.iterdir():
        content = path.read_bytes()
        assert str(trained).encode() not in content
        assert str(exported).encode() not in content


def test_the_files_are_those_of_the_trainings_and_the_params_still_load(trained, exported):
    for name in ("classifier", "spotter", "wavenet", "judge"):
        original = trained / "data" / "models" / f"{name}.keras"
        assert (exported / f"{name}.keras").read_bytes() == original.read_bytes()
    assert load_params(exported / "params.yaml") == load_params(trained / "params.yaml")
    told = json.loads((exported / "bundle.json").read_text())
    for file in told["files"]:
        content = (exported / file["name"]).read_bytes()
        assert (file["size_bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert {file["name"] for file in told["files"]} | {"README.md", "bundle.json"} == {
        path.name for path in exported.iterdir()
    }


def test_videos_are_counted_as_the_trainings_counted_them(exported):
    with (exported / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"category": "Bell", "folder": "bell", "label_mid": "/m/0395lw", "train": "2", "validation": "1", "test": "0"},
        {"category": "Drum", "folder": "drum", "label_mid": "/m/026t6", "train": "1", "validation": "0", "test": "1"},
    ]


def test_what_is_read_is_what_was_exported(trained, bundle):
    card = read(bundle).card
    assert [each.name for each in card.categories] == CATEGORIES
    assert (card.sample_rate, card.frame_rate, card.frame_size) == (FRAME_RATE * HOP, FRAME_RATE, SIZE)
    assert (card.source, card.gaps) == ("demo", ())
    metrics = trained / "data" / "metrics"
    assert card.figures == {path.stem: json.loads(path.read_text()) for path in metrics.iterdir()}


def test_the_card_and_the_essentials_say_figures_beside_controls_limits_and_licence(bundle):
    text = describe(read(bundle))
    card = (bundle / "README.md").read_text()
    for told in (text, " ".join(card.split())):
        flat = " ".join(told.split())
        for words in (
            "1000 Hz", "Bell, Drum", "5 videos with usable sound: 3 to learn from, 1 to choose the best weights by, 1",
            "0.75 right, macro F1 0.70 (always naming the commonest: 0.50 right)", "hits F1 at 100 ms -",
            "4.25 bits per sample (linear prediction 5.50, the previous sample 6.25, a histogram 7.50)",
            "onset F1, n 3", "the real sound", "silence", "Nothing above 500 Hz", "unsure", "rendered world",
            "The wavenet's training was cut off by its time limit (max_minutes) after 1234 steps",
            "FAILED, of what Soundback claims for itself: that is claimed (0.50 [0.40 0.60]; needed: at least 0.9)",
            "Not measured, of the same: other is claimed", "MIT licence", "CC BY 4.0",
        ):  # fmt: skip
            assert words in flat, words
    assert "this is claimed" not in text
    assert max(map(len, text.splitlines()[1:])) <= 120
    assert "| THESE MODELS, silent video | 0.62 [0.53 0.72] |" in card
    _, head, _ = card.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "keras"


def test_a_bundle_is_read_without_tensorflow(bundle):
    code = (
        "import sys; from pathlib import Path; from soundback.bundle.packing import describe, read\n"
        "describe(read(Path(sys.argv[1])))\nassert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, bundle], check=True)


def test_a_plain_folder_of_models_is_described_as_far_as_it_says_itself(trained):
    # In a process of its own: Keras is to know the layers there too.
    code = (
        "import sys; from pathlib import Path; from soundback.bundle.packing import describe, read\n"
        "print(describe(read(Path(sys.argv[1]))))"
    )
    models = trained / "data" / "models"
    done = subprocess.run([sys.executable, "-c", code, models], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in ("a plain folder of models", "Bell, Drum", "1000 Hz", "a source that is not known", "wavenet.keras"):
        assert words in done.stdout
    assert "held-out" not in done.stdout


def test_a_folder_that_is_neither_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"neither bundle.json nor classifier.keras"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["classifier.keras", "wavenet.keras", "judge.keras", "params.yaml", "labels.csv"])
def test_a_file_that_is_damaged_or_missing_is_named(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} is not as it was exported.*Copy the bundle again"):
        read(bundle)
    (bundle / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing. Copy the bundle again"):
        read(bundle)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', "\x00"])
def test_a_damaged_list_of_files_is_named(bundle, content):
    (bundle / "bundle.json").write_text(content)
    with pytest.raises(ModelError, match=r"bundle.json is damaged"):
        read(bundle)


def test_a_figure_that_was_polished_afterwards_is_noticed(bundle):
    told = json.loads((bundle / "bundle.json").read_text())
    told["card"]["figures"]["evaluation"]["rows"]["local_predicted"]["category_accuracy"]["mean"] = 0.99
    (bundle / "bundle.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match=r"bundle.json is not as it was exported"):
        read(bundle)


def test_the_card_may_be_edited(bundle):
    (bundle / "README.md").write_text("These weights are under CC0.")
    assert read(bundle).is_exported


def test_a_bundle_of_a_newer_soundback_is_refused_by_that_name(bundle):
    told = json.loads((bundle / "bundle.json").read_text()) | {"format": packing.FORMAT + 1}
    (bundle / "bundle.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="by a newer Soundback, in format 2; this one reads format 1"):
        read(bundle)


def test_words_of_others_cannot_move_the_cursor(project, tmp_path):
    evaluation = project / "data" / "metrics" / "evaluation.json"
    evaluation.write_text(evaluation.read_text().replace("that is claimed", "\\u001b[2Jthat"))
    export_from(project, tmp_path / "out", lock=None)
    assert "\x1b" not in describe(read(tmp_path / "out"))


def save_again(project: Path, kind: str, **card: object) -> None:
    path = project / "data" / "models" / f"{kind}.keras"
    model, told = load_model(path, kind)
    save_model(model, path, told | card)


def test_models_that_do_not_belong_together_make_no_bundle(project, tmp_path):
    save_again(project, "classifier", categories=["Bell", "Rain"])
    with pytest.raises(ModelError, match="different trainings: categories"):
        export_from(project, tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name != "project"]


def test_a_judge_of_another_training_makes_no_bundle_and_none_is_none_the_worse(project, tmp_path):
    save_again(project, "judge", sample_rate=16000)
    with pytest.raises(ModelError, match=r"judge.keras hears Bell, Drum at 16000 Hz"):
        export_from(project, tmp_path / "out")
    (project / "data" / "models" / "judge.keras").unlink()
    export_from(project, tmp_path / "out")
    assert "judge.keras" not in {file.name for file in read(tmp_path / "out").files}


@pytest.mark.parametrize("section", ["wavenet", "frames"])
def test_params_that_the_models_were_not_trained_with_make_no_bundle(project, tmp_path, section):
    changes = {"wavenet": {"learning_rate": 0.5}, "frames": {"fit": "crop"}}[section]
    write_params(project / "params.yaml", **{section: SMALL[section] | changes})
    (name, value), *_ = changes.items()
    with pytest.raises(ModelError, match=rf"{section}.{name} was .*, and is {value} now"):
        export_from(project, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_how_a_track_is_cut_may_be_said_anew(project, tmp_path):
    write_params(project / "params.yaml", soundtrack={"crossfade_s": 0.2})
    export_from(project, tmp_path / "out")
    assert Soundtrack.load(tmp_path / "out").params.crossfade_s == 0.2


@pytest.mark.parametrize("loss", ["damaged", "missing", "unsafe"])
def test_a_model_that_does_not_load_in_safe_mode_makes_no_bundle(project, tmp_path, loss):
    path = project / "data" / "models" / "spotter.keras"
    if loss == "missing":
        path.unlink()
    elif loss == "damaged":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        code = keras.Sequential([keras.Input((None, 8, 8)), keras.layers.Lambda(lambda x: x)])
        save_model(code, path, load_model(path, "spotter")[1])
    with pytest.raises(ModelError, match="There is no model" if loss == "missing" else "not a model that Soundback"):
        export_from(project, tmp_path / "out")
    assert not [each for each in tmp_path.iterdir() if each.name != "project"]


def test_what_was_not_evaluated_is_said_to_be_not_evaluated(project, tmp_path):
    shutil.rmtree(project / "data" / "metrics")
    export_from(project, tmp_path / "out")
    card, text = (tmp_path / "out" / "README.md").read_text(), describe(read(tmp_path / "out"))
    assert "Not evaluated" in card
    for told in (card, text):
        assert "There was no evaluation.json: how well the models do." in told
        assert "How they do on videos that no training saw is not known." in told


def test_figures_of_other_models_are_left_out(project, tmp_path):
    save_again(project, "wavenet", note="trained again")
    export_from(project, tmp_path / "out")
    card = read(tmp_path / "out").card
    assert set(card.figures) == {"classifier", "spotter", "judge"}
    assert [gap.split(" ")[0] for gap in card.gaps] == ["evaluation.json", "wavenet.json"]
    assert not any(category.n_videos for category in card.categories)


def test_figures_that_were_edited_since_are_left_out(project, tmp_path):
    path = project / "data" / "metrics" / "spotter.json"
    path.write_text(path.read_text().replace("0.8", "0.9"))
    export_from(project, tmp_path / "out")
    assert set(read(tmp_path / "out").card.figures) == {"evaluation", "classifier", "wavenet", "judge"}


def test_without_a_lock_figures_are_taken_at_their_word_and_the_card_says_so(trained, tmp_path):
    export_from(trained, tmp_path / "out", lock=None)
    card = read(tmp_path / "out").card
    assert set(card.figures) == {"evaluation", *TRAININGS}
    assert card.gaps == ("There was no dvc.lock to say whether the figures are of these very models.",)
    assert [(each.folder, each.n_videos) for each in card.categories] == [("bell", {}), (None, {})]


@pytest.mark.parametrize("change", ["a wav more", "other duplicates", "no tables"])
def test_videos_are_not_counted_in_tables_that_the_trainings_did_not_read(project, tmp_path, change):
    data = project / "data"
    if change == "a wav more":
        (data / "audio" / "bell" / "new.wav").write_bytes(b"wav")
    elif change == "other duplicates":
        (data / "duplicates.parquet").write_bytes(b"other")
    else:
        shutil.rmtree(data / "audio")
    export_from(project, tmp_path / "out")
    assert not any(category.n_videos for category in read(tmp_path / "out").card.categories)
    assert "how many is not known" in (tmp_path / "out" / "README.md").read_text()


def test_a_lock_that_is_none_is_refused(project):
    for content in ("<<<<<<< HEAD", "[]", "stages: {"):
        (project / "dvc.lock").write_text(content)
        with pytest.raises(DataContractError, match="not the lock file of a DVC pipeline"):
            Evidence(project / "data" / "models", project / "data" / "metrics", project / "dvc.lock")


def test_a_bundle_is_replaced_on_request_and_nothing_else_ever_is(trained, bundle, tmp_path):
    with pytest.raises(SoundbackError, match="exists already"):
        export_from(trained, bundle)
    (bundle / "left_over").touch()
    export_from(trained, bundle, overwrite=True)
    assert not (bundle / "left_over").exists()
    (tmp_path / "thesis").mkdir()
    with pytest.raises(SoundbackError, match="thesis is no bundle, and is not replaced"):
        export_from(trained, tmp_path / "thesis", overwrite=True)
    for inside in (trained / "data" / "models", trained / "data" / "models" / "bundle"):
        with pytest.raises(SoundbackError, match="in the folder of the models"):
            export_from(trained, inside, overwrite=True)


def test_a_disk_that_fills_up_leaves_nothing(trained, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "shutil", SimpleNamespace(copyfile=full))
    with pytest.raises(SoundbackError, match="disk is full"):
        export_from(trained, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_labels_of_clips_of_ones_own_are_their_trainers_business(project, tmp_path):
    write_params(project / "params.yaml", source={"kind": "table"})
    export_from(project, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "between their makers and the trainer" in " ".join(card.split())
    assert "YouTube-8M's labels" not in card
    assert "rendered" not in card
