"""The paper's own system hears one thing of a whole video, and makes of each value of its noise one sample."""

from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from scipy.special import softmax

from soundback.cues import N_CURVE_FEATURES, Hearing
from soundback.dataset import Clip, frame_shards
from soundback.errors import ModelError
from soundback.media.audio import mu_law_encode, read_wav, write_wav
from soundback.paper import (
    STRETCH_S,
    PaperSystem,
    cue_globally,
    cut_stretches,
    make_noise,
    relevance_weights,
)
from soundback.params import Params, load_params
from soundback.sounding.clips import cue_clips, training_batches, validation_windows
from soundback.sounding.sampler import SILENCE, Sampler
from soundback.sounding.wavenet import CUE_CONTEXT, Window, build_wavenet
from soundback.watching.frames import list_clips
from tests import watched

PROJECT = Path(__file__).parents[1]
OURS, PAPERS = load_params(PROJECT / "params.yaml"), load_params(PROJECT / "paper" / "params.yaml")
CATEGORIES = ("Bell", "Drum")
FRAME_RATE, HOP = 25, 40
SETTINGS = PAPERS.soundtrack.model_copy(update={"temperature": 0.8, "crossfade_s": 0.16})
FADE = 2
CARD = {"categories": list(CATEGORIES), "sample_rate": FRAME_RATE * HOP, "frame_rate": FRAME_RATE, "hop": HOP}
TINY = PAPERS.wavenet.model_copy(
    update={"layers": 6, "cycles": 2, "residual_channels": 8, "gate_channels": 8, "skip_channels": 8, "batch_size": 8}
)


class BrightIsBell:
    """Stands in for the classifier: bright frames are bells, dark ones drums."""

    categories = CATEGORIES

    def recognise(self, frames):
        bell = frames.mean(axis=(1, 2)) / 255
        return np.stack([bell, 1 - bell], axis=1).astype(np.float32), np.ones(len(frames), bool)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    network = build_wavenet(TINY, n_cues=len(CATEGORIES) + N_CURVE_FEATURES, hop=HOP)
    # Random weights that are loud enough for every input to matter.
    generator = np.random.default_rng(0)
    network.set_weights([weight + generator.normal(0, 0.35, weight.shape) for weight in network.get_weights()])
    return network


@pytest.fixture(scope="module")
def system(network):
    return PaperSystem(BrightIsBell(), Sampler.from_model(network), CARD, params=SETTINGS)


def frames_of(*levels):
    return np.stack([np.full((8, 8), level, np.uint8) for level in levels])


def test_its_params_are_ours_but_for_what_the_paper_has_not():
    for section in set(Params.model_fields) - {"classifier", "wavenet"}:
        assert getattr(PAPERS, section) == getattr(OURS, section), section
    ours_alone = {
        "cue_dropout",
        "cue_noise_db",
        "confidence_low",
        "perturbed",
        "hit_weight",
        "cold_start",
        "splice",
        "history_noise",
    }
    told = PAPERS.wavenet.model_dump(include=ours_alone)
    assert told == dict.fromkeys(ours_alone, 0.0) | {"confidence_low": 1.0}
    assert PAPERS.wavenet.model_dump(exclude=ours_alone) == OURS.wavenet.model_dump(exclude=ours_alone)
    assert (PAPERS.classifier.architecture, PAPERS.classifier.picture_size) == ("paper", 224)


def test_its_pipeline_reads_the_sections_of_its_own_file_alone():
    stages = yaml.safe_load((PROJECT / "paper" / "dvc.yaml").read_text())["stages"]
    assert {file for stage in stages.values() for each in stage["params"] for file in each} == {"paper/params.yaml"}


def test_relevance_weights_are_the_mean_of_what_the_classifier_says_of_all_frames(tmp_path):
    levels = {"b0": np.linspace(100, 250, 75), "d0": np.linspace(90, 5, 70), "d1": np.full(9, 30)}
    filmed = [
        (name, {"b": "Bell", "d": "Drum"}[name[0]], "train", frames_of(*level.astype(np.uint8)))
        for name, level in levels.items()
    ]
    # Row groups of 64 frames: the second one of a clip is shorter, and must not weigh as much.
    watched.write_frames(filmed[:1], tmp_path / "frames" / "bell")
    watched.write_frames(filmed[1:], tmp_path / "frames" / "drum")
    watched.write_duplicates(tmp_path)
    shards = frame_shards(tmp_path / "frames", tmp_path / "duplicates.parquet", ["bell", "drum"])
    found = relevance_weights(BrightIsBell(), list_clips(shards, "train"))
    assert set(found) == {("b0", 0), ("d0", 0), ("d1", 0)}
    for (name, _), weights in found.items():
        bell = (levels[name].astype(np.uint8) / 255).mean()
        np.testing.assert_allclose(weights, [bell, 1 - bell], atol=1e-6)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Clips of knocks, of which a local WaveNet would be told when, and their hearing."""
    folder, generator = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    time_s = np.arange(2 * FRAME_RATE * HOP) / (FRAME_RATE * HOP)
    clips = []
    for number in range(3):
        starts_s = 0.3 * np.arange(1, 6) + 0.05 * number
        knocks = sum(np.exp(-40 * (time_s - at)) * np.sin(900 * (time_s - at)) * (time_s >= at) for at in starts_s)
        path = folder / f"{number}.wav"
        waveform = 0.4 * knocks + 0.001 * generator.normal(size=len(time_s))
        write_wav(path, waveform.astype(np.float32), FRAME_RATE * HOP)
        clips.append(Clip(str(number), 0, CATEGORIES[number % 2], "train", path, len(time_s)))
    waveforms = [read_wav(clip.path) for clip in clips]
    return clips, Hearing.of(waveforms, sample_rate=FRAME_RATE * HOP, hop=HOP, cues=PAPERS.cues)


WEIGHTS = {(str(number), 0): np.float32([share, 1 - share]) for number, share in enumerate((0.9, 0.2, 0.6))}


def test_every_frame_of_every_example_is_told_the_weights_of_its_clip_and_nothing_else(sounds):
    clips, hearing = sounds
    assert all(clip.hit.any() and clip.starts.any() for clip in cue_clips(clips, hearing))
    told = cue_globally(clips, hearing, weights=WEIGHTS)
    window = Window.of(TINY, hop=HOP, n_frames=4)
    classes = {key: mu_law_encode(read_wav(clip.path)) for key, clip in zip(WEIGHTS, clips, strict=True)}
    seen = set()
    for batch in training_batches(told, window, CATEGORIES, TINY).take(12).as_numpy_iterator():
        assert (batch["weights"] == 1).all()
        for cues, previous, targets in zip(batch["cues"], batch["previous"], batch["targets"], strict=True):
            assert cues.shape == (window.n_cue_frames, len(CATEGORIES) + N_CURVE_FEATURES)
            (key,) = [key for key, weights in WEIGHTS.items() if np.array_equal(cues[0, :2], weights)]
            np.testing.assert_array_equal(cues, np.tile([*WEIGHTS[key], 0, 0, 0, 0], (len(cues), 1)))
            # The sound itself, from a border of frames on: nothing moved, added or put in front.
            padded = np.pad(classes[key], (window.history_frames * HOP + 1, 0), constant_values=SILENCE)
            heard = np.append(previous, targets[-1])
            (place,) = [
                place
                for place in range(0, len(padded) - len(heard) + 1, HOP)
                if np.array_equal(padded[place : place + len(heard)], heard)
            ]
            np.testing.assert_array_equal(targets, heard[-len(targets) :])
            seen.add((key, place))
    assert {key for key, _ in seen} == set(WEIGHTS)
    assert len(seen) > 20


def test_validation_is_told_the_same(sounds):
    clips, hearing = sounds
    told = cue_globally(clips[:1], hearing, weights=WEIGHTS)
    windows = list(validation_windows(told, Window.of(TINY, hop=HOP, n_frames=10), CATEGORIES))
    assert len(windows) == 5
    for window in windows:
        np.testing.assert_array_equal(np.unique(window["cues"][0], axis=0), [[*WEIGHTS["0", 0], 0, 0, 0, 0]])


def nucleus(chances, top_p):
    """The likeliest classes that together have `top_p`, at least, made to add up to 1; float64 [n, n_classes]."""
    order = np.argsort(-chances, axis=1, kind="stable")
    sorted_chances = np.take_along_axis(chances, order, axis=1)
    before = sorted_chances.cumsum(axis=1) - sorted_chances
    kept = np.zeros_like(chances)
    np.put_along_axis(kept, order, np.where(before < top_p, sorted_chances, 0), axis=1)
    return kept / kept.sum(axis=1, keepdims=True)


def test_each_sample_is_where_its_value_of_the_noise_meets_what_keras_says(network, system):
    n_frames, seed = 30, 7
    waveform = system.sound(frames_of(250, 0), n_frames=n_frames, seed=seed)
    noise = make_noise(n_frames * HOP, seed=seed)
    assert waveform.shape == noise.shape
    classes = mu_law_encode(waveform)
    history = Window.of(TINY, hop=HOP, n_frames=1).history_frames
    cues = np.tile(np.float32([1, 0, 0, 0, 0, 0]), (n_frames + 2 * CUE_CONTEXT, 1))
    previous = np.append(SILENCE, classes[:-1])
    logits = network((previous[None].astype(np.int32), cues[None])).numpy()[0]
    assert len(logits) == (n_frames - history) * HOP
    assert np.ptp(logits) > 5
    chances = nucleus(softmax(logits.astype(np.float64) / SETTINGS.temperature, axis=1), SETTINGS.top_p).cumsum(axis=1)
    by_hand = (chances > noise[history * HOP :, None]).argmax(axis=1)
    made = classes[history * HOP :]
    below = np.where(made > 0, chances[np.arange(len(made)), made - 1], 0)
    above = chances[np.arange(len(made)), made]
    assert (below - 1e-5 < noise[history * HOP :]).all()
    assert (noise[history * HOP :] < above + 1e-5).all()
    # But for rounding, where a value lies on the border of two classes.
    assert (by_hand == made).mean() > 0.999
    assert len(set(made)) > 50


def test_the_noise_is_uniform_and_every_value_of_it_counts(system, monkeypatch):
    noise = make_noise(40_000, seed=3)
    np.testing.assert_allclose(np.histogram(noise, 10, (0, 1))[0] / len(noise), 0.1, atol=0.01)
    before = system.sound(frames_of(250), n_frames=4, seed=3)
    for place in (0, 61, 4 * HOP - 1):
        altered = make_noise(4 * HOP, seed=3)
        altered[place] = 1 - altered[place]
        monkeypatch.setattr("soundback.paper.make_noise", lambda n, seed, noise=altered: noise[:n])
        changed = np.flatnonzero(system.sound(frames_of(250), n_frames=4, seed=3) != before)
        assert changed.min() == place


def test_a_seed_gives_the_same_waveform_and_another_seed_another(system):
    for make in (system.sound, system.sound_stitched):
        first = make(frames_of(*[250] * 60), n_frames=60, seed=5)
        assert (first.shape, first.dtype) == ((60 * HOP,), np.float32)
        np.testing.assert_array_equal(first, make(frames_of(*[250] * 60), n_frames=60, seed=5))
        assert not np.array_equal(first, make(frames_of(*[250] * 60), n_frames=60, seed=6))


def test_only_the_first_frame_matters(system):
    levels = np.random.default_rng(0).integers(0, 256, 80)
    as_it_was = system.sound(frames_of(250, *levels), n_frames=81, seed=5)
    np.testing.assert_array_equal(as_it_was, system.sound(frames_of(250, *levels[::-1]), n_frames=81, seed=5))
    np.testing.assert_array_equal(as_it_was, system.sound(frames_of(250), n_frames=81, seed=5))
    assert not np.array_equal(as_it_was, system.sound(frames_of(5, *levels), n_frames=81, seed=5))


def test_stitched_only_the_first_frames_of_the_stretches_matter(system):
    levels = np.random.default_rng(0).integers(0, 256, 75)
    levels[[0, 25, 50]] = 250, 5, 250
    as_it_was = system.sound_stitched(frames_of(*levels), n_frames=75, seed=5)
    others = np.random.default_rng(1).integers(0, 256, 75)
    others[[0, 25, 50]] = levels[[0, 25, 50]]
    np.testing.assert_array_equal(as_it_was, system.sound_stitched(frames_of(*others), n_frames=75, seed=5))
    others[25] = 250
    changed = np.flatnonzero(as_it_was != system.sound_stitched(frames_of(*others), n_frames=75, seed=5))
    assert changed.min() >= (25 - FADE) * HOP
    assert changed.max() < (50 + FADE) * HOP
    assert len(changed) > 0.5 * 25 * HOP


def test_stretches_are_tracks_of_their_own_faded_into_each_other_at_equal_power(system):
    """Against a loop by hand: each track alone, its ends under a quarter of a sine."""
    levels = [250] * 25 + [5] * 25 + [250] * 25
    found = system.sound_stitched(frames_of(*levels), n_frames=75, seed=2)
    expected, power = np.zeros(75 * HOP), np.zeros(75 * HOP)
    for first in (0, 25, 50):
        begin, end = max(0, first - FADE), min(75, first + 25 + FADE)
        noise = make_noise((end - begin) * HOP, seed=2, start=first)
        track = system._sound(0 if levels[first] > 128 else 1, noise)
        gain = np.ones(len(track))
        for t in range(2 * FADE * HOP):
            rise = np.sin(np.pi / 2 * t / (2 * FADE * HOP - 1))
            gain[t] *= rise if begin > 0 else 1
            gain[len(track) - 1 - t] *= rise if end < 75 else 1
        expected[begin * HOP : end * HOP] += gain * track
        power[begin * HOP : end * HOP] += gain**2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(power, 1, atol=1e-9)


def test_a_video_of_one_stretch_sounds_as_the_paper_has_it(system):
    frames = frames_of(*[250] * 30)
    whole = system.sound(frames, n_frames=30, seed=4)
    np.testing.assert_array_equal(system.sound_stitched(frames, n_frames=30, seed=4), whole)


def test_sound_may_be_longer_than_the_picture(system):
    waveform = system.sound_stitched(frames_of(*[250] * 40), n_frames=75, seed=0)
    np.testing.assert_array_equal(waveform, system.sound_stitched(frames_of(*[250] * 75), n_frames=75, seed=0))


@pytest.mark.parametrize("n_frames", [1, 12, 37, 38, 63, 125, 1000])
def test_stretches_cover_a_video_and_last_about_a_second(n_frames):
    stretches = cut_stretches(n_frames, FRAME_RATE)
    assert [frame for first, last in stretches for frame in range(first, last)] == list(range(n_frames))
    lengths = [last - first for first, last in stretches]
    assert max(lengths) - min(lengths) <= 1
    assert n_frames < 25 or all(abs(length / FRAME_RATE / STRETCH_S - 1) < 0.5 for length in lengths)


def test_what_it_sees_is_written_as_one_category_throughout(system):
    seen = system.watch([frames_of(200, 3), frames_of(4)])
    (segment,) = seen.sheet.segments
    assert (segment.category, segment.start_s, segment.end_s) == ("Bell", 0.0, 3 / FRAME_RATE)
    assert segment.confidence == pytest.approx(200 / 255)
    assert seen.probabilities.argmax(axis=1).tolist() == [0, 1, 1]
    assert (seen.sheet.n_frames, seen.sheet.hit.any()) == (3, False)


def test_models_of_different_trainings_are_refused(system):
    with pytest.raises(ModelError, match=r"different trainings: categories .*Bell.*Drum.* and .*Rain.*make paper"):
        PaperSystem(BrightIsBell(), system.sampler, CARD | {"categories": ["Rain"]}, params=SETTINGS)
