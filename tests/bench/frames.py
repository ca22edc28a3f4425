"""What a source frame costs on its way into the shards, beside decoding alone, PyAV and OpenCV, in the same run.

`python -m tests.bench.frames [--quick] [--json FILE]`

Everything on one thread of one core, one after the other in every round; ratios are taken within rounds, and their
median is told. The stage's function runs within this process as the peers do, so that starting Python and importing
count for none; what they cost the stage is told apart. PyAV and OpenCV get the cheapest way to the same pictures that
they have; they make JPEGs of the same quality and one Parquet file with our row groups and columns.
"""

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from soundback import schemas
from soundback.media.ffmpeg import ffmpeg_path
from soundback.params import load_params
from stages.extract_frames import extract_frames
from tests.bench.films import FILMS, RATE
from tests.synthetic import write_downloads

PROJECT = Path(__file__).parents[2]
LABEL = "drum"  # any of params.yaml
SIZE, QUALITY, GROUP_FRAMES = 224, 90, 128
SPARSE = 4
LIMITS = {("natural", RATE): 1.8, ("synthetic", RATE): 1.5, ("natural", SPARSE): 1.25, ("synthetic", SPARSE): 1.25}
WORKERS_LIMIT = 1.8


@dataclass(frozen=True)
class Spent:
    """CPU and wall seconds."""

    cpu_s: float
    wall_s: float


def spent_by(work: Callable[[], object]) -> Spent:
    """What a piece of work takes, its processes included."""
    started, before = time.monotonic(), cpu_s()
    work()
    return Spent(cpu_s() - before, time.monotonic() - started)


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def decode(film: Path) -> None:
    """The bare program, to nowhere."""
    command = [ffmpeg_path(), "-nostdin", "-v", "error", "-filter_threads", "1", "-threads", "1", "-i", str(film)]
    subprocess.run([*command, "-map", "0:V:0", "-f", "null", "-"], check=True)


def with_pyav(film: Path, out: Path, rate: int) -> None:
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        write_parquet((with_pillow(each) for each in of_each_slot(container.decode(stream), rate)), out)


def of_each_slot(pictures: Iterator[av.VideoFrame], rate: int) -> Iterator[av.VideoFrame]:
    """The first picture of each stretch of 1 / rate."""
    last = -1
    for picture in pictures:
        if (slot := int(picture.time * rate + 1e-6)) != last:
            last = slot
            yield picture


def with_pillow(picture: av.VideoFrame) -> bytes:
    image = Image.fromarray(picture.reformat(SIZE, SIZE, "gray", interpolation="AREA").to_ndarray())
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def with_opencv(film: Path, out: Path, rate: int) -> None:
    capture = cv2.VideoCapture(str(film), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])

    def images() -> Iterator[bytes]:
        number, last = 0, -1
        while capture.grab():
            if (slot := number * rate // RATE) != last:
                last = slot
                gray = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2GRAY)
                small = cv2.resize(gray, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
                yield cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
            number += 1

    write_parquet(images(), out)
    capture.release()


def write_parquet(images: Iterator[bytes], out: Path) -> None:
    about = {"video_id": "v", "clip_index": 0, "label": "Drum", "split": "train"}
    with pq.ParquetWriter(out, schemas.FRAMES, compression="none", use_dictionary=list(about)) as writer:
        first, group = 0, list[bytes]()
        for image in images:
            group.append(image)
            if len(group) == GROUP_FRAMES:
                writer.write_table(table_of(about, first, group))
                first, group = first + len(group), []
        if group:
            writer.write_table(table_of(about, first, group))


def table_of(about: dict[str, object], first: int, images: list[bytes]) -> pa.Table:
    indices = range(first, first + len(images))
    rows = {name: [value] * len(images) for name, value in about.items()}
    rows |= {"frame_index": list(indices), "time_s": [index / RATE for index in indices], "image": images}
    return pa.table(rows, schema=schemas.FRAMES)


class Project:
    """A folder with what the stage reads."""

    def __init__(self, folder: Path, films: list[Path]) -> None:
        self._folder = folder
        told = {"size": SIZE, "fit": "stretch", "encoding": "jpeg", "jpeg_quality": QUALITY}
        stored = load_params(PROJECT / "params.yaml").frames
        self._params = stored.model_copy(update=told | {"row_group_frames": GROUP_FRAMES})
        (folder / "videos" / LABEL).mkdir(parents=True)
        for number, film in enumerate(films):
            (folder / "videos" / LABEL / f"{number}.mp4").hardlink_to(film)
        write_downloads(folder / "videos" / LABEL, {f"v{number:03d}": f"{number}.mp4" for number in range(len(films))})

    def extract(self, rate: int) -> None:
        """The stage within this process, so that starting does not count; all else does."""
        params = self._params.model_copy(update={"frame_rate": rate})
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SOUNDBACK_EXECUTOR", "threads")
            environment.setenv("SOUNDBACK_WORKERS", "1")
            environment.setenv("SOUNDBACK_PROGRESS", "lines")
            with redirect_stdout(io.StringIO()):
                extract_frames(self._folder / "videos" / LABEL, self._folder / "frames" / LABEL, params=params)

    def run_stage(self, n_workers: int, n_cores: int) -> None:
        """The stage as DVC runs it, with the frame rate of params.yaml, on so many cores."""
        (self._folder / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
        env = os.environ | {"PYTHONPATH": str(PROJECT), "SOUNDBACK_WORKERS": str(n_workers)}
        command = [sys.executable, "-m", "stages.extract_frames", LABEL, "videos", "frames"]
        with bound_to(n_cores):
            done = subprocess.run(command, cwd=self._folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def bound_to(n_cores: int) -> Iterator[None]:
    """Within the block, this thread and what it starts has so many of the cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:n_cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def measure(n_pictures: int, n_clips: int, n_rounds: int) -> dict[str, Any]:
    """CPU ms per source frame of each way, its median ratio to decoding alone, and what two workers are to one."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        films = {film: write(root / f"{film}.mp4", n_pictures) for film, write in FILMS.items()}
        projects = {film: Project(root / film, [path] * n_clips) for film, path in films.items()}
        for project in projects.values():
            project.extract(SPARSE)  # Once for nothing: the first time, libraries are loaded.
        with bound_to(1):
            rounds = [measure_round(films, projects, n_clips, root / "out.parquet") for _ in range(n_rounds)]
        workers = measure_workers([*films.values()] * 2 * n_clips, root, min(n_rounds, 3))
        bits = {film: path.stat().st_size * 8 * RATE / n_pictures / 1000 for film, path in films.items()}
    return {
        "n_pictures": n_pictures,
        "n_clips": n_clips,
        "n_rounds": n_rounds,
        "kilobits_per_s": bits,
        "films": {
            film: {
                way: {
                    "cpu_ms": 1000 * median(each[film][way] for each in rounds) / n_pictures / n_clips,
                    "ratio": median(each[film][way] / each[film]["ffmpeg decode alone"] for each in rounds),
                }
                for way in rounds[0][film]
            }
            for film in films
        },
        "workers": workers,
    }


def measure_round(
    films: dict[str, Path], projects: dict[str, Project], n_clips: int, out: Path
) -> dict[str, dict[str, float]]:
    """CPU seconds of each way over so many clips of each film, once."""
    found = {}
    for film, path in films.items():
        ways: dict[str, Callable[[], object]] = {"ffmpeg decode alone": partial(of_all, n_clips, decode, path)}
        for rate in (RATE, SPARSE):
            ways[f"the stage, {rate} frames/s"] = partial(projects[film].extract, rate)
            ways[f"PyAV + Pillow, {rate} frames/s"] = partial(of_all, n_clips, with_pyav, path, out, rate)
            ways[f"OpenCV, {rate} frames/s"] = partial(of_all, n_clips, with_opencv, path, out, rate)
        found[film] = {way: spent_by(work).cpu_s for way, work in ways.items()}
    return found


def of_all(n_clips: int, work: Callable[..., object], *given: object) -> None:
    for _ in range(n_clips):
        work(*given)


def measure_workers(films: list[Path], root: Path, n_rounds: int) -> dict[str, float]:
    """Wall seconds of the stage less its start, the best of the rounds: what else runs can only slow it down.

    And of decoding alone, which says what a second core of this machine is worth.
    """
    (root / "broken.mp4").write_bytes(b"no video")
    nothing, project = Project(root / "nothing", [root / "broken.mp4"]), Project(root / "many", films)
    work: dict[str, Callable[[], object]] = {
        "start": partial(nothing.run_stage, 1, 2),
        "one on one core": partial(project.run_stage, 1, 1),
        "one on two cores": partial(project.run_stage, 1, 2),
        "two on two cores": partial(project.run_stage, 2, 2),
        "one decoder on one core": partial(decode_all, films, 1),
        "two decoders on two cores": partial(decode_all, films, 2),
    }
    spent: dict[str, list[Spent]] = {way: [] for way in work}
    for _ in range(n_rounds):
        for way, each in work.items():
            spent[way].append(spent_by(each))
    took = {way: min(each.wall_s for each in found) for way, found in spent.items()}
    stage = ("one on one core", "one on two cores", "two on two cores")
    started = {way: took[way] - took["start"] for way in stage}
    return took | started | {"start, CPU s": median(each.cpu_s for each in spent["start"])}


def decode_all(films: list[Path], n_at_once: int) -> None:
    with bound_to(n_at_once), ThreadPoolExecutor(n_at_once) as threads:
        list(threads.map(decode, films))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="films of 15 s instead of 30 s, and less of everything")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    found = measure(450, 1, 3) if options.quick else measure(900, 2, 5)
    print(f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores; {platform.platform()}")
    print(f"load {os.getloadavg()[0]:.1f} at the end; {found['n_rounds']} rounds")
    for film, ways in found["films"].items():
        print(f"\n{film}, 640x360, {RATE} pictures/s, {found['kilobits_per_s'][film]:.0f} kb/s")
        print(f"{'':34}{'CPU ms a source frame':>22}{'/ decode':>10}")
        for way, each in ways.items():
            rate = next((rate for rate in (RATE, SPARSE) if f"the stage, {rate} " in way), None)
            limit = f"   (at most {LIMITS[film, rate]})" if rate else ""
            print(f"{way:34}{each['cpu_ms']:22.3f}{each['ratio']:10.2f}{limit}")
    took = found["workers"]
    print(f"\nthe stage's start with one worker, not in the above: {took['start, CPU s']:.2f} CPU s")
    two_s = took["two on two cores"]
    print(f"{'workers, start not counted':34}{'wall s':>22}{'two are':>10}")
    print(f"{'two on two cores':34}{two_s:22.2f}")
    one_s = took["one on one core"]
    print(f"{'one on one core':34}{one_s:22.2f}{one_s / two_s:9.2f}x   (at least {WORKERS_LIMIT})")
    # It decodes on one while it encodes on the other.
    free_s = took["one on two cores"]
    print(f"{'one that has both cores':34}{free_s:22.2f}{free_s / two_s:9.2f}x")
    alone_s = took["one decoder on one core"]
    print(f"{'for comparison, ffmpeg alone':34}{alone_s:22.2f}{alone_s / took['two decoders on two cores']:9.2f}x")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
