"""How work is handed out: never more than there are workers, at the pace that is allowed, until we are told to stop."""

import itertools
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from soundback.errors import SettingsError, SourceError
from soundback.executors import open_workers
from soundback.params import load_params
from soundback.settings import Settings, load_settings
from soundback.sources.breaker import FORBIDDEN_IN_A_ROW, Breaker
from soundback.sources.pace import Pace
from stages.extract_audio import extract_audio
from stages.extract_frames import extract_frames
from tests.loopback import Page, make_video, serve
from tests.test_download_videos import bytes_of, rows_of, run

YOUTUBE = "https://www.youtube.com/watch?v=nXScAAAAAAA"
VIDEOS = [f"v{number:02d}-aB_cDeF" for number in range(12)]
BOT = "Sign in to confirm you\u2019re not a bot. This helps protect our community."


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("body") / "video.mp4")


@pytest.fixture
def site(body):
    with serve({f"/watch/{video_id}": Page(body) for video_id in VIDEOS}) as site:
        yield site


@pytest.fixture
def one_by_one(monkeypatch):
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "threads")
    monkeypatch.setenv("SOUNDBACK_WORKERS", "1")


def refused(reasons):
    breaker = Breaker()
    for reason in reasons:
        breaker.hear(reason)
    return breaker.refusal


@pytest.mark.parametrize(
    ("words", "helps"),
    [
        (BOT, "SOUNDBACK_COOKIES"),
        ("YouTube is requiring a captcha challenge before playback", "SOUNDBACK_COOKIES"),
        ("This content isn't available, try again later. Your account has been rate-limited by YouTube", "an hour"),
        ("HTTP Error 429: Too Many Requests", "SOUNDBACK_VIDEOS_PER_HOUR"),
    ],
)
def test_one_word_that_speaks_of_the_asker_is_enough(words, helps):
    assert helps in refused([None, words, None]).advice


def test_403_must_come_several_times_in_a_row():
    forbidden = ["HTTP Error 403: Forbidden"] * (FORBIDDEN_IN_A_ROW - 1)
    assert refused([*forbidden, None, *forbidden]) is None
    assert "yt-dlp" in refused([*forbidden, *forbidden]).advice


def test_a_private_video_says_nothing_of_us():
    assert refused(["Private video", "Video unavailable", "HTTP Error 404"] * 10) is None


def test_turns_at_a_host_are_evenly_spaced_for_all_who_ask(tmp_path):
    # 36 000 an hour are ten a second.
    paces = [Pace(36_000, tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        began = time.time()
        turns = sorted(pool.map(lambda n: paces[n % 4].take_turn(YOUTUBE) + time.time(), range(20)))
    assert turns[0] == pytest.approx(began, abs=0.1)
    assert [b - a for a, b in itertools.pairwise(turns)] == pytest.approx([0.1] * 19, abs=0.03)


def test_another_host_has_turns_of_its_own_and_this_machine_none(tmp_path):
    pace = Pace(1, tmp_path)
    assert pace.take_turn(YOUTUBE) == 0
    assert pace.take_turn(YOUTUBE) == pytest.approx(3600, abs=5)
    assert pace.take_turn("https://example.org/a.mp4") == 0
    for address in ("http://127.0.0.1:8000/x", "/home/me/a.mp4"):
        assert [pace.take_turn(address) for _ in range(3)] == [0, 0, 0]


def test_a_pace_of_none_asks_at_once_and_a_broken_note_does_not_stop_anyone(tmp_path):
    assert [Pace(None, tmp_path).take_turn(YOUTUBE) for _ in range(3)] == [0, 0, 0]
    (tmp_path / "www.youtube.com").write_text("12:00")
    assert Pace(10, tmp_path).take_turn(YOUTUBE) == 0
    (tmp_path / "www.youtube.com").write_text(repr(time.time() + 1e6))  # The clock was set back.
    assert Pace(10, tmp_path).take_turn(YOUTUBE) == 0


def test_on_a_bot_check_downloading_stops_keeps_all_and_leaves_the_rest_unasked(site, tmp_path, one_by_one):
    site.pages[f"/watch/{VIDEOS[4]}"] = Page(f"<html><h1>{BOT}</h1></html>".encode(), kind="text/html")
    said = r"refuses us.*not a bot.*5 more videos are ready.*6 were not asked.*SOUNDBACK_COOKIES.*run again"
    with pytest.raises(SourceError, match=f"(?i){said}"):
        run(site, tmp_path / "drum", VIDEOS)
    # One video waits while another is worked on.
    assert run.asked == set(VIDEOS[:6])
    site.pages[f"/watch/{VIDEOS[4]}"] = site.pages[f"/watch/{VIDEOS[0]}"]
    rows = run(site, tmp_path / "drum", VIDEOS)
    assert run.asked == {VIDEOS[4], *VIDEOS[6:]}
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_many_403_in_a_row_stop_it_too_but_each_was_asked_twice(site, tmp_path, one_by_one):
    for video_id in VIDEOS[2:]:
        site.pages[f"/watch/{video_id}"] = Page(b"", status=403)
    with pytest.raises(SourceError, match=r"refuses us.*403.*2 more videos are ready.*make update-yt-dlp"):
        run(site, tmp_path / "drum", VIDEOS)
    assert len(run.asked) <= 2 + FORBIDDEN_IN_A_ROW + 1
    assert site.asked.count(f"/watch/{VIDEOS[2]}") == 2


def test_a_refusal_of_the_last_videos_is_left_to_the_share_that_may_be_missing(site, tmp_path, one_by_one):
    site.pages[f"/watch/{VIDEOS[5]}"] = Page(b"", status=429)
    rows = run(site, tmp_path / "drum", VIDEOS[:6])
    assert [rows[video_id]["status"] for video_id in VIDEOS[:6]] == ["ok"] * 5 + ["rate_limited"]


def test_a_single_403_is_gone_when_it_is_asked_again(site, tmp_path, one_by_one):
    page = site.pages[f"/watch/{VIDEOS[1]}"]
    site.pages[f"/watch/{VIDEOS[1]}"] = Page(page.body, status=403)

    class Once(dict):
        def get(self, path, default=None):
            found = super().get(path, default)
            if path == f"/watch/{VIDEOS[1]}":
                self[path] = page
            return found

    site.pages = Once(site.pages)
    assert {row["status"] for row in run(site, tmp_path / "drum", VIDEOS[:3]).values()} == {"ok"}


def test_failures_of_a_chosen_status_are_asked_again_and_no_others(site, tmp_path, one_by_one, monkeypatch):
    site.pages[f"/watch/{VIDEOS[0]}"] = Page(b"", status=404)
    site.pages[f"/watch/{VIDEOS[1]}"] = Page(b"<html>Private video</html>", kind="text/html")
    rows = run(site, tmp_path / "drum", VIDEOS[:4])
    assert [rows[video_id]["status"] for video_id in VIDEOS[:3]] == ["removed", "unavailable", "ok"]
    run(site, tmp_path / "drum", VIDEOS[:4])
    assert run.asked == set()
    monkeypatch.setenv("SOUNDBACK_RETRY", "removed")
    site.pages[f"/watch/{VIDEOS[0]}"] = site.pages[f"/watch/{VIDEOS[3]}"]
    assert run(site, tmp_path / "drum", VIDEOS[:4])[VIDEOS[0]]["status"] == "ok"
    assert run.asked == {VIDEOS[0]}
    monkeypatch.setenv("SOUNDBACK_RETRY", "forbidden")
    with pytest.raises(SettingsError, match="SOUNDBACK_RETRY names forbidden; the statuses are ok, private"):
        run(site, tmp_path / "drum", VIDEOS[:4])


def test_a_wrong_environment_variable_is_named(monkeypatch):
    monkeypatch.setenv("SOUNDBACK_WORKERS", "many")
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "spark")
    with pytest.raises(SettingsError, match=r"(?s)2 wrong .*SOUNDBACK_EXECUTOR.*SOUNDBACK_WORKERS.*found 'many'"):
        load_settings()


@pytest.mark.parametrize(
    ("address", "said"), [(None, "SOUNDBACK_DASK_ADDRESS=tcp"), ("tcp://127.0.0.1:9", "No Dask scheduler answers")]
)
def test_a_dask_cluster_that_is_not_there_is_a_sentence(address, said, monkeypatch):
    monkeypatch.setattr("soundback.executors.DASK_TIMEOUT_S", 1)
    with pytest.raises(SettingsError, match=said), open_workers(Settings(executor="dask", dask_address=address)):
        pass


@pytest.fixture
def cluster(tmp_path):
    """A real scheduler and two worker processes, in folders of their own."""
    address_file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    scheduler = ["--no-dashboard", "--scheduler-file", str(address_file)]
    started = [subprocess.Popen([*command, *scheduler], cwd=tmp_path, stderr=subprocess.DEVNULL)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address_file)]
    worker += ["--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--local-directory", str(tmp_path)]
    for number in range(2):
        elsewhere = tmp_path / f"worker{number}"
        elsewhere.mkdir()
        started.append(subprocess.Popen(worker, cwd=elsewhere, stderr=subprocess.DEVNULL))
    deadline = time.monotonic() + 60
    try:
        from distributed import Client

        while not address_file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with Client(scheduler_file=str(address_file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address
    finally:
        for process in started:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
            process.wait()


def test_on_a_dask_cluster_the_same_code_gives_the_same_bytes(site, tmp_path, cluster, monkeypatch):
    params = load_params()

    def build(folder):
        folder.mkdir()
        run(site, folder / "videos", VIDEOS)
        extract_audio(folder / "videos", folder / "audio", params=params.audio)
        extract_frames(folder / "videos", folder / "frames", params=params.frames)

    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "processes")
    build(tmp_path / "here")
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "dask")
    monkeypatch.setenv("SOUNDBACK_DASK_ADDRESS", cluster)
    monkeypatch.chdir(tmp_path)  # The workers are elsewhere, and must find the same folder.
    build(Path("there"))
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")
    assert {row["status"] for row in rows_of(tmp_path / "there" / "videos")} == {"ok"}


def test_with_a_thousand_orders_no_more_are_under_way_than_there_are_workers(site, tmp_path, monkeypatch):
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "threads")
    monkeypatch.setenv("SOUNDBACK_WORKERS", "3")
    under_way, most = set(), 0
    from soundback.sources import harvest

    def fill(order, ledger, wanted):
        nonlocal most
        under_way.add(order.video_id)
        most = max(most, len(under_way))
        time.sleep(0.001)
        under_way.discard(order.video_id)
        return [harvest.Clip(order.video_id)]

    submitted = []
    monkeypatch.setattr(harvest, "_fill", fill)
    orders = [harvest.Order(str(n), "http://127.0.0.1/x") for n in range(1000)]
    outcomes = harvest.download_all(
        orders, harvest.Ledger(tmp_path, "", ""), wanted=None, progress=lambda done, total: submitted.append(done)
    )
    assert list(outcomes) != []
    assert set(outcomes) == {order.video_id for order in orders}
    assert most <= 3
    assert submitted == list(range(1001))
