"""Cues to waveform: the WaveNet and its sampler."""
