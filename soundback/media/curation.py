"""Looks at and listens to one clip: is it wanted, and what would a copy of it look and sound like?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundback.media.containers import probe
from soundback.media.ffmpeg import read_frames, read_waveform
from soundback.media.prints import PICTURE_SIZE, PRINT_RATE, band_levels, picture_print, sound_print
from soundback.params import Curation

MOTION_STEPS = 5
"""Motion is the change over so many pictures, 0.2 s: a slow thing has moved by then, a codec's noise has not grown."""

FULL_SCALE = 0.99
"""Of full scale: from here on a sample counts as lying at it."""

CLIPPED_RUN = 3
"""Samples; a peak that just touches full scale has fewer in a row."""

LONGEST_LAG = 1 / 3
"""Of the clip: over less than two thirds of it, a correlation says little."""

SILENCE_WINDOW_S = 0.1

CLEARLY_BETTER = 0.1
"""By which a correlation beyond the allowed offset must win: what repeats, fits after one turn nearly as well."""

STEADY_DB = 1.5
"""Standard deviation of a level; below it there is no rise or fall that a picture could agree with."""


@dataclass(frozen=True)
class Inspection:
    """What was found out about a clip.

    Attributes:
      status: ok, still, silent, clipped or offset; the first that applies, in this order.
      reason: the figure and the limit; None when ok.
      picture_print: of `prints.picture_print`; None where prints are not asked for, there is too little to see, or the
        clip is not wanted.
      sound_print: of `prints.sound_print`, likewise.
    """

    status: str = "ok"
    reason: str | None = None
    picture_print: bytes | None = None
    sound_print: bytes | None = None


@dataclass(frozen=True)
class Agreement:
    """How well motion and sound go together.

    Attributes:
      correlation: the best within the allowed offset, in hundredths.
      lag_s: by which the sound is late where the correlation is best of all; negative when it is early.
    """

    correlation: float
    lag_s: float


def inspect(path: Path, params: Curation) -> Inspection:
    """Looks at and listens to a clip; decodes only what the limits that are set ask for, each track at most once.

    Args:
      path: a few seconds of video with sound, of any size and codec.
      params: limits; None means not to look.

    Raises:
      MediaError: as `ffmpeg.read_frames` and `ffmpeg.read_waveform`; no_audio where sound is to be judged and there is
        none.
    """
    sees, hears = _needs(params)
    frames = _look(path) if sees else None
    if frames is not None and (fault := _fault_of_picture(frames, params)):
        return fault
    sound = _listen(path) if hears else None
    if sound is not None and (fault := _fault_of_sound(*sound, params)):
        return fault
    if frames is None or sound is None or (params.min_agreement is None and params.max_print_distance is None):
        return Inspection()
    levels = band_levels(*sound)
    if params.min_agreement is not None and (fault := _fault_of_agreement(frames, levels, params)):
        return fault
    if params.max_print_distance is None:
        return Inspection()
    return Inspection(picture_print=picture_print(frames), sound_print=sound_print(levels))


def mean_motion(frames: np.ndarray) -> float:
    """Mean absolute change of a small picture in 0.2 s, in gray levels, to hundredths.

    Args:
      frames: uint8 [n, PICTURE_SIZE, PICTURE_SIZE].
    """
    steps = min(MOTION_STEPS, len(frames) - 1)
    return round(float(_change(frames, steps).mean()), 2) if steps else 0.0


def clipped_share(waveform: np.ndarray) -> float:
    """Share of samples that lie at full scale, on one side, with at least two others in a row; in thousandths.

    A lossy codec rounds off what was flat: after AAC, 0.1 to 0.7 % is found of sound that was clipped by 6 dB, 0.5 to
    0.9 % by 10 dB, 2 to 3 % by 16 dB. What is clipped in one channel of two escapes; a pure tone that reaches full
    scale without a codec does not.
    """
    side = np.where(np.abs(waveform) >= FULL_SCALE, np.sign(waveform), 0)
    n_runs = len(side) - CLIPPED_RUN + 1
    if n_runs < 1:
        return 0.0
    shifted = [side[k : k + n_runs] for k in range(CLIPPED_RUN)]
    begins = (shifted[0] != 0) & np.logical_and.reduce([each == shifted[0] for each in shifted[1:]])
    lies = np.convolve(begins, np.ones(CLIPPED_RUN)) > 0
    return round(float(lies.mean()), 3)


def silent_share(waveform: np.ndarray, *, sample_rate: int, silence_db: float) -> float:
    """Share of tenths of a second whose RMS is below `silence_db`, in hundredths; 1 for no sound at all.

    As `loudness.measure` counts it, which imports for a second, and every download worker would.
    """
    window = round(SILENCE_WINDOW_S * sample_rate)
    n = len(waveform) // window
    power = np.square(waveform[: n * window].reshape(n, window), dtype=np.float64).mean(axis=1)
    return round(float(np.mean(power < 10 ** (silence_db / 10))), 2) if n else 1.0


def measure_agreement(frames: np.ndarray, levels: np.ndarray, max_offset_s: float) -> Agreement | None:
    """Correlates how much moves with how loud it is, and with how much sets in, over lags up to a third of the clip.

    What this can tell is little: whether something moves when it sounds. It knows nothing of what things sound like, so
    pictures cut to the beat of their music belong, and what moves without sounding spoils it. A few seconds hold few
    events; between strangers a best correlation of 0.3 is common. So a limit that catches much loses much: over the
    demo's 5 s clips 0.3 catches 66 % of the sounds exchanged between two videos of a category and 77 % of those shifted
    by 1 s, and loses 21 % of those that belong.

    Args:
      frames: uint8 [n, PICTURE_SIZE, PICTURE_SIZE], PRINT_RATE per second.
      levels: of `band_levels`.
      max_offset_s: lags up to this are allowed.

    Returns:
      None where nothing can be told: too short, or picture or sound steady throughout.
    """
    n = min(len(frames), len(levels))
    longest, allowed = round(LONGEST_LAG * n), round(max_offset_s * PRINT_RATE)
    if longest <= allowed:
        return None
    moves = _smooth(_change(frames[:n], 1).mean(axis=(1, 2)))
    rises = np.maximum(np.diff(levels[:n], axis=0), 0).sum(axis=1)
    loudness = levels[1:n].mean(axis=1)
    if not moves.std() or loudness.std() < STEADY_DB * 4:
        return None
    lags = np.arange(-longest, longest + 1)
    best = np.max([_correlations(moves, _smooth(sound), lags) for sound in (rises, loudness)], axis=0)
    inside = np.abs(lags) <= allowed
    near, far = best[inside].max(), best[~inside].max()
    candidates = lags[inside & (best == near)] if far < near + CLEARLY_BETTER else lags[~inside & (best == far)]
    return Agreement(float(near), float(min(candidates, key=abs)) / PRINT_RATE)


def _needs(params: Curation) -> tuple[bool, bool]:
    """Whether the limits ask for the picture, and whether for the sound."""
    both = params.min_agreement is not None or params.max_print_distance is not None
    sound = params.max_clipped_share is not None or params.max_silence_share is not None
    return both or params.min_motion is not None, both or sound


def _look(path: Path) -> np.ndarray:
    return np.concatenate(list(read_frames(path, frame_rate=PRINT_RATE, size=PICTURE_SIZE, fit="stretch")))


def _listen(path: Path) -> tuple[np.ndarray, int]:
    """The waveform at its own rate: resampled, clipped peaks are no longer flat."""
    sample_rate = probe(path).audio_sample_rate or PRINT_RATE  # Where there is no sound, `read_waveform` says so.
    return read_waveform(path, sample_rate=sample_rate), sample_rate


def _fault_of_picture(frames: np.ndarray, params: Curation) -> Inspection | None:
    if params.min_motion is not None and (motion := mean_motion(frames)) < params.min_motion:
        return Inspection("still", f"{motion:.2f} gray levels of change, at least {params.min_motion:g} are wanted")
    return None


def _fault_of_sound(waveform: np.ndarray, sample_rate: int, params: Curation) -> Inspection | None:
    if params.max_silence_share is not None:
        silent = silent_share(waveform, sample_rate=sample_rate, silence_db=params.silence_db)
        if silent > params.max_silence_share:
            return Inspection(
                "silent",
                f"{silent:.0%} of the sound is below {params.silence_db:g} dBFS, "
                f"at most {params.max_silence_share:.0%} is wanted",
            )
    if params.max_clipped_share is not None and (clipped := clipped_share(waveform)) > params.max_clipped_share:
        return Inspection(
            "clipped", f"{clipped:.1%} of the samples are clipped, at most {params.max_clipped_share:.1%} is wanted"
        )
    return None


def _fault_of_agreement(frames: np.ndarray, levels: np.ndarray, params: Curation) -> Inspection | None:
    agreement = measure_agreement(frames, levels, params.max_offset_s)
    if agreement is None or params.min_agreement is None:
        return None
    if abs(agreement.lag_s) > params.max_offset_s:
        early_or_late = "late" if agreement.lag_s > 0 else "early"
        return Inspection(
            "offset",
            f"the sound fits best {abs(agreement.lag_s):.1f} s {early_or_late}, "
            f"at most {params.max_offset_s:g} s is wanted",
        )
    if agreement.correlation < params.min_agreement:
        return Inspection(
            "offset",
            f"motion and sound correlate by {agreement.correlation:.2f}, at least {params.min_agreement:g} is wanted",
        )
    return None


def _change(frames: np.ndarray, steps: int) -> np.ndarray:
    """What changes in so many steps, int16 [n - steps, size, size]."""
    wide = frames.astype(np.int16)
    return np.abs(wide[steps:] - wide[:-steps])


def _smooth(curve: np.ndarray) -> np.ndarray:
    """Over 0.2 s: pictures shown at another rate than PRINT_RATE change by fits and starts."""
    return np.convolve(curve, np.array([1, 2, 3, 2, 1]) / 9, mode="same")


def _correlations(picture: np.ndarray, sound: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """Pearson's, in hundredths, with the sound `lag` steps later; 0 where a curve is constant."""
    n = len(picture)
    found = []
    for lag in lags:
        one = picture[max(0, -lag) : n - max(0, lag)]
        other = sound[max(0, lag) : n - max(0, -lag)]
        spread = one.std() * other.std()
        found.append(np.mean((one - one.mean()) * (other - other.mean())) / spread if spread > 1e-9 else 0.0)
    return np.round(found, 2)
