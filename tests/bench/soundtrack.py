"""How long a soundtrack takes from file to file on one core, beside real time, and where that time goes.

`python -m tests.bench.soundtrack [--quick] [--json FILE] [--models FOLDER] [--video FILE]`

The video is a held-out one of the demo, its picture repeated until it is long enough; loading the models is told apart.
Beside each part stands what it cannot be quicker than: decoding and scaling with nothing done to the frames, and the
sampler alone on as many samples in as many streams.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import ffmpeg as graphs
import numpy as np

from soundback.media import ffmpeg
from soundback.sounding.sampler import Part
from soundback.soundtrack import Soundtrack
from soundback.takes import Take


def repeat(video: Path, out: Path, duration_s: float) -> Path:
    """The picture of a video over and over, copied."""
    source = graphs.input(f"file:{video}", stream_loop=-1, t=duration_s)
    ffmpeg.run(source["v:0"].output(f"file:{out}", c="copy"))
    return out


def seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(models: Path, video: Path, duration_s: float, n_rounds: int) -> dict[str, float]:
    """Medians over rounds, in seconds; the length of the video is among them."""
    loading_s = seconds(lambda: Soundtrack.load(models))
    soundtrack = Soundtrack.load(models)
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        film, out = repeat(video, Path(folder) / f"film{video.suffix}", duration_s), Path(folder) / "out.mp4"
        for number in range(n_rounds + 1):
            sounded = soundtrack.generate(film, out, take=Take(when_unsure="best"), overwrite=True)
            if number == 0:
                continue  # Numba and TensorFlow compile what they run for the first time.
            size, fit, rate = soundtrack.classifier.size, soundtrack.classifier.fit, soundtrack.frame_rate
            frames = ffmpeg.read_frames(film, frame_rate=rate, size=size, fit=fit)
            batches: list[np.ndarray] = []
            decoding_s = seconds(lambda frames=frames, batches=batches: batches.extend(frames))
            classifying_s = seconds(lambda batches=batches: [soundtrack.classifier.recognise(b) for b in batches])
            spotting_s = seconds(lambda batches=batches: soundtrack.spotter.predict(batches))
            n_frames = sum(map(len, batches))
            rounds.append(
                {
                    "length": sounded.length_s,
                    "from file to file": sum(sounded.spent_s.values()),
                    **sounded.spent_s,
                    "decoding alone": decoding_s,
                    "classifier alone": classifying_s,
                    "spotter alone": spotting_s,
                    "sampler alone": sampler_s(soundtrack, n_frames),
                }
            )
    found = {what: float(np.median([each[what] for each in rounds])) for what in rounds[0]}
    return found | {"loading the models": loading_s}


def sampler_s(soundtrack: Soundtrack, n_frames: int) -> float:
    """The sampler on as many frames, eight streams of ten seconds at a time."""
    sampler, generator = soundtrack.sampler, np.random.default_rng(0)
    n_cues = sampler._cue_weights[0].shape[1]
    per_stream = 10 * soundtrack.frame_rate
    projected = sampler.project(generator.random((per_stream, n_cues), np.float32))
    n_streams = -(-n_frames // per_stream)

    def work() -> None:
        for first in range(0, n_streams, 8):
            n_now = min(8, n_streams - first)
            parts = [
                Part(sampler.start(), projected, generator.random(per_stream * soundtrack.hop)) for _ in range(n_now)
            ]
            sampler.sample_together(parts, soundtrack.params.temperature, soundtrack.params.top_p)

    return seconds(work) * n_frames / (n_streams * per_stream)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="twenty seconds of video, once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", type=Path, default=Path("data/models"))
    parser.add_argument("--video", type=Path, help="by default the first silent example of the report")
    options = parser.parse_args()
    # Before anything counts the cores.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    video = options.video or next(iter(sorted(Path("data/report/examples").glob("*_silent.mp4"))))
    duration_s, n_rounds = (20.0, 1) if options.quick else (120.0, 3)
    found = measure(options.models, video, duration_s, n_rounds)
    length_s = found.pop("length")
    print(f"{platform.processor() or platform.machine()}, one of {os.cpu_count()} cores; {platform.platform()}")
    print(f"{length_s:.0f} s of video ({video.name}, repeated), median of {n_rounds}")
    print(f"{'':22}{'s':>8}{'share':>8}{'x real time':>13}")
    whole_s = found["from file to file"]
    for what, spent_s in found.items():
        print(f"{what:22}{spent_s:8.2f}{spent_s / whole_s:8.2f}{length_s / spent_s:13.1f}")
    if options.json:
        options.json.write_text(json.dumps(found | {"length": length_s}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
