"""Which videos are drawn, and which split each belongs to: from its id alone, so that no other video can move it."""

import hashlib
import heapq
from collections.abc import Iterable


def sample_ids(ids: Iterable[str], n: int, *, seed: int) -> list[str]:
    """Draws n ids, always the same ones; a larger n keeps what a smaller one drew, in the same order."""
    # A rank of one's own, rather than a shuffle: it does not change when other ids come or go.
    return heapq.nsmallest(n, ids, key=lambda each: (hashlib.sha256(f"{seed}:{each}".encode()).digest(), each))


def split_of(video_id: str, *, validation_share: float, test_share: float) -> str:
    """The split of a video.

    Args:
      video_id: the source's, or YouTube-8M's for a video that is gone.
      validation_share: of all videos, in [0, 1).
      test_share: of all videos, in [0, 1).
    """
    digest = hashlib.sha256(f"split:{video_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"
