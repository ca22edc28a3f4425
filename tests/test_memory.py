"""However long the video: it is read, watched and sounded as a stream."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import trained

MOST_MB = 20

GENERATE = """
import json, sys, threading, time
from pathlib import Path
import psutil
from soundback.soundtrack import Soundtrack
from soundback.takes import Take
from tests import trained

models, folder = Path(sys.argv[1]), Path(sys.argv[2])
soundtrack = Soundtrack.load(models, params=trained.small_params().soundtrack)
peak_mb = 0.0

def watch(process=psutil.Process()):
    global peak_mb
    while True:
        peak_mb = max(peak_mb, process.memory_info().rss / 2**20)
        time.sleep(0.02)

threading.Thread(target=watch, daemon=True).start()

def peak_of(name):
    global peak_mb
    peak_mb = 0.0
    take = Take(category="Disc", mix="fill", loudness_lufs=-20.0)
    soundtrack.generate(folder / name, folder / f"out_{name}", take=take, overwrite=True)
    return peak_mb

warm = [peak_of("warm.mp4") for _ in range(2)]
print(json.dumps({"warm": warm, "short": peak_of("short.mp4"), "long": peak_of("long.mp4")}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_hour_takes_hardly_more_memory_than_ten_seconds(tmp_path, record_property):
    models = trained.train_models(tmp_path / "trained")
    # Warm-up is what every code path has been through once: several segments at a time, on all cores.
    for name, duration_s in (("warm", 180.0), ("short", 10.0), ("long", 3600.0)):
        flashes_s = [0.5 + 2 * k for k in range(int(min(duration_s, 30) / 2))]
        trained.write_flashing_disc(tmp_path / f"{name}.mp4", flashes_s, duration_s=duration_s, rate=(25, 1))
    command = [sys.executable, "-c", GENERATE, str(models), str(tmp_path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]).stdout
    peaks = json.loads(printed.splitlines()[-1])
    record_property("memory", f"{peaks['short']:12.0f}{peaks['long']:13.0f}")
    assert peaks["long"] - peaks["short"] <= MOST_MB, peaks
