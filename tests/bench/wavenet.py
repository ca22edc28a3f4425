"""What a step of the WaveNet's training achieves, beside TensorFlow's own product of large matrices in the same run.

`python -m tests.bench.wavenet [--network A|params] [--quick] [--json FILE]`

A step is one of the stage's: input read from wav files and perturbed, conditioning, gradients, clipping, Adam and the
moving average. Once in float32 and once with SOUNDBACK_PRECISION=mixed_bfloat16, which gains where the processor has
products of such numbers (AMX); they take turns with the product, which is of float32, medians, by the clock and, for a
busy machine, in processor time. Counted are the products that the network needs for what gets logits, three times for
forward and backward.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from soundback import training
from soundback.cues import Hearing
from soundback.dataset import Clip
from soundback.media.audio import write_wav
from soundback.params import Params
from soundback.sounding.clips import CuedClip, cue_clips, training_batches
from soundback.sounding.wavenet import CUE_CONTEXT, CUE_KERNELS, N_CLASSES, Window, bits_per_sample, build_wavenet
from tests.bench.sampler import describe_machine, describe_network, load_network, n_cues

REFERENCE_CROP = {"batch_size": 2, "crop_frames": 12}
"""Of network A: half a second at 25 frames per second, twice."""

SIDE = 3072
CLIP_S = 4.0


def write_clips(folder: Path, params: Params) -> list[CuedClip]:
    """A clip of each label, noise that comes and goes, with its measured cues."""
    generator = np.random.default_rng(0)
    rate = params.audio.sample_rate
    time_s = np.arange(round(CLIP_S * rate)) / rate
    clips = []
    for label in params.labels.values():
        waveform = 0.2 * generator.normal(size=len(time_s)) * np.exp(-8 * (time_s % 0.5))
        path = folder / f"{label}.wav"
        write_wav(path, waveform.astype(np.float32), rate)
        clips.append(Clip(label, 0, label, "train", path, len(time_s)))
    return cue_clips(clips, Hearing.of_training(clips, params.audio, params.frames, params.cues))


def flop_of_example(params: Params, window: Window) -> int:
    """Of the forward pass's matrix products; a multiplication and an addition are two."""
    net, hop = params.wavenet, params.hop
    needed = [-(-(net.kernel_size - 1) * sum(net.dilations[layer:]) // hop) for layer in range(net.layers + 1)]
    total = 0
    for layer in range(net.layers):
        # What comes out of a layer: its frames of history that the next ones need, and those that get logits.
        n_out = (needed[layer + 1] + window.n_frames) * hop
        total += n_out * net.kernel_size * net.residual_channels * 2 * net.gate_channels
        total += (layer + 1 < net.layers) * n_out * net.gate_channels * net.residual_channels
    skips = net.layers * net.gate_channels
    total += window.n_outputs * net.skip_channels * (skips + net.skip_channels + N_CLASSES)
    n_frames = window.n_cue_frames - 2 * CUE_CONTEXT
    told = n_cues(params)
    total += n_frames * net.cue_channels * (CUE_KERNELS[0] * told + CUE_KERNELS[1] * net.cue_channels)
    total += n_frames * (told + net.cue_channels) * net.layers * 2 * net.gate_channels
    return 2 * total


def steps(params: Params, clips: list[CuedClip], precision: str) -> Iterator[None]:
    """Takes a step whenever the next one is asked for."""
    os.environ["SOUNDBACK_PRECISION"] = precision
    net = params.wavenet
    window = Window.of(net, hop=params.hop, n_frames=net.crop_frames)
    recipe = training.Recipe(1, clip_norm=net.clip_norm, beta_2=net.beta_2, ema_decay=net.ema_decay)
    stepper = training.Stepper(lambda: build_wavenet(net, n_cues(params), params.hop), bits_per_sample, net, recipe)
    categories = sorted(params.labels.values())
    batches = stepper.share_out(lambda start: training_batches(clips, window, categories, net, start), 0)
    for batch in batches:
        stepper.run(batch)
        yield


def measure(params: Params, n_turns: int, n_steps: int) -> dict[str, dict[str, float]]:
    """Of each way, seconds a step, samples with loss a second, GFLOP/s, and share of what the large product reaches."""
    net = params.wavenet
    window = Window.of(net, hop=params.hop, n_frames=net.crop_frames)
    flop = 3 * net.batch_size * flop_of_example(params, window)
    matrix = tf.ones((SIDE, SIDE))
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        clips = write_clips(Path(name), params)
        trainings = {precision: steps(params, clips, precision) for precision in ("float32", "mixed_bfloat16")}
        for each in trainings.values():
            for _ in range(2):  # The first compiles.
                next(each)
        for _ in range(n_turns):
            for way, each in trainings.items():
                taken.setdefault(way, []).append(seconds(lambda each=each: next(each), n_steps))
            taken.setdefault("sgemm", []).append(seconds(lambda: tf.matmul(matrix, matrix).numpy(), 3))
    by_clock, by_processor = (
        {way: median(turn[clock] for turn in turns) for way, turns in taken.items()} for clock in (0, 1)
    )
    product = 2 * SIDE**3
    return {
        way: {
            "seconds": by_clock[way],
            "samples_per_second": 0.0 if way == "sgemm" else net.batch_size * window.n_outputs / by_clock[way],
            "gflops": done / by_clock[way] / 1e9,
            "of_sgemm": done / by_clock[way] * by_clock["sgemm"] / product,
            "of_sgemm_by_processor": done / by_processor[way] * by_processor["sgemm"] / product,
        }
        for way in taken
        for done in (product if way == "sgemm" else flop,)
    }


def seconds(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """By the clock and of the processor, for one of so many in a row."""
    started = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - started[0]) / repeats, (time.process_time() - started[1]) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["A", "params"], default="A")
    parser.add_argument("--quick", action="store_true", help="fewer steps and turns")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    params = load_network(options.network)
    if options.network == "A":
        params = params.model_copy(update={"wavenet": params.wavenet.model_copy(update=REFERENCE_CROP)})
    net = params.wavenet
    print(describe_machine())
    print(describe_network(params))
    print(f"{net.batch_size} crops of {net.crop_frames * params.hop} samples with loss a step")
    found = measure(params, 3 if options.quick else 5, 1 if options.quick else 3)
    print(f"{'':20}{'s':>9}{'samples/s':>12}{'GFLOP/s':>10}{'of sgemm':>10}{'of CPU time':>13}")
    for name, row in found.items():
        print(
            f"{name:20}{row['seconds']:9.3f}{row['samples_per_second']:12,.0f}{row['gflops']:10.1f}"
            f"{row['of_sgemm']:10.2f}{row['of_sgemm_by_processor']:13.2f}"
        )
    if options.json:
        told_all = {"machine": describe_machine(), "network": describe_network(params), **found}
        options.json.write_text(json.dumps(told_all, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
