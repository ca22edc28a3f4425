"""kill -9 of DVC or of a stage: nothing goes on alone, nothing is left half-written, the next `dvc repro` goes on."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.clones import Clone, make_clone

ORPHANS_S = 5.0


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return make_clone(tmp_path_factory.mktemp("killed"), profile="smoke")


def processes_in(root: Path) -> list[psutil.Process]:
    """All that works in a folder, whoever started it."""
    return [each for each in psutil.process_iter(["cwd"]) if (each.info["cwd"] or "").startswith(str(root))]


def wait_for(condition: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def kill_in_the_middle(clone: Clone, stage: str, victim: str, started: Callable[[], bool]) -> None:
    """Starts a stage under DVC, waits until it is well under way, kills DVC or the stage, checks for orphans."""
    dvc = clone.start("dvc", "repro", "--single-item", stage)
    try:
        assert wait_for(lambda: bool(process_of(stage, dvc.pid)) and started(), seconds=90), f"{stage} did not start"
        os.kill(dvc.pid if victim == "dvc" else process_of(stage, dvc.pid)[0], signal.SIGKILL)
        printed, _ = dvc.communicate(timeout=30)
        assert dvc.returncode != 0, f"{stage} had ended before it was killed:\n{printed}"
        ended = wait_for(lambda: not processes_in(clone.root), seconds=ORPHANS_S)
        assert ended, f"still at work: {processes_in(clone.root)}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(dvc.pid, signal.SIGKILL)


def process_of(stage: str, dvc: int) -> list[int]:
    """The process of a stage that DVC runs, if it does by now: the interpreter, not the shell that became it."""
    module = f"stages.{stage.split('@')[0]}"
    found = []
    for each in psutil.Process(dvc).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if module in each.cmdline():
                found.append(each.pid)
    return found


@pytest.mark.parametrize("victim", ["dvc", "stage"])
def test_killed_download_keeps_what_it_has_and_fetches_the_rest(clone: Clone, victim: str) -> None:
    label = {"dvc": "drum", "stage": "rain"}[victim]
    clone.run("dvc", "repro", "--single-item", f"list_videos@{label}")
    folder = clone.root / "data" / "videos" / label
    kill_in_the_middle(clone, f"download_videos@{label}", victim, lambda: len(clips_in(folder)) >= 2)

    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in clips_in(folder)}
    assert not (folder / "downloads.parquet").exists()
    clone.run("dvc", "repro", "--single-item", f"download_videos@{label}")
    after = {path.name: path.read_bytes() for path in clips_in(folder)}
    assert {name: content for name, (_, content) in before.items()}.items() <= after.items()
    assert len(after) > len(before)
    assert (folder / "downloads.parquet").exists()
    assert not partial_files(clone.root / "data")


def clips_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix in {".mp4", ".mkv"} and not path.name.startswith(".")]


def partial_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if ".checkpoints" not in path.parts]


@pytest.mark.parametrize("victim", ["dvc", "stage"])
def test_killed_extraction_leaves_no_output_and_runs_again_cleanly(clone: Clone, victim: str) -> None:
    clone.run("dvc", "repro", "--single-item", "list_videos@drum")
    clone.run("dvc", "repro", "--single-item", "download_videos@drum")
    folder = clone.root / "data" / "frames" / "drum"
    clone.run("dvc", "repro", "--single-item", "extract_frames@drum")
    undisturbed = {path.name: path.read_bytes() for path in folder.iterdir()}

    params = clone.root / "params.yaml"
    quality = {"dvc": 91, "stage": 92}[victim]
    as_it_was = params.read_text()
    params.write_text(as_it_was.replace("jpeg_quality: 90", f"jpeg_quality: {quality}"))
    kill_in_the_middle(clone, "extract_frames@drum", victim, lambda: bool(partial_files(folder.parent)))
    assert not folder.exists()

    params.write_text(as_it_was)
    clone.run("dvc", "repro", "--force", "--single-item", "extract_frames@drum")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == undisturbed
    assert not partial_files(clone.root / "data")
