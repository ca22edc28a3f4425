"""How fast the WaveNet sounds, beside Keras, an XLA loop and the machine's own limits, on the same weights in one run.

`python -m tests.bench.sampler [--network A|params] [--quick] [--json FILE]`

First one stream on one core: the ways take turns, and what counts is processor time, so that what others do on the
machine should not matter. The limits are matrix-vector products that read as many bytes as a sample does. Then many
streams on all cores by the clock, in turn with a product of large matrices. Medians.

Network A is the reference: 30 layers in 3 cycles, 64 residual and 2 x 64 gate channels, 256 skip channels, kernel 2, at
16 kHz. `--network params` takes that of params.yaml.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from soundback.cues import N_CURVE_FEATURES
from soundback.params import Params, load_params
from soundback.sounding.sampler import Part, Sampler
from soundback.sounding.wavenet import Window, build_wavenet
from soundback.sounding.xla_sampler import XlaSampler

PROJECT = Path(__file__).parents[2]
REFERENCE = {
    "layers": 30,
    "cycles": 3,
    "kernel_size": 2,
    "residual_channels": 64,
    "gate_channels": 64,
    "skip_channels": 256,
}
REFERENCE_RATE = 16000
N_STREAMS = 16
TOP_P = 1.0


def load_network(name: str) -> Params:
    """The parameters, with the reference network in them if it is asked for."""
    params = load_params(PROJECT / "params.yaml")
    if name != "A":
        return params
    audio = params.audio.model_copy(update={"sample_rate": REFERENCE_RATE})
    return params.model_copy(update={"audio": audio, "wavenet": params.wavenet.model_copy(update=REFERENCE)})


def describe_machine() -> str:
    """Processor, cores, system."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {len(os.sched_getaffinity(0))} cores; {platform.platform()}; load {os.getloadavg()[0]:.1f}"


def describe_network(params: Params) -> str:
    net = params.wavenet
    return (
        f"{net.layers} layers in {net.cycles} cycles, residual {net.residual_channels}, gate 2 x {net.gate_channels}, "
        f"skip {net.skip_channels}, kernel {net.kernel_size}, {params.audio.sample_rate} Hz: "
        f"{weights_read(params) * 2 / 1e6:.2f} MFLOP and {weights_read(params) * 4 / 1e6:.2f} MB f32 a sample"
    )


def build_network(params: Params) -> Any:
    """Random weights, all of them at work."""
    model = build_wavenet(params.wavenet, n_cues(params), params.hop)
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(0, 0.1, weight.shape) for weight in model.get_weights()])
    return model


def n_cues(params: Params) -> int:
    return len(params.labels) + N_CURVE_FEATURES


def weights_read(params: Params) -> int:
    """Weights that one sample multiplies by: all but the table look-up and what works at frame rate."""
    net = params.wavenet
    layer = net.kernel_size * net.residual_channels * 2 * net.gate_channels + net.gate_channels * net.skip_channels
    residual = (net.layers - 1) * net.gate_channels * net.residual_channels
    return net.layers * layer + residual + net.skip_channels * (net.skip_channels + 256)


@contextmanager
def one_core() -> Iterator[None]:
    """This thread, BLAS, and threads that start in the block stay on one core."""
    cores = os.sched_getaffinity(0)
    with threadpool_limits(1):
        os.sched_setaffinity(0, {min(cores)})
        try:
            yield
        finally:
            # Before BLAS gets its threads back: they stay where they start.
            os.sched_setaffinity(0, cores)


def rates(ways: dict[str, Callable[[], int]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """What each way returns, per second: medians over turns. The first call of each, which compiles, does not count."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            started = clock()
            n_done = way()
            found[name].append(n_done / (clock() - started))
    return {name: median(each) for name, each in found.items()}


def sounding(sampler: Sampler, params: Params, n_frames: int, n_streams: int = 1) -> Callable[[], int]:
    """Makes so many frames of so many streams side by side."""
    generator = np.random.default_rng(0)
    projected = sampler.project(generator.normal(size=(n_frames, n_cues(params))).astype(np.float32))
    uniforms = generator.random((n_streams, n_frames * params.hop))

    def sound() -> int:
        parts = [Part(sampler.start(), projected, each) for each in uniforms]
        return sum(len(classes) for classes in sampler.sample_together(parts, 1.0, TOP_P))

    return sound


@dataclass(frozen=True)
class Row:
    """Samples per second of one way, and of what it is held to."""

    name: str
    rate: float
    limit: float


def measure_alone(params: Params, model: Any, quick: bool) -> list[Row]:
    """One stream on the core to which this thread is bound."""
    n_frames = 5 if quick else 25
    window = Window.of(params.wavenet, hop=params.hop, n_frames=1)
    previous = np.zeros((1, window.n_inputs), np.int32)
    told = np.zeros((1, window.n_cue_frames, n_cues(params)), np.float32)

    def keras_by_sample() -> int:
        # Without a cache, every sample takes the whole receptive field; one frame is the least that the model gives.
        model((previous, told))
        return 1

    def streaming(n_weights: int) -> Callable[[], int]:
        matrix = np.ones((n_weights // 256, 256), np.float32)
        vector = np.ones(256, np.float32)

        def stream() -> int:
            for _ in range(2000):
                matrix @ vector
            return 2000

        return stream

    narrow, wide, xla = Sampler.from_model(model, "bfloat16"), Sampler.from_model(model), XlaSampler.from_model(model)
    ways = {
        "f32": sounding(wide, params, n_frames),
        "f32 limit": streaming(weights_read(params)),
        "16-bit": sounding(narrow, params, n_frames),
        "16-bit limit": streaming(weights_read(params) // 2),
        "xla": sounding(xla, params, max(1, n_frames // 3)),
        "keras": keras_by_sample,
    }
    found = rates(ways, 3 if quick else 5, time.process_time)
    limit, narrow_limit = found["f32 limit"], found["16-bit limit"]
    return [
        Row("sampler, 16-bit weights", found["16-bit"], narrow_limit),
        Row("sampler, f32 weights", found["f32"], limit),
        Row("tf.while_loop compiled by XLA, f32", found["xla"], limit),
        Row("Keras, sample by sample", found["keras"], limit),
        Row("limit: matrix-vector product of the f32 weights", limit, limit),
        Row("limit: matrix-vector product of half the bytes", narrow_limit, narrow_limit),
    ]


def measure_together(params: Params, model: Any, quick: bool) -> list[Row]:
    """Many streams on all cores, and the rate at which a product of large matrices would do as many FLOP."""
    n_cores = len(os.sched_getaffinity(0))
    flop = 2 * weights_read(params)
    n_frames, side = (2 if quick else 6), (2048 if quick else 3072)
    matrix = np.ones((side, side), np.float32)

    def multiply() -> int:
        matrix @ matrix
        return 2 * side**3 // flop

    with ThreadPoolExecutor(n_cores) as executor:

        def spread(sampler: Sampler) -> Callable[[], int]:
            n_each = [len(each) for each in np.array_split(np.arange(N_STREAMS), n_cores) if len(each)]
            parts = [sounding(sampler, params, n_frames, n) for n in n_each]
            return lambda: sum(executor.map(lambda sound: sound(), parts))

        ways = {
            "f32": spread(Sampler.from_model(model)),
            "sgemm": multiply,
            "16-bit": spread(Sampler.from_model(model, "bfloat16")),
        }
        found = rates(ways, 3 if quick else 5, time.perf_counter)
    return [
        Row(f"{N_STREAMS} streams, {n_cores} cores, 16-bit weights", found["16-bit"], found["sgemm"]),
        Row(f"{N_STREAMS} streams, {n_cores} cores, f32 weights", found["f32"], found["sgemm"]),
        Row(f"limit: sgemm, {n_cores} cores", found["sgemm"], found["sgemm"]),
    ]


def print_table(rows: list[Row], params: Params) -> None:
    print(f"{'':50}{'samples/s':>12}{'x real time':>13}{'GFLOP/s':>10}{'of the limit':>14}")
    for row in rows:
        real_time, gflops = row.rate / params.audio.sample_rate, row.rate * 2 * weights_read(params) / 1e9
        print(f"{row.name:50}{row.rate:12,.0f}{real_time:13.2f}{gflops:10.1f}{row.rate / row.limit:14.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["A", "params"], default="A")
    parser.add_argument("--quick", action="store_true", help="less sound, three turns")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    params = load_network(options.network)
    # BLAS has its threads already; those of TensorFlow, which start with the first operation, are one.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(describe_machine())
    print(describe_network(params))
    model = build_network(params)
    with one_core():
        rows = measure_alone(params, model, options.quick)
    print_table(rows, params)
    together = measure_together(params, model, options.quick)
    print_table(together, params)
    if options.json:
        told = {"machine": describe_machine(), "network": describe_network(params)}
        told["samples_per_second"] = {row.name: row.rate for row in rows + together}
        told["of_the_limit"] = {row.name: row.rate / row.limit for row in rows + together}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
