"""Frames to cues: what is seen (classifier), when it sounds and how loud (spotter)."""

import os

# TensorFlow greets with a page of notes about this CPU; errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
