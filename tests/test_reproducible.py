"""The same bytes from nothing, again and in two clones at once; a label costs its own stages only; push and pull."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clones import Clone, make_clone
from tests.loopback import Page, Site, make_video, serve
from tests.test_kill import EXTRACTIONS, built_in, forget_everything, lead_to

OF_THE_DATASET = ("list_videos", "download_videos", "extract_audio", "extract_frames")
BOTH = "0-bOtH_lAbL"
OLD_LABELS = {"drum": "Drum", "rain": "Rain"}
NEW_LABEL = {"bell": "Bell"}
MIDS = {"drum": "026t6", "rain": "06mb1", "bell": "0395lw"}
VIDEOS = {"drum": ["1-dRuM_0001", BOTH], "rain": ["2-rAiN_0002"], "bell": ["3-bElL_0003", BOTH]}
# It takes the place of what trains and evaluates for minutes: what runs after what is the same.
PRETENDER = """
import sys
from pathlib import Path

for out in map(Path, sys.argv[1:]):
    out = out if out.suffix else out / "page.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text('{"made": "up"}')
"""


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, Clone]:
    """Two clones that built one label of the rendered world from nothing at the same time."""
    root = tmp_path_factory.mktemp("twins")
    clones = make_clone(root / "one", profile="smoke"), make_clone(root / "two", profile="smoke")
    for clone in clones:
        forget_everything(clone)
        with_params(clone, source={"kind": "demo", "seed": 7, "videos_per_label": 6, "duration_s": 2.0})
    builds = [clone.start("dvc", "repro", *EXTRACTIONS) for clone in clones]
    for build in builds:
        printed, _ = build.communicate()
        assert build.returncode == 0, printed
    return clones


def test_two_clones_at_once_build_the_same_dataset(twins: tuple[Clone, Clone]) -> None:
    first, second = map(built_in, twins)
    assert first == second
    assert {Path(name).parts[0] for name in first} == {"catalog", "videos", "audio", "frames"}
    assert locked_in(twins[0]) == locked_in(twins[1])


@pytest.mark.slow
def test_a_second_build_from_nothing_gives_the_same_dataset(twins: tuple[Clone, Clone]) -> None:
    clone, _ = twins
    before, locked = built_in(clone), locked_in(clone)
    forget_everything(clone)
    clone.run("dvc", "repro", *EXTRACTIONS)
    assert built_in(clone) == before
    assert locked_in(clone) == locked


def locked_in(clone: Clone) -> Any:
    return yaml.safe_load((clone.root / "dvc.lock").read_text())


def with_params(clone: Clone, **sections: object) -> None:
    """Changes whole sections of params.yaml."""
    path = clone.root / "params.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | sections, sort_keys=False))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three labels, two of which have a video in common."""
    folder = tmp_path_factory.mktemp("bodies")
    header = "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,WikiDescription\n"
    names = OLD_LABELS | NEW_LABEL
    rows = "".join(f"{index},9,/m/{MIDS[key]},{name},,,,,\n" for index, (key, name) in enumerate(names.items()))
    pages = {"/vocabulary.csv": Page((header + rows).encode(), kind="text/csv")}
    for key, video_ids in VIDEOS.items():
        listed = ",".join(f'"{own_id_of(video_id)}"' for video_id in video_ids)
        pages[f"/v/{MIDS[key]}.js"] = Page(f'p("{MIDS[key]}",[{listed}]);'.encode(), kind="text/javascript")
    for video_id in {video_id for video_ids in VIDEOS.values() for video_id in video_ids}:
        own_id = own_id_of(video_id)
        answer = f'i("{own_id}","{video_id}");'.encode()
        pages[f"/i/{own_id[:2]}/{own_id}.js"] = Page(answer, kind="text/javascript")
        pages[f"/watch/{video_id}"] = Page(make_video(folder / "video.mp4", hz=300 + 100 * int(video_id[0])))
    with serve(pages) as site:
        yield site


def own_id_of(video_id: str) -> str:
    """What YouTube-8M calls a video of ours."""
    return f"aa0{video_id[0]}"


@pytest.fixture(scope="module")
def built(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which everything is built of the old labels, the models by the pretender."""
    clone = make_clone(tmp_path_factory.mktemp("built"), profile="smoke")
    forget_everything(clone)
    lead_to(site, clone)
    with_params(clone, labels=OLD_LABELS)
    (clone.root / "pretend.py").write_text(PRETENDER)
    described = yaml.safe_load((clone.root / "dvc.yaml").read_text())
    for stage in read_all_labels(clone):
        wanted = described["stages"][stage]
        outs = [*wanted.get("outs", []), *wanted.get("metrics", []), *wanted.get("plots", [])]
        paths = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
        wanted["cmd"] = " ".join(["exec python pretend.py", *paths])
    (clone.root / "dvc.yaml").write_text(yaml.safe_dump(described))
    build_all(clone)
    return clone


def build_all(clone: Clone) -> str:
    """Runs what is to run, in threads, which start sooner than processes; gives what DVC printed."""
    return clone.run("env", "SOUNDBACK_EXECUTOR=threads", "dvc", "repro")


def read_all_labels(clone: Clone) -> set[str]:
    """The stages that are not a label's own."""
    return set(yaml.safe_load((clone.root / "dvc.yaml").read_text())["stages"]) - set(OF_THE_DATASET)


def test_a_new_label_runs_its_own_stages_and_then_what_reads_all_labels(built: Clone, site: Site) -> None:
    before = built_in(built)
    site.asked.clear()
    with_params(built, labels=OLD_LABELS | NEW_LABEL)
    ran = re.findall(r"Running stage '([^']+)'", build_all(built))
    assert sorted(ran) == sorted({f"{stage}@bell" for stage in OF_THE_DATASET} | read_all_labels(built))

    asked = {path.rsplit("/", 1)[1] for path in site.asked if path.startswith("/watch/")}
    assert asked == set(VIDEOS["bell"]), "of the old labels only the video that is under both"
    after = built_in(built)
    assert before.items() <= after.items()
    for video_id in VIDEOS["bell"]:
        assert {f"videos/bell/{video_id}_00.mp4", f"audio/bell/{video_id}_00.wav"} <= after.keys()
    assert after[f"videos/bell/{BOTH}_00.mp4"] == before[f"videos/drum/{BOTH}_00.mp4"]


def test_what_is_pushed_after_a_label_went_is_all_that_a_fresh_clone_needs(built: Clone, tmp_path: Path) -> None:
    with_params(built, labels=OLD_LABELS)
    built.run("soundback", "prune")
    build_all(built)
    built.run("dvc", "remote", "add", "--default", "--force", "shelf", str(tmp_path / "shelf"))
    built.run("dvc", "push")

    fresh = make_clone(tmp_path / "fresh", profile="smoke")
    for name in ("params.yaml", "dvc.yaml", "dvc.lock", "pretend.py", ".dvc/config"):  # What one would commit.
        shutil.copy(built.root / name, fresh.root / name)
    shutil.rmtree(fresh.root / "data", ignore_errors=True)  # Its README, which the other does without.
    fresh.run("dvc", "pull")
    # quality/dvc.yaml is nobody's who has not asked for it.
    assert "up to date" in fresh.run("dvc", "status", "dvc.yaml")
    assert built_in(fresh) == built_in(built)
    assert not {key for key in NEW_LABEL if (fresh.root / "data" / "videos" / key).exists()}
