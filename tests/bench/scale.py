"""What many labels and many videos cost: measured on few, reckoned for many. docs/scale.md explains it.

`python -m tests.bench.scale [--labels N] [--per-branch N] [--quick] [--json FILE]`

First, many labels of ten tiny videos each, which differ in their bytes: what DVC and the programs' start cost. Then
videos as YouTube has them, natural pictures of 360 lines for some minutes, fetched over loopback: what one costs.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ffmpeg
import numpy as np
import yaml

from soundback import schemas
from soundback.doctor.needs import stored_bytes
from soundback.media.ffmpeg import run
from soundback.media.prints import PRINT_BITS, find_nearest
from soundback.settings import load_settings
from soundback.sources.table import Row, write_rows
from tests.bench.films import RATE, write_natural
from tests.clones import PROJECT, Clone, make_clone
from tests.loopback import Page, serve
from tests.synthetic import Film

VIDEOS_PER_LABEL = 10
BODIES = 10
STAGES = ("list_videos", "download_videos", "extract_audio", "extract_frames")
KINDS = ("videos", "audio", "frames")
PRINTS_PER_CLIP = 2
FILM_S, SHOT_S = 310, 10
"""YouTube-8M chose videos of 120 to 500 s."""
VIDEOS_PER_HOUR = load_settings().videos_per_hour
SIZES = ((10_000, 24), (1_000_000, 3862), (6_100_000, 3862))
"""Videos and labels."""
FREE_BOX = (24).to_bytes(4, "big") + b"free"
"""The start of what MP4 has for bytes that mean nothing."""


def write_videos(folder: Path, n_labels: int) -> list[Row]:
    """Ten videos for each label; gives the rows of the table that lists them."""
    bodies = []
    for number in range(BODIES):
        film = Film(duration_s=1.6, frame_rate="10", size=(64, 48), events_s=(0.2 + 0.1 * number,))
        bodies.append(film.write(folder / f"body{number}.mp4", ar=8000).read_bytes())
    rows = []
    for label in range(n_labels):
        for number in range(VIDEOS_PER_LABEL):
            path = folder / name_of(label) / f"{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            marked = f"{label:08d}{number:08d}".encode()
            path.write_bytes(bodies[number % BODIES] + FREE_BOX + marked)
            rows.append(Row(path.relative_to(folder.parent).as_posix(), name_of(label)))
    return rows


def name_of(label: int) -> str:
    return f"label{label:04d}"


def grouped(n_labels: int, per_branch: int) -> dict[str, object]:
    """The labels as params.yaml has them."""
    names = [name_of(label) for label in range(n_labels)]
    if per_branch == 1:
        return dict(zip(names, names, strict=True))
    return {
        f"branch{start // per_branch:03d}": {name: name for name in names[start : start + per_branch]}
        for start in range(0, n_labels, per_branch)
    }


def write_project(root: Path, n_labels: int, per_branch: int) -> Clone:
    clone = make_clone(root, profile="smoke")
    (clone.root / "dvc.lock").unlink()
    params = yaml.safe_load((clone.root / "params.yaml").read_text())
    params |= {"source": {"kind": "table"}, "labels": grouped(n_labels, per_branch)}
    params["dataset"]["videos_per_label"] = VIDEOS_PER_LABEL
    (clone.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (clone.root / "clips").mkdir()
    write_rows(write_videos(clone.root / "clips", n_labels), clone.root / "videos.csv")
    return clone


def spent_by(clone: Clone, *command: str) -> tuple[float, float]:
    """Wall and CPU seconds of a program and all it starts."""
    before, started = cpu_s(), time.monotonic()
    done = subprocess.run(command, cwd=clone.root, env=clone.environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return time.monotonic() - started, cpu_s() - before


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_labels(n_labels: int, per_branch: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as root:
        clone = write_project(Path(root), n_labels, per_branch)
        found: dict[str, float] = {"labels": n_labels, "per_branch": per_branch}
        found["stages"] = len(STAGES) * len(grouped(n_labels, per_branch))
        for stage in STAGES:
            found[f"{stage}_wall_s"], found[f"{stage}_cpu_s"] = spent_by(clone, "dvc", "repro", stage)
        found["again_wall_s"], found["again_cpu_s"] = spent_by(clone, "dvc", "repro", *STAGES)
        found["lock_bytes"] = (clone.root / "dvc.lock").stat().st_size
        files = [path for path in (clone.root / "data").rglob("*") if path.is_file()]
        found["data_files"], found["data_bytes"] = len(files), sum(path.stat().st_size for path in files)
    return found


def measure_videos(few: int, many: int) -> dict[str, float]:
    """CPU seconds and bytes of one more video, of the size and with the settings of profiles/youtube8m.yaml."""
    with tempfile.TemporaryDirectory() as root:
        film = write_film(Path(root))
        fewer, more = (build_videos(Path(root) / str(n), film, n) for n in (few, many))
        each = {name: (more[name] - fewer[name]) / (many - few) for name in more}
        return {"fetched_bytes": film.stat().st_size, **each}


def write_film(folder: Path) -> Path:
    """A natural film with sound, as long as YouTube-8M's videos are on average."""
    shot = write_natural(folder / "shot.mp4", SHOT_S * RATE)
    picture = ffmpeg.input(str(shot), stream_loop=FILM_S // SHOT_S - 1)
    sound = ffmpeg.input(f"anoisesrc=a=0.1:d={FILM_S}:r=44100", f="lavfi", protocol_whitelist="file,crypto,data")
    film = folder / "film.mp4"
    run(ffmpeg.output(picture["v"], sound["a"], f"file:{film}", **{"c:v": "copy", "c:a": "aac", "b:a": "128k"}))
    return film


def build_videos(folder: Path, film: Path, n_videos: int) -> dict[str, float]:
    """Fetches the film so many times, under other names, and cuts sound and frames out of it, as DVC's stages do."""
    folder.mkdir()
    values = yaml.safe_load((PROJECT / "profiles" / "youtube8m.yaml").read_text())
    names = [f"{number:011d}" for number in range(n_videos)]
    about: dict[str, object] = {"label": "Drum", "label_mid": "/m/026t6", "split": "train", "status": "ok"}
    rows = [about | {"video_id": name, "address": name, "reason": None} for name in names]
    schemas.write_table(rows, schemas.CATALOG, folder / "catalog" / "drum" / "catalog.parquet")
    found = {}
    with serve({f"/watch/{name}": Page(film.read_bytes()) for name in names}) as site:
        values["source"]["watch"] = site.endpoints.watch
        (folder / "params.yaml").write_text(yaml.safe_dump(values))
        for stage, *paths in (
            ("download_videos", "catalog", "videos"),
            ("extract_audio", "videos", "audio"),
            ("extract_frames", "videos", "frames"),
        ):
            before = cpu_s()
            command = [sys.executable, "-m", f"stages.{stage}", "drum", *paths]
            done = subprocess.run(
                command, cwd=folder, env=os.environ | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            found[f"{stage}_cpu_s"] = cpu_s() - before
            found[f"{paths[-1]}_bytes"] = float(stored_bytes(folder / paths[-1]))
    return found


def measure_pair(n_prints: int = 10_000) -> float:
    """CPU seconds for the comparison of two clips by one print, as find_duplicates does it."""
    words = np.random.default_rng(0).bytes(n_prints * PRINT_BITS // 8)
    prints = [words[start : start + PRINT_BITS // 8] for start in range(0, len(words), PRINT_BITS // 8)]
    before = time.process_time()
    find_nearest(prints, prints)
    return (time.process_time() - before) / n_prints**2


def reckon(labels: dict[str, float], video: dict[str, float], pair_s: float) -> list[dict[str, float]]:
    """What datasets of several sizes cost."""
    shares = yaml.safe_load((PROJECT / "profiles" / "youtube8m.yaml").read_text())["dataset"]
    validation, test = shares["validation_share"], shares["test_share"]
    compared = PRINTS_PER_CLIP * ((1 - validation - test) * (validation + test) + validation * test)
    stored = sum(video[f"{kind}_bytes"] for kind in KINDS)
    video_cpu_s = sum(video[f"{stage}_cpu_s"] for stage in STAGES[1:])
    label_cpu_s = sum(labels[f"{stage}_cpu_s"] for stage in STAGES) / labels["labels"]
    return [
        {
            "videos": n_videos,
            "labels": n_labels,
            "asking_days": n_videos / VIDEOS_PER_HOUR / 24,
            "fetched_tb": n_videos * video["fetched_bytes"] / 1e12,
            "stored_tb": n_videos * stored / 1e12,
            "cpu_h": (n_videos * video_cpu_s + n_labels * label_cpu_s) / 3600,
            "cpu_h_for_labels": n_labels * label_cpu_s / 3600,
            "duplicates_h": compared * n_videos**2 * pair_s / 3600,
        }
        for n_videos, n_labels in SIZES
    ]


def show_labels(found: dict[str, float]) -> None:
    n_videos = found["labels"] * VIDEOS_PER_LABEL
    print(f"\n{found['labels']:.0f} labels, {found['per_branch']:.0f} a branch: {found['stages']:.0f} stages")
    print(f"{'':18}{'wall s':>10}{'CPU s':>10}{'CPU s a label':>16}")
    for stage in STAGES:
        wall, cpu = found[f"{stage}_wall_s"], found[f"{stage}_cpu_s"]
        print(f"{stage:18}{wall:10.1f}{cpu:10.1f}{cpu / found['labels']:16.2f}")
    print(f"{'nothing to do':18}{found['again_wall_s']:10.1f}{found['again_cpu_s']:10.1f}")
    files = f"{found['data_files']:.0f} files, {found['data_files'] / n_videos:.1f} a video"
    print(f"dvc.lock {found['lock_bytes'] / 1e3:.0f} kB; data/ {found['data_bytes'] / 1e6:.1f} MB in {files}")


def show_video(found: dict[str, float]) -> None:
    print(f"\nOne video of {FILM_S} s, {found['fetched_bytes'] / 1e6:.1f} MB, with the settings of youtube8m")
    for stage, kind in zip(STAGES[1:], KINDS, strict=True):
        print(f"{stage:18}{found[f'{stage}_cpu_s']:10.2f} s CPU{found[f'{kind}_bytes'] / 1e6:10.2f} MB kept")


def show_sizes(rows: list[dict[str, float]]) -> None:
    print(f"\nReckoned; asking at {VIDEOS_PER_HOUR} videos an hour from one address")
    titles = {
        "videos": 10,
        "labels": 8,
        "days of asking": 16,
        "TB fetched": 12,
        "TB kept": 9,
        "CPU h": 9,
        "for labels": 12,
    }
    print("".join(f"{title:>{width}}" for title, width in titles.items()))
    for row in rows:
        print(
            f"{row['videos']:10.0f}{row['labels']:8.0f}{row['asking_days']:16.1f}{row['fetched_tb']:12.2f}"
            f"{row['stored_tb']:9.2f}{row['cpu_h']:9.1f}{row['cpu_h_for_labels']:12.1f}"
            f"{row['duplicates_h']:19.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=500)
    parser.add_argument("--per-branch", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="4 labels, 2 a branch, and two videos less")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {platform.platform()}")
    labels = measure_labels(*((4, 2) if options.quick else (options.labels, options.per_branch)))
    show_labels(labels)
    video = measure_videos(1, 3 if options.quick else 9)
    show_video(video)
    pair_s = measure_pair()
    print(f"{'find_duplicates':18}{1e9 * pair_s:10.1f} ns CPU a pair, by picture or sound")
    sizes = reckon(labels, video, pair_s)
    show_sizes(sizes)
    if options.json:
        found = {"labels": labels, "video": video, "pair_s": pair_s, "sizes": sizes}
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
