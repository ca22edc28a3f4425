"""On the demo's own data, the rows that no model makes come out in the order that common sense demands."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from soundback.cues import CueSheet, Hearing, Segment
from soundback.judging.audition import Audition, Sections
from soundback.judging.held_out import Folders
from soundback.media.audio import read_wav
from soundback.params import load_params
from soundback.watching.segments import Watched
from tests.clones import make_clone

# Renders the demo's world, and trains its judge.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STAGES = ("extract_frames", "train_judge")


class KnowsAll:
    """Watches the held-out clips in their order, and writes what is true of each: the controls need no model."""

    def __init__(self, audition: Audition, hearing: Hearing, categories: tuple[str, ...]) -> None:
        self.categories = categories
        self._clips, self._hearing = iter(audition.held_out.clips), hearing

    def watch(self, batches: Iterable[np.ndarray]) -> Watched:
        clip = next(self._clips)
        n_frames = sum(len(batch) for batch in batches)
        loudness_db, hit = (curve[:n_frames] for curve in self._hearing.measure(read_wav(clip.path)))
        n_frames = len(loudness_db)
        probabilities = np.tile(np.float32([name == clip.label for name in self.categories]), (n_frames, 1))
        segment = Segment(0.0, n_frames / self._hearing.frame_rate, clip.label, 1.0)
        sheet = CueSheet(self._hearing.frame_rate, (segment,), loudness_db, hit)
        return Watched(probabilities, np.ones(n_frames, bool), (), sheet)


def judge_controls(root: Path) -> dict[str, dict[str, float | None]]:
    """{row: {column: mean}} of a project's controls."""
    params, data = load_params(root / "params.yaml"), root / "data"
    told = Sections(**{name: getattr(params, name) for name in Sections._fields})
    folders = Folders(data / "videos", data / "audio", data / "frames")
    audition = Audition(folders, data / "duplicates.parquet", data / "models" / "judge.keras", params=told)
    watcher = KnowsAll(audition, audition.hearing, tuple(sorted(params.labels.values())))
    trials = audition.watch(watcher)
    rows = audition.score(trials, watcher.categories, {}, {}).evaluation["rows"]
    return {row: {column: cell["mean"] for column, cell in cells.items()} for row, cells in rows.items()}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    clone = make_clone(tmp_path_factory.mktemp("demo"), profile="demo")
    (clone.root / "dvc.lock").unlink()  # It speaks of data that is not here.
    clone.run("dvc", "repro", *STAGES)
    return judge_controls(clone.root)


def in_order(rows, column, *names):
    """Whether the rows of each name or group of names have clearly less than those of the one before."""
    values = [[rows[name][column] for name in (group if isinstance(group, tuple) else (group,))] for group in names]
    return all(min(more) > max(less) for more, less in pairwise(values))


def test_the_judge_knows_real_sound_whenever_it_sets_in_and_neither_noise_nor_silence(rows):
    real = ("real", "real_shifted", "same_category_swap")
    assert in_order(rows, "category_accuracy", real, "nearest_onset_paste", ("envelope_noise", "silence"))
    assert rows["real"]["category_accuracy"] > 0.9
    assert rows["silence"]["category_accuracy"] < 0.3
    assert in_order(rows, "category_divergence", ("envelope_noise", "silence"), "same_category_swap", "real")


def test_onsets_tell_in_time_from_late_and_late_from_silent(rows):
    assert in_order(rows, "onset_f1_100ms", "real", "nearest_onset_paste", "envelope_noise", "same_category_swap",
                    "real_shifted", "silence")  # fmt: skip
    # Late by 0.2 s, it is in time for who looks no closer than 0.3 s.
    assert rows["real_shifted"]["onset_f1_300ms"] > 0.8
    assert rows["real_shifted"]["onset_f1_50ms"] < 0.1


def test_loudness_tells_its_own_curve_from_a_late_one_and_that_from_anothers(rows):
    assert in_order(rows, "loudness_correlation", "real", "envelope_noise", "real_shifted", "same_category_swap")
    assert in_order(
        rows, "loudness_error_db", "silence", "same_category_swap", "real_shifted", "envelope_noise", "real"
    )
    assert rows["real_shifted"]["loudness_lag_ms"] == pytest.approx(200, abs=20)
    assert rows["real"]["loudness_lag_ms"] == pytest.approx(0, abs=1)
    assert rows["silence"]["loudness_correlation"] is None


def test_distances_tell_real_sound_from_noise_and_know_nothing_of_time(rows):
    for column in ("kernel_distance", "frechet_distance"):
        assert in_order(rows, column, ("envelope_noise", "silence"), ("real", "real_shifted", "same_category_swap"))
    assert rows["silence"]["diversity"] == pytest.approx(0, abs=1e-4)
    assert rows["same_category_swap"]["diversity"] == pytest.approx(rows["real"]["diversity"], rel=0.05)


def test_motion_is_in_time_with_the_real_sound_more_than_with_any_that_is_late_or_anothers(rows):
    assert in_order(rows, "av_align", "real", ("real_shifted", "same_category_swap"), "silence")
