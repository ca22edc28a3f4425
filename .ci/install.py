"""Installs what constraints.txt pins into the environment of this Python, with a bar and an estimate of what is left.

pip shows neither for the whole of it, and this takes minutes on a fresh machine. Standard library only: nothing else is
there yet.
"""

import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

# Measured on two cores: finding and fetching takes about as long as putting into place.
FETCHING = 0.5
WIDTH = 30
COMMAND = ["install", "--disable-pip-version-check", "--progress-bar", "off", "-c", "constraints.txt", "-e", ".[dev]"]


def main() -> int:
    """Runs pip; shows its own words if it fails."""
    expected = sum("==" in line or ">=" in line for line in Path("constraints.txt").read_text().splitlines())
    with tempfile.TemporaryFile("w+") as told:
        pip = subprocess.Popen(
            [sys.executable, "-m", "pip", *COMMAND], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        shown = _Shown(expected)
        threading.Thread(target=shown.keep_drawing, daemon=True).start()
        for line in pip.stdout or ():
            told.write(line)
            shown.hear(line)
        code = pip.wait()
        shown.finish()
        if code != 0:
            told.seek(0)
            sys.stderr.write("".join(told.readlines()[-40:]))
    return code


class _Shown:
    """How far the installation is, from what pip says and from what lies in the environment."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._started = time.monotonic()
        self._collected = 0
        self._installing = False
        self._done = False
        self._here = self._installed()

    def hear(self, line: str) -> None:
        self._collected += line.lstrip().startswith(("Collecting ", "Requirement already satisfied"))
        self._installing = self._installing or line.startswith("Installing collected packages")

    def keep_drawing(self) -> None:
        every_s = 1.0 if sys.stderr.isatty() else 20.0
        while not self._done:
            time.sleep(every_s)
            if not self._done:
                self._draw(min(self._share(), 0.99))

    def finish(self) -> None:
        self._done = True
        self._draw(1.0)
        sys.stderr.write("\n")

    def _share(self) -> float:
        if not self._installing:
            return FETCHING * min(self._collected / self._expected, 1.0)
        return FETCHING + (1 - FETCHING) * min((self._installed() - self._here) / self._expected, 1.0)

    def _installed(self) -> int:
        return sum(1 for _ in Path(sysconfig.get_path("purelib")).glob("*.dist-info"))

    def _draw(self, share: float) -> None:
        passed_s = time.monotonic() - self._started
        left = f"about {passed_s / share - passed_s:.0f} s left" if share > 0.03 else "minutes the first time"
        bar = "#" * int(WIDTH * share)
        end = "\r" if sys.stderr.isatty() else "\n"
        sys.stderr.write(f"Installing [{bar:<{WIDTH}}] {share:4.0%}, {left:<24}{end}")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
