"""`soundback table`: from a folder LABEL/*.mp4 to a table, a params file and a catalog."""

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from soundback import schemas
from soundback.cli import app
from soundback.errors import ParamsError
from soundback.params import Dataset, TableSource, load_params
from soundback.sources import clip_folder, naming, table
from soundback.sources.own_videos import effective_split
from soundback.sources.table import Row
from stages.list_videos import list_videos
from tests import synthetic

PROJECT = Path(__file__).parents[1]
DATASET = Dataset(videos_per_label=1000, seed=1, validation_share=0.15, test_share=0.15)
SOURCE = TableSource(kind="table")
TABLE = Path("videos.csv")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project as it is cloned, less its code; the tests run in it."""
    (tmp_path / "profiles").mkdir()
    for profile in (PROJECT / "profiles").glob("*.yaml"):
        (tmp_path / "profiles" / profile.name).write_bytes(profile.read_bytes())
    (tmp_path / "params.yaml").write_bytes((PROJECT / "profiles" / "demo.yaml").read_bytes())
    table.write_rows([], tmp_path / "videos.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(folder, **counts):
    """Files whose bytes are their paths: `fill(folder, Drum=3)` makes Drum/0.mp4 to Drum/2.mp4."""
    for label, n in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            (folder / label / f"{number}.mp4").write_text(f"{label}/{number}")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["table", *map(str, arguments)])


def refused(*arguments):
    """One message, exit code 2; returns it."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


def test_a_folder_becomes_a_table_and_a_params_file(project):
    fill(project / "clips", Drum=12, Bell=9)
    result = run("clips")
    assert result.exit_code == 0, result.output
    rows = table.read_rows(project / "videos.csv")
    paths = sorted((project / "clips").glob("*/*"))
    assert [row.address for row in rows] == [path.relative_to(project).as_posix() for path in paths]
    assert [row.sha256 for row in rows] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert [row.label for row in rows] == [path.parent.name for path in paths]
    params = load_params(project / "params.yaml")
    assert isinstance(params.source, TableSource)
    assert params.labels == {"bell": "Bell", "drum": "Drum"}
    assert "12 videos  Drum (drum)" in result.output
    assert "Next: dvc repro" in result.output


def test_all_but_the_labels_is_as_in_the_profile(project):
    fill(project / "clips", Drum=3, Bell=3)
    assert run("clips").exit_code == 0
    written, profile = (yaml.safe_load(Path(name).read_text()) for name in ("params.yaml", "profiles/own.yaml"))
    assert written.pop("labels") != profile.pop("labels")
    assert written == profile
    lines = Path("params.yaml").read_text().splitlines()
    assert [line for line in Path("profiles/own.yaml").read_text().splitlines() if line not in lines] == [
        "  door: Door",
        "  footsteps: Footsteps",
    ]


def test_labels_that_share_a_branch_stay_in_it(project):
    fill(project / "clips", Drum=3, Bell=3)
    run("clips")
    text = (project / "params.yaml").read_text()
    shared = text.replace('  drum: "Drum"\n', '  struck:\n    drum: "Drum"\n')
    (project / "params.yaml").write_text(shared)
    fill(project / "clips", Struck=3, Rain=3)
    assert run("clips").exit_code == 0
    assert load_params(project / "params.yaml").labels == {
        "bell": "Bell",
        "rain": "Rain",
        "struck/drum": "Drum",
        "struck-2": "Struck",
    }


def test_the_catalogs_of_a_folder_of_videos_hold_all_of_them(project):
    for label in ("Drum kit", "🥁"):
        (project / "clips" / label).mkdir(parents=True)
        for number in range(3):
            film = synthetic.Film(duration_s=0.4 + 0.2 * number, events_s=(0.2,))
            film.write(project / "clips" / label / f"-take {number}.mp4")
    fill(project / "clips", Bell=3)
    assert run("clips").exit_code == 0
    labels = load_params(project / "params.yaml").labels
    assert labels == {"bell": "Bell", "drum-kit": "Drum kit", "label": "🥁"}
    rows = []
    for key in labels:
        out = Path(f"data/catalog/{key}/catalog.parquet")
        list_videos(key, TABLE, out, source=SOURCE, labels=labels, dataset=DATASET)
        rows += schemas.read_table(out, schemas.CATALOG).to_pylist()
    assert {(row["label"], row["address"]) for row in rows} == {
        (path.parent.name, f"./{path}") for path in Path("clips").glob("*/*.mp4")
    }
    assert all(row["status"] == "ok" for row in rows)
    # Three videos a label, and yet each split has one of each.
    assert Counter(row["split"] for row in rows) == {"train": 3, "validation": 3, "test": 3}
    for row in rows:
        assert row["video_id"] == hashlib.sha256(Path(row["address"]).read_bytes()).hexdigest()[:16]


def test_only_videos_of_labels_are_listed(project):
    clips = fill(project / "clips", Drum=3, Bell=3)
    for name in ("Drum/._0.mp4", "Drum/notes.txt", "Drum/deep/a.mp4", ".git/a.mp4", "astray.mp4", "Empty/a.wav"):
        (clips / name).parent.mkdir(exist_ok=True)
        (clips / name).touch()
    (clips / "Drum" / "folder.mp4").mkdir()
    for suffix in (".MOV", ".mkv", ".webm", ".avi", ".M4V"):
        (clips / "Drum" / f"a{suffix}").write_text(suffix)
    (clips / "Bell" / "link.mp4").symlink_to(clips / "Drum" / "a.mkv")
    found = clip_folder.find_videos(Path("clips"), Path())
    names = [Path(row.address).relative_to("clips").as_posix() for row in found]
    expected = ["0.mp4", "1.mp4", "2.mp4"]
    assert names == sorted(
        [f"Bell/{name}" for name in [*expected, "link.mp4"]]
        + [f"Drum/{name}" for name in [*expected, "a.MOV", "a.mkv", "a.webm", "a.avi", "a.M4V"]]
    )


def test_a_second_run_changes_nothing_and_a_new_file_adds_its_row_alone(project):
    fill(project / "clips", Drum=20, Bell=20)
    run("clips")
    before = {name: Path(name).read_bytes() for name in ("videos.csv", "params.yaml")}
    assert run("clips").exit_code == 0
    assert before == {name: Path(name).read_bytes() for name in before}
    fill(project / "clips", Drum=21)
    assert run("clips").exit_code == 0
    old, new = (text.splitlines() for text in (before["videos.csv"].decode(), TABLE.read_text()))
    assert [line for line in new if line not in old] == [line for line in new if "Drum/20.mp4" in line]
    assert set(old) < set(new)
    assert Path("params.yaml").read_bytes() == before["params.yaml"]


def test_what_was_written_by_hand_stays(project):
    fill(project / "clips", Drum=4, Bell=4)
    fill(project / "more", Rain=3)
    run("clips")
    rows = list(table.read_rows(TABLE))
    rows[0] = Row(rows[0].address, "Bell", "test", rows[0].sha256, "my-bell")
    rows.append(Row("https://x.example/a", "Bell"))
    table.write_rows(rows, TABLE)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("frame_rate: 25", "frame_rate: 20").replace("  bell:", "  glocke:"))
    (project / "clips" / "Drum" / "3.mp4").unlink()
    assert run("more").exit_code == 0
    result = run("clips")
    assert result.exit_code == 0, result.output
    rows = {row.address: row for row in table.read_rows(TABLE)}
    assert (rows["clips/Bell/0.mp4"].split, rows["clips/Bell/0.mp4"].given_id) == ("test", "my-bell")
    assert {"https://x.example/a", "more/Rain/0.mp4"} < set(rows)
    assert "clips/Drum/3.mp4" not in rows
    params = load_params(Path("params.yaml"))
    assert params.labels == {"drum": "Drum", "glocke": "Bell", "rain": "Rain"}
    assert params.frames.frame_rate == 20


def test_a_file_that_was_replaced_is_another_video_whatever_it_was_called(project):
    fill(project / "clips", Drum=3, Bell=3)
    run("clips")
    before = [replace(row, given_id=f"mine-{n}", split="test") for n, row in enumerate(table.read_rows(TABLE))]
    table.write_rows(before, TABLE)
    (project / "clips" / "Bell" / "1.mp4").write_text("new")
    assert run("clips").exit_code == 0
    after = table.read_rows(TABLE)
    assert [row.given_id for row in after] == ["mine-0", "", "mine-2", "mine-3", "mine-4", "mine-5"]
    assert after[1].video_id == hashlib.sha256(b"new").hexdigest()[:16]
    assert {row.split for row in after} == {"test"}


def test_what_was_built_of_other_labels_is_pruned(project):
    fill(project / "clips", Drum=3, Bell=3)
    for name in ("drum", "waterfall"):
        (project / "data" / "videos" / name).mkdir(parents=True)
    result = run("clips")
    assert "Removed data/videos/waterfall" in result.output
    assert [path.name for path in (project / "data" / "videos").iterdir()] == ["drum"]


def test_settings_of_ones_own_for_another_source_are_kept(project):
    fill(project / "clips", Drum=3, Bell=3)
    mine = Path("params.yaml").read_text().replace("frame_rate: 25", "frame_rate: 20")
    Path("params.yaml").write_text(mine)
    before = TABLE.read_bytes()
    assert "cp params.yaml profiles/NAME.yaml" in refused("clips")
    assert Path("params.yaml").read_text() == mine
    assert TABLE.read_bytes() == before


def test_labels_that_are_not_a_line_each_are_refused_rather_than_mangled(project):
    fill(project / "clips", Drum=3, Bell=3)
    run("clips")
    block = 'labels: # folder name: label, as in videos.csv\n  bell: "Bell"\n  drum: "Drum"\n'
    flow = Path("params.yaml").read_text().replace(block, "labels: {a: A,\nb: B}\n")
    Path("params.yaml").write_text(flow)
    assert load_params(Path("params.yaml")).labels == {"a": "A", "b": "B"}
    with pytest.raises(ParamsError, match="not written a line each"):
        clip_folder.write_params(Path("params.yaml"), Path("params.yaml"), {"Bell", "Drum"})
    assert Path("params.yaml").read_text() == flow


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"Drum": 3, "Bell": 2}, ["at least 3 different videos", "Bell has 2"]),
        ({"Drum": 3}, ["has one label, Drum"]),
    ],
)
def test_too_little_to_learn_from_is_said_at_once(project, counts, words):
    fill(project / "clips", **counts)
    told = refused("clips")
    assert all(each in told for each in words)
    assert table.read_rows(TABLE) == ()
    assert Path("params.yaml").read_bytes() == Path("profiles/demo.yaml").read_bytes()


def test_copies_of_one_video_are_one_video(project):
    clips = fill(project / "clips", Drum=3, Bell=3)
    for number in range(3):
        (clips / "Bell" / f"{number}.mp4").write_text("the same")
    assert "Bell has 1" in refused("clips")


def test_a_folder_that_is_not_built_so_is_refused(project):
    assert "There is no folder none" in refused("none")
    (project / "clips").mkdir()
    assert "no videos as clips/LABEL/NAME.mp4." in refused("clips")
    (project / "clips" / "a.mp4").touch()
    assert "a.mp4 lies in no label's folder" in refused("clips")


@pytest.mark.parametrize("name", [b"Drum/\xff.mp4", b"Drum/a\n.mp4", b"Dr\x1bum/a.mp4", b" /a.mp4"])
def test_a_name_that_no_table_can_hold_is_refused(project, name):
    path = project / "clips" / os.fsdecode(name)
    path.parent.mkdir(parents=True)
    path.touch()
    assert "1 names cannot be written" in refused("clips")


def test_hostile_but_legal_names_pass(project):
    names = ["-rf.mp4", "👩‍🚒.mp4", "CON.mp4", "x" * 251 + ".mp4", "a,b.mp4", '"q".mp4', "#.mp4"]
    for label in ("--help", "é\u00a0 ü"):
        for name in names:
            path = project / "clips" / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{label}{name}")
    assert run("clips").exit_code == 0
    assert sorted(Path(row.address).name for row in table.read_rows(TABLE)) == sorted(names * 2)
    assert load_params(Path("params.yaml")).labels == {"help": "--help", "e-u": "é\u00a0 ü"}


def test_a_folder_elsewhere_is_addressed_as_it_was_said(project, tmp_path_factory):
    elsewhere = fill(tmp_path_factory.mktemp("elsewhere"), Drum=3, Bell=3)
    relative = Path(os.path.relpath(elsewhere))
    for said, address in ((elsewhere, f"{elsewhere}/Bell/0.mp4"), (relative, f"{relative}/Bell/0.mp4")):
        assert run(said).exit_code == 0
        assert table.read_rows(TABLE)[0].address == address
    inside = fill(project / "clips", Drum=3, Bell=3)
    assert run(inside).exit_code == 0
    assert "clips/Bell/0.mp4" in [row.address for row in table.read_rows(TABLE)]


def test_a_table_of_the_project_s_own_folders_lists_each_once(project):
    fill(project, Drum=3, Bell=3)
    for _ in range(2):
        assert run(".").exit_code == 0
    assert len(table.read_rows(TABLE)) == 6


def test_keys_are_names_that_yaml_and_dvc_take_as_they_are():
    labels = ["Drum", "drum!", "DRUM?", "on", "1e3", "2023", "null", "🥁", "🔔", "Ä" * 100, "a_b", "No"]
    keys = naming.name_keys(labels, {})
    assert sorted(keys.values()) == sorted(labels)
    assert yaml.safe_load("\n".join(f"{key}: x" for key in keys)) == dict.fromkeys(keys, "x")
    assert keys["drum"] == "DRUM?"
    assert {"drum-2", "drum-3", "label-on", "label-1e3", "label", "label-2", "label-no"} < set(keys)


def test_a_label_keeps_its_key_when_others_come():
    first = naming.name_keys(["drum!", "🥁"], {})
    second = naming.name_keys(["drum!", "Drum", "🔔", "🥁"], first)
    assert {key: second[key] for key in first} == first


def test_splits_are_moved_only_where_a_label_lacks_one():
    many = [Row(f"{n}.mp4", "Many") for n in range(200)]
    assert clip_folder.fill_splits(many, DATASET) == many
    for n in range(3, 12):
        few = [Row(f"{n}-{each}.mp4", "Few") for each in range(n)]
        filled = clip_folder.fill_splits(few, DATASET)
        had, has = (Counter(effective_split(row, DATASET) for row in rows) for rows in (few, filled))
        assert set(has) == set(schemas.SPLITS)
        assert sum(row.split != "" for row in filled) == len(set(schemas.SPLITS) - set(had))
    given = [Row(f"{n}.mp4", "Given", split="train") for n in range(5)]
    assert clip_folder.fill_splits(given, DATASET) == given
