"""Frames a second from shards into the classifier's input, beside those that its training step takes.

`python -m tests.bench.reading [--quick] [--json FILE]`

Through shards of many clips that are not kept decoded, as in training: a pass visits each row group once. In the first
pass no file is in the system's memory, in the later ones all are. Reading and stepping take turns on the same cores.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import psutil

from soundback import training
from soundback.dataset import FrameShards
from soundback.media import ffmpeg, shards
from soundback.params import Params, load_params
from soundback.watching import classifier, classifier_teaching, frames
from tests.bench.films import RATE, write_natural

PROJECT = Path(__file__).parents[2]
LIMIT = 3.0
CLIP_FRAMES = 300
CATEGORIES = tuple(f"label {number}" for number in range(6))
STEPS = 20


def write_dataset(folder: Path, n_clips: int, params: Params) -> FrameShards:
    """The frames of one film under many names, encoded and packed as the stage does it."""
    film = write_natural(folder / "film.mp4", CLIP_FRAMES)
    stored = params.frames

    def clips() -> Iterator[shards.ClipFrames]:
        pixels = list(ffmpeg.read_frames(film, frame_rate=RATE, size=stored.size, fit=stored.fit))
        for number in range(n_clips):
            yield shards.ClipFrames(f"v{number:06d}", 0, CATEGORIES[number % len(CATEGORIES)], "train", pixels)

    shards.write_shards(clips(), folder / "frames", params=stored)
    return FrameShards(tuple(shards.shard_paths(folder / "frames")), CATEGORIES, frozenset())


def forget(paths: Sequence[Path]) -> None:
    """Has the system drop files from its memory, so that they are read from the disk."""
    for path in paths:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ms_per_frame(work: Callable[[], object], n_times: int, batch_size: int) -> dict[str, float]:
    """What work on a batch takes for each of its frames."""
    wall_s, cpu_s = time.monotonic(), time.process_time()
    for _ in range(n_times):
        work()
    taken = {"wall_ms": time.monotonic() - wall_s, "cpu_ms": time.process_time() - cpu_s}
    return {name: 1000 * seconds / n_times / batch_size for name, seconds in taken.items()}


def measure(n_clips: int, n_passes: int) -> dict[str, Any]:
    """ms per frame of reading, of each pass, and of stepping; memory in MB."""
    params = load_params(PROJECT / "params.yaml")
    told = params.classifier
    with tempfile.TemporaryDirectory() as name:
        dataset = write_dataset(Path(name), n_clips, params)
        clips = frames.list_clips(dataset, "train")
        pictures = frames.Pictures(params.frames.size, told.picture_size)
        batches = iter(frames.frame_batches(clips, CATEGORIES, pictures, batch_size=told.batch_size, seed=told.seed))
        stepper = training.Stepper(
            lambda: classifier.build_classifier(told, len(CATEGORIES), params.frames.size),
            classifier_teaching._weighted_loss(clips, CATEGORIES),
            told,
            training.Recipe(validate_every=50),
        )
        batch = next(batches)
        stepper.run(batch)
        groups = [group for clip in clips for group in clip.groups]
        n_batches = len(groups) * frames.FRAMES_PER_VISIT // told.batch_size
        process, memory = psutil.Process(), []
        reading, stepping = [], []
        forget(dataset.paths)
        for _ in range(n_passes):
            memory.append(process.memory_info().rss / 1e6)
            reading.append(ms_per_frame(lambda: next(batches), n_batches, told.batch_size))
            stepping.append(ms_per_frame(lambda: stepper.run(batch), STEPS, told.batch_size))
        memory.append(process.memory_info().rss / 1e6)
        on_disk = sum(path.stat().st_size for path in dataset.paths)
    n_frames = sum(group.n_frames for group in groups)
    return {
        "n_frames": n_frames,
        "n_row_groups": len(groups),
        "batch_size": told.batch_size,
        "disk_mb": on_disk / 1e6,
        "decoded_mb": n_frames * params.frames.size**2 / 1e6,
        "memory_mb": memory,
        "first pass": reading[0],
        "later passes": middle(reading[1:]),
        "training step": middle(stepping),
    }


def middle(figures: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: float(np.median([each[name] for each in figures])) for name in figures[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer clips and passes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(60, 4) if options.quick else measure(400, 6)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {platform.platform()}")
    print(f"load {os.getloadavg()[0]:.1f} at the end; classifier of params.yaml, batches of {found['batch_size']}")
    print(f"{found['n_frames']} frames, {found['disk_mb']:.0f} MB of JPEG, {found['decoded_mb']:.0f} MB decoded")
    print(f"{'':26}{'frames/s':>10}{'/ step':>8}{'CPU ms a frame':>17}{'step /':>8}")
    step = found["training step"]
    for name in ("first pass", "later passes", "training step"):
        each = found[name]
        rate, cheaper = step["wall_ms"] / each["wall_ms"], step["cpu_ms"] / each["cpu_ms"]
        print(f"{name:26}{1000 / each['wall_ms']:10.0f}{rate:8.2f}{each['cpu_ms']:17.3f}{cheaper:8.2f}")
    print(f"reading is to be at least {LIMIT:g} times as fast as stepping")
    memory = found["memory_mb"]
    print(f"memory: {memory[0]:.0f} MB before, {memory[1]:.0f} after the first pass, {memory[-1]:.0f} at the end")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
