"""From nothing to a video with its sound back, in a clone: `dvc repro`, the Prefect flow, `soundback generate`."""

import json
import re
import shutil
from fractions import Fraction
from pathlib import Path

import av
import pytest
import yaml

from soundback.chatter import CHATTER
from tests.clones import Clone, make_clone
from tests.test_kill import built_in
from tests.test_reproducible import OF_THE_DATASET

DATASET = {"catalog", "videos", "audio", "frames", "duplicates.parquet"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = make_clone(tmp_path_factory.mktemp("smoke"), profile="smoke")
    clone.run("dvc", "repro")
    return clone


def test_repro_builds_everything_that_dvc_yaml_promises(built: Clone) -> None:
    evaluation = json.loads((built.root / "data/metrics/evaluation.json").read_text())
    assert {"real", "local_predicted", "local_true", "silence"} <= set(evaluation["rows"])
    assert (built.root / "data/report/index.html").is_file()
    locked = yaml.safe_load((built.root / "dvc.lock").read_text())["stages"]
    outs = [out["path"] for stage in locked.values() for out in stage.get("outs", [])]
    missing = [out for out in outs if not (built.root / out).exists() and re.search("drum|rain|models|metrics", out)]
    assert not missing


def test_nothing_that_is_left_behind_is_half_written(built: Clone) -> None:
    # Outputs are written beside their place as dot-files, then moved.
    left = [path for path in (built.root / "data").rglob(".*") if path.name not in {".gitignore", ".checkpoints"}]
    assert not left


def test_a_second_repro_runs_nothing(built: Clone) -> None:
    printed = built.run("dvc", "repro")
    assert "Running stage" not in printed
    assert "up to date" in printed


def test_the_flow_skips_restores_and_runs_as_dvc_decides(built: Clone) -> None:
    printed = built.run("python", "-m", "flows.pipeline")
    n_stages = len(re.findall(r"Finished in state Skipped", printed))
    assert f"Completed('{n_stages} skipped')" in printed

    shutil.rmtree(built.root / "data/audio/drum")
    code = built.root / "stages/find_duplicates.py"
    code.write_text(f"{code.read_text()}\n")
    printed = built.run("python", "-m", "flows.pipeline", "extract_audio@drum", "find_duplicates")
    assert "Finished in state Restored('extract_audio@drum: restored'" in printed
    assert "Finished in state Completed('find_duplicates: completed'" in printed
    assert "1 completed, 1 restored, 4 skipped" in printed, "two labels: listed, downloaded; extracted; compared"


def test_a_silent_held_out_video_gets_sound_as_long_as_its_picture_which_stays_as_it_was(built: Clone) -> None:
    silent = sorted((built.root / "data/report/examples").glob("*_silent.mp4"))[0]
    out = built.root / "out.mp4"
    said = built.run("soundback", "generate", str(silent), "-o", str(out))
    assert not [line for line in said.splitlines() if CHATTER.match(line)]
    assert picture_packets(out) == picture_packets(silent)
    with av.open(str(out)) as video:
        assert not stream_ends_apart(video), "sound and picture end within a frame of each other"


# Last, as it leaves the clone with data of other stages.
def test_labels_that_share_a_branch_have_the_data_that_each_has_alone(built: Clone) -> None:
    alone = dataset_in(built)
    params = yaml.safe_load((built.root / "params.yaml").read_text())
    params["labels"] = {"both": params["labels"]}
    (built.root / "params.yaml").write_text(yaml.safe_dump(params))
    built.run("soundback", "prune")
    built.run("dvc", "repro", *OF_THE_DATASET, "find_duplicates")
    shared = dataset_in(built)
    assert all("/both/" in path for path in shared if "/" in path)
    assert {path.replace("both/", ""): digest for path, digest in shared.items()} == alone
    printed = built.run("dvc", "repro", *OF_THE_DATASET, "find_duplicates")
    assert printed.count("didn't change, skipping") == 5
    assert "Rain" in built.run("soundback", "attrition")


def dataset_in(clone: Clone) -> dict[str, str]:
    """SHA-256 of all that the stages before training left under data."""
    return {path: digest for path, digest in built_in(clone).items() if Path(path).parts[0] in DATASET}


def picture_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as video:
        return [bytes(packet) for packet in video.demux(video=0) if packet.size]


def stream_ends_apart(video: av.container.InputContainer) -> bool:
    """Whether the decoded sound and the picture differ in length by more than a frame."""
    picture, sound = video.streams.video[0], video.streams.audio[0]
    frame_s = 1 / Fraction(picture.average_rate or 25)
    n_samples, n_frames = 0, 0
    for frame in video.decode(picture, sound):
        if isinstance(frame, av.AudioFrame):
            n_samples += frame.samples
        else:
            n_frames += 1
    return abs(Fraction(n_samples, sound.rate) - n_frames * frame_s) > frame_s
