"""The miniature YouTube-8M: its formats, its videos over HTTP, and its end."""

import csv
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from soundback.params import DemoSource, Download
from soundback.sources import youtube8m
from soundback.sources.demo.render import MANIFEST, is_separate, render
from soundback.sources.demo.server import serve
from soundback.sources.demo.world import MIDS, Defect, Video, World
from soundback.sources.download import download_clips
from tests.loopback import CURATION
from tests.processes import still_running

PARAMS = DemoSource(kind="demo", seed=11, videos_per_label=20, duration_s=2.0)
WORLD = World(PARAMS)
DOWNLOAD = Download(
    max_height=360,
    min_duration_s=1,
    max_duration_s=30,
    clip_s=1.5,
    clips_per_video=1,
    keep_source=False,
    max_retryable_share=0.2,
)
KILLED = """
import sys, requests
from soundback.params import DemoSource
from soundback.sources.demo.server import serve
if __name__ == "__main__":
    with serve(DemoSource(kind="demo", seed=11, videos_per_label=20, duration_s=2.0)) as endpoints:
        requests.get(endpoints.watch + sys.argv[1])
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def endpoints(folder) -> Iterator[youtube8m.Endpoints]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        with serve(PARAMS) as served:
            yield served
    assert list(folder.iterdir()) == []


def rendered(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("soundback-demo-*/*")}


def video_with(defect: Defect | None, *, separate: bool = False) -> Video:
    return next(
        video
        for video in WORLD.videos.values()
        if video.defect == defect and (defect or is_separate(WORLD.scene(video.video_id), None) == separate)
    )


def test_listing_everything_renders_nothing(endpoints, folder):
    vocabulary = youtube8m.read_vocabulary(endpoints)
    for name, mid in MIDS.items():
        label = youtube8m.resolve_label(vocabulary, name)
        assert label.mid == mid
        ids = youtube8m.read_label_index(label, endpoints)
        assert ids == [video.short_id for video in WORLD.listed[name]]
        for video, listed in zip(WORLD.listed[name], youtube8m.look_up_ids(ids, endpoints), strict=True):
            if video.defect == "gone":
                assert "AccessDenied" in (listed.reason or "")
            else:
                assert (listed.video_id, listed.reason) == (video.video_id, None)
    assert rendered(folder) == set()


def test_the_vocabulary_has_youtube8ms_columns_and_its_traps(endpoints):
    text = requests.get(endpoints.vocabulary).text
    assert text.splitlines()[0] == (
        "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,WikiDescription"
    )
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["Index"] for row in rows] == [str(index) for index in range(len(rows))]
    names = [row["Name"] for row in rows]
    assert "" in names
    assert any("," in name for name in names)
    assert set(MIDS) < set(names)


def test_scripts_are_jsonp_as_youtube8m_sends_it(endpoints):
    video = video_with(None)
    mid = MIDS[video.label].removeprefix("/m/")
    index = requests.get(f"{endpoints.label_index}/{mid}.js")
    assert index.text.startswith(f'p("{mid}",["')
    assert index.text.endswith('"]);')
    mapped = requests.get(f"{endpoints.id_map}/{video.short_id[:2]}/{video.short_id}.js")
    assert mapped.text == f'i("{video.short_id}","{video.video_id}");'
    assert mapped.headers["Content-Type"] == "text/javascript"


@pytest.mark.parametrize("path", ["v/026bk.js", "i/zz/zzzz.js"])
def test_what_is_not_listed_is_access_denied(path, endpoints):
    answer = requests.get(f"{endpoints.label_index.removesuffix('v')}{path}")
    assert answer.status_code == 403
    assert "<Code>AccessDenied</Code>" in answer.text


@pytest.mark.parametrize("path", ["/", "/videos/../server.py", "/watch?v=", "/watch?v=abc", "/2/j/i/ab/cdef.js"])
def test_any_other_path_is_not_found(path, endpoints):
    assert requests.get(endpoints.vocabulary.removesuffix("/vocabulary.csv") + path).status_code == 404


def test_a_watch_page_leads_to_the_file_or_to_the_manifest(endpoints):
    for separate, end in ((False, ".mp4"), (True, f"/{MANIFEST}")):
        video_id = video_with(None, separate=separate).video_id
        answer = requests.get(endpoints.watch + video_id, allow_redirects=False)
        assert answer.status_code == 302
        assert answer.headers["Location"] == f"/videos/{video_id}{end}"


def test_a_video_is_sent_as_rendered_whole_or_in_part(endpoints, tmp_path):
    video = video_with(None)
    render(WORLD.scene(video.video_id), tmp_path / "video", defect=None)
    expected = (tmp_path / "video" / "video.mp4").read_bytes()
    address = endpoints.watch + video.video_id
    whole = requests.get(address)
    assert whole.content == expected
    assert whole.headers["Content-Type"] == "video/mp4"
    head = requests.head(address, allow_redirects=True)
    assert (head.content, int(head.headers["Content-Length"])) == (b"", len(expected))
    for asked, part in (("100-199", slice(100, 200)), ("500-", slice(500, None)), ("-300", slice(-300, None))):
        answer = requests.get(address, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, expected[part])
    assert requests.get(address, headers={"Range": f"bytes={len(expected)}-"}).status_code == 416
    assert requests.get(address, headers={"Range": "lines=1-2"}).content == expected


def test_eight_that_ask_at_once_get_one_rendering(endpoints, folder):
    video = [each for each in WORLD.videos.values() if each.defect is None][7]
    before = rendered(folder)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(requests.get, [endpoints.watch + video.video_id] * 8))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert rendered(folder) - before == {video.video_id}


def test_a_missing_video_is_not_found_though_it_is_listed(endpoints):
    answer = requests.get(endpoints.watch + video_with("missing").video_id)
    assert answer.status_code == 404


@pytest.mark.parametrize("separate", [False, True])
def test_yt_dlp_fetches_it(separate, endpoints, tmp_path):
    video_id = video_with(None, separate=separate).video_id
    [clip] = download_clips(
        video_id, endpoints.watch + video_id, tmp_path / "clips", params=DOWNLOAD, curation=CURATION
    )
    assert (clip.status, clip.has_audio) == ("ok", True)
    scene = WORLD.scene(video_id)
    assert (clip.width, clip.height) == (scene.width, scene.height)


def test_broken_videos_fail_in_their_own_way(endpoints, tmp_path):
    expected = {"missing": "removed", "no_audio": "no_audio", "truncated": "corrupt", "garbage": "corrupt"}
    for defect, status in expected.items():
        video_id = video_with(defect).video_id
        [clip] = download_clips(
            video_id, endpoints.watch + video_id, tmp_path / defect, params=DOWNLOAD, curation=CURATION
        )
        assert clip.status == status


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_the_renderers_end_when_the_server_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, script, video_with(None).video_id]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        workers = psutil.Process(server.pid).children(recursive=True)
        assert workers
        server.send_signal(signal.SIGKILL)
        server.wait()
        assert not still_running(workers, within_s=10)
