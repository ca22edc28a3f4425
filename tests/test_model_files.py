import json
import zipfile

import keras
import numpy as np
import pytest

from soundback import devices, model_files
from soundback.errors import ModelError


def test_a_saved_model_comes_back_with_its_card_and_the_same_answers(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model_files.save_model(model, tmp_path / "m.keras", {"kind": "judge", "categories": ["Drum", "Bell"]})
    loaded, card = model_files.load_model(tmp_path / "m.keras", "judge")
    inputs = np.eye(3, dtype=np.float32)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))
    assert card == {"kind": "judge", "categories": ["Drum", "Bell"]}
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


def test_a_model_file_holds_no_clock_time(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model_files.save_model(model, tmp_path / "m.keras", {})
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert b"date_saved" not in archive.read("metadata.json")


def test_the_same_model_gives_the_same_bytes_wherever_its_parts_lie_in_memory(tmp_path):
    files, alive = [], []
    for name in ("one", "other"):
        keras.utils.set_random_seed(0)
        keras.backend.clear_session()
        with devices.in_precision("float32"):  # Layers then share one policy, which Keras calls by its address.
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])
        alive.append(model)
        model_files.save_model(model, tmp_path / f"{name}.keras", {"kind": "judge"})
        files.append((tmp_path / f"{name}.keras").read_bytes())
        loaded, _ = model_files.load_model(tmp_path / f"{name}.keras", "judge")
        np.testing.assert_array_equal(loaded(np.eye(3)), model(np.eye(3)))
    assert b"shared_object_id" in zipfile.ZipFile(tmp_path / "one.keras").read("config.json")
    assert files[0] == files[1]


def test_what_is_not_our_model_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="There is no model"):
        model_files.load_model(tmp_path / "none.keras", "judge")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ModelError, match="not a model that Soundback wrote"):
        model_files.load_model(tmp_path / "text.keras", "judge")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "an older Soundback, in format 1; this one reads format 2"),
        ({"format": 3}, "a newer Soundback, in format 3"),
    ],
)
def test_a_model_of_another_version_is_refused_by_that_name(tmp_path, change, said):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model_files.save_model(model, tmp_path / "m.keras", {"kind": "judge"})
    with zipfile.ZipFile(tmp_path / "m.keras") as source, zipfile.ZipFile(tmp_path / "other.keras", "w") as target:
        for name in source.namelist():
            card = json.dumps({"kind": "judge"} | change)
            target.writestr(name, card if name == model_files.CARD else source.read(name))
    with pytest.raises(ModelError, match=said):
        model_files.load_model(tmp_path / "other.keras", "judge")
