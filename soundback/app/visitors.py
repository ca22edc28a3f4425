"""What the page keeps of each visitor: a folder of their own, what was made for them, and whether they said stop."""

import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import TypeVar

from soundback.cues import CueSheet
from soundback.errors import SoundbackError
from soundback.progress import Progress

Made = TypeVar("Made")


class Stopped(Exception):
    """The visitor has stopped the work, or gone."""


@dataclass
class Visitor:
    """One page that is open somewhere.

    Attributes:
      folder: of this visitor alone; nobody can guess its name.
      video: what they brought, None before.
      sheet: what was seen in it, or the cue sheet they brought; without what they changed in the table.
      n_takes: how many renderings were begun.
      stop: of the work begun last; set when it is no longer wanted.
      busy: held while something is done in the folder.
    """

    folder: Path
    video: Path | None = None
    sheet: CueSheet | None = None
    n_takes: int = 0
    stop: Event = field(default_factory=Event)
    busy: Lock = field(default_factory=Lock)

    def take_video(self, brought: Path) -> None:
        """Puts an uploaded video in the place of the one before, and forgets all that was made of that."""
        self.stop.set()
        with self.busy:
            shutil.rmtree(self.folder, ignore_errors=True)
            folder = self.folder / "video"
            folder.mkdir(parents=True)
            self.video = Path(shutil.move(brought, folder / brought.name))
            self.sheet = None

    def open_take(self) -> Path:
        """An empty folder for a rendering."""
        self.n_takes += 1
        folder = self.folder / f"take-{self.n_takes}"
        folder.mkdir(parents=True)
        return folder

    def keep_take(self, take: Path) -> None:
        """Removes the renderings before this one."""
        for path in self.folder.glob("take-*"):
            if path != take:
                shutil.rmtree(path, ignore_errors=True)


class Visitors:
    """All whose page is open. One piece of work is under way at a time: the models use every core."""

    def __init__(self, root: Path) -> None:
        """Takes the folder in which each of them gets one."""
        self.root = root
        self._known: dict[str, Visitor] = {}
        self._lock = Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="soundback-app")

    def of(self, session: str | None) -> Visitor:
        """The visitor of a session, a new one if it is new.

        Raises:
          SoundbackError: when the request is of no page.
        """
        if not session:
            raise SoundbackError("This is for the page alone; programs use `soundback generate`.")
        with self._lock:
            if session not in self._known:
                self._known[session] = Visitor(self.root / secrets.token_urlsafe(24))
            return self._known[session]

    def begin(self, visitor: Visitor, work: Callable[[Progress], Made], progress: Progress) -> Future[Made]:
        """Has a piece of work done as soon as the one before it has ended; stops what this visitor had begun before.

        Args:
          visitor: for whom.
          work: is given a `Progress`, which raises `Stopped` when the work is no longer wanted.
          progress: called from the thread that works.
        """
        visitor.stop.set()
        stop = visitor.stop = Event()

        def watched(done: int, total: int) -> None:
            if stop.is_set():
                raise Stopped
            progress(done, total)

        def do() -> Made:
            with visitor.busy:
                watched(0, 1)
                return work(watched)

        return self._worker.submit(do)

    def leave(self, session: str | None) -> None:
        """Stops what is done for a visitor whose page is closed, and removes their files."""
        with self._lock:
            visitor = self._known.pop(session or "", None)
        if visitor is None:
            return
        visitor.stop.set()
        with visitor.busy:
            shutil.rmtree(visitor.folder, ignore_errors=True)

    def close(self) -> None:
        """Stops all work, and waits until it has stopped; then removes all files."""
        for session in list(self._known):
            self.leave(session)
        self._worker.shutdown()
