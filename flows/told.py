"""What a program says while it runs, for Prefect: its log, its progress, and its last words if it fails."""

import logging
import re
from collections import deque
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from slugify import slugify

from soundback.chatter import CHATTER
from soundback.errors import TransientError

# What DVC says it does.
OUTCOMES = {
    re.compile(r"Stage '.+' didn't change, skipping"): "Skipped",
    re.compile(r"Stage '.+' is cached - skipping run"): "Restored",
    re.compile(r"Running stage '.+':"): "Completed",
}
PROGRESS = re.compile(r"PROGRESS (\d+) (\d+) (.+)")
HINTS = ("To track the changes with git", "To enable auto staging", "Use `dvc push`", "git add ", "dvc config ")
LAST_WORDS = 5
PASSES = re.compile(rf"\bexited with {TransientError.exit_status}\b")


class Told:
    """What the lines of one program say: outcome, progress, and what was said last."""

    def __init__(self, what: str, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self.what = what
        self.outcome = "Completed"
        self._log = log
        self._artifact: UUID | None = None
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._dvc_words: deque[str] = deque(maxlen=LAST_WORDS)

    def hear(self, line: str) -> None:
        """Takes in one line: progress goes to an artifact, everything else to the log."""
        if progress := PROGRESS.fullmatch(line):
            done, total, what = progress.groups()
            self._show_progress(100 * int(done) / max(int(total), 1), what)
            return
        if line.lstrip().startswith(HINTS):
            return
        if CHATTER.match(line):
            self._log.debug("%s", line)
            return
        self._log.info("%s", line)
        for pattern, outcome in OUTCOMES.items():
            if pattern.match(line):
                self.outcome = outcome
                self._words.clear()
                return
        if line.startswith("ERROR: "):
            self._dvc_words.append(line.removeprefix("ERROR: "))
        elif not line.startswith("> "):
            self._words.append(line)

    def may_pass(self) -> bool:
        """Whether the stage says that it may succeed in a minute."""
        return any(PASSES.search(words) for words in self._dvc_words)

    def last_words(self) -> str:
        """The last lines of the stage; DVC's own where the stage said nothing."""
        return "\n".join(self._words or self._dvc_words) or "it said nothing"

    def _show_progress(self, percent: float, what: str) -> None:
        if self._artifact is None:
            key = slugify(self.what)
            described = f"{self.what}: {what}"
            self._artifact = cast(UUID, create_progress_artifact(progress=percent, key=key, description=described))
        else:
            update_progress_artifact(self._artifact, progress=percent, description=f"{self.what}: {what}")
