"""A params file that is wrong is refused, in words that say where and what to write instead."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from soundback import params as module
from soundback.errors import ParamsError
from soundback.params import Params, load_params

PROJECT = Path(__file__).parents[1]
Change = Callable[[dict[str, Any]], object]


def refusal(tmp_path: Path, change: Change) -> str:
    """What is said of the demo's params after a change."""
    values = yaml.safe_load((PROJECT / "profiles" / "smoke.yaml").read_text())
    change(values)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError) as refused:
        load_params(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


def rename(section: str, old: str, new: str) -> Change:
    return lambda values: values[section].update({new: values[section].pop(old)})


def put(section: str, name: str, value: object) -> Change:
    return lambda values: values[section].update({name: value})


def test_misspelt_setting_is_reported_by_name_with_the_nearest_right_one(tmp_path: Path) -> None:
    said = refusal(tmp_path, rename("wavenet", "residual_channels", "residual_chanels"))
    assert "wavenet.residual_chanels: there is no such setting; did you mean residual_channels?" in said
    assert "wavenet.residual_channels: is missing" in said


def test_misspelt_section_is_reported_by_name_with_the_nearest_right_one(tmp_path: Path) -> None:
    said = refusal(tmp_path, lambda values: values.update(spoter=values.pop("spotter")))
    assert "spoter: there is no such setting; did you mean spotter?" in said


def test_misspelt_setting_of_the_source_is_reported_without_pydantic_s_own_words(tmp_path: Path) -> None:
    said = refusal(tmp_path, rename("source", "videos_per_label", "video_per_label"))
    assert "source.video_per_label: there is no such setting; did you mean videos_per_label?" in said
    assert "source.demo" not in said


def test_missing_setting_is_named(tmp_path: Path) -> None:
    assert "audio.sample_rate: is missing" in refusal(tmp_path, lambda values: values["audio"].pop("sample_rate"))


def test_missing_section_is_named(tmp_path: Path) -> None:
    assert "judge: is missing" in refusal(tmp_path, lambda values: values.pop("judge"))


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("audio", "loudness_lufs", 3.0),
        ("dataset", "test_share", 1.5),
        ("download", "clips_per_video", 0),
        ("frames", "row_group_frames", 7),
        ("frames", "fit", "squeeze"),
        ("soundtrack", "temperature", -1.0),
        ("judge", "channels", []),
        ("wavenet", "steps", "many"),
    ],
)
def test_value_out_of_range_is_named_and_shown(tmp_path: Path, section: str, name: str, value: object) -> None:
    said = refusal(tmp_path, put(section, name, value))
    assert f"{section}.{name}: " in said
    assert f"(found {value!r})" in said


def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    def break_two(values: dict[str, Any]) -> None:
        values["audio"]["sample_rate"] = -1
        values["judge"].pop("seed")

    said = refusal(tmp_path, break_two)
    assert "2 wrong setting(s)" in said
    assert "audio.sample_rate" in said
    assert "judge.seed" in said


def test_a_frame_must_cover_whole_samples(tmp_path: Path) -> None:
    said = refusal(tmp_path, put("frames", "frame_rate", 24))
    assert "audio.sample_rate (8000) must be a multiple of frames.frame_rate (24)" in said


@settings(deadline=None)
@given(sample_rate=st.integers(1, 200_000), frame_rate=st.integers(1, 240) | st.integers(1, 200_000))
def test_a_frame_covers_whole_samples_or_the_params_are_refused(sample_rate: int, frame_rate: int) -> None:
    values = yaml.safe_load((PROJECT / "profiles" / "smoke.yaml").read_text())
    values["audio"]["sample_rate"], values["frames"]["frame_rate"] = sample_rate, frame_rate
    if sample_rate % frame_rate:
        with pytest.raises(ValidationError, match="every frame covers whole samples"):
            Params.model_validate(values)
    else:
        hop = Params.model_validate(values).hop
        # Frame 7 begins with the first sample at or after its time: exactly on it.
        assert Fraction(7 * hop, sample_rate) == Fraction(7, frame_rate)


def test_the_dilation_cycles_must_fill_the_layers(tmp_path: Path) -> None:
    said = refusal(tmp_path, put("wavenet", "cycles", 4))
    assert "layers (6) must be a multiple of cycles (4)" in said


def test_a_label_s_key_must_be_a_folder_name(tmp_path: Path) -> None:
    said = refusal(tmp_path, put("labels", "Drum kit (set)", "Drum"))
    assert "labels.Drum kit (set)" in said


def test_labels_that_share_a_branch_are_folders_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = (PROJECT / "profiles" / "smoke.yaml").read_text()
    path.write_text(text.replace("  rain: Rain\n", "  wet:\n    rain: Rain\n    fall: Waterfall\n", 1))
    assert load_params(path).labels == {"drum": "Drum", "wet/rain": "Rain", "wet/fall": "Waterfall"}


@pytest.mark.parametrize("wrong", [{"rain/fall": "Rain"}, {"wet": {}}, {"wet": {"rain/fall": "Rain"}}])
def test_a_branch_has_labels_and_no_branches_of_its_own(tmp_path: Path, wrong: dict[str, object]) -> None:
    path = tmp_path / "params.yaml"
    values = yaml.safe_load((PROJECT / "profiles" / "smoke.yaml").read_text())
    values["labels"] |= wrong
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match="labels"):
        load_params(path)


def test_a_label_may_be_an_index_which_is_a_number_in_yaml(tmp_path: Path) -> None:
    text = (PROJECT / "profiles" / "smoke.yaml").read_text()
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("\nlabels:", "\nlabels:\n  by_index: 33\n  by_mid: /m/026t6", 1))
    labels = load_params(path).labels
    assert (labels["by_index"], labels["by_mid"]) == ("33", "/m/026t6")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "seventeen\n"])
def test_a_file_that_is_no_table_of_settings_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        load_params(path)


def test_a_file_that_is_not_yaml_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("audio: [1, 2\nframes: 3\n")
    with pytest.raises(ParamsError, match="line 2"):
        load_params(path)


def test_a_missing_file_says_where_to_be(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"absent\.yaml cannot be read.*project's folder"):
        load_params(tmp_path / "absent.yaml")


def test_derived_numbers_follow_from_the_settings(tmp_path: Path) -> None:
    params = load_params(PROJECT / "profiles" / "smoke.yaml")
    assert params.hop == 320
    assert params.wavenet.dilations == (1, 2, 4, 8, 16, 32)
    # Each layer of kernel size 2 lets one output see `dilation` samples further back.
    assert params.wavenet.receptive_field == 1 + 1 + 2 + 4 + 8 + 16 + 32


def test_no_value_hides_in_the_code() -> None:
    models = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, BaseModel)]
    assert Params in models
    hidden = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.is_required()
    ]
    assert not hidden, "a default in code is a value that DVC cannot see"
