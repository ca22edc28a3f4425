"""Cues to waveform: the WaveNet and its sampler."""

import os

# TensorFlow greets with a page of notes about this CPU; errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
