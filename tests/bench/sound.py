"""What it costs that sound is the same on every processor: our decoding beside ffmpeg's own choice.

`python -m tests.bench.sound [--quick] [--json FILE]`

Codec by codec, both decode the same five minutes of stereo noise and tones to mono at 16 kHz, on one thread, in turns;
the median counts.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from soundback.media.ffmpeg import ffmpeg_path, read_sound

CODECS = {
    "AAC": ("m4a", "aac"),
    "MP3": ("mp3", "libmp3lame"),
    "AC-3": ("mka", "ac3"),
    "E-AC-3": ("mka", "eac3"),
    "Opus": ("mka", "libopus"),
    "Vorbis": ("mka", "libvorbis"),
    "WMA": ("wma", "wmav2"),
    "FLAC": ("mka", "flac"),
    "PCM": ("wav", "pcm_s16le"),
}
SOURCE_RATE, SAMPLE_RATE = 48000, 16000


def write_sound(path: Path, duration_s: float) -> None:
    """Two channels of noise that swells, over tones."""
    rng = np.random.default_rng(0)
    times_s = np.arange(round(duration_s * SOURCE_RATE)) / SOURCE_RATE
    noise = rng.normal(scale=0.05, size=(len(times_s), 2)) * (1 + np.sin(times_s))[:, None]
    tones = 0.2 * np.sin(2 * np.pi * np.outer(times_s, (220.0, 330.0)))
    soundfile.write(path, (noise + tones).astype(np.float32), SOURCE_RATE, subtype="PCM_16")


def encode(wav: Path, path: Path, encoder: str) -> None:
    command = [ffmpeg_path(), "-v", "error", "-y", "-i", str(wav), "-c:a", encoder, "-b:a", "160k", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def decode_as_ffmpeg_would(path: Path) -> None:
    command = [ffmpeg_path(), "-v", "error", "-threads", "1", "-i", str(path), "-ac", "1", "-ar", str(SAMPLE_RATE)]
    subprocess.run([*command, "-f", "s16le", "pipe:"], check=True, stdin=subprocess.DEVNULL, capture_output=True)


def decode_as_we_do(path: Path) -> None:
    for _ in read_sound(path, sample_rate=SAMPLE_RATE):
        pass


def cpu_s(work: Callable[[], None]) -> float:
    """Of this process and the children that it waited for."""

    def spent() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    before = spent()
    work()
    return spent() - before


def measure(duration_s: float, n_rounds: int) -> dict[str, dict[str, float]]:
    """CPU seconds for each codec, both ways."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "source.wav"
        write_sound(wav, duration_s)
        for codec, (suffix, encoder) in CODECS.items():
            path = Path(folder) / f"{codec}.{suffix}"
            encode(wav, path, encoder)
            rounds = [
                (cpu_s(lambda path=path: decode_as_ffmpeg_would(path)), cpu_s(lambda path=path: decode_as_we_do(path)))
                for _ in range(n_rounds)
            ]
            theirs, ours = (median(each) for each in zip(*rounds, strict=True))
            found[codec] = {"ffmpeg": theirs, "ours": ours}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one minute of sound, once")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    duration_s, n_rounds = (60.0, 1) if options.quick else (300.0, 5)
    found = measure(duration_s, n_rounds)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {platform.platform()}")
    print(f"CPU seconds for {duration_s:.0f} s of stereo, median of {n_rounds}")
    print(f"{'':10}{'ffmpeg':>10}{'ours':>10}{'ratio':>10}")
    for codec, each in found.items():
        print(f"{codec:10}{each['ffmpeg']:10.2f}{each['ours']:10.2f}{each['ours'] / each['ffmpeg']:10.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
