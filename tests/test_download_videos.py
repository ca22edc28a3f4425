import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from soundback import schemas
from soundback.errors import SourceError
from soundback.params import DemoSource, Download, TableSource, YouTube8MSource, load_params
from soundback.sources.cutting import Clip
from soundback.sources.ledger import REQUEST, TABLE, TASTE, Ledger
from stages.download_videos import Sections, download_videos
from stages.list_videos import list_videos
from tests.loopback import CURATION, Page, make_video, serve

ROOT = Path(__file__).parents[1]
DOWNLOAD = Download(
    max_height=360,
    min_duration_s=1.0,
    max_duration_s=8.0,
    clip_s=2.0,
    clips_per_video=1,
    keep_source=False,
    max_retryable_share=0.2,
)
IDS = [f"{letter}-aB_cDeF01" for letter in "dcba"]
GONE = "gone"


@pytest.fixture(scope="module")
def bodies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bodies")
    return {
        video_id: make_video(folder / f"{number}.mp4", duration_s=3.0, hz=300 + 100 * number)
        for number, video_id in enumerate(IDS)
    }


@pytest.fixture
def site(bodies):
    with serve({f"/watch/{video_id}": Page(body) for video_id, body in bodies.items()}) as site:
        yield site


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "threads")
    monkeypatch.setenv("SOUNDBACK_WORKERS", "2")


def source_at(site):
    return YouTube8MSource(
        kind="youtube8m", vocabulary="unused:", label_index="unused:", id_map="unused:", watch=site.endpoints.watch
    )


def write_catalog(path, video_ids=(*IDS, GONE), label="Drum"):
    rows = [
        {
            "video_id": video_id,
            "address": None if video_id == GONE else video_id,
            "label": label,
            "label_mid": "/m/026t6",
            "split": "train",
            "status": "gone" if video_id == GONE else "ok",
            "reason": "HTTP 403: AccessDenied" if video_id == GONE else None,
        }
        for video_id in video_ids
    ]
    schemas.write_table(rows, schemas.CATALOG, path)
    return path


def run(site, videos, video_ids=(*IDS, GONE), *, label="Drum", curation=CURATION, **changes):
    """Runs the stage; returns its rows by video id, and which videos it asked for."""
    catalog = write_catalog(videos.with_name("catalog.parquet"), video_ids, label)
    n_asked = len(site.asked)
    try:
        download_videos(
            catalog, videos, params=Sections(source_at(site), DOWNLOAD.model_copy(update=changes), curation)
        )
    finally:
        run.asked = {path.rsplit("/", 1)[1] for path in site.asked[n_asked:]}
    return {row["video_id"]: row for row in rows_of(videos)}


def rows_of(videos):
    return schemas.read_table(videos / "downloads.parquet", schemas.DOWNLOADS).to_pylist()


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_video_of_the_catalog_is_a_row_and_every_clip_a_file(site, tmp_path):
    rows = run(site, tmp_path / "drum")
    assert list(rows) == sorted([*IDS, GONE])
    for video_id in IDS:
        row = rows[video_id]
        assert (row["status"], row["label"], row["split"], row["path"]) == ("ok", "Drum", "train", f"{video_id}_00.mp4")
        assert hashlib.sha256((tmp_path / "drum" / row["path"]).read_bytes()).hexdigest() == row["sha256"]
    assert (rows[GONE]["status"], rows[GONE]["reason"]) == ("removed", "HTTP 403: AccessDenied")
    assert sorted(path.name for path in (tmp_path / "drum").iterdir()) == sorted(
        ["downloads.parquet", *(f"{video_id}_00.mp4" for video_id in IDS)]
    )


def test_the_closing_line_counts(site, tmp_path, caplog):
    caplog.set_level("INFO")
    site.pages[f"/watch/{IDS[0]}"] = Page(b"garbage" * 1000)
    site.pages[f"/watch/{IDS[1]}"] = Page(status=404)
    run(site, tmp_path / "drum")
    assert caplog.messages[-1] == "2 of 5 videos ready, 3 not: 2 removed, 1 corrupt."


def test_what_is_held_is_not_fetched_again_and_the_bytes_stay(site, tmp_path):
    site.pages[f"/watch/{IDS[0]}"] = Page(b"garbage" * 1000)
    run(site, tmp_path / "drum")
    before = bytes_of(tmp_path / "drum")
    run(site, tmp_path / "drum")
    assert run.asked == set()  # Nor is the video that is broken for good.
    assert bytes_of(tmp_path / "drum") == before


def test_a_larger_catalog_fetches_only_what_is_new(site, tmp_path):
    run(site, tmp_path / "drum", IDS[:2])
    run(site, tmp_path / "drum", IDS)
    assert run.asked == set(IDS[2:])


def test_what_is_no_longer_wanted_is_removed(site, tmp_path):
    run(site, tmp_path / "drum")
    (tmp_path / "drum" / "leftover.part").write_text("x")
    (tmp_path / "drum" / "folder").mkdir()
    assert list(run(site, tmp_path / "drum", IDS[:1])) == IDS[:1]
    assert sorted(path.name for path in (tmp_path / "drum").iterdir()) == sorted(
        ["downloads.parquet", f"{IDS[0]}_00.mp4"]
    )


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_a_clip_that_is_lost_or_damaged_is_fetched_again(site, tmp_path, damage):
    run(site, tmp_path / "drum")
    before = bytes_of(tmp_path / "drum")
    damage(tmp_path / "drum" / f"{IDS[2]}_00.mp4")
    run(site, tmp_path / "drum")
    assert run.asked == {IDS[2]}
    assert bytes_of(tmp_path / "drum") == before


def test_a_change_of_what_is_wanted_fetches_anew_and_a_change_of_names_does_not(site, tmp_path):
    run(site, tmp_path / "drum")
    rows = run(site, tmp_path / "drum", label="Drums", max_retryable_share=0.9)
    assert run.asked == set()
    assert {row["label"] for row in rows.values()} == {"Drums"}
    rows = run(site, tmp_path / "drum", clip_s=1.0)
    assert run.asked == set(IDS)
    assert rows[IDS[0]]["duration_s"] == pytest.approx(1.0, abs=0.2)


def test_several_clips_of_a_video_are_rows_of_their_own(site, tmp_path):
    run(site, tmp_path / "drum", IDS[:2], clip_s=1.0, clips_per_video=2)
    rows = rows_of(tmp_path / "drum")
    assert [(row["video_id"], row["clip_index"]) for row in rows] == [(i, k) for i in sorted(IDS[:2]) for k in (0, 1)]


def test_too_many_passing_failures_stop_the_stage_and_keep_the_work(site, tmp_path):
    for video_id in IDS[:2]:
        site.pages[f"/watch/{video_id}"].status = 503
    with pytest.raises(SourceError, match=r"2 of 5 videos ready, 3 not: 2 network, 1 removed.*at most 20%.*run again"):
        run(site, tmp_path / "drum")
    assert not (tmp_path / "drum" / "downloads.parquet").exists()
    for video_id in IDS[:2]:
        site.pages[f"/watch/{video_id}"].status = 200
    rows = run(site, tmp_path / "drum")
    assert run.asked == set(IDS[:2])
    assert [rows[video_id]["status"] for video_id in IDS] == ["ok"] * 4
    assert not (tmp_path / "drum" / ".unfinished").exists()


def test_few_passing_failures_are_rows_and_are_asked_again_next_time(site, tmp_path):
    site.pages[f"/watch/{IDS[0]}"].cut_at = 1000
    rows = run(site, tmp_path / "drum")
    assert rows[IDS[0]]["status"] == "network"
    assert len(list((tmp_path / "drum").iterdir())) == 4  # No part of it stays.
    site.pages[f"/watch/{IDS[0]}"].cut_at = None
    rows = run(site, tmp_path / "drum")
    assert run.asked == {IDS[0]}
    assert rows[IDS[0]]["status"] == "ok"


def test_a_label_without_a_single_video_stops_the_stage(site, tmp_path):
    with pytest.raises(SourceError, match="0 of 1 videos ready, 1 not: 1 removed"):
        run(site, tmp_path / "drum", [GONE])
    assert not (tmp_path / "drum" / "downloads.parquet").exists()


def test_a_table_of_another_kind_is_made_anew(site, tmp_path):
    (tmp_path / "drum").mkdir()
    (tmp_path / "drum" / "downloads.parquet").write_bytes(b"not a table")
    assert set(run(site, tmp_path / "drum")) == {*IDS, GONE}


def start_stage(folder, site):
    """Starts the stage as DVC does: a program of its own, with its own processes."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["source"] = source_at(site).model_dump()
    params["download"], params["curation"] = DOWNLOAD.model_dump(), CURATION.model_dump()
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    write_catalog(folder / "catalog" / "drum" / "catalog.parquet")
    return subprocess.Popen(
        [sys.executable, "-m", "stages.download_videos", "drum", "catalog", "."],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SOUNDBACK_EXECUTOR": "processes"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, timeout_s=60.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.002)


def notes_in(folder):
    # Not deeper: the folders of the videos under way come and go.
    return {path.stem for path in (folder / "drum" / ".unfinished").glob("*/*.json")}


def test_killed_at_any_moment_it_goes_on_and_ends_in_the_same_bytes(site, tmp_path):
    run(site, tmp_path / "undisturbed")
    for page in site.pages.values():
        page.chunk_delay_s = 0.02
    killed = tmp_path / "killed"
    site.asked.clear()
    moments = [
        lambda: any("watch" in path for path in site.asked),  # The first bytes of a video are on their way.
        lambda: len(notes_in(killed)) >= 2,
    ]
    for moment in moments:
        stage = start_stage(killed, site)
        wait_until(moment)
        stage.kill()
        stage.wait()
        finished = notes_in(killed)
        site.asked.clear()
    site.sent.clear()
    stage = start_stage(killed, site)
    assert stage.wait(120) == 0, stage.stdout.read()
    assert {path.rsplit("/", 1)[1] for path in site.asked}.isdisjoint(finished)
    # Once to look at it, once to fetch it.
    assert all(n <= 2 for n in Counter(site.sent).values())
    assert bytes_of(killed / "drum") == bytes_of(tmp_path / "undisturbed")


def test_clips_noted_but_not_yet_moved_are_not_fetched_again(site, tmp_path):
    run(site, tmp_path / "drum")
    before = bytes_of(tmp_path / "drum")
    metadata = pq.read_schema(tmp_path / "drum" / TABLE).metadata
    ledger = Ledger(tmp_path / "drum", metadata[REQUEST].decode(), metadata[TASTE].decode())
    (row,) = [row for row in rows_of(tmp_path / "drum") if row["video_id"] == IDS[0]]
    clip = Clip(**{name: value for name, value in row.items() if name not in ("label", "split")})
    ledger.enter(IDS[0], [clip])
    ledger.work_folder(IDS[0]).mkdir()
    shutil.move(tmp_path / "drum" / clip.path, ledger.work_folder(IDS[0]) / clip.path)
    (tmp_path / "drum" / TABLE).unlink()
    run(site, tmp_path / "drum")
    assert run.asked == set(IDS[1:])
    assert bytes_of(tmp_path / "drum") == before


def test_ctrl_c_ends_all_processes_without_a_traceback(site, tmp_path):
    for page in site.pages.values():
        page.chunk_delay_s = 0.5
    stage = start_stage(tmp_path / "run", site)
    wait_until(lambda: len(site.asked) >= 2)
    started = time.monotonic()
    os.killpg(stage.pid, 2)  # As a terminal does: to every process of the group.
    output, _ = stage.communicate(timeout=30)  # It returns when the last process that could still write has ended.
    assert time.monotonic() - started < 5
    assert stage.returncode == 130
    assert "Traceback" not in output


def test_the_rendered_world_is_fetched_like_any_other(tmp_path):
    params = load_params(ROOT / "params.yaml")
    source = DemoSource(kind="demo", seed=3, videos_per_label=12, duration_s=3.0)
    dataset = params.dataset.model_copy(update={"videos_per_label": 4})
    key = next(iter(params.labels))
    catalog, videos = tmp_path / "catalog.parquet", tmp_path / key
    list_videos(key, ROOT / "videos.csv", catalog, source=source, labels=params.labels, dataset=dataset)
    download_videos(catalog, videos, params=Sections(source, DOWNLOAD, CURATION))
    ready = [row for row in rows_of(videos) if row["status"] == "ok"]
    assert len(ready) >= 2
    assert all(row["duration_s"] == pytest.approx(2.0, abs=0.2) for row in ready)
    before = bytes_of(videos)
    (videos / ready[0]["path"]).unlink()
    download_videos(catalog, videos, params=Sections(source, DOWNLOAD, CURATION))
    assert bytes_of(videos) == before


def test_the_whole_video_stays_beside_its_clips_where_that_is_asked_for(site, bodies, tmp_path):
    rows = run(site, tmp_path / "drum", keep_source=True)
    for video_id in IDS:
        assert (tmp_path / "drum" / rows[video_id]["source_path"]).read_bytes() == bodies[video_id]
    run(site, tmp_path / "drum", keep_source=True)
    assert run.asked == set()
    (tmp_path / "drum" / rows[IDS[0]]["source_path"]).unlink()
    run(site, tmp_path / "drum", keep_source=True)
    assert run.asked == {IDS[0]}


def test_clips_that_are_not_wanted_are_rows_and_their_files_go(site, tmp_path):
    # The tone of every test video is there from start to end; the picture moves all the time.
    too_much = CURATION.model_copy(update={"min_motion": 200.0})
    with pytest.raises(SourceError, match="0 of 5 videos ready, 5 not: 4 still, 1 removed"):
        run(site, tmp_path / "drum", curation=too_much)
    assert not list((tmp_path / "drum").glob("*.mp4"))
    rows = run(site, tmp_path / "drum", curation=CURATION)
    assert run.asked == set(IDS), "what was thrown away is fetched again for who wants it after all"
    assert [rows[video_id]["status"] for video_id in IDS] == ["ok"] * 4


def test_another_curation_looks_again_at_what_is_here_and_fetches_only_what_it_had_thrown_away(site, tmp_path):
    plain = run(site, tmp_path / "drum")
    assert {row["picture_print"] for row in plain.values()} == {None}
    rows = run(site, tmp_path / "drum", curation=CURATION.model_copy(update={"max_print_distance": 0.1}))
    assert run.asked == set()
    assert all(rows[video_id]["picture_print"] for video_id in IDS)  # A steady tone has no print.
    assert [rows[video_id]["sha256"] for video_id in IDS] == [plain[video_id]["sha256"] for video_id in IDS]
    rows = run(site, tmp_path / "drum", curation=CURATION)
    assert run.asked == set()
    assert rows == plain


def test_files_of_ones_own_are_read_where_they_are_and_stay(bodies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Path("mine") / "-x \U0001f941.mp4"  # A dash in front, a space and a drum are a file name like any other.
    own.parent.mkdir()
    own.write_bytes(bodies[IDS[0]])
    row = {"label": "Drum", "label_mid": "", "split": "train", "status": "ok", "reason": None}
    addresses = {"here": str(own), "gone": "mine/none.mp4"}
    rows = [{"video_id": video_id, "address": address, **row} for video_id, address in addresses.items()]
    schemas.write_table(rows, schemas.CATALOG, Path("catalog.parquet"))
    table = TableSource(kind="table")
    for _ in range(2):
        download_videos(Path("catalog.parquet"), Path("drum"), params=Sections(table, DOWNLOAD, CURATION))
        gone, here = rows_of(Path("drum"))
        assert (gone["status"], gone["reason"]) == ("removed", "there is no such file")
        assert (here["status"], here["path"]) == ("ok", "here_00.mp4")
        assert own.read_bytes() == bodies[IDS[0]]
