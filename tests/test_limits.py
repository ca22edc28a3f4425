"""Figures are held to their limits; a limits file says what is wrong with it."""

import pytest

from soundback.errors import ParamsError
from soundback.judging.limits import find_outside, read_limits

FIGURES = {
    "n_videos": 64,
    "rows": {"local_true": {"onset_f1_100ms": {"mean": 0.9, "low": 0.8}, "bits": {"mean": None}}},
}


def test_a_figure_inside_is_not_named_and_one_outside_or_missing_is():
    limits = {
        "rows.local_true.onset_f1_100ms": (0.85, 1.0),
        "n_videos": (60, 64),
        "rows.local_true.bits": (0, 5),
        "rows.paper.onset_f1_100ms": (0, 1),
        "n_videos.mean": (0, 1),
    }
    assert find_outside(FIGURES, limits) == [
        "rows.local_true.bits: not measured, expected 0 to 5",
        "rows.paper.onset_f1_100ms: not measured, expected 0 to 1",
        "n_videos.mean: not measured, expected 0 to 1",
    ]
    assert find_outside(FIGURES, {"rows.local_true.onset_f1_100ms": (0.91, 1)}) == [
        "rows.local_true.onset_f1_100ms: 0.900, expected 0.91 to 1"
    ]


def test_limits_are_read_as_written(tmp_path):
    (tmp_path / "limits.yaml").write_text("rows.real.x: [0, 1.5]\nn_videos: [60, 100]\n")
    assert read_limits(tmp_path / "limits.yaml") == {"rows.real.x": (0.0, 1.5), "n_videos": (60.0, 100.0)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1, 0]\nb: 3\nc: [0, x]\nd: [0, 1]\n", r"\n  a: \[1, 0\]\n  b: 3\n  c: \[0, 'x'\]$"),
        ("", "holds no limits"),
        ("a: [", "is not YAML"),
    ],
)
def test_every_line_that_is_no_limit_is_named(tmp_path, text, said):
    (tmp_path / "limits.yaml").write_text(text)
    with pytest.raises(ParamsError, match=said):
        read_limits(tmp_path / "limits.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match=r"absent\.yaml cannot be read"):
        read_limits(tmp_path / "absent.yaml")
