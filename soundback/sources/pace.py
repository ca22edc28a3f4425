"""A rate budget: how often a host is asked for a video, over all programs of this user on this machine.

Whoever hands out work takes a turn before each video, so the budget holds for all workers, those of a cluster included.
pyrate-limiter was looked at: its buckets shared between processes need a database; turns need one number in a file.
"""

import time
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from platformdirs import user_state_path

from soundback.sources.youtube8m import is_loopback

SECONDS_PER_HOUR = 3600.0


class Pace:
    """Hands out turns at evenly spaced times, host by host."""

    def __init__(self, per_hour: float | None, folder: Path | None = None) -> None:
        """Opens the budget.

        Args:
          per_hour: videos per hour and host; None for no limit.
          folder: where turns are noted; by default one of this user's.
        """
        self._gap_s = SECONDS_PER_HOUR / per_hour if per_hour else 0.0
        self._folder = folder or user_state_path("soundback") / "turns"

    def take_turn(self, address: str) -> float:
        """Takes the next turn at the host of an address.

        Returns:
          Seconds until it comes; 0 for a file or a host on this machine, which need no turns.
        """
        host = urlsplit(address).hostname
        if not self._gap_s or host is None or is_loopback(address):
            return 0.0
        self._folder.mkdir(parents=True, exist_ok=True)
        note = self._folder / host.replace(":", "_")  # An IPv6 address has colons, which some file systems do not.
        with FileLock(note.with_name(f"{note.name}.lock")):
            now = time.time()
            last = _read_time(note)
            # A turn noted for the far future is a clock that was set back.
            turn = now if not now - self._gap_s < last < now + SECONDS_PER_HOUR else last + self._gap_s
            note.write_text(repr(turn))
        return max(0.0, turn - now)


def _read_time(note: Path) -> float:
    try:
        return float(note.read_text())
    except (OSError, ValueError):  # Never written, or not to its end.
        return 0.0
