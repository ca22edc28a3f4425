"""How near a sound comes to the real one, in numbers. One function per metric, `evaluate` for one clip.

Conventions, as in mir_eval: `reference_*` is the truth, `estimated_*` is what is judged. Onsets are float [n], seconds,
in rising order. Loudness curves are float [n_frames], dB, on the same frame times. Embeddings are one float
[n_windows, n_dimensions] array per video, so that windows of one video are never taken for independent.

A metric that cannot be told (a constant curve has no correlation) is None, never 0: it is left out of means, and the n
beside each mean says how many remained. No metric here is worth reading without its control rows.
"""

from collections.abc import Sequence
from itertools import pairwise

import mir_eval
import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats
from scipy.ndimage import binary_dilation

from soundback.judging.distances import Embeddings, diversities, frechet_distances, kernel_distances

Array = NDArray[np.floating]

ONSET_WINDOWS_MS = (50, 100, 300)
MIN_REFERENCE_ONSETS = 3
"""With fewer, one lucky or unlucky onset decides the clip."""

SILENCE_DB, SILENCE_MARGIN = -60.0, 5
"""dBFS, and frames: an early or late sound, and the window over which loudness is measured, reach no further."""

CONSTANT_DB = 1e-3
"""A curve whose standard deviation is below this is constant."""

MAX_LAG_S = 0.5
"""What is later or earlier than this is taken for something else."""

ALIGNED_S = 0.1
MOTION_PROMINENCE = 0.5
"""How far a peak of motion rises above what is around it, in standard deviations of the whole curve."""

LEAST_PROBABILITY = 1e-6
"""Below this a judge's certainty is worth nothing; without it, one certain error would outweigh all else."""

SPECTRUM_S, SPECTRUM_FLOOR_DB = 0.02, -80.0
"""How much sound on each side of a moment is compared, and what is quieter than anybody hears, in dB of one bin."""


def validate_onsets(reference_s: Array, estimated_s: Array) -> None:
    """Checks that both are one-dimensional, finite, not negative and in rising order.

    Raises:
      ValueError: otherwise, with what was found.
    """
    for name, onsets in (("reference", reference_s), ("estimated", estimated_s)):
        if onsets.ndim != 1:
            raise ValueError(f"{name} onsets must be one-dimensional, found shape {onsets.shape}")
        if onsets.size and not (np.isfinite(onsets).all() and onsets[0] >= 0 and (np.diff(onsets) >= 0).all()):
            raise ValueError(f"{name} onsets must be finite seconds from 0 on, in rising order, found {onsets}")


def validate_curves(reference_db: Array, estimated_db: Array) -> None:
    """Checks that both are finite, one-dimensional and equally long.

    Raises:
      ValueError: otherwise, with what was found.
    """
    if reference_db.ndim != 1 or reference_db.shape != estimated_db.shape:
        raise ValueError(f"curves must share one shape [n_frames], found {reference_db.shape} and {estimated_db.shape}")
    if not (np.isfinite(reference_db).all() and np.isfinite(estimated_db).all()):
        raise ValueError("curves must be finite; put a floor under silence")


def validate_probabilities(reference: Array, estimated: Array) -> None:
    """Checks that both are [n_categories], of the same categories, from 0 on, and add up to 1.

    Raises:
      ValueError: otherwise, with what was found.
    """
    if reference.ndim != 1 or reference.shape != estimated.shape:
        raise ValueError(
            f"probabilities must share one shape [n_categories], found {reference.shape} and {estimated.shape}"
        )
    for name, probabilities in (("reference", reference), ("estimated", estimated)):
        if not (np.all(probabilities >= 0) and np.isclose(probabilities.sum(), 1, atol=1e-3)):
            raise ValueError(f"{name} probabilities must be from 0 on and add up to 1, found {probabilities}")


def onset_scores(reference_s: Array, estimated_s: Array, window_s: float) -> tuple[float, float, float]:
    """Precision, recall and F1 of onsets, each in [0, 1], 1 is perfect.

    An estimate is right when it lies within `window_s` of a reference onset; each reference onset takes at most one
    estimate, by maximum matching, so neither missing onsets nor a shower of them pays. 0 where either is empty.

    It cannot tell a loud onset from a faint one, nor what sounds; and a shower of onsets gains by chance as the window
    grows, so look at the narrow window first.

    Source: mir_eval.onset (Raffel et al. 2014), after Böck et al. 2012.
    """
    validate_onsets(reference_s, estimated_s)
    if not reference_s.size or not estimated_s.size:
        return 0.0, 0.0, 0.0
    f1, precision, recall = mir_eval.onset.f_measure(reference_s, estimated_s, window=window_s)
    return float(precision), float(recall), float(f1)


def loudness_correlation(reference_db: Array, estimated_db: Array) -> float | None:
    """Pearson correlation of two loudness curves in [-1, 1], 1 is perfect; None where either is constant or empty.

    It cannot tell a level that is wrong throughout (see `loudness_error_db`), nor a range that is too small.

    Source: Owens et al., Visually Indicated Sounds (2016), section 6, there of other curves.
    """
    validate_curves(reference_db, estimated_db)
    if reference_db.size < 2 or min(reference_db.std(), estimated_db.std()) < CONSTANT_DB:
        return None
    return float(np.corrcoef(reference_db.astype(np.float64), estimated_db.astype(np.float64))[0, 1])


def loudness_lag_ms(reference_db: Array, estimated_db: Array, frame_rate: float) -> float | None:
    """How late one loudness curve is after another, in ms, 0 is perfect, negative is early; at most `MAX_LAG_S`.

    The shift at which the two correlate best over the time that they then share, to a fraction of a frame by a parabola
    through the best one and its neighbours; of equally good ones the smallest. None where either is constant, or
    shorter than twice the longest lag. It cannot tell that the two have nothing to do with each other: then it is
    anything (look at `loudness_correlation`); and of what repeats, it finds the nearest repetition.

    Source: Knapp and Carter, The generalized correlation method for estimation of time delay (1976), without weighting.
    """
    validate_curves(reference_db, estimated_db)
    furthest = round(MAX_LAG_S * frame_rate)
    if reference_db.size < 2 * furthest + 2 or loudness_correlation(reference_db, estimated_db) is None:
        return None
    found = {lag: _shifted_correlation(reference_db, estimated_db, lag) for lag in range(-furthest, furthest + 1)}
    best = max(sorted(found, key=abs), key=lambda lag: found[lag])
    before, at, after = found.get(best - 1, -np.inf), found[best], found.get(best + 1, -np.inf)
    bend = before - 2 * at + after
    shift = (before - after) / (2 * bend) if np.isfinite(bend) and bend < 0 else 0.0
    return float(best + shift) / frame_rate * 1000


def loudness_error_db(reference_db: Array, estimated_db: Array) -> float | None:
    """Mean absolute difference of two loudness curves in dB, 0 is perfect; None where empty.

    It cannot tell a wrong level from wrong timing, and rewards a cautious, flat curve.

    Source: the L1 distance of envelopes of T-Foley (Chung et al. 2024), here in dB.
    """
    validate_curves(reference_db, estimated_db)
    return float(np.abs(reference_db - estimated_db).mean()) if reference_db.size else None


def noise_floor_db(reference_db: Array, estimated_db: Array) -> float | None:
    """Level of what sounds where the reference is silent, dBFS, the lower the better; None where it never is.

    Only frames count that have nothing but silence `SILENCE_MARGIN` frames around them, so that a sound that is a
    little early or late is not taken for noise. It cannot tell less than the floor of the curves, hiss from a sound
    that should not be there, or anything of the noise under sound.

    Source: the mean square of ITU-R BS.1770, without its weighting.
    """
    validate_curves(reference_db, estimated_db)
    near = binary_dilation(reference_db > SILENCE_DB, iterations=SILENCE_MARGIN)
    if near.all():
        return None
    return float(10 * np.log10(np.mean(10 ** (estimated_db[~near].astype(np.float64) / 10))))


def category_accuracy(reference: Sequence[str], estimated: Sequence[str]) -> float | None:
    """Share of sounds heard as the category they should be, in [0, 1]; None where there are none.

    It cannot tell timing, and is worth no more than the judge: read it beside the judge's accuracy on real sound.

    Source: fit to category, DCASE 2023 task 7 (Choi et al. 2023).
    """
    if len(reference) != len(estimated):
        raise ValueError(f"expected one estimate per reference, found {len(reference)} and {len(estimated)}")
    return float(np.mean([a == b for a, b in zip(reference, estimated, strict=True)])) if reference else None


def category_divergence(reference: Array, estimated: Array) -> float | None:
    """Kullback-Leibler divergence of what a judge makes of two sounds, in nats: 0 or more, 0 is perfect.

    Of what it hears in the real sound from what it hears in the estimated one; of a set, the mean over its pairs. None
    where there are no categories. It tells being unsure from being wrong, which `category_accuracy` cannot; it cannot
    tell timing, nor anything that the judge does not hear.

    Args:
      reference: [n_categories], the judge's probabilities of the real sound.
      estimated: [n_categories], those of the estimated one; at least `LEAST_PROBABILITY` is taken for each.

    Source: MKL of SpecVQGAN (Iashin and Rahtu 2021), there with another classifier.
    """
    if not reference.size and not estimated.size:
        return None
    validate_probabilities(reference, estimated)
    told = [np.maximum(probabilities, LEAST_PROBABILITY) for probabilities in (reference, estimated)]
    return float(stats.entropy(*told))


def av_align(motion_s: Array, onsets_s: Array, window_s: float = ALIGNED_S) -> float | None:
    """Share of the peaks of motion and onsets of sound that are one event, in [0, 1], 1 is perfect; needs no reference.

    Intersection over union: those of both that lie within `window_s` of each other, each in one pair at most, by all
    there are. None where there are neither, 0 where there are only the ones or the others. Not all that moves sounds,
    and not all that sounds is seen to move: read it beside that of the real sound, which is no ceiling, since one that
    sounds at every motion scores higher.

    Source: Yariv et al., Diverse and Aligned Audio-to-Video Generation (2023), there with optical flow, and pairs that
    may share an event.
    """
    validate_onsets(motion_s, onsets_s)
    if not motion_s.size and not onsets_s.size:
        return None
    n_matched = len(mir_eval.util.match_events(motion_s, onsets_s, window_s))
    return n_matched / (motion_s.size + onsets_s.size - n_matched)


def find_motion_peaks(frames: NDArray[np.uint8], frame_rate: float) -> Array:
    """When a picture changes most, for `av_align`: float64 [n], seconds, in rising order.

    Peaks of the mean difference of one frame to the next. It cannot tell a motion from a cut or a light switched on.

    Args:
      frames: uint8 [n_frames, height, width].
      frame_rate: per second.
    """
    energy = np.array([np.abs(np.subtract(b, a, dtype=np.int16)).mean() for a, b in pairwise(frames)])
    if not energy.size or not energy.std():
        return np.zeros(0)
    peaks, _ = signal.find_peaks(energy, prominence=MOTION_PROMINENCE * energy.std())
    # What changed between two frames changed between their middles.
    return (peaks + 1) / frame_rate


def bits_per_sample(log_probabilities: Array, classes: NDArray[np.integer]) -> float | None:
    """Mean negative log2 probability of what came, in bits: 0 is certainty, log2 of the classes knowing nothing.

    None where there are no samples. It tells how well a sound was foreseen, sample by sample; it cannot tell whether
    what is drawn from the same probabilities sounds right.

    Args:
      log_probabilities: natural logarithms, [n_samples, n_classes].
      classes: [n_samples], in [0, n_classes).

    Source: van den Oord et al., Pixel Recurrent Neural Networks (2016), as bits per dimension.
    """
    if log_probabilities.ndim != 2 or log_probabilities.shape[:1] != classes.shape:
        raise ValueError(
            f"expected [n_samples, n_classes] and [n_samples], found {log_probabilities.shape} and {classes.shape}"
        )
    return float(-log_probabilities[np.arange(len(classes)), classes].mean() / np.log(2)) if classes.size else None


def seam_discontinuity_db(waveform: Array, seams_s: Array, sample_rate: int) -> float | None:
    """How much more the spectrum changes at seams than at any other moment, in dB: about 0 where no seam is heard.

    The change at a moment is the root mean square difference of the spectra, in dB, of what comes just before and just
    after; from the mean of the seams, the median of all other moments is taken. None where there is no seam or no other
    moment. Of one sound it cannot tell a seam from an onset that happens to be there, so take many; and it cannot tell
    a fade that is longer than what it compares.

    Args:
      waveform: float32 [time].
      seams_s: float [n], seconds.
      sample_rate: Hz.

    Source: the log spectral distance of Gray and Markel 1976, as a join cost Vepa, King and Taylor 2002.
    """
    n_samples = round(SPECTRUM_S * sample_rate)
    window = np.hanning(n_samples + 2)[1:-1]
    seams = np.round(np.asarray(seams_s) * sample_rate).astype(int)
    others = np.arange(n_samples, len(waveform) - n_samples + 1, n_samples)
    others = others[np.all(np.abs(others[:, None] - seams) >= 2 * n_samples, axis=1)]
    seams = seams[(seams >= n_samples) & (seams <= len(waveform) - n_samples)]
    if not seams.size or not others.size:
        return None

    def spectra_db(starts: NDArray[np.integer]) -> Array:
        pieces = np.stack([waveform[start : start + n_samples] for start in starts])
        amplitude = 2 * np.abs(np.fft.rfft(pieces * window)) / window.sum()
        return 20 * np.log10(np.maximum(amplitude, 10 ** (SPECTRUM_FLOOR_DB / 20)))

    def changes_db(moments: NDArray[np.integer]) -> Array:
        return np.sqrt(((spectra_db(moments) - spectra_db(moments - n_samples)) ** 2).mean(axis=1))

    return float(changes_db(seams).mean() - np.median(changes_db(others)))


def frechet_distance(reference: Embeddings, estimated: Embeddings) -> float | None:
    """Fréchet distance of two Gaussians fitted to the windows of two sets, 0 or more, 0 is perfect.

    None when a set has fewer than `distances.WINDOWS_PER_DIMENSION` windows per dimension. It grows as the sets
    shrink, so compare only rows with the same n; it knows this judge's embedding alone, so compare with no published
    FAD; it cannot tell timing, nor which video is which.

    Source: Dowson and Landau 1982; as FAD Kilgour et al. 2019.
    """
    value = frechet_distances(reference, estimated, np.ones((1, len(estimated))))[0]
    return float(value) if np.isfinite(value) else None


def kernel_distance(reference: Embeddings, estimated: Embeddings) -> float | None:
    """Squared maximum mean discrepancy of two sets: about 0, also slightly below, for the same distribution; at most 2.

    Unbiased: pairs of windows of one video are left out, so it does not depend on how many videos there are. The kernel
    is Gaussian, as wide as the median distance of two reference windows (1 when all are equal). None when a set has
    fewer than two videos, or than `distances.WINDOWS_PER_DIMENSION` windows per dimension. It knows this judge's
    embedding alone, and cannot tell timing, nor which video is which.

    Source: Gretton et al. 2012, equation 3; as KAD (times 100 there) Chung et al. 2025.
    """
    value = kernel_distances(reference, estimated, np.ones((1, len(estimated))))[0]
    return float(value) if np.isfinite(value) else None


def diversity(estimated: Embeddings, categories: Sequence[str]) -> float | None:
    """Mean distance of two videos of one category in an embedding, over categories: 0 or more, 0 is one and the same.

    None where no category has two videos. Better is what is near that of real sound: one sound for all has none, and so
    has a judge's embedding for all that it finds wholly typical; noise of every kind has more than is right.

    Args:
      estimated: one array per video, of which the mean over its windows counts.
      categories: of each video.

    Source: the pairwise distance of Zhu et al., Toward Multimodal Image-to-Image Translation (2017), there LPIPS.
    """
    if not estimated:
        return None
    value = diversities(estimated, categories, np.ones((1, len(estimated))))[0]
    return float(value) if np.isfinite(value) else None


def evaluate(
    reference_onsets_s: Array,
    estimated_onsets_s: Array,
    reference_db: Array,
    estimated_db: Array,
    *,
    frame_rate: float,
    motion_s: Array | None = None,
) -> dict[str, float | None]:
    """All metrics of one clip that need no judge, by the names of the table's columns.

    The onset metrics are None where there are fewer than three reference onsets, AV-Align where no motion is given. The
    lag is absolute, so that early and late do not cancel out in a mean.
    """
    scores: dict[str, float | None] = {}
    enough = reference_onsets_s.size >= MIN_REFERENCE_ONSETS
    for window_ms in ONSET_WINDOWS_MS:
        found = onset_scores(reference_onsets_s, estimated_onsets_s, window_ms / 1000)
        for name, value in zip(("precision", "recall", "f1"), found, strict=True):
            scores[f"onset_{name}_{window_ms}ms"] = value if enough else None
    scores["loudness_correlation"] = loudness_correlation(reference_db, estimated_db)
    scores["loudness_error_db"] = loudness_error_db(reference_db, estimated_db)
    lag_ms = loudness_lag_ms(reference_db, estimated_db, frame_rate)
    scores["loudness_lag_ms"] = None if lag_ms is None else abs(lag_ms)
    scores["noise_floor_db"] = noise_floor_db(reference_db, estimated_db)
    scores["av_align"] = None if motion_s is None else av_align(motion_s, estimated_onsets_s)
    return scores


def _shifted_correlation(reference_db: Array, estimated_db: Array, lag: int) -> float:
    """Of an estimate taken to be `lag` frames late, over what both then have; -1 where that is constant."""
    n_shared = len(reference_db) - abs(lag)
    early, late = (reference_db, estimated_db) if lag >= 0 else (estimated_db, reference_db)
    value = loudness_correlation(early[:n_shared], late[len(late) - n_shared :])
    return -1.0 if value is None else value
