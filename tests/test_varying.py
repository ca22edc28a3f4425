import numpy as np
import tensorflow as tf

from soundback.watching import varying


def varied(pictures: np.ndarray, seed: int, **given: float) -> np.ndarray:
    return varying.vary(pictures, np.random.default_rng(seed), **given)


def test_pictures_are_moved_as_tensorflow_crops_and_resizes():
    rng = np.random.default_rng(0)
    pictures, corners = rng.integers(0, 256, (3, 1, 16, 16), np.uint8), rng.random((3, 4)).astype(np.float32)
    top, bottom, left, right = corners.T
    expected = tf.image.crop_and_resize(
        pictures[:, 0, :, :, None].astype(np.float32), np.stack([top, left, bottom, right], 1), range(3), (16, 16)
    )
    moved, ones = np.empty_like(pictures), np.ones((3, 1), np.float32)
    down, across = (np.linspace(15 * one, 15 * other, 16, axis=1) for one, other in ((top, bottom), (left, right)))
    varying._move(pictures, ones, down.astype(np.float32), across.astype(np.float32), ones[:, 0], 0 * ones[:, 0], moved)
    np.testing.assert_allclose(moved[:, 0], expected[..., 0], atol=0.51)


def test_pictures_vary_by_whole_examples_and_keep_their_order_of_greys_or_turn_it_round():
    ramp = np.broadcast_to(np.arange(60, 180, 10, dtype=np.uint8), (64, 5, 12, 12))
    out = varied(ramp, 0)
    assert out.dtype == np.uint8
    np.testing.assert_allclose(out, np.broadcast_to(out[:, :1, :1], out.shape), atol=1e-3)  # one chance per example
    line = out[:, 0, 0]
    falling = line[:, 0] > line[:, -1]  # mirrored or negative, not both
    assert 0.2 < falling.mean() < 0.8
    assert (np.diff(np.where(falling[:, None], line[:, ::-1], line), axis=1) > 0).all()
    assert np.std(line.mean(axis=1)) > 5
    assert not np.allclose(out, varied(ramp, 1))


def test_without_zoom_contrast_brightness_and_negatives_only_the_mirror_is_left(monkeypatch):
    for share in ("ZOOM", "CONTRAST_JITTER", "BRIGHTNESS_JITTER", "NEGATIVE_SHARE"):
        monkeypatch.setattr(varying, share, 0.0)
    pictures = np.random.default_rng(0).integers(0, 256, (32, 2, 8, 8), np.uint8)
    same = [np.allclose(a, b, atol=1e-2) for a, b in zip(varied(pictures, 3), pictures, strict=True)]
    mirrored = [np.allclose(a, b[..., ::-1], atol=1e-2) for a, b in zip(varied(pictures, 3), pictures, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 5 < sum(same) < 27


def test_exposure_changes_over_time_in_its_share_of_the_examples_and_nowhere_else(monkeypatch):
    for share in ("ZOOM", "CONTRAST_JITTER", "BRIGHTNESS_JITTER", "NEGATIVE_SHARE"):
        monkeypatch.setattr(varying, share, 0.0)
    pictures = np.full((400, 30, 2, 2), 100, np.uint8)
    gain = varied(pictures, 0, exposure=0.4) / pictures
    np.testing.assert_allclose(gain, gain[:, :, :1, :1] * np.ones((2, 2)), rtol=1e-5)
    gain = gain[:, :, 0, 0]
    changed = np.ptp(gain, axis=1) > 1e-3
    assert 0.33 < changed.mean() < 0.47
    np.testing.assert_allclose(gain[~changed], 1, rtol=1e-6)
    assert 1 - varying.EXPOSURE_RANGE <= gain.min() < 0.75 < 1.25 < gain.max() <= 1 + varying.EXPOSURE_RANGE
    stepwise = (np.diff(gain[changed], axis=1) == 0).mean(axis=1) > 0.5
    assert 0.35 < stepwise.mean() < 0.65
    assert (varied(np.full((40, 30, 2, 2), 240, np.uint8), 0, exposure=1.0) <= 255).all()
