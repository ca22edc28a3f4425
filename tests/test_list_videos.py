from pathlib import Path

import pytest

from soundback import outputs, schemas
from soundback.errors import SoundbackError, SourceError
from soundback.params import Dataset, DemoSource, TableSource, YouTube8MSource, load_params
from soundback.sources.sampling import split_of
from stages.list_videos import list_videos
from tests.loopback import Page, serve, youtube8m_pages

DATASET = Dataset(videos_per_label=30, seed=1, validation_share=0.2, test_share=0.3)
LABELS = {"drum": "/m/026t6", "drum_by_name": "Drum", "other": "Drumm"}
NO_TABLE = Path("none.csv")
VIDEOS = {f"a{number:03d}": None if number % 10 == 3 else f"{number:011d}" for number in range(40)}


def source_at(site):
    ends = site.endpoints
    return YouTube8MSource(
        kind="youtube8m",
        vocabulary=ends.vocabulary,
        label_index=ends.label_index,
        id_map=ends.id_map,
        watch=ends.watch,
    )


def listed(catalog, pages=None, key="drum", **changes):
    with serve(pages or youtube8m_pages("/m/026t6", "Drum", VIDEOS)) as site:
        dataset = DATASET.model_copy(update=changes)
        list_videos(key, NO_TABLE, catalog, source=source_at(site), labels=LABELS, dataset=dataset)
    return schemas.read_table(catalog, schemas.CATALOG).to_pylist()


def test_a_catalog_holds_what_the_source_says(tmp_path):
    rows = listed(tmp_path / "drum.parquet", videos_per_label=40)
    own_ids = {video_id: own_id for own_id, video_id in VIDEOS.items()}
    assert len(rows) == len({row["video_id"] for row in rows}) == 40
    for row in rows:
        gone = row["video_id"] in VIDEOS
        assert gone or row["video_id"] in own_ids
        assert row["status"] == ("gone" if gone else "ok")
        assert row["address"] == (None if gone else row["video_id"])
        assert (row["label"], row["label_mid"]) == ("Drum", "/m/026t6")
        assert row["split"] == split_of(row["video_id"], validation_share=0.2, test_share=0.3)
        assert (row["reason"] is not None) == gone
    gone = [row for row in rows if row["status"] == "gone"]
    assert len(gone) == 4
    assert gone[0]["reason"].startswith("HTTP 403: AccessDenied Access denied. Anonymous caller")


def test_asking_for_more_keeps_the_rows_there_were(tmp_path):
    small = listed(tmp_path / "small.parquet", videos_per_label=10)
    large = listed(tmp_path / "large.parquet", videos_per_label=30)
    assert len(small) == 10
    assert large[:10] == small


def test_the_same_answers_give_the_same_bytes_on_any_port_by_name_or_mid(tmp_path):
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    listed(first)
    listed(second, key="drum_by_name")
    assert first.read_bytes() == second.read_bytes()
    assert b"127.0.0.1" not in first.read_bytes()


def test_only_the_sample_is_looked_up(tmp_path):
    with serve(youtube8m_pages("/m/026t6", "Drum", VIDEOS)) as site:
        dataset = DATASET.model_copy(update={"videos_per_label": 5})
        list_videos("drum", NO_TABLE, tmp_path / "c", source=source_at(site), labels=LABELS, dataset=dataset)
        assert sum(path.startswith("/i/") for path in site.asked) == 5


def test_the_closing_line_counts(tmp_path, caplog):
    caplog.set_level("INFO")
    listed(tmp_path / "drum.parquet", videos_per_label=50)
    assert caplog.messages[-1] == (
        "40 videos listed under Drum (/m/026t6): 36 ok, 4 gone; 50 were wanted, there are no more"
    )


@pytest.mark.parametrize(
    ("path", "page", "words"),
    [
        ("/vocabulary.csv", Page(b"<html>Sorry</html>"), "not a YouTube-8M vocabulary"),
        ("/vocabulary.csv", Page(status=404), "vocabulary.*HTTP 404"),
        ("/v/026t6.js", Page(status=404), "label index of Drum.*HTTP 404"),
        ("/v/026t6.js", Page(b"broken("), "malformed"),
        ("/i/a0/a001.js", Page(status=503), "id map.*HTTP 503"),
    ],
)
def test_a_source_that_does_not_answer_as_it_must_writes_nothing(tmp_path, path, page, words):
    pages = youtube8m_pages("/m/026t6", "Drum", VIDEOS) | {path: page}
    with pytest.raises(SourceError, match=words):
        listed(tmp_path / "drum.parquet", pages, videos_per_label=40)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_label_writes_nothing(tmp_path):
    with pytest.raises(SourceError, match=r"no label 'Drumm'.*closest are Drum \("):
        listed(tmp_path / "other.parquet", key="other")
    assert list(tmp_path.iterdir()) == []


def test_the_rendered_world_is_listed_like_any_other(tmp_path):
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    source = DemoSource(kind="demo", seed=3, videos_per_label=8, duration_s=3.0)
    key = next(iter(params.labels))
    dataset = DATASET.model_copy(update={"videos_per_label": 5})
    for name in ("a", "b"):
        list_videos(key, NO_TABLE, tmp_path / name, source=source, labels=params.labels, dataset=dataset)
    rows = schemas.read_table(tmp_path / "a", schemas.CATALOG).to_pylist()
    assert len(rows) == 5
    assert {row["label"] for row in rows} == {params.labels[key]}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_big_index_is_sampled_not_walked(tmp_path):
    own_ids = [f"{number:04x}" for number in range(50_000)]
    index = 'p("026t6",[' + ",".join(f'"{own_id}"' for own_id in own_ids) + "]);"

    class AnyId(dict):
        """Answers whatever id is asked for."""

        def get(self, path, default=None):
            own_id = path.rpartition("/")[2].removesuffix(".js")
            return (
                Page(f'i("{own_id}","{own_id:>011}");'.encode())
                if path.startswith("/i/")
                else super().get(path, default)
            )

    pages = youtube8m_pages("/m/026t6", "Drum", {}) | {"/v/026t6.js": Page(index.encode())}
    with serve(pages) as site:
        site.pages = AnyId(site.pages)
        dataset = DATASET.model_copy(update={"videos_per_label": 50})
        list_videos("drum", NO_TABLE, tmp_path / "c", source=source_at(site), labels=LABELS, dataset=dataset)
        assert len(site.asked) == 52
    assert schemas.read_table(tmp_path / "c", schemas.CATALOG).num_rows == 50


def test_a_video_under_two_labels_is_in_both_catalogs_and_in_one_split(tmp_path):
    shared = {"cccc": "sharedvideo"}
    pages = youtube8m_pages("/m/026t6", "Drum", {"aaaa": "ofdrumsonly"} | shared)
    other = youtube8m_pages("/m/0395lw", "Bell", {"bbbb": "ofbellsonly"} | shared)
    vocabulary = pages["/vocabulary.csv"].body + other["/vocabulary.csv"].body.splitlines()[1].replace(b"0", b"1", 1)
    with serve(other | pages | {"/vocabulary.csv": Page(vocabulary)}) as site:
        for key, label in {"drum": "Drum", "bell": "Bell"}.items():
            labels = {key: label}
            list_videos(key, NO_TABLE, tmp_path / key, source=source_at(site), labels=labels, dataset=DATASET)
    drum, bell = (
        {row["video_id"]: row["split"] for row in schemas.read_table(tmp_path / key, schemas.CATALOG).to_pylist()}
        for key in ("drum", "bell")
    )
    assert set(drum) == {"ofdrumsonly", "sharedvideo"}
    assert set(bell) == {"ofbellsonly", "sharedvideo"}
    assert drum["sharedvideo"] == bell["sharedvideo"]


def test_one_answer_that_is_no_answer_is_a_row_with_its_words(tmp_path):
    pages = youtube8m_pages("/m/026t6", "Drum", VIDEOS) | {"/i/a0/a001.js": Page(b"<html>Sorry</html>")}
    rows = {row["video_id"]: row for row in listed(tmp_path / "drum.parquet", pages, videos_per_label=40)}
    assert rows["a001"]["reason"] == "malformed answer of the id map: <html>Sorry</html>"


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (Page(b"<html>Log in to this network</html>"), "malformed answer of the id map: <html>Log in"),
        (Page(b"<Error><Code>AccessDenied</Code></Error>", status=403), "HTTP 403: AccessDenied"),
    ],
)
def test_a_label_of_which_nothing_can_be_had_writes_nothing(tmp_path, page, words):
    pages = youtube8m_pages("/m/026t6", "Drum", VIDEOS)
    pages |= {path: page for path in pages if path.startswith("/i/")}
    with pytest.raises(SourceError, match=f"None of the 30 videos under /m/026t6.*{words}.*Nothing was written"):
        listed(tmp_path / "drum.parquet", pages)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_label_index_writes_nothing(tmp_path):
    with pytest.raises(SourceError, match="None of the 0 videos"):
        listed(tmp_path / "drum.parquet", youtube8m_pages("/m/026t6", "Drum", {}))
    assert list(tmp_path.iterdir()) == []


TWINS = {"abcd": "aaaaaaaaaaa", "aBcd": "AAAAAAAAAAA", "cccc": "bbbbbbbbbbb"}


def test_ids_that_differ_in_case_alone_are_both_listed_where_files_keep_their_case(tmp_path):
    (tmp_path / "a").touch()
    if (tmp_path / "A").exists():
        pytest.skip("this file system takes a for A")
    rows = listed(tmp_path / "data" / "drum.parquet", youtube8m_pages("/m/026t6", "Drum", TWINS))
    assert {row["video_id"] for row in rows} == set(TWINS.values())
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["drum.parquet"]


def test_ids_that_differ_in_case_alone_are_refused_where_files_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "_keeps_case", lambda folder: False)
    with pytest.raises(SoundbackError, match=r"(a{11} and A{11}|A{11} and a{11}) differ in upper and lower case alone"):
        listed(tmp_path / "drum.parquet", youtube8m_pages("/m/026t6", "Drum", TWINS))
    assert list(tmp_path.iterdir()) == []
    listed(tmp_path / "drum.parquet", youtube8m_pages("/m/026t6", "Drum", {"abcd": "aaaaaaaaaaa"}))


def test_a_table_is_listed_like_any_other(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    for name in "ab":
        Path("clips", f"{name}.mp4").write_text(name)
    Path("videos.csv").write_text("address,label\nclips/a.mp4,Drum\nclips/b.mp4,Drum\nclips/c.mp4,Drum\nx.mp4,Bell\n")
    source = TableSource(kind="table")
    for out in ("one", "two"):
        list_videos("d", Path("videos.csv"), Path(out), source=source, labels={"d": "Drum"}, dataset=DATASET)
    rows = schemas.read_table(Path("one"), schemas.CATALOG).to_pylist()
    assert sorted((row["address"] or "", row["status"]) for row in rows) == [
        ("", "gone"),
        ("./clips/a.mp4", "ok"),
        ("./clips/b.mp4", "ok"),
    ]
    assert caplog.messages[-1] == "3 videos listed under Drum: 2 ok, 1 gone; 30 were wanted, there are no more"
    assert Path("one").read_bytes() == Path("two").read_bytes()
