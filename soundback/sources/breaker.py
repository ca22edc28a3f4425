"""A circuit breaker: what a source says when it wants us gone, and what helps."""

import re
from dataclasses import dataclass

FORBIDDEN_IN_A_ROW = 5
_FORBIDDEN = re.compile(r"HTTP Error 403", re.IGNORECASE)


@dataclass(frozen=True)
class Refusal:
    """A source that refuses us, rather than one video.

    Attributes:
      words: the source's own.
      advice: what helps.
    """

    words: str
    advice: str


_WAIT = "Wait an hour or more, and ask more slowly by SOUNDBACK_VIDEOS_PER_HOUR."
_COOKIES = "Wait some hours, or give the cookies of a browser that is logged in by SOUNDBACK_COOKIES=FILE."
_NEWER = "Fetch the newest yt-dlp with `make update-yt-dlp`, or give cookies by SOUNDBACK_COOKIES=FILE."

# Each of these speaks of the asker, so that one is enough.
REFUSALS = tuple(
    (re.compile(pattern, re.IGNORECASE), advice)
    for pattern, advice in (
        (r"not a bot", _COOKIES),
        (r"captcha", _COOKIES),
        (r"rate-limited|try again later", _WAIT),
        (r"HTTP Error 429|too many requests", _WAIT),
    )
)


def find_advice(words: str) -> str | None:
    """What helps against a source that says this; None where the words do not speak of the asker."""
    return next((advice for pattern, advice in REFUSALS if pattern.search(words)), None)


class Breaker:
    """Watches what comes of videos, one after the other, and trips when the source refuses us.

    Attributes:
      refusal: why it tripped, or None.
    """

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self._forbidden = 0

    def hear(self, reason: str | None) -> None:
        """Takes note of one video.

        Args:
          reason: the source's words, None for a video that could be had.
        """
        words = reason or ""
        # 403 may be this video's own trouble; many in a row are ours.
        self._forbidden = self._forbidden + 1 if _FORBIDDEN.search(words) else 0
        if self._forbidden >= FORBIDDEN_IN_A_ROW:
            self.refusal = self.refusal or Refusal(words, _NEWER)
        if advice := find_advice(words):
            self.refusal = self.refusal or Refusal(words, advice)
