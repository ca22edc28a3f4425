"""Soundback gives silent video its sound back."""

import os

# TensorFlow greets with a page of notes about this machine when it is imported, wherever that is; errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
