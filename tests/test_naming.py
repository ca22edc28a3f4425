"""`soundback labels`: many labels at once, in branches that they share."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from soundback.cli import app
from soundback.params import load_params
from soundback.sources.naming import share_branches

PROFILES = Path(__file__).parents[1] / "profiles"
VOCABULARY = [("Game", "/m/g"), ("Drum", "/m/d"), ("", "/m/026"), ("Bell", "/m/b1"), ("bell ", "/m/b2"), ("42", "/m/n")]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(PROFILES / "smoke.yaml", tmp_path / "params.yaml"))


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_labels_share_branches_in_the_order_of_the_vocabulary_and_are_said_so_that_each_is_found() -> None:
    assert share_branches(VOCABULARY, {}, count=6, per_branch=2) == {
        "branch-000/drum": "Drum",
        "branch-000/game": "Game",
        "branch-001/bell": "/m/b1",
        "branch-001/m-026": "/m/026",
        "branch-002/bell": "/m/b2",
        "branch-002/label-42": "42",
    }


def test_more_labels_move_none_and_those_that_were_named_stay_where_they_are() -> None:
    few = share_branches(VOCABULARY, {"drums": "Drum"}, count=3, per_branch=2)
    assert few == {"branch-000/game": "Game", "branch-001/m-026": "/m/026", "drums": "Drum"}
    many = share_branches(VOCABULARY, few, count=6, per_branch=2)
    assert few.items() <= many.items()
    assert len(many) == 6


def test_labels_of_one_name_in_a_branch_have_folders_of_their_own() -> None:
    assert len(share_branches(VOCABULARY, {}, count=6, per_branch=6)) == 6


def test_params_name_the_first_labels_of_the_source_and_say_all_else_as_before(params: Path) -> None:
    before = load_params(params)
    ended = run("labels", 4, "--per-branch", 3, "--params", params)
    assert ended.exit_code == 0, ended.output
    after = load_params(params)
    assert len(after.labels) == 4
    assert after.model_copy(update={"labels": before.labels}) == before
    again = params.read_bytes()
    assert run("labels", 4, "--per-branch", 3, "--params", params).exit_code == 0
    assert params.read_bytes() == again


def test_a_table_names_its_own_labels(params: Path) -> None:
    shutil.copy(PROFILES / "own.yaml", params)
    ended = run("labels", 4, "--params", params)
    assert ended.exit_code == 2
    assert "soundback table" in ended.output
