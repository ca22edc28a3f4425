"""Examples a second of the watchers' trainings as they run, beside the same steps fed from memory.

`python -m tests.bench.training [--quick] [--json FILE]`

Both take turns on the same cores. What the input pipeline costs is what a step takes longer when its batch comes from
shards: read, decoded, averaged down and varied, instead of lying in memory. Once with pictures that stay decoded, as
all of the demo's do for the spotter, and once with a dataset of which none can stay.
"""

import argparse
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from soundback import training
from soundback.params import Params, load_params
from soundback.watching import classifier, classifier_teaching, frames, spotter, spotter_teaching
from tests.bench.reading import CATEGORIES, PROJECT, write_dataset

LIMIT = 0.10
HELD = 8
"""Batches in memory."""

RUN_OUT = 12
"""Steps after which what the pipeline has prepared while others worked is used up; they do not count."""


@dataclass(frozen=True)
class Feed:
    """A training's step, and two ways to feed it."""

    name: str
    stepper: training.Stepper
    batches: Iterator[Any]
    held: Iterator[Any]
    batch_size: int
    n_steps: int

    @classmethod
    def of(
        cls, name: str, stepper: training.Stepper, batches: training.Batches, batch_size: int, n_of_visit: int
    ) -> "Feed":
        """Whole blocks of visits are timed, so many examples each: while one is used, the next is read, and then
        reading rests.
        """
        held = [tf.nest.map_structure(tf.identity, batch) for batch in batches(0).take(HELD)]
        n_steps = frames.VISITS_PER_BLOCK * n_of_visit // batch_size
        return cls(name, stepper, iter(stepper.share_out(batches, 0)), itertools.cycle(held), batch_size, n_steps)


def feeds(folder: Path, n_clips: int, params: Params) -> Iterator[Feed]:
    """The classifier's and the spotter's trainings, on clips of one film under many names."""
    dataset = write_dataset(folder, n_clips, params)
    clips = frames.list_clips(dataset, "train")
    size = params.frames.size
    told = params.classifier
    build: Callable[[], Any] = lambda: classifier.build_classifier(told, len(CATEGORIES), size)  # noqa: E731
    recipe = training.Recipe(1, ema_decay=classifier_teaching.EMA_DECAY)
    stepper = training.Stepper(build, classifier_teaching._weighted_loss(clips, CATEGORIES), told, recipe)
    pictures = frames.Pictures(size, told.picture_size)
    yield Feed.of(
        "classifier",
        stepper,
        lambda start: frames.frame_batches(
            clips, CATEGORIES, pictures, batch_size=told.batch_size, seed=told.seed, start=start
        ),
        told.batch_size,
        frames.FRAMES_PER_VISIT * frames.FRAME_SHOWINGS,
    )
    watched = params.spotter
    rng = np.random.default_rng(0)
    heard = [
        frames.HeardClip(
            clip,
            rng.uniform(-60, 0, clip.n_frames).astype(np.float32),
            (rng.random(clip.n_frames) > 0.95).astype(np.float32),
        )
        for clip in clips
    ]
    build = lambda: spotter.build_spotter(watched, params.frames.frame_rate, size)  # noqa: E731
    recipe = training.Recipe(1, clip_norm=spotter_teaching.CLIP_NORM, ema_decay=spotter_teaching.EMA_DECAY)
    for name, kept_bytes in (("spotter", frames.PICTURES_KEPT_BYTES), ("spotter, nothing kept", 1)):
        seen = frames.Pictures(size, watched.picture_size, kept_bytes)
        for clip in clips if kept_bytes > 1 else ():
            seen.read_clip(clip)  # As after the first pass.
        yield Feed.of(
            name,
            training.Stepper(build, spotter_teaching._batch_loss, watched, recipe),
            lambda start, seen=seen: frames.crop_batches(heard, seen, watched, start=start),
            watched.batch_size,
            frames.STRETCH_CROPS * frames.CROP_SHOWINGS,
        )


def seconds(feed: Feed, batches: Iterator[Any]) -> tuple[float, float]:
    """By the clock and of the processor, for an example."""
    for _ in range(RUN_OUT):
        feed.stepper.run(next(batches))
    started = time.monotonic(), time.process_time()
    for _ in range(feed.n_steps):
        feed.stepper.run(next(batches))
    ended = time.monotonic(), time.process_time()
    n_examples = feed.n_steps * feed.batch_size
    return (ended[0] - started[0]) / n_examples, (ended[1] - started[1]) / n_examples


def measure(n_clips: int, n_turns: int) -> dict[str, dict[str, float]]:
    """Examples a second of each training, medians over turns; and the share that the pipeline costs, with quartiles."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for feed in feeds(Path(name), n_clips, load_params(PROJECT / "params.yaml")):
            turns = []
            for _ in range(n_turns):
                piped = seconds(feed, feed.batches)
                time.sleep(1.0)  # The pipeline fills its buffers.
                turns.append((piped, seconds(feed, feed.held)))
            taken = np.array(turns)  # [turn, fed from shards or memory, by the clock or of the processor]
            costs = 1 - taken[:, 1] / taken[:, 0]
            low, cost, high = np.quantile(costs[:, 0], [0.25, 0.5, 0.75])
            found[feed.name] = {
                "from shards": 1 / np.median(taken[:, 0, 0]),
                "from memory": 1 / np.median(taken[:, 1, 0]),
                "cost": cost,
                "low": low,
                "high": high,
                "cost of the processor": np.median(costs[:, 1]),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer clips, one turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(64, 1) if options.quick else measure(128, 7)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {platform.platform()}")
    print(f"load {os.getloadavg()[0]:.1f} at the end; trainings of params.yaml, medians")
    print(
        f"{'examples a second':24}{'from shards':>13}{'from memory':>13}{'cost':>8}{'quartiles':>15}{'of CPU time':>13}"
    )
    for name, each in found.items():
        quartiles = f"{each['low']:.0%} to {each['high']:.0%}"
        print(
            f"{name:24}{each['from shards']:13.1f}{each['from memory']:13.1f}{each['cost']:8.0%}{quartiles:>15}"
            f"{each['cost of the processor']:13.0%}"
        )
    print(f"the input pipeline is to cost at most {LIMIT:.0%}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
