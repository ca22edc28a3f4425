"""Where one shot of a video ends and the next begins, found in the frames as they stream by.

A cut is a frame before which everything looks otherwise than after it. Looks are compared as correlation, which an
exposure does not change; at the best of a few shifts, which a pan or a shaking camera makes; over three frames on each
side, between which a flash of one or two frames is gone; and with how much the picture changes within either side, so
that rain or a crowd is not a cut at every frame. Fades and dissolves pass as what they are: no cut.

Looked at: PySceneDetect 0.7 (needs opencv-python; its content detector takes an exposure for a cut) and ffmpeg's scdet
(its scores would have to come beside the pictures, and the frames of a shard have none).
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from soundback.watching.frames import shrink

CELLS = 32
"""Pixels of the small pictures that are compared; fewer, and strangers look alike."""
SHIFT = 2
"""Small pixels by which the picture may move from frame to frame: more than its own width in a second."""
BESIDE = 3
"""Frames that are compared on each side; no shot is shorter."""
LEAST_DISTANCE = 0.4
"""1 minus correlation. Of 5700 frames within the demo's clips 2 differ more, of 600 cuts between them 0.5 % less."""
LEAST_RATIO = 1.5
"""Of the distance across a cut to the largest one beside it. Those 2 frames stay below 1.5; of the cuts, none."""
STILL_LEVELS = 4.0
"""Gray levels by which a picture must vary to look like anything: two dark ones are alike, whatever their noise."""


def split_shots(batches: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Cuts a stream of frames where the scene changes; holds back two frames at most.

    Args:
      batches: uint8 [any, size, size] each, consecutive frames.

    Yields:
      The number of the shot, from 0, and some of its frames, uint8 [n, size, size]; several pairs to a shot.
    """
    shot = 0
    waiting: np.ndarray | None = None  # Frames that nothing is known of before the next ones are seen.
    seen: np.ndarray | None = None  # Small pictures: of frames that are decided, then of those that wait.
    for batch in batches:
        waiting = batch if waiting is None else np.concatenate([waiting, batch])
        small = _shrink(batch)
        seen = small if seen is None else np.concatenate([seen, small])
        cuts = _cuts(seen)
        n_ready = len(waiting) - (BESIDE - 1)
        if n_ready <= 0:
            continue
        first = len(seen) - len(waiting)
        borders = [0, *(cuts[(cuts > first) & (cuts < first + n_ready)] - first).tolist(), n_ready]
        # A cut at the first frame that waits ends what was told before.
        shot += int(first in cuts)
        for start, end in itertools.pairwise(borders):
            shot += int(start > 0)
            yield shot, waiting[start:end]
        waiting, seen = waiting[n_ready:], seen[-(2 * BESIDE - 1) :]
    if waiting is not None and len(waiting):
        yield shot, waiting


def _shrink(frames: np.ndarray) -> np.ndarray:
    """Small pictures of about CELLS pixels: uint8 [n, p, p]."""
    factor = max(1, frames.shape[1] // CELLS)
    p = frames.shape[1] // factor
    return shrink(frames[:, : p * factor, : p * factor], p)


def _cuts(small: np.ndarray) -> np.ndarray:
    """The frames at which a shot begins, of those that have BESIDE frames before and BESIDE from them on: int [n]."""
    if len(small) < 2 * BESIDE:
        return np.zeros(0, int)
    windows = _Windows(small)
    apart = {lag: windows.distance(lag) for lag in range(1, BESIDE + 1)}
    n_asked = len(small) - 2 * BESIDE + 1
    # Frame k is asked from k = BESIDE on; `apart[lag][i]` lies between frames i and i + lag.
    across = np.min(
        [apart[lag][BESIDE - back :][:n_asked] for lag in apart for back in range(1, lag + 1)],
        axis=0,
    )
    sides = [side for side in range(2 * BESIDE - 1) if side != BESIDE - 1]
    beside = np.max([apart[1][side:][:n_asked] for side in sides], axis=0)
    return np.flatnonzero((across > LEAST_DISTANCE) & (across > LEAST_RATIO * beside)) + BESIDE


class _Windows:
    """Small pictures with what their correlations at every shift are made of."""

    def __init__(self, small: np.ndarray) -> None:
        whole = small.astype(np.float32)
        whole -= whole.mean(axis=(1, 2), keepdims=True)
        n_cells = whole.shape[1]
        self._size = n_cells - 2 * SHIFT
        shape = (self._size, self._size)
        self._all = sliding_window_view(whole, shape, axis=(1, 2))
        self._means = np.einsum("nabij->nab", self._all) / self._size**2
        squares = np.einsum("nabij->nab", sliding_window_view(whole * whole, shape, axis=(1, 2))) / self._size**2
        self._variances = np.maximum(squares - self._means**2, 0)

    def distance(self, lag: int) -> np.ndarray:
        """1 minus the best correlation of each picture's middle with the picture `lag` before it: float32 [n - lag]."""
        middle = self._all[lag:, SHIFT, SHIFT]
        products = np.einsum("nabij,nij->nab", self._all[:-lag], middle) / self._size**2
        covariances = products - self._means[:-lag] * self._means[lag:, SHIFT, SHIFT, None, None]
        noise = STILL_LEVELS**2
        spreads = (self._variances[:-lag] + noise) * (self._variances[lag:, SHIFT, SHIFT, None, None] + noise)
        return 1 - ((covariances + noise) / np.sqrt(spreads)).max(axis=(1, 2))
