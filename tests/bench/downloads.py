"""What a video costs from its address to its clip, beside yt-dlp alone and the bare ffmpeg cut, in the same run.

`python -m tests.bench.downloads [--quick] [--json FILE]`

The server runs in a process of its own and does not count. Both peers do their half of the work in as many processes at
once as the stage has, since what shares a core slows down. The stage's own start counts, the peers' does not.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil
import yaml

from soundback import schemas
from soundback.media.containers import probe
from soundback.media.ffmpeg import ffmpeg_path
from soundback.params import Download, load_params
from soundback.sources import download
from tests.loopback import Page, make_video, serve

PROJECT = Path(__file__).parents[2]
LABEL = "drum"
LIMIT = 1.3
N_BODIES = 20
WARM_UP = 3
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Moment:
    """The stage at work.

    Attributes:
      n_done: clips in their place.
      time_s: since it started.
      cpu_s: of the stage and all it started.
      memory_mb: of the stage and its workers, what they share counted once for each.
    """

    n_done: int
    time_s: float
    cpu_s: float
    memory_mb: float


def video_id_of(number: int) -> str:
    return f"{number:011d}"


def serve_until_told(n_videos: int, bodies: Path, address: Any, told: Any) -> None:
    """Runs in the server's process."""
    contents = [path.read_bytes() for path in sorted(bodies.iterdir())]
    pages = {f"/watch/{video_id_of(n)}": Page(contents[n % len(contents)]) for n in range(n_videos)}
    with serve(pages) as site:
        address.put(site.endpoints.watch)
        told.wait()


@contextmanager
def site_of(n_videos: int, folder: Path) -> Iterator[str]:
    """Serves small videos; yields what stands before an id in their addresses."""
    folder.mkdir()
    for number in range(N_BODIES):
        make_video(folder / f"{number:02d}.mp4", duration_s=3.0, hz=300 + 20 * number)
    address, told = SPAWN.Queue(), SPAWN.Event()
    server = SPAWN.Process(target=serve_until_told, args=(n_videos, folder, address, told), daemon=True)
    server.start()
    try:
        yield address.get(timeout=60)
    finally:
        told.set()
        server.join()


def fetch_alone(ids: list[str], watch: str, folder: Path, params: Download) -> float:
    """CPU seconds per video of yt-dlp with the stage's own options, one `YoutubeDL` for all."""
    from yt_dlp import YoutubeDL

    options = download._options(True, params)
    options |= {"paths": {"home": str(folder)}, "outtmpl": {"default": "%(id)s.%(ext)s"}}
    downloader = YoutubeDL(options)
    return cpu_per_call(lambda video_id: downloader.extract_info(watch + video_id), ids)


def cut_alone(ids: list[str], command: list[str], folder: Path) -> float:
    """CPU seconds per video of the bare program."""
    return cpu_per_call(lambda video_id: run_cut(command, folder, video_id), ids)


def run_cut(command: list[str], folder: Path, video_id: str) -> None:
    named = [part.replace("IN.mp4", f"{folder}/{video_id}.mp4") for part in command[:-1]]
    subprocess.run([*named, f"file:{folder}/cut.{video_id}.mp4"], check=True, stdin=subprocess.DEVNULL)


def cpu_per_call(work: Callable[[str], object], ids: list[str]) -> float:
    for each in ids[:WARM_UP]:
        work(each)
    before = cpu_s(resource.RUSAGE_SELF) + cpu_s(resource.RUSAGE_CHILDREN)
    for each in ids[WARM_UP:]:
        work(each)
    return (cpu_s(resource.RUSAGE_SELF) + cpu_s(resource.RUSAGE_CHILDREN) - before) / len(ids[WARM_UP:])


def work_in_turn(ids: list[str], watch: str, command: list[str], folder: Path, params: Download) -> float:
    """CPU seconds per video of both in one loop: each finds the caches of the processor as the other left them."""
    from yt_dlp import YoutubeDL

    options = download._options(True, params)
    options |= {"paths": {"home": str(folder)}, "outtmpl": {"default": "%(id)s.%(ext)s"}}
    downloader = YoutubeDL(options)

    def run(video_id: str) -> None:
        downloader.extract_info(watch + video_id)
        run_cut(command, folder, video_id)

    return cpu_per_call(run, ids)


def cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def cut_command(video: Path, params: Download) -> list[str]:
    """The stage's cut as the bare program makes it, with IN.mp4 for what it reads and its output as the last word."""
    start_s = (probe(video).duration_s - params.clip_s) / 2
    command = [ffmpeg_path(), "-nostdin", "-v", "error", "-y", "-ss", f"{start_s:.6f}", "-i", "file:IN.mp4"]
    command += ["-map", "0:V:0", "-map", "0:a:0", "-c", "copy", "-t", f"{params.clip_s:.6f}", "-map_metadata", "-1"]
    return [*command, "-movflags", "+faststart", "-fflags", "+bitexact", "file:OUT.mp4"]


def measure_peers(n_videos: int, n_workers: int, watch: str, folder: Path, params: Download) -> dict[str, float]:
    """CPU seconds per video of each peer, mean over its processes."""
    folder.mkdir()
    command = cut_command(next(folder.with_name("bodies").iterdir()), params)
    shares = [[video_id_of(n) for n in range(k, n_videos, n_workers)] for k in range(n_workers)]
    with ProcessPoolExecutor(n_workers, mp_context=SPAWN) as pool:
        fetched = [pool.submit(fetch_alone, share, watch, folder, params) for share in shares]
        fetching = mean(each.result() for each in fetched)
        cut = [pool.submit(cut_alone, share, command, folder) for share in shares]
        cutting = mean(each.result() for each in cut)
        shutil.rmtree(folder)
        folder.mkdir()
        both = [pool.submit(work_in_turn, share, watch, command, folder, params) for share in shares]
        in_turn = mean(each.result() for each in both)
    shutil.rmtree(folder)
    return {"yt-dlp alone": fetching, "ffmpeg cut alone": cutting, "the two in turn": in_turn}


def write_project(folder: Path, n_videos: int, watch: str) -> Download:
    """Writes what the stage reads; gives its params."""
    folder.mkdir()
    values = yaml.safe_load((PROJECT / "profiles" / "smoke.yaml").read_text())
    unused = dict.fromkeys(("vocabulary", "label_index", "id_map"), "unused:")
    values["source"] = {"kind": "youtube8m", "watch": watch, **unused}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    about: dict[str, object] = {"label": "Drum", "label_mid": "/m/026t6", "split": "train", "status": "ok"}
    rows = [about | {"video_id": video_id_of(n), "address": video_id_of(n), "reason": None} for n in range(n_videos)]
    schemas.write_table(rows, schemas.CATALOG, folder / "catalog" / LABEL / "catalog.parquet")
    return load_params(folder / "params.yaml").download


def run_stage(folder: Path, n_workers: int) -> tuple[float, float, list[Moment]]:
    """Runs `stages.download_videos` as DVC does: CPU and wall seconds in all, and how it looked on its way."""
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "SOUNDBACK_WORKERS": str(n_workers)}
    before, started = cpu_s(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "stages.download_videos", LABEL, "catalog", "videos"]
    with (folder / "log").open("w") as log:
        stage = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        moments: list[Moment] = []
        watcher = threading.Thread(target=watch_stage, args=(stage.pid, folder / "videos" / LABEL, started, moments))
        watcher.start()
        status = stage.wait()
    took_s = time.monotonic() - started
    watcher.join()
    assert status == 0, (folder / "log").read_text()
    return cpu_s(resource.RUSAGE_CHILDREN) - before, took_s, moments


def watch_stage(pid: int, videos: Path, started: float, moments: list[Moment]) -> None:
    """Notes moments until the stage has ended."""
    try:
        stage = psutil.Process(pid)
        while stage.status() != psutil.STATUS_ZOMBIE:
            spent_s, memory = 0.0, 0
            for each in [stage, *stage.children(recursive=True)]:
                try:
                    spent_s += sum(each.cpu_times()[:4])
                    memory += each.memory_info().rss * each.name().startswith("python")
                except psutil.NoSuchProcess:
                    continue
            n_done = sum(1 for entry in os.scandir(videos) if entry.name.endswith(".mp4")) if videos.exists() else 0
            moments.append(Moment(n_done, time.monotonic() - started, spent_s, memory / 1e6))
            time.sleep(0.2)
    except psutil.NoSuchProcess:
        return


def stretch(moments: list[Moment], first: int, last: int) -> dict[str, float]:
    """CPU and wall ms per video, and the median memory in MB, while videos `first` to `last` were fetched."""
    within = [each for each in moments if first <= each.n_done <= last]
    n_videos = max(within[-1].n_done - within[0].n_done, 1)
    return {
        "cpu_ms": 1000 * (within[-1].cpu_s - within[0].cpu_s) / n_videos,
        "wall_ms": 1000 * (within[-1].time_s - within[0].time_s) / n_videos,
        "memory_mb": median(each.memory_mb for each in within),
    }


def measure(n_videos: int, n_peers: int, n_workers: int) -> dict[str, Any]:
    """All figures, in ms and MB."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with site_of(n_videos, root / "bodies") as watch:
            params = write_project(root / "project", n_videos, watch)
            # Before and after: what else the machine has to do changes.
            before = measure_peers(n_peers, n_workers, watch, root / "peers", params)
            spent_s, took_s, moments = run_stage(root / "project", n_workers)
            after = measure_peers(n_peers, n_workers, watch, root / "peers", params)
        rows = schemas.read_table(root / "project/videos/downloads.parquet", schemas.DOWNLOADS).to_pylist()
        assert len(rows) == n_videos, "every video is a row"
        assert {row["status"] for row in rows} == {"ok"}, "every video is cut"
    peers = {peer: 1000 * mean([before[peer], after[peer]]) for peer in before}
    in_turn = peers.pop("the two in turn")
    # Where it has got going: with the first videos, yt-dlp is imported.
    begin, tenth = n_videos // 50, n_videos // 10
    return {
        "n_videos": n_videos,
        "n_workers": n_workers,
        "peers_cpu_ms": peers,
        "stage_cpu_ms": 1000 * spent_s / n_videos,
        "stage_wall_ms": 1000 * took_s / n_videos,
        "ratio": spent_s / n_videos * 1000 / sum(peers.values()),
        "in_turn_cpu_ms": in_turn,
        "ratio_in_turn": spent_s / n_videos * 1000 / in_turn,
        "first_tenth": stretch(moments, begin, begin + tenth),
        "last_tenth": stretch(moments, n_videos - tenth, n_videos - 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="500 videos instead of 5000")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--videos", type=int, help="another number")
    options = parser.parse_args()
    n_videos = options.videos or (500 if options.quick else 5000)
    n_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = measure(n_videos, min(n_videos, 100 * n_workers), n_workers)
    print(f"{platform.processor() or platform.machine()}, {n_workers} cores; {platform.platform()}")
    print(f"{n_videos} videos of 3 s over loopback, each cut to 2 s, {n_workers} at once; the server does not count")
    print(f"{'':44}{'CPU ms a video':>16}")
    for peer, each_ms in found["peers_cpu_ms"].items():
        print(f"{peer:44}{each_ms:16.1f}")
    print(f"{'the sum of both':44}{sum(found['peers_cpu_ms'].values()):16.1f}")
    print(f"{'both in turn, in one loop':44}{found['in_turn_cpu_ms']:16.1f}")
    print(f"{'the stage, its start and its books included':44}{found['stage_cpu_ms']:16.1f}")
    print(f"{'stage / sum of both':44}{found['ratio']:16.2f}   (at most {LIMIT})")
    print(f"{'stage / both in turn':44}{found['ratio_in_turn']:16.2f}")
    print(f"{'':44}{'CPU ms a video':>16}{'ms a video':>12}{'memory MB':>12}")
    for name in ("first_tenth", "last_tenth"):
        print(f"{name.replace('_', ' '):44}" + "{cpu_ms:16.1f}{wall_ms:12.1f}{memory_mb:12.0f}".format(**found[name]))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
