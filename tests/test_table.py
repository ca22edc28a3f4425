"""A table of one's own videos: what it may say, what is refused, and the catalog it becomes."""

import csv
import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from soundback.errors import SourceError
from soundback.params import Dataset
from soundback.sources import own_videos, table
from soundback.sources.sampling import split_of
from soundback.sources.table import Row

DATASET = Dataset(videos_per_label=1000, seed=1, validation_share=0.2, test_share=0.3)
HOSTILE = (
    "🥁.mp4",
    "👩‍🚒 fire.mp4",
    "two  words.mp4",
    " .mp4",
    "-rf.mp4",
    "--exec=x.mp4",
    "CON",
    "NUL.mp4",
    "a,b.mp4",
    'say "hi".mp4',
    "#1.mp4",
    "concat:a|b.mp4",
    "http:x.mp4",
    "%03d.mp4",
    "caf\u00e9.mp4",
    "cafe\u0301.mp4",
    "x" * 251 + ".mp4",
)


def write(folder, text, name="videos.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def faults(path):
    with pytest.raises(SourceError) as caught:
        table.read_rows(path)
    return str(caught.value)


def catalog(path, label="Drum", **changes):
    return own_videos.list_label(path, label, dataset=DATASET.model_copy(update=changes))


def make_files(folder, names, label="Drum"):
    """Files whose bytes are their names; returns the rows that list them."""
    rows = []
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
        rows.append(Row(name, label, sha256=hashlib.sha256(name.encode()).hexdigest()))
    return rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_address_and_label_are_enough(tmp_path, encoding, ending):
    lines = ["# comment", "", "# another", "address,label", "a.mp4,Drum", "", "https://x.example/é.mp4,Bell", ",,"]
    rows = table.read_rows(write(tmp_path, ending.join(lines) + ending, encoding=encoding))
    assert rows == (Row("a.mp4", "Drum", line=5), Row("https://x.example/é.mp4", "Bell", line=7))


def test_columns_come_in_any_order_and_as_spreadsheets_leave_them(tmp_path):
    text = '"# one, two",,,\nLabel, Split ,ADDRESS,\nDrum ,test,"a, b.mp4",\n Bell,,b.mp4,\n'
    rows = table.read_rows(write(tmp_path, text))
    assert rows == (Row("a, b.mp4", "Drum", split="test", line=3), Row("b.mp4", "Bell", line=4))


def test_what_is_written_is_read_as_the_same_rows(tmp_path):
    rows = [Row(name, 'a, "label" \'🥁', "test", "ab" * 32, f"Id-{n}") for n, name in enumerate(HOSTILE)]
    rows += [Row("https://x.example/?a=1,2", "#hash")]
    table.write_rows(rows, tmp_path / "videos.csv")
    read = table.read_rows(tmp_path / "videos.csv")
    assert [(each.address, each.label, each.split, each.sha256, each.given_id) for each in read] == [
        (each.address, each.label, each.split, each.sha256, each.given_id) for each in rows
    ]


def test_a_quoted_cell_over_two_lines_is_named_by_its_first(tmp_path):
    text = 'address,label\na.mp4,Drum\n"b\nb.mp4",Drum\nc.mp4,\n'
    assert re.findall(r"line (\d+):", faults(write(tmp_path, text))) == ["3", "5"]


def test_every_fault_is_named_with_its_line_all_at_once(tmp_path):
    lines = [
        "# comment",
        "address,label,split,sha256,video_id",
        "good.mp4,Drum,train,,",
        ",Drum,,,",
        "b.mp4,,,,",
        "c.mp4,Drum,trian,,",
        "d.mp4,Drum,,abc,",
        "e.mp4,Drum,,,../x",
        "ftp://x.example/f.mp4,Drum,,,",
        "https:///f.mp4,Drum,,,",
        f"https://x.example/g.mp4,Drum,,{'0' * 64},",
        "h\0.mp4,Drum,,,",
        "good.mp4,Drum,,,",
        "i.mp4,Drum,,,same",
        "j.mp4,Bell,,,same",
        "good.mp4,Bell,,,another",
        "k.mp4,Drum,,,,surplus",
        "l.mp4,Drum,,,CON",
    ]
    told = faults(write(tmp_path, "\n".join(lines)))
    expected = {
        4: "no address",
        5: "no label",
        6: "no split 'trian'; there are train, validation, test",
        7: "not 64 hexadecimal digits: 'abc'",
        8: "video_id has 1 to 40.*found '../x'",
        9: "http.*found 'ftp://x.example/f.mp4'",
        10: "http.*found 'https:///f.mp4'",
        11: "sha256 is said of files",
        12: r"character that no name should have: 'h\\x00.mp4'",
        13: "same address under the same label as line 3",
        15: "video_id of line 14, but another address",
        16: "same address as line 3, but another video_id",
        17: "more cells than the header",
        18: "names no device; found 'CON'",
    }
    assert f"videos.csv has {len(expected)} fault(s)" in told
    for line, words in expected.items():
        assert re.search(f"^  line {line}: .*{words}", told, re.MULTILINE), (line, told)


def test_many_faults_are_counted_and_the_first_ones_shown(tmp_path):
    told = faults(write(tmp_path, "address,label\n" + "".join(f"{n}.mp4,\n" for n in range(25)))).splitlines()
    assert told[0].endswith("has 25 fault(s):")
    assert told[1:-1] == [f"  line {line}: it has no label" for line in range(2, 22)]
    assert told[-1] == "  and 5 more"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column address and no column label"),
        ("# only comments\n", "no column address"),
        ("adress,label\n", "no column address"),
        ("address;label\na.mp4;Drum\n", "commas between; found 'address;label'"),
        ("address,label,splt\n", "column 'splt'; a table may have address, label, split"),
        ("address,label,label\n", "a column twice"),
        ('address,label\n"a.mp4,Drum\n', "line 2: it is not CSV"),
        ('address,label\nb.mp4,Drum\n"a"b.mp4,Drum\n', "line 3: it is not CSV"),
        (f"address,label\n{'x' * 200_000},Drum\n", "line 2: it is not CSV: field larger than"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, text, words):
    assert words in faults(write(tmp_path, text))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_another_encoding_is_refused_rather_than_misread(tmp_path, encoding):
    assert "not UTF-8" in faults(write(tmp_path, "address,label\né.mp4,Drum\n", encoding=encoding))


def test_a_missing_table_names_the_command_that_writes_it(tmp_path):
    assert "`soundback table FOLDER` writes it" in faults(tmp_path / "none.csv")


def test_an_empty_table_names_the_command_that_fills_it(tmp_path):
    with pytest.raises(SourceError, match=r"no videos yet.*`soundback table FOLDER`"):
        catalog(write(tmp_path, "address,label\n"))


def test_an_unknown_label_names_the_closest(tmp_path):
    with pytest.raises(SourceError, match=r"under the label 'Drumm'\. The closest label is 'Drum'"):
        catalog(write(tmp_path, "address,label\na.mp4,Drum\nb.mp4,Bell\n"), "Drumm")


@pytest.mark.parametrize(
    ("row", "video_id"),
    [
        (Row("a.mp4", "Drum", sha256="0123456789abcdef" + "0" * 48, given_id="mine-1"), "mine-1"),
        (Row("a.mp4", "Drum", sha256="0123456789abcdef" + "0" * 48), "0123456789abcdef"),
        (Row("clips/a.mp4", "Drum"), hashlib.sha256(b"clips/a.mp4").hexdigest()[:16]),
        (Row("./clips//a.mp4", "Drum"), hashlib.sha256(b"clips/a.mp4").hexdigest()[:16]),
        (Row("https://x.example//a", "Drum"), hashlib.sha256(b"https://x.example//a").hexdigest()[:16]),
    ],
)
def test_an_id_is_what_is_given_or_made_of_the_bytes_or_the_address(row, video_id):
    assert row.video_id == video_id


def test_ids_of_hostile_addresses_are_names_of_ordinary_files():
    names = [*HOSTILE, "../x.mp4", "/etc/passwd", "A.mp4", "a.mp4", "https://x.example/../..", "a\\b.mp4"]
    ids = {Row(name, "Drum").video_id for name in names}
    assert len({each.casefold() for each in ids}) == len(names)
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in ids)


def test_a_catalog_row_says_where_a_file_lies_as_no_program_misreads(tmp_path, monkeypatch):
    rows = make_files(tmp_path, [*HOSTILE, "sub/a.mp4", "sub/../b.mp4"])
    table.write_rows(rows, tmp_path / "videos.csv")
    monkeypatch.chdir(tmp_path)
    listed = catalog(Path("videos.csv"))
    assert len(listed) == len(rows)
    by_id = {row["video_id"]: row for row in listed}
    for row in rows:
        address = by_id[row.video_id]["address"]
        assert address == f"./{row.address}"
        assert "://" not in address
        assert Path(address).read_bytes() == row.address.encode()
    assert {(row["label"], row["label_mid"], row["status"], row["reason"]) for row in listed} == {
        ("Drum", "", "ok", None)
    }


def test_addresses_above_the_project_and_on_the_web_stay_what_they_are(tmp_path, monkeypatch):
    project = tmp_path / "project"
    make_files(project, ["../-outside.mp4"])
    path = write(
        project,
        f"address,label\n../-outside.mp4,Drum\n{tmp_path}/-outside.mp4,Drum\nhttps://x.example//a?b=://,Drum\n",
    )
    monkeypatch.chdir(project)
    assert {row["address"] for row in catalog(path.relative_to(project))} == {
        "./../-outside.mp4",
        f"{tmp_path}/-outside.mp4",
        "https://x.example//a?b=://",
    }


def test_a_missing_file_is_a_row_that_says_so_the_same_way_anywhere(tmp_path):
    names = ["gone.mp4", "y" * 300 + ".mp4", "folder", "../above.mp4", "a.mp4/below.mp4", "ok.mp4"]
    make_files(tmp_path, ["ok.mp4", "a.mp4", "folder/x"])
    text = "address,label\n" + "".join(f"{name},Drum\n" for name in [*names, f"{tmp_path}/absolute.mp4"])
    listed = catalog(write(tmp_path, text))
    gone = sorted(row["reason"] for row in listed if row["status"] == "gone")
    expected = ["../above.mp4", "a.mp4/below.mp4", "absolute.mp4", "folder", "gone.mp4", "y" * 300 + ".mp4"]
    assert gone == [f"no such file: {name}"[: own_videos.MAX_REASON_LENGTH] for name in expected]
    assert [row["status"] for row in listed].count("ok") == 1
    assert all(row["address"] is None for row in listed if row["status"] == "gone")


def test_a_file_that_may_not_be_read_is_a_row_that_says_so(tmp_path, monkeypatch):
    table.write_rows(make_files(tmp_path, ["a.mp4"]), tmp_path / "videos.csv")
    # Root may read anything, and tests may run as root.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)
    assert catalog(tmp_path / "videos.csv")[0]["reason"] == "not allowed to read a.mp4"


def test_a_file_that_changed_since_is_named_before_it_is_used(tmp_path):
    rows = make_files(tmp_path, ["a.mp4", "b.mp4", "c.mp4"])
    table.write_rows(rows, tmp_path / "videos.csv")
    catalog(tmp_path / "videos.csv")
    for name in ("b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"new")
    with pytest.raises(SourceError, match=r"2 fault.*\n.*line 5: b.mp4 has changed.*`soundback table`.*\n.*line 6: c"):
        catalog(tmp_path / "videos.csv")


def test_a_file_under_two_names_counts_once_and_under_two_labels_is_the_same_video(tmp_path):
    for name in ("a.mp4", "copy.mp4", "bell.mp4"):
        (tmp_path / name).write_bytes(b"same")
    digest = hashlib.sha256(b"same").hexdigest()
    rows = [Row("a.mp4", "Drum", sha256=digest), Row("copy.mp4", "Drum", sha256=digest)]
    rows += [Row("bell.mp4", "Bell", sha256=digest)]
    table.write_rows(rows, tmp_path / "videos.csv")
    drums = {row["status"]: row for row in catalog(tmp_path / "videos.csv")}
    assert drums["ok"]["video_id"] == digest[:16]
    assert drums["gone"]["reason"] == "the same video as a.mp4"
    assert drums["gone"]["video_id"] == Row("copy.mp4", "").video_id
    assert [row["video_id"] for row in catalog(tmp_path / "videos.csv", "Bell")] == [digest[:16]]


def test_a_split_that_is_written_holds_and_the_id_decides_the_others(tmp_path):
    rows = make_files(tmp_path, [f"{n}.mp4" for n in range(200)])
    rows = [Row(row.address, "Drum", ("validation", "")[n % 2], row.sha256) for n, row in enumerate(rows)]
    table.write_rows(rows, tmp_path / "videos.csv")
    by_id = {row["video_id"]: row["split"] for row in catalog(tmp_path / "videos.csv")}
    for row in rows:
        decided = split_of(row.video_id, validation_share=0.2, test_share=0.3)
        assert by_id[row.video_id] == (row.split or decided)
    assert Counter(by_id.values())["validation"] > 100


def test_a_table_is_sampled_like_any_source_and_grows(tmp_path):
    rows = make_files(tmp_path, [f"{n}.mp4" for n in range(50)])
    table.write_rows(rows, tmp_path / "videos.csv")
    small = catalog(tmp_path / "videos.csv", videos_per_label=10)
    large = catalog(tmp_path / "videos.csv", videos_per_label=30)
    assert len(small) == 10
    assert large[:10] == small
    table.write_rows(list(reversed(rows)), tmp_path / "videos.csv")
    assert catalog(tmp_path / "videos.csv", videos_per_label=30) == large
    assert catalog(tmp_path / "videos.csv", videos_per_label=30, seed=2) != large


def test_another_project_folder_gives_the_same_catalog(tmp_path, monkeypatch):
    made = []
    for name in ("one", "two"):
        rows = make_files(tmp_path / name, [f"clips/{n}.mp4" for n in range(5)])
        table.write_rows(rows, tmp_path / name / "videos.csv")
        monkeypatch.chdir(tmp_path / name)
        made.append(catalog(Path("videos.csv")))
    assert made[0] == made[1]
    assert str(tmp_path) not in str(made)


def test_the_committed_table_is_empty_and_reads(request):
    path = request.config.rootpath / "videos.csv"
    with path.open(encoding="utf-8") as file:
        header = next(row for row in csv.reader(file) if not row[0].startswith("#"))
    assert tuple(header) == table.COLUMNS
