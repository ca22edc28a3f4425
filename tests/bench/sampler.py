"""How fast one stream sounds on one core, beside Keras and beside the machine's own limit, all on the same weights.

`python -m tests.bench.sampler [--quick] [--json FILE] [--params FILE]`
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from soundback.cues import N_CURVE_FEATURES
from soundback.params import Params, load_params
from soundback.sounding.sampler import Sampler
from soundback.sounding.wavenet import Window, build_wavenet


def samples_per_second(work: Callable[[], int], repeats: int) -> float:
    """Median over repeats, per second of processor time: what others do on the machine should not count.

    The first call, which compiles, does not count.
    """
    work()
    rates = []
    for _ in range(repeats):
        started = time.process_time()
        n_samples = work()
        rates.append(n_samples / (time.process_time() - started))
    return median(rates)


def network(params: Params) -> Any:
    """Random weights, all of them at work."""
    model = build_wavenet(params.wavenet, len(params.labels) + N_CURVE_FEATURES, params.hop)
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(0, 0.1, weight.shape) for weight in model.get_weights()])
    return model


def weights_read(params: Params) -> int:
    """Weights that one sample multiplies by: all but the table look-up and what works at frame rate."""
    net = params.wavenet
    layer = net.kernel_size * net.residual_channels * 2 * net.gate_channels + net.gate_channels * net.skip_channels
    residual = (net.layers - 1) * net.gate_channels * net.residual_channels
    return net.layers * layer + residual + net.skip_channels * (net.skip_channels + 256)


def measure(params: Params, quick: bool) -> dict[str, float]:
    """Samples per second of each way."""
    model = network(params)
    sampler = Sampler.from_model(model)
    generator = np.random.default_rng(0)
    n_frames = 25 if quick else 100
    cues = generator.normal(size=(n_frames, len(params.labels) + N_CURVE_FEATURES)).astype(np.float32)
    chances = generator.random(n_frames * params.hop)
    repeats = 3 if quick else 5

    def ours() -> int:
        return len(sampler.sample(sampler.start(), sampler.project(cues), chances, 1.0))

    window = Window.of(params.wavenet, hop=params.hop, n_frames=1)
    previous = np.zeros((1, window.n_inputs), np.int32)
    told = np.zeros((1, window.n_cue_frames, cues.shape[1]), np.float32)

    def keras_by_sample() -> int:
        # Without a cache, every sample takes the whole receptive field; one frame is the least that the model gives.
        model((previous, told))
        return 1

    n_weights = weights_read(params)
    matrix = generator.normal(size=(n_weights // 256, 256)).astype(np.float32)
    vector = generator.normal(size=256).astype(np.float32)

    def streamed_weights() -> int:
        for _ in range(1000):
            matrix @ vector
        return 1000

    with threadpool_limits(1):
        return {
            "sampler": samples_per_second(ours, repeats),
            "keras, sample by sample": samples_per_second(keras_by_sample, repeats),
            "limit: matrix-vector product of the same weights": samples_per_second(streamed_weights, repeats),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    params = load_params(options.params)
    rates = measure(params, options.quick)
    *_, limit = rates.values()
    net = params.wavenet
    print(f"{platform.processor() or platform.machine()}, one core; {platform.platform()}")
    print(
        f"{net.layers} layers, {net.residual_channels}/{net.skip_channels} channels, kernel {net.kernel_size}; "
        f"{weights_read(params) * 4 / 1e6:.2f} MB of weights a sample; {params.audio.sample_rate} Hz"
    )
    print(f"{'':50}{'samples/s':>12}{'x real time':>13}{'of the limit':>14}")
    for name, rate in rates.items():
        print(f"{name:50}{rate:12,.0f}{rate / params.audio.sample_rate:13.2f}{rate / limit:14.2f}")
    if options.json:
        options.json.write_text(json.dumps(rates, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
