"""How many bits the real sound costs the WaveNet, given a cue sheet: the better the cues, the fewer."""

import numpy as np
from scipy.special import log_softmax

from soundback.cues import CueSheet, conditioning
from soundback.judging import metrics
from soundback.media import audio
from soundback.sounding.sampler import Sampler

STRETCH_S = 0.5
"""Scored in the middle of each clip; the whole clip would take longer than rendering it."""


def real_sound_bits(
    sampler: Sampler, waveform: np.ndarray, sheet: CueSheet, categories: tuple[str, ...], *, with_curves: bool = True
) -> float | None:
    """`metrics.bits_per_sample` of the real mu-law classes, each given all real samples before it.

    8 is knowing nothing; None where the clip is too short.

    Args:
      sampler: the trained WaveNet.
      waveform: float32 [n_frames * hop], the real sound.
      sheet: n_frames long.
      categories: of the WaveNet, in its order.
      with_curves: False lets it hear the category alone.
    """
    history = -(-sampler.receptive_field // sampler.hop)
    stretch = min(round(STRETCH_S * sheet.frame_rate), sheet.n_frames - history)
    if stretch <= 0:
        return None
    first = (sheet.n_frames - history - stretch) // 2
    frames = slice(first, first + history + stretch)
    projected = sampler.project(conditioning(sheet, categories, with_curves=with_curves))[frames]
    classes = audio.mu_law_encode(waveform)[frames.start * sampler.hop : frames.stop * sampler.hop]
    logits = sampler.logits(classes, projected)[history * sampler.hop :].astype(np.float64)
    return metrics.bits_per_sample(log_softmax(logits, axis=1), classes[history * sampler.hop :])
