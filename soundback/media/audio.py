"""Waveforms: wav files, loudness, onsets, mu-law.

A waveform is float32 [time], mono, samples in [-1, 1].
"""

import wave
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from soundback.errors import MediaError
from soundback.outputs import whole_file

FULL_SCALE = 32768  # of 16-bit samples
PIECE_SAMPLES = 1 << 16  # of sound that is read bit by bit; its oversampled copies are some megabytes

ONSET_STEP_S = 0.008  # how finely onsets are measured, about
ONSET_WINDOW_STEPS = 8  # long enough that a hum is steady; a 40 Hz rattle is not
ONSET_BANDS = 24
ONSET_FLOOR_DB = -60.0  # dB of one mel band; what is quieter does not count as a rise


def read_wav(path: Path) -> np.ndarray:
    """Reads a mono wav file.

    Returns:
      float32 [time] in [-1, 1).

    Raises:
      MediaError: missing or not_media (also when it has more than one channel).
    """
    if not path.exists():
        raise MediaError("missing", f"There is no file {path}.")
    try:
        waveform, _ = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise MediaError("not_media", f"{path.name} is not a wav file: {error.error_string}") from error
    if waveform.shape[1] != 1:
        raise MediaError("not_media", f"{path.name} has {waveform.shape[1]} channels; one was expected.")
    return np.ascontiguousarray(waveform[:, 0])


def read_wav_pieces(path: Path) -> Iterator[np.ndarray]:
    """Reads a mono wav file in pieces, float32 [time] in [-1, 1), for sound of any length."""
    return soundfile.blocks(path, PIECE_SAMPLES, dtype="float32")


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Writes a mono 16-bit wav file, whole or not at all; what `read_wav` gave is written back unchanged.

    Args:
      path: where to.
      waveform: float [time]; beyond [-1, 1) it is clipped.
      sample_rate: Hz.
    """
    write_wav_pieces(path, [waveform], sample_rate)


def write_wav_pieces(path: Path, pieces: Iterable[np.ndarray], sample_rate: int) -> None:
    """As `write_wav`, of a waveform that comes in pieces."""
    # Not by soundfile: of a disk that is full, libsndfile says "System error" and no more.
    with whole_file(path) as partial, partial.open("wb") as file, wave.open(file, "wb") as wav:
        wav.setparams((1, 2, sample_rate, 0, "NONE", ""))
        for piece in pieces:
            samples = np.rint(piece * np.float32(FULL_SCALE))
            wav.writeframesraw(np.clip(samples, -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes())


def rms_db(waveform: np.ndarray, *, hop: int, window_samples: int, floor_db: float) -> np.ndarray:
    """Root mean square over a window around the middle of each frame; at the ends over what there is of the window.

    Args:
      waveform: float32 [time].
      hop: samples per frame.
      window_samples: length of the window.
      floor_db: nothing is quieter.

    Returns:
      float32 [n_frames], dB of full scale, n_frames = len(waveform) // hop.
    """
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    first = np.arange(len(waveform) // hop) * hop + (hop - window_samples) // 2
    last = np.minimum(first + window_samples, len(waveform))
    first = np.maximum(first, 0)
    # The difference of two sums can fall a rounding error below zero.
    power = np.maximum(energy[last] - energy[first], 0.0) / (last - first)
    return np.maximum(10 * np.log10(np.maximum(power, 1e-30)), floor_db).astype(np.float32)


def onset_strength(waveform: np.ndarray, *, sample_rate: int, hop: int) -> np.ndarray:
    """How much sound sets in during each frame: the mean rise in dB over mel bands, librosa's onset strength.

    Measured in several steps per frame, the strongest of which counts, with windows that end where the step ends: what
    begins in a frame shows in that frame, never in a neighbour. What sounds from the start sets in at frame 0.

    Args:
      waveform: float32 [time].
      sample_rate: Hz.
      hop: samples per frame.

    Returns:
      float32 [n_frames], >= 0, n_frames = len(waveform) // hop. Absolute: the same sound in a louder clip is as strong.
    """
    import librosa  # Takes a second to import.

    n_frames = len(waveform) // hop
    if n_frames == 0:
        return np.zeros(0, np.float32)
    step = hop // _steps_per_frame(hop, sample_rate)
    window = ONSET_WINDOW_STEPS * step
    # Silence before the start: the first window then ends with the first step, and there is one before it to rise from.
    padded = np.concatenate([np.zeros(window, np.float32), waveform[: n_frames * hop]])
    power = librosa.feature.melspectrogram(
        y=padded, sr=sample_rate, n_fft=window, hop_length=step, window=_fading_window(window), center=False,
        n_mels=ONSET_BANDS, norm=None, power=2.0,
    ) / (window / 2) ** 2  # fmt: skip
    # librosa's own default floor hangs on the clip's loudest moment; this one is the same for every clip.
    bands_db = librosa.power_to_db(power, ref=1.0, amin=10 ** (ONSET_FLOOR_DB / 10), top_db=None)
    strength = librosa.onset.onset_strength(S=bands_db, sr=sample_rate, lag=1, max_size=3, center=False)[1:]
    return strength.reshape(n_frames, -1).max(axis=1).astype(np.float32)


def _steps_per_frame(hop: int, sample_rate: int) -> int:
    """The divisor of `hop` that makes steps of about ONSET_STEP_S."""
    wanted = hop / (ONSET_STEP_S * sample_rate)
    return min((n for n in range(1, min(hop, 64) + 1) if hop % n == 0), key=lambda n: abs(n - wanted))


def _fading_window(length: int) -> np.ndarray:
    """Full weight for the newest sample, falling to none for the oldest: an attack counts at once and fully."""
    return np.sin(np.pi / 2 * (np.arange(length) + 0.5) / length) ** 2


def mu_law_encode(waveform: np.ndarray, mu: int = 255) -> np.ndarray:
    """Compands a waveform into `mu + 1` integer classes.

    Args:
      waveform: float [time], samples in [-1, 1]; beyond it is clipped.
      mu: number of classes minus one.

    Returns:
      int32 [time], classes in [0, mu].

    Source: ITU-T G.711; van den Oord et al., WaveNet (2016), section 2.2.
    """
    clipped = np.clip(waveform, -1.0, 1.0)
    companded = np.sign(clipped) * np.log1p(mu * np.abs(clipped)) / np.log1p(mu)
    return np.floor((companded + 1) / 2 * mu + 0.5).astype(np.int32)


def mu_law_decode(classes: np.ndarray, mu: int = 255) -> np.ndarray:
    """Expands classes into a waveform; `mu_law_encode` gives the same classes back.

    Args:
      classes: int [time] in [0, mu].
      mu: number of classes minus one.

    Returns:
      float32 [time] in [-1, 1].
    """
    companded = 2 * np.asarray(classes, dtype=np.float64) / mu - 1
    return (np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(mu)) / mu).astype(np.float32)
