"""The disk fills up at any write: a stage ends in one sentence, what is finished stays, and the next run goes on."""

import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from soundback.media import ffmpeg
from tests import small_disk
from tests.loopback import Page, Site, make_video, serve, youtube8m_pages
from tests.small_disk import Go, Task, fill

pytestmark = pytest.mark.skipif(
    not small_disk.can_mount(), reason="only where a user may mount a disk of his own (Linux with user namespaces)"
)

PROJECT = Path(__file__).parents[1]
PAGE = 4096
IDS = ["0-pLaIn_000", "1-aPaRt_001", "2-pLaIn_002"]
STAGES = ("list_videos", "download_videos", "extract_audio", "extract_frames")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A label of three videos, of which one has its picture and sound apart."""
    folder = tmp_path_factory.mktemp("bodies")
    pages = youtube8m_pages("/m/026t6", "Drum", {f"aa0{video_id[0]}": video_id for video_id in IDS})
    for video_id in IDS:
        body = make_video(folder / f"{video_id}.mp4", duration_s=2.0, hz=300 + 100 * int(video_id[0]))
        pages[f"/watch/{video_id}"] = Page(body)
    command = [ffmpeg.ffmpeg_path(), "-v", "error", "-i", str(folder / f"{IDS[1]}.mp4"), "-map", "0", "-c", "copy"]
    command += ["-f", "dash", "-adaptation_sets", "id=0,streams=v id=1,streams=a", str(folder / "manifest.mpd")]
    subprocess.run(command, check=True)
    pages |= {f"/watch/{path.name}": Page(path.read_bytes()) for path in folder.glob("*.m4s")}
    pages[f"/watch/{IDS[1]}"] = Page((folder / "manifest.mpd").read_bytes(), kind="application/dash+xml")
    with serve(pages) as site:
        yield site


@pytest.fixture(scope="module")
def projects(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each stage finds: all that the stages before it made."""
    root = tmp_path_factory.mktemp("projects")
    folder = root / "begun"
    folder.mkdir()
    params = yaml.safe_load((PROJECT / "profiles" / "smoke.yaml").read_text())
    ends = site.endpoints
    names = ("vocabulary", "label_index", "id_map", "watch")
    params["source"] = {"kind": "youtube8m"} | {name: getattr(ends, name) for name in names}
    params["download"]["clip_s"] = 1.0
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    begun = {}
    for stage in STAGES:
        begun[stage] = root / stage
        subprocess.run(["cp", "-r", str(folder), str(begun[stage])], check=True)
        command = [sys.executable, "-m", f"stages.{stage}", *arguments_of(stage)]
        env = {"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "SOUNDBACK_EXECUTOR": "threads"}
        subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    return begun


def arguments_of(stage: str) -> list[str]:
    """The command line of a label's stage, as dvc.yaml has it."""
    described = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"][stage]["do"]["cmd"]
    *_, arguments = described.replace("${key}", "drum").partition(f"stages.{stage}")
    return shlex.split(arguments)


def goes(stage: str, pages: Sequence[int], site: Site, projects: dict[str, Path], disk: Path) -> list[Go]:
    """Runs a stage with plenty of room, then with so much, and looks at what it left each time."""
    disk.mkdir()
    site.asked.clear()
    free = [None, *(n * PAGE for n in pages)]
    undisturbed, *filled = fill(Task(stage, arguments_of(stage), str(projects[stage]), str(disk), site.base, free))
    assert (undisturbed.ended, undisturbed.again) == (None, None)
    for go in filled:
        check(go, undisturbed)
    if stage == "download_videos":
        check_that_nothing_is_fetched_twice(filled, site)
    return filled


# In pages. The most that each stage needs at once is a little more.
SOME = {
    "list_videos": (0,),
    "download_videos": (0, 2, 9, 20, 31, 40, 48, 56, 64, 68),
    "extract_audio": (0, 3, 6, 9, 12, 14),
    "extract_frames": (0, 10, 50, 100, 150, 190),
}
ALL = {
    "list_videos": range(3),
    "download_videos": range(90),
    "extract_audio": range(32),
    "extract_frames": range(0, 420, 5),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_ends_a_stage_in_a_sentence_and_loses_nothing(stage, site, projects, tmp_path):
    filled = goes(stage, SOME[stage], site, projects, tmp_path / "disk")
    assert all(go.ended is not None for go in filled)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_fills_at_any_page_of_a_stage_loses_nothing(stage, site, projects, tmp_path):
    *_, last = goes(stage, ALL[stage], site, projects, tmp_path / "disk")
    assert last.ended is None, "the pages that were tried reach beyond the last write"


def check(go: Go, undisturbed: Go) -> None:
    about = f"with {go.free} bytes left"
    if go.ended is not None:
        assert go.ended.startswith("The disk is full"), about
        assert "ree some space" in go.ended, about
        assert "run again" in go.ended, about
        assert "\n" not in go.ended, about
    # What is in its place is whole; what is not yet is hidden.
    shown = {name: digest for name, digest in go.left.items() if not any(part[0] == "." for part in Path(name).parts)}
    assert shown.items() <= undisturbed.done.items(), about
    assert go.again is None, about
    assert go.done == undisturbed.done, about


def check_that_nothing_is_fetched_twice(filled: list[Go], site: Site) -> None:
    """By what the site was asked for: a mark before each run, so two for each go."""
    runs = "\n".join(site.asked).split(small_disk.MARK)[1:]
    for number, go in enumerate(filled, start=1):
        had = [video_id for video_id in IDS if any(name.endswith(f"/{video_id}_00.mp4") for name in go.left)]
        assert not [video_id for video_id in had if f"/watch/{video_id}" in runs[2 * number + 1]], go.free
