"""The fader: brings what the WaveNet made to the loudness that the cue sheet says, as a mixer's hand would.

A briefly trained WaveNet is right in kind sooner than in level: it hisses where it should be silent and starts faintly.
The cue sheet says the loudness of every frame in dB, and an edited curve is to be heard as it was drawn.
"""

import numpy as np

from soundback.media.audio import rms_db

MOST_CUT_DB, MOST_BOOST_DB = 50.0, 30.0
"""How far the fader moves; silence is not boosted into noise."""

PASSES = 2
"""Loudness is measured over a window longer than a frame, so the gain of one frame moves its neighbours' loudness. More
passes follow the curve no better, and swing between frames until that is heard as onsets."""

FRAMES_BEFORE_HIT = 2
"""Loudness is measured over a window, so it rises this long before the hit that raises it."""


def ride(
    waveform: np.ndarray, loudness_db: np.ndarray, hit: np.ndarray, *, hop: int, window_samples: int, floor_db: float
) -> np.ndarray:
    """Moves the level of a sound, frame by frame, to where it should be.

    Args:
      waveform: float32 [n_frames * hop].
      loudness_db: float32 [n_frames], dBFS, as `cues.Hearing.measure` would find it on the result.
      hit: float32 [n_frames]; the level waits for a hit instead of rising towards it.
      hop: samples per frame.
      window_samples: over which loudness is measured.
      floor_db: below it, loudness is not told apart.

    Returns:
      float32 [n_frames * hop] in [-1, 1].
    """
    wanted_db = _wait_for_hits(loudness_db, hit)
    middles = (np.arange(len(wanted_db)) + 0.5) * hop
    total_db = np.zeros(len(wanted_db))
    ridden = waveform
    for _ in range(PASSES):
        own_db = rms_db(ridden, hop=hop, window_samples=window_samples, floor_db=floor_db)
        total_db = np.clip(total_db + wanted_db - own_db, -MOST_CUT_DB, MOST_BOOST_DB)
        gain = 10 ** (np.interp(np.arange(len(waveform)), middles, total_db) / 20)
        ridden = (waveform * gain).clip(-1, 1).astype(np.float32)
    return ridden


def _wait_for_hits(loudness_db: np.ndarray, hit: np.ndarray) -> np.ndarray:
    held = loudness_db.copy()
    for frame in map(int, np.flatnonzero(hit)):
        start = max(0, frame - FRAMES_BEFORE_HIT)
        held[start:frame] = np.minimum(held[start:frame], loudness_db[max(0, start - 1)])
    return held
