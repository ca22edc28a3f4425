"""Windows of sound and cues are what the whole clip holds there, and are told as predictions would tell them."""

import numpy as np
import pytest

from soundback.cues import N_CURVE_FEATURES, CueSheet, Hearing, Segment, conditioning
from soundback.dataset import Clip
from soundback.errors import DataContractError
from soundback.media.audio import mu_law_encode, read_wav, write_wav
from soundback.params import load_params
from soundback.sounding.clips import (
    Telling,
    add_noise,
    blur_loudness,
    cue_clips,
    lateness,
    put_in_front,
    read_window,
    training_batches,
    validation_windows,
    weaken_hits,
    weigh_hits,
)
from soundback.sounding.sampler import SILENCE
from soundback.sounding.wavenet import CUE_CONTEXT, Window

SAMPLE_RATE, HOP, FRAME_RATE = 2000, 80, 25
CATEGORIES = ("Bell", "Drum")
PARAMS = load_params()
WINDOW = Window(HOP, history_frames=3, n_frames=5)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Knocks of growing loudness in a little noise, and noise that swells."""
    folder, generator = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    time_s = np.arange(2 * SAMPLE_RATE + 33) / SAMPLE_RATE
    knocks = sum(
        (0.2 + 0.1 * place) * np.exp(-40 * (time_s - at)) * np.sin(900 * (time_s - at)) * (time_s >= at)
        for place, at in enumerate((0.31, 0.83, 1.32, 1.71))
    )
    swell = 0.2 * np.sin(np.pi * time_s) ** 2 * generator.normal(size=len(time_s))
    found = []
    for label, waveform in (("Drum", knocks), ("Bell", swell)):
        waveform = waveform + 0.001 * generator.normal(size=len(time_s))
        path = folder / f"{label}.wav"
        write_wav(path, waveform.astype(np.float32), SAMPLE_RATE)
        found.append(Clip(label, 0, label, "train", path, len(waveform)))
    return found


@pytest.fixture(scope="module")
def cued(clips):
    waveforms = (read_wav(clip.path) for clip in clips)
    return cue_clips(clips, Hearing.of(waveforms, sample_rate=SAMPLE_RATE, hop=HOP, cues=PARAMS.cues))


def test_a_window_is_a_slice_of_the_clip_with_the_sound_one_sample_late(cued):
    clip = cued[0]
    classes = mu_law_encode(read_wav(clip.path))
    whole = Segment(0.0, clip.n_frames / FRAME_RATE, "Drum", 1.0)
    told = conditioning(CueSheet(FRAME_RATE, (whole,), clip.loudness_db, clip.hit), CATEGORIES)
    assert clip.n_frames == 50
    for start in (7, 20, 43):
        window = read_window(clip, start, WINDOW, CATEGORIES)
        np.testing.assert_array_equal(window["targets"], classes[start * HOP : (start + 5) * HOP])
        np.testing.assert_array_equal(window["previous"], classes[(start - 3) * HOP - 1 : (start + 5) * HOP - 1])
        inside = told[start - 3 - CUE_CONTEXT : start + 5 + CUE_CONTEXT]
        np.testing.assert_array_equal(window["cues"], inside)
        assert window["cues"].shape == (WINDOW.n_cue_frames, len(CATEGORIES) + N_CURVE_FEATURES)


def test_around_a_clip_there_is_silence_of_which_no_cue_says_anything(cued):
    first = read_window(cued[0], 0, WINDOW, CATEGORIES)
    assert set(first["previous"][: 3 * HOP + 1]) == {SILENCE}
    assert not first["cues"][: 3 + CUE_CONTEXT].any()
    assert first["cues"][3 + CUE_CONTEXT :].any(axis=1).all()
    last = read_window(cued[0], 45, WINDOW, CATEGORIES)
    assert not last["cues"][-CUE_CONTEXT:].any()
    assert last["cues"][-CUE_CONTEXT - 1].any()


def test_hits_are_where_the_knocks_are(cued):
    np.testing.assert_array_equal(np.flatnonzero(cued[0].hit)[-4:], [7, 20, 33, 42])


def test_a_clip_heard_by_its_category_alone_keeps_its_confidence(cued):
    told = cued[1].window_cues(10, 20, CATEGORIES, Telling(confidence=0.8, with_curves=False))
    np.testing.assert_array_equal(told, np.tile(np.float32([0.8, 0, 0, 0, 0, 0]), (10, 1)))


def test_hits_sound_in_their_frames_where_the_knocks_begin(cued):
    # The knocks at 0.31, 0.83, 1.32 and 1.71 s, in samples from the starts of their frames; to 2 ms.
    np.testing.assert_allclose(cued[0].starts[[7, 20, 33, 42]], [60, 60, 0, 60], atol=4)
    assert not cued[0].starts[cued[0].hit == 0].any()


def test_a_window_read_late_has_its_hit_at_the_start_of_the_frame(cued):
    clip = cued[0]
    classes = mu_law_encode(read_wav(clip.path))
    for start, hit_frame in ((18, 20), (20, 20), (22, 20), (31, 33)):
        late = lateness(clip, start, WINDOW)
        assert late == clip.starts[hit_frame]
        window = read_window(clip, start, WINDOW, CATEGORIES, late=late)
        np.testing.assert_array_equal(window["targets"], classes[start * HOP + late : (start + 5) * HOP + late])
        np.testing.assert_array_equal(window["cues"], read_window(clip, start, WINDOW, CATEGORIES)["cues"])
    assert lateness(clip, 26, WINDOW) == 0  # No hit from frame 23 to 30.
    # A window at the end cannot be late: there is no sound left.
    np.testing.assert_array_equal(
        read_window(clip, 45, WINDOW, CATEGORIES, late=30)["targets"], classes[45 * HOP : 50 * HOP]
    )


def test_weakened_hits_keep_their_place_and_most_of_their_strength_but_for_a_few():
    hit = np.zeros(40, np.float32)
    hit[[0, 10, 20, 39]] = 1.0, 0.5, 0.8, 0.3
    generator = np.random.default_rng(1)
    told = np.stack([weaken_hits(hit, generator) for _ in range(500)])
    assert not told[:, hit == 0].any()
    there = told[:, hit > 0]
    assert (there == 0).mean() == pytest.approx(0.05, abs=0.02)
    share = (there / hit[hit > 0])[there > 0]
    assert 0.7 <= share.min() < 0.72
    assert 0.98 < share.max() <= 1.0


def test_blurred_loudness_is_right_on_average_and_off_by_what_was_asked():
    generator = np.random.default_rng(2)
    true = np.full(200, -30, np.float32)
    off = np.stack([blur_loudness(true, 1.5, generator) for _ in range(400)]) + 30
    assert abs(off.mean()) < 0.3
    # A shift of the whole and a noise of its own, 1.5 dB each.
    assert off.std() == pytest.approx(1.5 * np.sqrt(2), rel=0.1)
    np.testing.assert_array_equal(blur_loudness(true, 0.0, generator), true)
    step = np.repeat([-50, -20], 20).astype(np.float32)
    moved = {int(np.argmax(blur_loudness(step, 0.0, generator) > -35)) for _ in range(50)}
    assert moved == {19, 20, 21}


def test_what_is_put_in_front_is_heard_and_told_up_to_the_first_frame_which_counts_more(cued):
    before, example = (read_window(clip, 20, WINDOW, CATEGORIES) for clip in cued)
    spliced = put_in_front(before, example, hit_weight=4.0)
    border = 3 * HOP + 1  # Position i hears sample i - 1.
    np.testing.assert_array_equal(spliced["previous"][:border], before["previous"][:border])
    np.testing.assert_array_equal(spliced["previous"][border:], example["previous"][border:])
    np.testing.assert_array_equal(spliced["cues"][: 3 + CUE_CONTEXT], before["cues"][: 3 + CUE_CONTEXT])
    np.testing.assert_array_equal(spliced["cues"][3 + CUE_CONTEXT :], example["cues"][3 + CUE_CONTEXT :])
    np.testing.assert_array_equal(spliced["targets"], example["targets"])
    np.testing.assert_array_equal(spliced["weights"], [5, 1, 1, 1, 1])


def test_a_cold_start_hears_silence_without_cues(cued):
    params = PARAMS.wavenet.model_copy(update={"cold_start": 0.9999, "history_noise": 0.0, "batch_size": 8})
    (batch,) = training_batches(cued, WINDOW, CATEGORIES, params).take(1)
    assert np.all(batch["previous"][:, : 3 * HOP + 1] == SILENCE)
    assert not np.any(batch["cues"][:, : 3 + CUE_CONTEXT])
    assert np.all(np.any(batch["cues"][:, 3 + CUE_CONTEXT :], axis=(1, 2)))


def test_noise_on_what_is_heard_is_at_most_what_was_asked_and_leaves_the_rest(cued):
    true = read_window(cued[1], 20, WINDOW, CATEGORIES)
    generator = np.random.default_rng(0)
    noisy = [add_noise(true, 3.0, generator) for _ in range(200)]
    rms = [np.sqrt(np.mean((each["previous"] - true["previous"]) ** 2.0)) for each in noisy]
    assert max(rms) < 3.3
    # Drawn evenly from none to the most.
    assert np.mean(rms) == pytest.approx(1.5, abs=0.2)
    for each in noisy:
        np.testing.assert_array_equal(each["targets"], true["targets"])
        np.testing.assert_array_equal(each["cues"], true["cues"])


def test_the_frames_around_a_hit_count_more(cued):
    assert cued[0].hit[20] > 0
    for start, expected in ((17, [1, 1, 6, 6, 6]), (20, [6, 6, 1, 1, 1]), (21, [6, 1, 1, 1, 1]), (22, [1, 1, 1, 1, 1])):
        example = read_window(cued[0], start, WINDOW, CATEGORIES)
        np.testing.assert_array_equal(weigh_hits(example, 5.0)["weights"], expected)
        np.testing.assert_array_equal(example["weights"], np.ones(5))


def test_batches_hold_perturbed_windows_of_all_clips_and_repeat_with_the_seed(cued):
    params = PARAMS.wavenet.model_copy(update={"batch_size": 32, "cue_dropout": 0.25, "confidence_low": 0.6})
    batches = training_batches(cued, WINDOW, CATEGORIES, params)
    cues = np.concatenate([batch["cues"].numpy() for batch in batches.take(12)])
    again = np.concatenate([batch["cues"].numpy() for batch in batches.take(12)])
    np.testing.assert_array_equal(cues, again)
    middle = cues[:, WINDOW.n_cue_frames // 2]
    assert (middle[:, 0] > 0).mean() == pytest.approx(0.5, abs=0.1)
    assert (middle[:, -1] == 0).mean() == pytest.approx(0.25, abs=0.1)
    confidence = middle[:, :2].sum(axis=1)
    assert 0.6 <= confidence.min() < 0.65
    assert 0.95 < confidence.max() <= 1.0


def test_a_share_of_the_crops_is_told_the_cues_as_they_are(cued):
    true = np.concatenate([clip.window_cues(0, clip.n_frames, CATEGORIES) for clip in cued])

    def share_of_true_frames(perturbed):
        told = {"batch_size": 64, "perturbed": perturbed, "cue_dropout": 0.0, "splice": 0.0, "cold_start": 0.0}
        params = PARAMS.wavenet.model_copy(update=told)
        (batch,) = training_batches(cued, WINDOW, CATEGORIES, params).take(1)
        middle = batch["cues"].numpy()[:, WINDOW.n_cue_frames // 2]
        return np.mean([(np.abs(true - one).max(axis=1) == 0).any() for one in middle])

    assert share_of_true_frames(0.0) == 1
    assert share_of_true_frames(0.4) == pytest.approx(0.6, abs=0.15)
    assert share_of_true_frames(1.0) == 0


def test_batches_are_the_same_from_any_number_on(cued):
    params = PARAMS.wavenet.model_copy(update={"batch_size": 3})
    whole = list(training_batches(cued, WINDOW, CATEGORIES, params).take(8).as_numpy_iterator())
    for start in (1, 6):
        late = training_batches(cued, WINDOW, CATEGORIES, params, start).take(2).as_numpy_iterator()
        for ours, theirs in zip(late, whole[start:], strict=False):
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name])
    assert not np.array_equal(whole[0]["previous"], whole[1]["previous"])


def test_validation_windows_cover_each_clip_once_as_it_is(cued):
    windows = list(validation_windows(cued, WINDOW, CATEGORIES))
    assert len(windows) == 2 * (50 // 5)
    classes = np.concatenate([window["targets"][0] for window in windows])
    expected = np.concatenate([mu_law_encode(read_wav(clip.path))[: 50 * HOP] for clip in cued])
    np.testing.assert_array_equal(classes, expected)


def test_clips_shorter_than_a_window_are_left_out_and_none_left_is_said(cued):
    with pytest.raises(DataContractError, match="No training clip is 60 frames long"):
        training_batches(cued, Window(HOP, 3, 60), CATEGORIES, PARAMS.wavenet)
