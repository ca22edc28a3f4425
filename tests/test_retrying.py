"""Asking again for some failures of a stage that ended well, through DVC, in a clone."""

import pytest

from soundback import schemas
from soundback.errors import ParamsError
from soundback.retrying import parse_statuses, retry
from tests.clones import make_clone

LABELS = {"drum": "Drum", "rain": "Rain"}


def test_statuses_are_failures_of_the_closed_list():
    assert parse_statuses("network, private") == {"network", "private"}
    with pytest.raises(ParamsError, match=r"--status names dead, ok; a video can fail as private, removed"):
        parse_statuses("dead,ok")


def test_a_label_goes_by_its_folder_or_its_name_and_a_wrong_one_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in LABELS:
        (tmp_path / "data" / "videos" / key).mkdir(parents=True)
        schemas.write_table([], schemas.DOWNLOADS, tmp_path / "data" / "videos" / key / "downloads.parquet")
    assert retry(["DRUM", "rain", "drum"], frozenset({"network"}), LABELS) == {"drum": 0, "rain": 0}
    with pytest.raises(ParamsError, match="no label 'drums'; did you mean 'drum'"):
        retry(["drums"], frozenset({"network"}), LABELS)


def test_what_failed_so_is_asked_again_and_dvc_knows_of_it(tmp_path):
    clone = make_clone(tmp_path, profile="smoke")
    # Videos are made in the clone from the seed; some of them are broken on purpose, and stay so.
    clone.run("dvc", "repro", "--single-item", "list_videos@drum", "download_videos@drum")
    table = tmp_path / "data" / "videos" / "drum" / "downloads.parquet"
    before = table.read_bytes()
    statuses = schemas.read_table(table, schemas.DOWNLOADS).column("status").to_pylist()
    failed = next(status for status in statuses if status != "ok")
    printed = clone.run("soundback", "retry", "Drum", "--status", failed)
    assert f"drum: {statuses.count(failed)} asked again." in printed
    assert f"{len(statuses) - statuses.count(failed)} of {len(statuses)} videos need no asking" in printed
    assert table.read_bytes() == before
    printed = clone.run("dvc", "repro", "--single-item", "download_videos@drum")
    assert "didn't change, skipping" in printed
