"""Fingerprints of a clip's picture and sound, and which of them are near each other.

A print is the signs of random projections (Charikar 2002): the share of bits in which two prints differ is the angle
between what they describe, in half turns, so 0 for copies and about 0.5 for strangers. All of it is integer arithmetic,
but for one Fourier transform whose result is rounded: the same file gives the same print on every machine.

Prints find what was copied, coded again, scaled, dimmed or made quieter, and cut at nearly the same time. They do not
find what was mirrored, cropped, slowed down or cut from elsewhere in the same video.
"""

# Why no library: ImageHash describes one still, by signs of floating-point sums; pyacoustid needs a native Chromaprint,
# which hears chords rather than knocks, and nothing at all in less than 3 s.

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

PRINT_BITS = 512
PRINT_RATE = 25  # per second: of the pictures and levels that prints and checks begin with
PICTURE_SIZE = 32  # pixels, height and width of these pictures

_N_SLOTS = 32  # of time, in a clip
_N_WAVES = 8  # per direction, of the cosine transform of a picture
_STILL = 0.5  # gray levels of mean change over a clip; less is a codec's noise

_BAND_EDGES_HZ = np.geomspace(150, 3600, 17)  # what every codec and sample rate keeps
_LEVEL_WINDOW = 2  # in steps of 1 / PRINT_RATE
_STEPS_PER_DB = 4
_FLOOR_DB = -90  # of one band
_RANGE_DB = 40  # below the loudest band of a clip; what is quieter, a codec drops
_STEADY_DB = 1  # mean change of level over a clip; less is a hum, and resembles all hums

_SLOT_STEPS = 16  # a mean over a slot is kept in sixteenths: integers, the same on every machine

_BLOCK_PAIRS = 1 << 16  # whose bits are counted at once: what a core's cache holds


def picture_print(frames: np.ndarray) -> bytes | None:
    """Fingerprint of a clip's picture: how its coarse waves change. What stands still, and the light, do not count.

    Args:
      frames: uint8 [n, PICTURE_SIZE, PICTURE_SIZE], all pictures of the clip.

    Returns:
      PRINT_BITS / 8 bytes; None where too little changes, or for less than 1.3 s.
    """
    if len(frames) <= _N_SLOTS:
        return None
    change = _change(frames.astype(np.int64))
    change -= change.sum(axis=(1, 2), keepdims=True) // change[0].size
    if np.abs(change).sum() < _STILL * _SLOT_STEPS * change.size:
        return None
    # Long waves are stronger than short ones; made equal, they tell more.
    order = np.add.outer(np.arange(_N_WAVES), np.arange(_N_WAVES))
    waves = _cosines() @ change @ _cosines().T * order
    return _signs(waves[2:] - waves[:-2])


def band_levels(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """How loud each band of a sound is over time.

    Args:
      waveform: float32 [time].
      sample_rate: Hz.

    Returns:
      int64 [n, 16], n = PRINT_RATE times its length in seconds; quarters of a dB above -90 dB of full scale.
    """
    window = round(_LEVEL_WINDOW * sample_rate / PRINT_RATE)
    n = len(waveform) * PRINT_RATE // sample_rate
    padded = np.pad(waveform.astype(np.float64), window)
    starts = (2 * np.arange(n) + 1) * sample_rate // (2 * PRINT_RATE) + window - window // 2
    pieces = padded[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(pieces)) ** 2 / (window / 4) ** 2
    edges = np.minimum(np.ceil(_BAND_EDGES_HZ * window / sample_rate).astype(int), power.shape[1])
    summed = np.cumsum(np.pad(power, ((0, 0), (1, 0))), axis=1)
    # The floor keeps rounding errors of the transform, which differ between machines, from being heard.
    bands = np.maximum(np.diff(summed[:, edges]), 0) + 10 ** (_FLOOR_DB / 10)
    return np.rint(_STEPS_PER_DB * (10 * np.log10(bands) - _FLOOR_DB)).astype(np.int64)


def sound_print(levels: np.ndarray) -> bytes | None:
    """Fingerprint of a clip's sound: how its bands rise and fall, over time and against each other.

    Args:
      levels: of `band_levels`, of the whole clip.

    Returns:
      PRINT_BITS / 8 bytes; None where there is too little to hear, or for less than 1.3 s.
    """
    if len(levels) <= _N_SLOTS:
        return None
    change = _change(np.maximum(levels, levels.max() - _RANGE_DB * _STEPS_PER_DB))
    if np.abs(change).sum() < _STEADY_DB * _STEPS_PER_DB * _SLOT_STEPS * change.size:
        return None
    # Differences, because what swells slowly in all bands at once does so much alike in many sounds.
    return _signs(np.concatenate([change[2:] - change[:-2], np.diff(change[2:], axis=1)], axis=1))


def print_distance(one: bytes, other: bytes) -> float:
    """Share of bits that differ, in [0, 1]."""
    return int.bit_count(int.from_bytes(one) ^ int.from_bytes(other)) / PRINT_BITS


def find_nearest(some: Sequence[bytes], others: Sequence[bytes]) -> np.ndarray:
    """Finds for each print the nearest of others. Compares every pair, in constant memory.

    Args:
      some: prints of one kind.
      others: prints of that kind, at least one.

    Returns:
      int64 [len(some)], indices into `others`; of equals the first.
    """
    words, other_words = _words(some), np.ascontiguousarray(_words(others).T)
    nearest = np.zeros(len(some), np.int64)
    n_rows = max(1, _BLOCK_PAIRS // len(others))
    for start in range(0, len(some), n_rows):
        block = words[start : start + n_rows]
        # Word by word: adding along a short last axis takes many times as long.
        bits = np.zeros((len(block), len(others)), np.uint16)
        for word in range(block.shape[1]):
            bits += np.bitwise_count(block[:, word, None] ^ other_words[word])
        nearest[start : start + n_rows] = bits.argmin(axis=1)
    return nearest


def _change(curves: np.ndarray) -> np.ndarray:
    """Means over slots of time, about the mean of the clip: int64 [_N_SLOTS, ...], in parts of _SLOT_STEPS.

    Slots overlap by half, so that a copy cut a little earlier or later stays near.
    """
    edges = np.arange(_N_SLOTS + 2) * len(curves) // (_N_SLOTS + 1)
    summed = np.concatenate([np.zeros_like(curves[:1]), np.cumsum(curves, axis=0)])
    lengths = (edges[2:] - edges[:-2]).reshape(-1, *[1] * (curves.ndim - 1))
    slots = (summed[edges[2:]] - summed[edges[:-2]]) * _SLOT_STEPS // lengths
    return slots - slots.sum(axis=0) // _N_SLOTS


def _words(prints: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(prints), np.uint64).reshape(len(prints), -1)


def _signs(features: np.ndarray) -> bytes:
    flat = features.reshape(-1)
    return np.packbits(_directions(len(flat)) @ flat > 0).tobytes()


@cache
def _directions(n: int) -> np.ndarray:
    """Random signs, int64 [PRINT_BITS, n]; from raw words, whose order NumPy promises to keep."""
    words = np.random.PCG64(0).random_raw(PRINT_BITS * math.ceil(n / 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8)).reshape(PRINT_BITS, -1)[:, :n]
    return 2 * bits.astype(np.int64) - 1


@cache
def _cosines() -> np.ndarray:
    """The first waves of a discrete cosine transform, int64 [waves, PICTURE_SIZE]."""
    place = np.pi * (2 * np.arange(PICTURE_SIZE) + 1) / (2 * PICTURE_SIZE)
    return np.rint(64 * np.cos(np.outer(np.arange(_N_WAVES), place))).astype(np.int64)
