"""What `soundback verify` says of data/ that is not what dvc.lock says."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from soundback import schemas
from soundback.cli import app
from soundback.errors import SoundbackError
from soundback.verifying import verify

DVC_YAML = """
stages:
  download_videos:
    cmd: python make.py
    outs: [data/videos/drum, data/models/judge.keras]
"""
CLIPS = ("-aaaaaaaaaa_00.mp4", "bbbbbbbbbbb_00.mp4", "ccccccccccc_00.mp4")
FOLDER = "data/videos/drum"


def write_rows(lost: str = "", **contents: bytes) -> None:
    """Writes the table of clips; `lost` is a video that could not be had again."""
    rows = []
    for name in CLIPS:
        video_id = name.removesuffix("_00.mp4")
        row = {"video_id": video_id, "clip_index": 0, "label": "Drum", "split": "train", "status": "ok"}
        content = contents.get(video_id[-1], video_id.encode())
        row |= {"path": name, "sha256": hashlib.sha256(content).hexdigest()}
        if video_id == lost:
            row |= {"status": "private", "reason": "Private video", "path": None, "sha256": None}
        rows.append(row)
    schemas.write_table(rows, schemas.DOWNLOADS, Path(FOLDER, "downloads.parquet"))


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".site"))
    for folder in (FOLDER, "data/models"):
        Path(folder).mkdir(parents=True)
    for name in CLIPS:
        Path(FOLDER, name).write_bytes(name.removesuffix("_00.mp4").encode())
    Path("data/models/judge.keras").write_bytes(b"weights")
    write_rows()
    Path("dvc.yaml").write_text(DVC_YAML)
    for command in (["init", "--no-scm", "--quiet"], ["commit", "--force", "--quiet"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    return tmp_path


def found() -> dict[str, str]:
    return {Path(each.path).name: each.kind for each in verify() if "parquet" not in each.path}


def test_what_is_as_the_lock_says_is_said_to_be():
    assert verify() == []
    result = CliRunner().invoke(app, ["verify"])
    assert (result.exit_code, result.output) == (0, "All that is in data/ is what dvc.lock says.\n")


def test_every_way_to_differ_is_told_apart_by_video():
    Path(FOLDER, CLIPS[0]).unlink()
    Path(FOLDER, CLIPS[1]).write_bytes(b"fetched anew")
    write_rows(lost="-aaaaaaaaaa", b=b"fetched anew")
    Path(FOLDER, CLIPS[2]).write_bytes(b"broken")
    Path(FOLDER, "stray.mp4").write_bytes(b"stray")
    Path("data/models/judge.keras").write_bytes(b"other weights")
    assert found() == {
        CLIPS[0]: "gone",
        CLIPS[1]: "changed",
        CLIPS[2]: "corrupt",
        "stray.mp4": "extra",
        "judge.keras": "changed",
    }
    result = CliRunner().invoke(app, ["verify"])
    assert result.exit_code == 1
    assert "private: Private video" in result.output
    assert "1 gone" in result.output


def test_a_deleted_clip_comes_back_by_checkout():
    Path(FOLDER, CLIPS[1]).unlink()
    assert found() == {CLIPS[1]: "missing"}
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "--quiet"], check=True)
    assert verify() == []


def test_a_bit_that_fell_over_is_found_although_time_and_size_are_as_they_were():
    path = Path(FOLDER, CLIPS[2])
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found() == {CLIPS[2]: "corrupt"}


def test_without_the_list_of_a_folder_nothing_is_claimed():
    shutil.rmtree(".dvc/cache")
    assert {(each.path, each.kind) for each in verify()} == {(f"{FOLDER}/", "unknown")}


def test_where_dvc_is_not_at_home_it_says_so(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.rmtree(".dvc")
    elsewhere.mkdir()
    with pytest.raises(SoundbackError, match=r"DVC cannot compare .* with dvc\.lock"):
        verify(elsewhere)
