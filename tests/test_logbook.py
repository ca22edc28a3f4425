"""What a training leaves while it is under way."""

import subprocess

import pandas as pd
import pytest

from soundback import logbook

ROWS = [
    {"step": 5, "loss": 1.0, "validation": 2.0, "learning_rate": 0.1},
    {"step": 9, "loss": 0.5, "validation": 1.0, "learning_rate": 0.05},
]


@pytest.mark.parametrize("git", [True, False])
def test_curves_grow_row_by_row_where_there_is_no_commit_yet_and_no_repository_is_made(tmp_path, monkeypatch, git):
    monkeypatch.chdir(tmp_path)
    if git:
        subprocess.run(["git", "init", "--quiet"], check=True)
    model, plots = tmp_path / "data" / "models" / "drum.keras", tmp_path / "data" / "plots"
    with logbook.open_logbook(model, inputs=[], told=["this"], plots=plots) as book:
        for n_rows in (1, 2):
            book.training.draw(ROWS[:n_rows])
            grown = {
                path.stem: pd.read_csv(path, sep="\t") for path in (plots / logbook.LIVE_PLOTS / "metrics").iterdir()
            }
            for name, table in grown.items():
                assert table["step"].tolist() == [row["step"] for row in ROWS[:n_rows]]
                assert table[name].tolist() == [row[name] for row in ROWS[:n_rows]]
            assert set(grown) == {"loss", "validation", "learning_rate"}
    assert not (tmp_path / ".dvc").exists()
    assert (tmp_path / "data" / "tensorboard" / "drum").is_dir()
    assert not list((tmp_path / "data").glob(".checkpoints/*"))
