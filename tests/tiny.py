"""A tiny soundtrack whose models are made up, not trained: bright is a bell, dark a drum, a flash a hit."""

import keras
import numpy as np

from soundback import params as settings_of
from soundback.cues import N_CURVE_FEATURES
from soundback.params import load_params
from soundback.sounding.sampler import Sampler
from soundback.sounding.wavenet import build_wavenet
from soundback.soundtrack import Soundtrack

CATEGORIES = ("Bell", "Drum")
FRAME_RATE, HOP = 25, 40
SETTINGS = settings_of.Soundtrack(
    smoothing_s=0.12,
    min_segment_s=0.2,
    max_segment_s=1.0,
    crossfade_s=0.08,
    temperature=1.0,
    top_p=1.0,
    weights="float32",
)
CARD = {
    "categories": list(CATEGORIES),
    "sample_rate": 1000,
    "frame_rate": FRAME_RATE,
    "hop": HOP,
    "cues": {"loudness_window_s": 0.16, "loudness_floor_db": -60.0},
}


class BrightIsBell:
    """Stands in for the classifier: bright frames are bells, dark ones drums, gray ones unsure, 250 is unknown."""

    categories, size, fit, unsure_below = CATEGORIES, 8, "stretch", 0.6

    def recognise(self, frames):
        bell = frames.mean(axis=(1, 2)) / 255
        return np.stack([bell, 1 - bell], axis=1).astype(np.float32), bell != 250 / 255


class ConstantSpotter:
    """Stands in for the spotter."""

    size, fit, frame_rate = 8, "stretch", FRAME_RATE

    def predict(self, batches):
        n_frames = sum(len(batch) for batch in batches)
        return np.full(n_frames, -20, np.float32), np.zeros(n_frames, np.float32)


class FlashSpotter(ConstantSpotter):
    """Stands in for the spotter: where it turns bright something hits, and rings for as long as it is bright."""

    def predict(self, batches):
        bright = np.concatenate([batch.mean(axis=(1, 2)) > 130 for batch in batches] or [np.zeros(0, bool)])
        begins = bright & ~np.concatenate([[False], bright[:-1]])
        return np.where(bright, -20, -60).astype(np.float32), begins.astype(np.float32)


def make_soundtrack(spotter=None, *, hop: int = HOP, **settings) -> Soundtrack:
    """Ready to watch frames of 8 x 8 pixels and to sound at 25 times `hop` Hz."""
    keras.utils.set_random_seed(1)
    tiny = load_params().wavenet.model_copy(
        update={"layers": 4, "cycles": 2, "residual_channels": 8, "gate_channels": 8, "skip_channels": 8}
    )
    network = build_wavenet(tiny, n_cues=len(CATEGORIES) + N_CURVE_FEATURES, hop=hop)
    # Random weights that are loud enough for every input to matter.
    network.set_weights(
        [weight + np.random.default_rng(0).normal(0, 0.2, weight.shape) for weight in network.get_weights()]
    )
    sampler, params = Sampler.from_model(network), SETTINGS.model_copy(update=settings)
    card = CARD | {"sample_rate": FRAME_RATE * hop, "hop": hop}
    return Soundtrack(BrightIsBell(), spotter or ConstantSpotter(), sampler, card, params=params)
