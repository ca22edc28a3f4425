"""Clips of one's own, through the three commands to a bundle, and a soundtrack for a clip that it has not seen."""

import re
from pathlib import Path

import ffmpeg as graphs
import numpy as np
import pytest
import soundfile
import yaml

from soundback.cue_files import read_cues
from soundback.media import ffmpeg
from soundback.media.containers import picture_end_s
from tests import watched
from tests.clones import Clone, make_clone

N_CLIPS, SCALE = 10, 4
SMALL = {
    "audio": {"sample_rate": watched.SAMPLE_RATE},
    "frames": {"size": 64},
    "classifier": {"picture_size": 64, "channels": [8, 16, 16], "steps": 250},
    "spotter": {"picture_size": 32, "channels": [8, 16, 16], "hidden": 32, "steps": 250, "crop_frames": 48},
    "wavenet": {
        "layers": 8,
        "cycles": 1,
        "residual_channels": 16,
        "gate_channels": 16,
        "skip_channels": 32,
        "cue_channels": 16,
        "crop_frames": 4,
        "steps": 250,
        "batch_size": 4,
        "ema_decay": 0.95,
        "learning_rate": 0.008,
    },
    "judge": {"steps": 100},
    "evaluation": {"bootstrap": 100, "max_videos_per_label": 2, "probe_videos_per_label": 1, "examples_per_label": 1},
}


def write_clip(path: Path, shape: str, seed: int, *, has_sound: bool = True) -> Path:
    """A film of tests/watched.py as a file, larger."""
    frames, waveform = watched.film(shape, np.random.default_rng(seed))
    frames = frames.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    picture = graphs.input("pipe:", format="rawvideo", pix_fmt="gray", s=size, framerate=watched.FRAME_RATE)["v:0"]
    streams, track = [picture], path.with_suffix(".wav")
    if has_sound:
        soundfile.write(track, waveform, watched.SAMPLE_RATE)
        streams.append(graphs.input(f"file:{track}")["a:0"])
    options = {"c:v": "libx264", "preset": "ultrafast", "pix_fmt": "yuv420p", **({"c:a": "aac"} if has_sound else {})}
    ffmpeg.run(graphs.output(*streams, f"file:{path}", **options), feed=[frame.tobytes() for frame in frames])
    track.unlink(missing_ok=True)
    return path


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    """The three commands, with smaller settings for the second."""
    root = tmp_path_factory.mktemp("own")
    clone = make_clone(root / "clone", profile="own")
    for shape in ("Disc", "Square"):
        for seed in range(N_CLIPS):
            write_clip(root / "clips" / shape / f"{shape}{seed}.mp4", shape, 100 * len(shape) + seed)
    print(clone.run("soundback", "table", str(root / "clips")))
    settings = yaml.safe_load((clone.root / "params.yaml").read_text())
    for section, values in SMALL.items():
        settings[section] |= values
    (clone.root / "params.yaml").write_text(yaml.safe_dump(settings))
    clone.run("dvc", "repro")
    clone.run("soundback", "export", str(root / "bundle"))
    return clone


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_folder_of_clips_becomes_a_bundle_that_sounds_a_clip_it_has_not_seen(clone, tmp_path):
    bundle = clone.root.parent / "bundle"
    printed = clone.run("soundback", "info", str(bundle))
    for words in ("Disc, Square", "8000 Hz", "videos of the trainer's own choice", "onset F1", "Limits", "Licence"):
        assert words in printed
    # From the bundle alone: a copy of the project in which nothing was ever built.
    elsewhere = make_clone(tmp_path / "elsewhere", profile="smoke")
    video = write_clip(tmp_path / "unseen.mp4", "Disc", 9999, has_sound=False)
    told = elsewhere.run("soundback", "generate", str(video), "-o", str(tmp_path / "out.mp4"), "--models", str(bundle))
    assert re.search(r"Disc \(\d+% sure\)", told)
    sound = ffmpeg.read_waveform(tmp_path / "out.mp4", sample_rate=watched.SAMPLE_RATE)
    assert len(sound) / watched.SAMPLE_RATE == pytest.approx(picture_end_s(video), abs=1 / watched.FRAME_RATE)
    elsewhere.run("soundback", "cues", str(video), "-o", str(tmp_path / "cues.csv"), "--models", str(bundle))
    sheet = read_cues(tmp_path / "cues.csv", ("Disc", "Square"))
    # What moves is loud in that world, and what stays is not: as the film's own sound had it.
    _, real = watched.film("Disc", np.random.default_rng(9999))
    loud = np.sqrt(np.mean(real[: sheet.n_frames * watched.HOP].reshape(-1, watched.HOP) ** 2, axis=1))
    assert np.corrcoef(sheet.loudness_db, 20 * np.log10(loud + 1e-4))[0, 1] > 0.5
    heard = np.sqrt(np.mean(sound[: sheet.n_frames * watched.HOP].reshape(-1, watched.HOP) ** 2, axis=1))
    assert np.corrcoef(20 * np.log10(heard + 1e-4), 20 * np.log10(loud + 1e-4))[0, 1] > 0.5
