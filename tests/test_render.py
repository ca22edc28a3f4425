"""Scenes as files: what was drawn and sounded comes out again, at its time, in the same bytes."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import av
import numpy as np
import pytest

from soundback.errors import MediaError
from soundback.media.ffmpeg import probe
from soundback.params import DemoSource
from soundback.sources.demo.render import MANIFEST, PLAIN, is_separate, render
from soundback.sources.demo.world import Scene, World

WORLD = World(DemoSource(kind="demo", seed=7, videos_per_label=40, duration_s=2.0))
SCENES = [WORLD.scene(video_id) for video_id in WORLD.videos]


def first_scene(*, separate: bool = False, variable: bool = False, odd: bool = False) -> Scene:
    """The first one that is like this, and not like what is not asked for."""
    wanted = (separate, variable, odd)
    return next(s for s in SCENES if (s.separate, s.variable_frame_rate, bool(s.width % 2)) == wanted)


def pictures_of(path: Path) -> tuple[list[float], np.ndarray]:
    """Time stamps in seconds, and gray pictures [n, height, width]."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    return [float(each.time) for each in decoded], np.stack([each.to_ndarray(format="gray") for each in decoded])


def sound_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([each.to_ndarray().ravel() for each in container.decode(audio=0)])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("odd", [False, True])
def test_what_was_drawn_and_sounded_comes_out_again(odd, tmp_path):
    scene = first_scene(odd=odd)
    render(scene, tmp_path / "video", defect=None)
    times, pictures = pictures_of(tmp_path / "video" / PLAIN)
    assert times == pytest.approx(np.arange(scene.n_frames) / scene.frame_rate)
    drawn = np.stack(list(scene.frames())).astype(float)
    assert pictures.shape == drawn.shape
    assert np.abs(pictures - drawn).mean() < 4
    sound = sound_of(tmp_path / "video" / PLAIN)
    np.testing.assert_array_equal(sound[: len(scene.waveform())], scene.waveform())


def test_pictures_that_a_variable_frame_rate_leaves_out_do_not_move_the_others(tmp_path):
    scene = first_scene(variable=True)
    render(scene, tmp_path / "video", defect=None)
    times, pictures = pictures_of(tmp_path / "video" / PLAIN)
    assert 0.7 * scene.n_frames < len(times) < 0.95 * scene.n_frames
    for time_s, picture in zip(times, pictures, strict=True):
        drawn = [scene.frame(round(time_s * scene.frame_rate) + step).astype(float) for step in (-1, 0, 1)]
        errors = [np.abs(picture - each).mean() for each in drawn]
        assert errors[1] == min(errors)


def test_the_same_scene_gives_the_same_bytes(tmp_path):
    for scene in (first_scene(), first_scene(separate=True)):
        for attempt in ("one", "two"):
            render(scene, tmp_path / attempt / scene.video_id, defect=None)
        once, again = (bytes_of(tmp_path / attempt / scene.video_id) for attempt in ("one", "two"))
        assert once == again


def test_a_separate_video_is_a_manifest_with_picture_and_sound_beside_it(tmp_path):
    scene = first_scene(separate=True)
    assert is_separate(scene, None)
    render(scene, tmp_path / "video", defect=None)
    files = bytes_of(tmp_path / "video")
    assert PLAIN not in files
    manifest = ElementTree.fromstring(files[MANIFEST])
    namespace = "{urn:mpeg:dash:schema:mpd:2011}"
    kinds = [each.attrib["contentType"] for each in manifest.iter(f"{namespace}AdaptationSet")]
    assert kinds == ["video", "audio"]
    for number, kind in enumerate(kinds):
        pieces = sorted(name for name in files if name.startswith(f"stream{number}."))
        # The head, without a number, sorts last.
        joined = tmp_path / f"{kind}.mp4"
        joined.write_bytes(b"".join(files[name] for name in pieces[-1:] + pieces[:-1]))
    assert len(pictures_of(tmp_path / "video.mp4")[0]) == scene.n_frames
    np.testing.assert_array_equal(sound_of(tmp_path / "audio.mp4")[: len(scene.waveform())], scene.waveform())


def test_a_silent_video_has_a_sound_track_of_zeros(tmp_path):
    render(first_scene(), tmp_path / "video", defect="silent")
    assert not sound_of(tmp_path / "video" / PLAIN).any()


def test_a_video_without_sound_has_no_sound_track(tmp_path):
    scene = first_scene(separate=True)
    render(scene, tmp_path / "video", defect="no_audio")
    assert not probe(tmp_path / "video" / PLAIN).has_audio


@pytest.mark.parametrize("defect", ["truncated", "garbage"])
def test_a_corrupt_video_cannot_be_opened(defect, tmp_path):
    render(first_scene(), tmp_path / "video", defect=defect)
    assert (tmp_path / "video" / PLAIN).stat().st_size > 10_000
    with pytest.raises(MediaError, match=PLAIN):
        probe(tmp_path / "video" / PLAIN)


def test_nothing_but_the_video_is_left(tmp_path):
    render(first_scene(), tmp_path / "video", defect=None)
    assert [path.name for path in tmp_path.rglob("*")] == ["video", PLAIN]
