"""The `soundback` command: what it refuses, and that it starts fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from soundback.cli import app, videos
from soundback.judging.scores import SCORES, write_scores
from soundback.media import ffmpeg
from tests import synthetic
from tests.tiny import FlashSpotter, make_soundtrack


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def video(tmp_path):
    return synthetic.Film().write(tmp_path / "video.mp4")


def assert_refused(result, folder, *words):
    """One sentence, exit code 2, nothing written."""
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output
    assert not list(folder.glob("out*"))


def test_a_missing_file_is_refused(tmp_path):
    assert_refused(run("generate", tmp_path / "none.mp4", "-o", tmp_path / "out.mp4"), tmp_path, "none.mp4")


def test_a_text_file_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a video\n" * 100)
    assert_refused(run("generate", tmp_path / "notes.txt", "-o", tmp_path / "out.mp4"), tmp_path, "notes.txt")


def test_sound_without_picture_is_refused(tmp_path):
    sound = tmp_path / "sound.wav"
    soundfile.write(sound, synthetic.tone(440.0, duration_s=1.0, sample_rate=8000), 8000)
    assert_refused(run("generate", sound, "-o", tmp_path / "out.mp4"), tmp_path, "sound.wav", "picture")


def test_an_existing_output_is_kept_unless_overwrite_is_said(tmp_path, video):
    (tmp_path / "old.mp4").write_text("precious")
    result = run("generate", video, "-o", tmp_path / "old.mp4")
    assert_refused(result, tmp_path, "old.mp4", "--overwrite")
    assert (tmp_path / "old.mp4").read_text() == "precious"


def test_an_output_that_is_no_video_name_or_lies_nowhere_is_refused(tmp_path, video):
    assert_refused(run("generate", video, "-o", tmp_path / "out.txt"), tmp_path, "out.txt", ".mp4")
    assert_refused(run("generate", video, "-o", tmp_path / "no" / "out.mp4"), tmp_path, "no folder")


def test_missing_models_are_named_with_the_way_to_get_them(tmp_path, video):
    result = run("generate", video, "-o", tmp_path / "out.mp4", "--models", tmp_path / "models")
    assert_refused(result, tmp_path, "wavenet.keras", "dvc repro")


@pytest.fixture
def models(monkeypatch):
    """Stands for trained models, and says what it was asked for."""
    soundtrack, asked = make_soundtrack(FlashSpotter()), []

    def load(folder, params):
        asked.append((folder, params))
        return soundtrack

    monkeypatch.setattr(videos, "_load", load)
    return asked


def test_a_video_gets_its_sound_and_what_took_how_long_is_said(tmp_path, video, models):
    result = run("generate", video, "-o", tmp_path / "out.mp4", "--category", "Bell", "--stems", "--models", tmp_path)
    assert result.exit_code == 0, result.output
    assert models == [(tmp_path, None)]
    for words in (
        "0.00 s to     2.00 s  Bell (100% sure)",
        "out.mp4 has sound now",
        "out_stems/Bell.wav is a part of it",
        "2.0 s of video in",
        "times real time: watching",
        "x real time",
    ):
        assert words in result.output
    assert len(ffmpeg.read_waveform(tmp_path / "out.mp4", sample_rate=8000)) == pytest.approx(16000, abs=320)


def test_cues_then_render_gives_what_generate_gives(tmp_path, video, models):
    assert run("cues", video, "-o", tmp_path / "cues.csv", "--category", "Bell").exit_code == 0
    assert run("render", tmp_path / "cues.csv", video, "-o", tmp_path / "a.mp4", "--seed", "7").exit_code == 0
    command = ("generate", video, "-o", tmp_path / "b.mp4", "--category", "Bell", "--seed", "7")
    assert run(*command).exit_code == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_captions_are_cues_to_read(tmp_path, video, models):
    assert run("cues", video, "-o", tmp_path / "words.vtt", "--category", "Bell").exit_code == 0
    assert (tmp_path / "words.vtt").read_text().startswith("WEBVTT\n")
    assert "[Bell" in (tmp_path / "words.vtt").read_text()
    assert_refused(run("cues", video, "-o", tmp_path / "out.vtt", "--format", "csv"), tmp_path, "Say one of them")


def test_a_broken_cue_sheet_is_refused_with_its_lines_before_anything_is_loaded(tmp_path, video, models):
    (tmp_path / "cues.csv").write_text("kind,start_s,end_s,category,value\nloudness,0,0.04,,loud\nhat,0,1,,1\n")
    result = run("render", tmp_path / "cues.csv", video, "-o", tmp_path / "out.mp4")
    assert_refused(result, tmp_path, "cues.csv has 2 fault(s)", "line 2:", "line 3:")
    assert models == []


def test_a_category_that_nobody_knows_is_named_with_its_line(tmp_path, video, models):
    assert run("cues", video, "-o", tmp_path / "cues.csv", "--category", "Bell").exit_code == 0
    (tmp_path / "cues.csv").write_text((tmp_path / "cues.csv").read_text().replace("Bell", "Horn"))
    result = run("render", tmp_path / "cues.csv", video, "-o", tmp_path / "out.mp4")
    assert_refused(result, tmp_path, "line 3: the models do not know 'Horn'; they know Bell, Drum")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "out.mp4", "--format", "mkv"), "named as mp4, and --format says mkv"),
        (("-o", "out", "--cues", "cues.csv"), "must end in one of"),
        (("-o", ".", "--cues", "cues.csv"), "--cues is the cue sheet of one video"),
        (("-o", "out.mp4", "--cues", "cues.csv", "--category", "Bell"), "--category and --when-unsure"),
        (("-o", "out.mp4", "--cues", "none.csv"), "none.csv cannot be read"),
        (("-o", "out.mp4", "--from", "3"), "is not in video.mp4"),
        (("-o", "out.mp4", "--from", "3", "--to", "2"), "--from 3 is not before --to 2"),
        (("-o", "out.mp4", "--category", "Horn"), "do not know 'Horn'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, video, models, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cues.csv").write_text("kind,start_s,end_s,category,value\nloudness,0,0.04,,-20\n")
    assert_refused(run("generate", video, *options), tmp_path, words)


def test_a_name_without_a_suffix_gets_that_of_the_format(tmp_path, video, models):
    assert run("generate", video, "-o", tmp_path / "sound", "--format", "wav").exit_code == 0
    assert (tmp_path / "sound.wav").is_file()


def test_several_videos_go_to_a_folder(tmp_path, video, models):
    synthetic.Film().write(tmp_path / "other.mkv")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 100)
    result = run("generate", video, tmp_path / "other.mkv", "-o", tmp_path / "all", "--format", "mkv")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["other.mkv", "soundtracks.csv", "video.mkv"]
    assert "4.0 s of video in" in result.output
    (tmp_path / "many").mkdir()
    for path in (video, broken):
        path.rename(tmp_path / "many" / path.name)
    result = run("generate", tmp_path / "many", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "1 not_media, 1 ok" in result.output
    result = run("generate", tmp_path / "many", "-o", tmp_path / "out2.mp4")
    assert "several videos need a folder" in result.output


def test_the_page_says_what_it_needs_where_gradio_is_not(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in [name for name in sys.modules if name.startswith("soundback.app")]:
        monkeypatch.delitem(sys.modules, name)
    assert_refused(run("app"), tmp_path, "pip install 'soundback[app]'")


def test_missing_metrics_are_named_with_the_way_to_get_them(tmp_path):
    result = run("metrics", tmp_path / "evaluation.json")
    assert_refused(result, tmp_path, "evaluation.json", "dvc repro")


@pytest.fixture
def evaluation(tmp_path):
    """One row of one column, and a claim that failed."""
    cell = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    claim = {"claim": "It is right more often", "needed": "at least 0.9", **cell, "holds": False}
    told = {"n_videos": 9, "rows": {"real": {"category_accuracy": cell}}, "claims": {"right": claim}}
    (tmp_path / "evaluation.json").write_text(json.dumps(told))
    return tmp_path / "evaluation.json"


def test_figures_inside_their_limits_are_well_and_one_outside_ends_with_an_error_that_names_it(evaluation, tmp_path):
    limits = tmp_path / "limits.yaml"
    limits.write_text("rows.real.category_accuracy: [0.4, 0.6]\n")
    result = run("metrics", evaluation, "--within", limits)
    assert (result.exit_code, "All 1 figures" in result.output) == (0, True)
    assert "FAILED        It is right more often" in result.output
    limits.write_text("rows.real.category_accuracy: [0.6, 0.7]\nclaims.right: [0, 1]\n")
    result = run("metrics", evaluation, "--within", limits)
    assert result.exit_code == 1
    assert "rows.real.category_accuracy: 0.500, expected 0.6 to 0.7" in result.output
    assert "claims.right" not in result.output
    result = run("metrics", evaluation, "--within", tmp_path / "absent.yaml")
    assert_refused(result, tmp_path, "absent.yaml cannot be read")


def test_two_experiments_are_compared_over_their_videos(tmp_path):
    nothing = dict.fromkeys(SCORES.names) | {"label": "Drum", "status": "ok"}
    for name, better in (("first", 0.25), ("second", 0.0)):
        rows = [
            nothing | {"row": row, "name": f"{video}_{clip}", "video_id": f"{video}", "av_align": video / 10 + better}
            for row in ("local_predicted", "real_shifted")
            for video in range(4)
            for clip in range(2)
        ]
        write_scores(rows, tmp_path / f"{name}.parquet")
    result = run("compare", tmp_path / "first.parquet", tmp_path / "second.parquet")
    assert "av_align" in result.output
    assert "+0.250 [+0.250 +0.250] n 4" in result.output
    assert "not measured alike" in result.output  # the control differs too
    result = run("compare", tmp_path / "first.parquet", tmp_path / "first.parquet", "--row", "paper")
    assert "there is nothing to compare" in result.output


def test_prune_removes_what_no_label_owns_and_nothing_else(tmp_path):
    params = tmp_path / "params.yaml"
    params.write_text(Path("params.yaml").read_text())
    for path in ("videos/drum/a.mp4", "videos/gone/a.mp4", "audio/gone/a.wav", "models/wavenet.keras"):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).touch()
    (tmp_path / "data/catalog/gone").mkdir(parents=True)
    result = run("prune", "--data", tmp_path / "data", "--params", params)
    assert result.exit_code == 0
    left = sorted(path.name for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert left == ["a.mp4", "wavenet.keras"]


@pytest.mark.parametrize("module", ["soundback.cli", "stages.list_videos", "stages.download_videos", "flows.pipeline"])
def test_what_needs_no_model_imports_no_tensorflow(module):
    code = f"import sys, json, {module}; print(json.dumps([m for m in sys.modules if m in ('tensorflow', 'keras')]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out.splitlines()[-1]) == []
