import keras
import numpy as np
import pytest

from soundback import model_files
from soundback.cues import Hearing
from soundback.errors import ModelError, ParamsError
from soundback.media.shards import RowGroup
from soundback.params import Cues
from soundback.params import Spotter as SpotterParams
from soundback.watching import frames, spotter, spotter_teaching
from tests import watched

PARAMS = SpotterParams(
    picture_size=8, channels=(4, 8), hidden=8, context_s=1.0, sees="both", crop_frames=32, double_speed=0.0,
    exposure=0.0,
    steps=10, max_minutes=1, batch_size=2, learning_rate=0.01, patience=99, seed=0,
)  # fmt: skip
CUES = Cues(loudness_window_s=0.16, loudness_floor_db=-60, hit_quantile=0.99, hit_threshold=0.2)
HEARING = Hearing(watched.SAMPLE_RATE, watched.HOP, CUES, hit_scale=1.0)
CARD = {
    "kind": "spotter", "frame_rate": 25, "size": 16, "fit": "stretch",
    "loudness_low_db": -31.0, "loudness_high_db": -29.0, "hit_threshold": 0.3, "params": PARAMS.model_dump(mode="json"),
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return spotter.build_spotter(PARAMS, 25, 16)


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (700, 16, 16), np.uint8)


def raw(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """The network over all frames at once: [n, 2]."""
    return np.asarray(model(frames.shrink(pixels, 8)[None].astype(np.float32)))[0]


@pytest.mark.parametrize("cuts", [[], [1, 2, 3], list(range(64, 700, 64)), [500], [0, 350, 350]])
def test_streaming_equals_the_whole_film_however_it_is_batched(model, film, cuts):
    whole = spotter.finish(raw(model, film), CARD)
    found = spotter.Spotter(model, CARD).predict(iter(np.split(film, cuts)))
    np.testing.assert_allclose(found[0], whole[0], atol=1e-4)
    np.testing.assert_allclose(found[1], whole[1], atol=1e-4)


def test_the_network_never_gets_more_than_a_window_of_a_long_film(model, film):
    watcher = spotter.Spotter(model, CARD)
    lengths = []
    answer = watcher._answer
    watcher._answer = lambda pictures: (lengths.append(len(pictures)), answer(pictures))[1]
    watcher.predict(np.array_split(np.concatenate([film] * 4), 40))
    assert max(lengths) <= spotter.FRAMES_AT_ONCE + 2 * watcher.reach


@pytest.mark.parametrize("context_s", [0.52, 1.0, 1.4])
def test_an_answer_sees_its_whole_context_on_both_sides_and_nothing_beyond(film, context_s):
    keras.utils.set_random_seed(1)
    network = spotter.build_spotter(PARAMS.model_copy(update={"context_s": context_s, "hidden": 32}), 25, 16)
    pixels, changed, place = film[:150], film[:150].copy(), 75
    changed[place] = 255 - changed[place]
    moved = np.flatnonzero(np.abs(raw(network, changed) - raw(network, pixels)).max(axis=1) > 0) - place
    context = round(context_s * 25)
    assert set(range(-context, context + 1)) <= set(moved)
    assert spotter.reach(context_s, 25) == context + 1
    assert max(abs(moved)) <= context + 1


def test_a_film_shorter_than_the_context_and_one_without_frames_get_answers(model, film):
    watcher = spotter.Spotter(model, CARD)
    np.testing.assert_allclose(watcher.predict([film[:3]])[0], spotter.finish(raw(model, film[:3]), CARD)[0], atol=1e-4)
    assert [curve.shape for curve in watcher.predict([])] == [(0,), (0,)]
    assert [len(curve) for curve in watcher.predict([film[:0], film[:1]])] == [1, 1]


def test_loudness_stays_in_the_range_of_training_and_hits_are_sparse(film):
    keras.utils.set_random_seed(2)
    network = spotter.build_spotter(PARAMS, 25, 16)
    network.get_layer("loudness_and_hit").set_weights([np.random.default_rng(0).normal(0, 9, (8, 2)), np.zeros(2)])
    loudness_db, hit = spotter.Spotter(network, CARD).predict([film])
    assert loudness_db.dtype == hit.dtype == np.float32
    assert (loudness_db.min(), loudness_db.max()) == (-31, -29)
    assert 0.0 < np.mean(hit > 0) < 0.5
    assert hit[hit > 0].min() >= 0.3
    assert hit.max() <= 1


def test_a_saved_spotter_says_the_same(tmp_path, model, film):
    model_files.save_model(model, tmp_path / "s.keras", CARD)
    loaded = spotter.Spotter.load(tmp_path / "s.keras")
    assert (loaded.frame_rate, loaded.size, loaded.fit) == (25, 16, "stretch")
    assert (loaded.reach, loaded.loudness_range_db) == (26, (-31.0, -29.0))
    for found, expected in zip(loaded.predict([film]), spotter.Spotter(model, CARD).predict([film]), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_does_not_fit_is_refused(tmp_path, model, film):
    model_files.save_model(model, tmp_path / "c.keras", CARD | {"kind": "classifier"})
    with pytest.raises(ModelError, match="holds a classifier, not a spotter"):
        spotter.Spotter.load(tmp_path / "c.keras")
    with pytest.raises(ModelError, match="trained on frames of 16x16 pixels and was given 12x12"):
        spotter.Spotter(model, CARD).predict([film[:, :12, :12]])
    with pytest.raises(ParamsError, match=r"picture_size \(8\) must divide frames.size \(20\)"):
        spotter.build_spotter(PARAMS, 25, 20)


@pytest.mark.parametrize("context_frames", [1, 2, 12, 25, 26, 50])
def test_dilations_add_up_to_the_context_without_leaving_a_gap(context_frames):
    found = spotter.dilations(context_frames)
    assert sum(found) == context_frames
    # A kernel of 3 leaves no frame out as long as each dilation is at most what is seen already, both sides and itself.
    assert all(dilation <= 2 * sum(found[:i]) + 1 for i, dilation in enumerate(found))


def test_only_clips_with_three_true_hits_are_scored():
    def at(*places: int) -> np.ndarray:
        return np.isin(np.arange(100), places).astype(np.float32)

    assert spotter_teaching.hit_f1([at(10, 50)], [at(10, 50)], 25) is None
    assert spotter_teaching.hit_f1([at(10, 50, 90)], [at()], 25) == 0
    # At 25 frames per second, 2 frames are 80 ms and 3 are 120 ms: one of three is right, both ways.
    assert spotter_teaching.hit_f1([at(10, 50, 90)], [at(12, 53, 93)], 25) == pytest.approx(1 / 3)
    assert spotter_teaching.hit_f1([at(10, 50, 90), at(1, 9)], [at(10, 50, 90), at()], 25) == 1


def test_the_threshold_is_the_one_that_gives_the_best_f1():
    true, probability = np.zeros((2, 100), np.float32)
    true[[10, 40, 70]] = 1
    probability[[10, 40, 70]] = 0.62
    probability[[25, 55, 85]] = 0.42
    chosen = spotter_teaching.choose_threshold([true], [probability], HEARING)
    assert 0.42 < chosen <= 0.62
    assert spotter_teaching.choose_threshold([np.zeros(100)], [probability], HEARING) == CUES.hit_threshold


def test_constant_curves_have_no_correlation_but_an_error(tmp_path):
    group = frames.FrameClip(("v", 0), "Disc", (RowGroup(tmp_path, 0, "v", 0, "Disc", "validation", 0, 4),))
    nothing = np.zeros(4, np.float32)
    steady = frames.HeardClip(group, np.full(4, -40, np.float32), nothing)
    rising = frames.HeardClip(group, np.array([-40, -30, -20, -10], np.float32), nothing)
    answer = (np.array([-38, -28, -22, -12], np.float32), nothing)
    assert spotter_teaching.measure([steady], [answer], 25)["loudness_correlation"] is None
    found = spotter_teaching.measure([steady, rising], [answer, answer], 25)
    assert found["loudness_correlation"] == pytest.approx(np.corrcoef(rising.loudness_db, answer[0])[0, 1])
    assert found["loudness_error_db"] == pytest.approx(((2 + 12 + 18 + 28) / 4 + 2) / 2)
    assert found["hit_f1_100ms"] is None


def test_loudness_jumps_up_at_hits_only_and_falls_as_it_likes():
    loudness_db = np.full(60, -50, np.float32)
    loudness_db[20:25] = -20  # Nothing hits here.
    loudness_db[40:] = np.linspace(-15, -45, 20)
    hit = np.zeros(60, np.float32)
    hit[40] = 0.8
    slowed = spotter.slow_rises(loudness_db, hit, 25)
    np.testing.assert_allclose(slowed[20:25], -50 + 1.6 * np.arange(1, 6), atol=1e-4)
    np.testing.assert_array_equal(np.delete(slowed, slice(20, 25)), np.delete(loudness_db, slice(20, 25)))
