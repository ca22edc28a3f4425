"""kill -9 of DVC or of a stage: nothing goes on alone, nothing is left half-written, the next `dvc repro` goes on."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from soundback.media.ffmpeg import ffmpeg_path
from tests.clones import PROJECT, Clone, make_clone
from tests.loopback import Page, Site, make_video, serve, youtube8m_pages
from tests.processes import processes_in

ORPHANS_S = 5.0
SEED = 20
N_MOMENTS = 20
N_VIDEOS = 6
VICTIMS = ("group", "dvc", "stage")
EXTRACTIONS = ("extract_audio@drum", "extract_frames@drum")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return make_clone(tmp_path_factory.mktemp("killed"), profile="smoke")


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


@dataclass(frozen=True)
class Line:
    """A clone that builds one label from a web site that counts, and what it built when nobody disturbed it.

    Attributes:
      clone: the project, with a source that leads to the site.
      site: counts what is asked for.
      undisturbed: SHA-256 of every file of catalog, clips, sound and frames.
      lasted_s: seconds that took.
      starting_s: seconds until DVC gets to work.
    """

    clone: Clone
    site: Site
    undisturbed: dict[str, str]
    lasted_s: float
    starting_s: float

    def fetched(self) -> Counter[str]:
        """How often each video was asked for since the count was last cleared."""
        return Counter(path.rsplit("/", 1)[1] for path in self.site.asked if path.startswith("/watch/"))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    bodies = tmp_path_factory.mktemp("bodies")
    video_ids = [f"{number}-vIdEo_{number:03d}" for number in range(N_VIDEOS)]
    pages = youtube8m_pages("/m/026t6", "Drum", {f"a{n:03d}": video_id for n, video_id in enumerate(video_ids)})
    for number, video_id in enumerate(video_ids):
        # The first one is broken: what came of it must not be asked again either.
        body = make_video(bodies / f"{number}.mp4", hz=300 + 50 * number) if number else b"no video" * 20_000
        pages[f"/watch/{video_id}"] = Page(body, chunk_delay_s=0.03)
    # The second one comes in pieces, picture and sound apart.
    pieces = take_apart(bodies / "1.mp4")
    pages[f"/watch/{video_ids[1]}"] = Page(pieces.pop("manifest.mpd"), kind="application/dash+xml")
    pages |= {f"/watch/{name}": Page(piece, chunk_delay_s=0.03) for name, piece in pieces.items()}
    with serve(pages) as site:
        clone = make_clone(tmp_path_factory.mktemp("at_random"), profile="smoke")
        lead_to(site, clone)
        forget_everything(clone)
        started = time.monotonic()
        clone.run("dvc", "repro", *EXTRACTIONS)
        lasted_s = time.monotonic() - started
        undisturbed = built_in(clone)
        started = time.monotonic()
        clone.run("dvc", "repro", *EXTRACTIONS)  # There is nothing to do.
        line = Line(clone, site, undisturbed, lasted_s, starting_s=time.monotonic() - started)
        assert all(1 <= n <= 2 for n in line.fetched().values()), "once to look at it, once to fetch it"
        yield line


def take_apart(video: Path) -> dict[str, bytes]:
    """A manifest and the pieces that it speaks of, half a second each, by name."""
    manifest = video.with_name("manifest.mpd")
    command = [ffmpeg_path(), "-v", "error", "-i", str(video), "-map", "0", "-c", "copy", "-seg_duration", "0.5"]
    command += ["-f", "dash", "-adaptation_sets", "id=0,streams=v id=1,streams=a", str(manifest)]
    subprocess.run(command, check=True)
    return {path.name: path.read_bytes() for path in (manifest, *video.parent.glob("*.m4s"))}


def lead_to(site: Site, clone: Clone) -> None:
    """Has a clone ask the site of a test for its videos."""
    params = yaml.safe_load((clone.root / "params.yaml").read_text())
    ends = site.endpoints
    params["source"] = {
        "kind": "youtube8m",
        "vocabulary": ends.vocabulary,
        "label_index": ends.label_index,
        "id_map": ends.id_map,
        "watch": ends.watch,
    }
    (clone.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def forget_everything(clone: Clone) -> None:
    """As before the first build: no data, no cache, nothing in dvc.lock."""
    for name in ("data", ".dvc/cache", ".dvc/tmp", ".site"):
        shutil.rmtree(clone.root / name, ignore_errors=True)
    (clone.root / "dvc.lock").unlink(missing_ok=True)


def built_in(clone: Clone) -> dict[str, str]:
    """SHA-256 of all there is under data, hidden files and leftovers included."""
    data = clone.root / "data"
    files = [path for path in data.rglob("*") if path.is_file() and path.name != ".gitignore"]
    return {str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_killed_five_times_on_its_way_the_dataset_ends_up_the_same(line: Line) -> None:
    forget_everything(line.clone)
    chance = random.Random(SEED)
    for number in range(5):
        # Each go starts DVC again, and goes about as far as a fifth of the whole.
        kill_at(line.starting_s + chance.uniform(0.1, 2) / 5 * (line.lasted_s - line.starting_s), line, number)
    check_that_it_ends_up_the_same(line)


def moments() -> list[float]:
    """Shares of the whole run: random, yet some in each part of it."""
    chance = random.Random(SEED)
    return [(number + chance.random()) / N_MOMENTS for number in range(N_MOMENTS)]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(N_MOMENTS), ids=[f"{moment:.2f}" for moment in moments()])
def test_killed_at_any_moment_the_dataset_ends_up_the_same(line: Line, number: int) -> None:
    forget_everything(line.clone)
    kill_at(moments()[number] * line.lasted_s, line, number)
    check_that_it_ends_up_the_same(line)


def check_that_it_ends_up_the_same(line: Line) -> None:
    """Nothing that is there is fetched again, and nothing but what belongs there is there in the end."""
    had = clips_had(line)
    line.site.asked.clear()
    line.clone.run("dvc", "repro", *EXTRACTIONS)
    assert had.isdisjoint(line.fetched())
    assert built_in(line.clone) == line.undisturbed


def clips_had(line: Line) -> set[str]:
    """The videos of which a clip is in its place."""
    folder = line.clone.root / "data" / "videos" / "drum"
    return {path.name.removesuffix("_00.mp4") for path in clips_in(folder)}


def kill_at(after_s: float, line: Line, number: int) -> None:
    """Builds, and kills it while it is at it; if it had ended before, it starts from nothing and is killed sooner."""
    had = clips_had(line)
    while True:
        line.site.asked.clear()
        dvc = line.clone.start("dvc", "repro", *EXTRACTIONS)
        try:
            time.sleep(after_s)
            if kill(dvc, VICTIMS[number % len(VICTIMS)], line.clone.root):
                break
        finally:
            with suppress(ProcessLookupError):
                os.killpg(dvc.pid, signal.SIGKILL)
            dvc.communicate()
        forget_everything(line.clone)
        had, after_s = set(), 0.9 * after_s
    assert had.isdisjoint(line.fetched())


def kill(dvc: subprocess.Popen[str], victim: str, root: Path) -> bool:
    """Kills DVC alone, a stage alone or all together; says whether there was something to kill."""
    # Between two stages there is none: the next one, then.
    while victim == "stage" and dvc.poll() is None:
        if running := stages_of(dvc.pid):
            os.kill(running[0], signal.SIGKILL)
            break
        time.sleep(0.01)
    if victim != "stage" and dvc.poll() is None:
        (os.killpg if victim == "group" else os.kill)(dvc.pid, signal.SIGKILL)
    dvc.wait(30)
    assert wait_for(lambda: not processes_in(root), seconds=ORPHANS_S), f"still at work: {processes_in(root)}"
    return dvc.returncode != 0


def stages_of(dvc: int) -> list[int]:
    """The processes of the stages that DVC runs, each an interpreter of its own."""
    found = []
    for each in psutil.Process(dvc).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any(word.startswith("stages.") for word in each.cmdline()):
                found.append(each.pid)
    return found


def test_a_stage_whose_dvc_was_killed_before_it_was_up_does_nothing(tmp_path: Path) -> None:
    # The one in between stands for DVC: it starts a stage, and is gone long before Python has started.
    stage = [sys.executable, "-m", "stages.find_duplicates", "videos", "duplicates.parquet"]
    between = f"import subprocess; print(subprocess.Popen({stage}).pid, flush=True)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "DVC_STAGE": "find_duplicates"}
    command = [sys.executable, "-c", between]
    started = subprocess.run(
        command, cwd=tmp_path, env=environment, start_new_session=True, stdout=subprocess.PIPE,
        stderr=(tmp_path / "said").open("w"), check=True,
    )  # fmt: skip
    assert started.stdout.strip().isdigit()
    assert wait_for(lambda: not processes_in(tmp_path), seconds=30)
    assert (tmp_path / "said").read_text() == "DVC has ended.\n"
