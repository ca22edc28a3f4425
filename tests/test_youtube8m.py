import csv
import random
import re
from collections import Counter

import pytest

from soundback.errors import SourceError
from soundback.params import YouTube8MSource
from soundback.sources import youtube8m
from soundback.sources.reasons import scrub
from soundback.sources.youtube8m import Label, Listed
from tests.loopback import Page, serve, youtube8m_pages

HEADER = ["Index", "TrainVideoCount", "KnowledgeGraphId", "Name", "WikiUrl", "V1", "V2", "V3", "WikiDescription"]
ROWS = [
    [0, 900, "/m/03bt1gh", "Game", "", "Games", "", "", 'A "game", says\nthe page, is play.'],
    [1, 800, "/m/026t6", "Drum", "", "", "", "", ""],
    [2, 700, "/m/02hnl", "Drum kit", "", "", "", "", ""],
    [3, 600, "/m/0342h", "Guitar", "", "", "", "", ""],
    [4, 500, "/m/04n5f5jl", "", "", "", "", "", "nameless, with an eight-character MID"],
    [5, 400, "/m/0bt9x", "Rock, pop (music) / 'live'", "", "", "", "", ""],
    [6, 300, "/m/0dq3c", "Café", "", "", "", "", ""],
    [7, 200, "/m/0aaaa", "", "", "", "", "", ""],
    [8, 100, "/m/0bbbb", "3", "", "", "", "", "named as another label's index"],
]


@pytest.fixture
def vocabulary_csv(tmp_path):
    path = tmp_path / "vocabulary.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *ROWS])
    return path.read_text(encoding="utf-8")


@pytest.fixture
def vocabulary(vocabulary_csv):
    return youtube8m.parse_vocabulary(vocabulary_csv, source="vocabulary.csv")


def test_the_vocabulary_is_read_without_loss(vocabulary):
    assert [(each.index, each.mid, each.name) for each in vocabulary] == [(row[0], row[2], row[3]) for row in ROWS]


@pytest.mark.parametrize("text", ["", "<html>Sorry</html>", "Index,Name\n0,Game\n", ",".join(HEADER) + "\n"])
def test_what_is_no_vocabulary_is_refused(text):
    with pytest.raises(SourceError, match=r"here\.csv"):
        youtube8m.parse_vocabulary(text, source="here.csv")


@pytest.mark.parametrize("row", ["x,1,/m/0,Name,,,,,", "1,1,,Name,,,,,", "1"])
def test_a_row_that_is_no_label_is_refused_by_its_line(row):
    with pytest.raises(SourceError, match="line 2"):
        youtube8m.parse_vocabulary(",".join(HEADER) + "\n" + row, source="here.csv")


@pytest.mark.parametrize("wanted", ["Drum", "drum", " Drum ", "/m/026t6", "1"])
def test_a_label_goes_by_name_mid_or_index(vocabulary, wanted):
    assert youtube8m.resolve_label(vocabulary, wanted) == Label(1, "/m/026t6", "Drum")


def test_a_nameless_label_goes_by_mid_and_is_shown_by_it(vocabulary):
    assert youtube8m.resolve_label(vocabulary, "/m/0aaaa").display_name == "/m/0aaaa"


def test_names_with_commas_slashes_quotes_and_accents_resolve(vocabulary):
    for row in ROWS:
        if row[3] and row[3] != "3":
            assert youtube8m.resolve_label(vocabulary, row[3]).mid == row[2]


@pytest.mark.parametrize(("wanted", "closest"), [("Gitar", "Guitar"), ("Drums", "Drum"), ("cafe", "Café")])
def test_an_unknown_label_names_the_closest(vocabulary, wanted, closest):
    with pytest.raises(SourceError, match=f"no label '{wanted}'.*closest are {closest} \\(/m/"):
        youtube8m.resolve_label(vocabulary, wanted)


def test_an_ambiguous_label_asks_for_the_mid(vocabulary):
    with pytest.raises(SourceError, match=r"ambiguous.*MID.*Guitar \(/m/0342h\), 3 \(/m/0bbbb\)"):
        youtube8m.resolve_label(vocabulary, "3")


def test_an_empty_label_asks_for_the_mid(vocabulary):
    with pytest.raises(SourceError, match="MID"):
        youtube8m.resolve_label(vocabulary, " ")


def test_asking_for_more_keeps_what_was_drawn_before():
    ids = [f"{number:04x}" for number in range(1000)]
    small, large = (youtube8m.sample_ids(ids, n, seed=1) for n in (300, 500))
    assert large[:300] == small
    assert len(set(large)) == 500


def test_a_sample_depends_neither_on_the_order_of_the_index_nor_on_other_ids():
    ids = [f"{number:04x}" for number in range(200)]
    shuffled = random.Random(0).sample(ids, k=len(ids))
    assert youtube8m.sample_ids(shuffled, 50, seed=1) == youtube8m.sample_ids(ids, 50, seed=1)
    few = youtube8m.sample_ids(ids[:100], 100, seed=1)
    assert [each for each in youtube8m.sample_ids(ids, 200, seed=1) if each in set(few)] == few


def test_another_seed_draws_another_sample():
    ids = [f"{number:04x}" for number in range(200)]
    assert youtube8m.sample_ids(ids, 50, seed=1) != youtube8m.sample_ids(ids, 50, seed=2)


def test_splits_have_their_shares():
    counts = Counter(youtube8m.split_of(f"{n:011d}", validation_share=0.1, test_share=0.2) for n in range(20_000))
    assert counts["test"] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert counts["validation"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_a_larger_share_of_validation_takes_from_training_alone():
    for number in range(2000):
        before, after = (
            youtube8m.split_of(f"{number:011d}", validation_share=share, test_share=0.2) for share in (0.1, 0.3)
        )
        assert before == after or (before, after) == ("train", "validation")


def test_ids_keep_their_case_and_repeated_ones_count_once():
    with serve({"/v/026t6.js": Page(b'p("026t6",["aBcd","abcd","aBcd","ABCD"]);')}) as site:
        ids = youtube8m.read_label_index(Label(1, "/m/026t6", "Drum"), site.endpoints)
    assert ids == ["aBcd", "abcd", "ABCD"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'p("026t6",["aBcd"',
        b'p("026t6",{"a":1});',
        b'p("other",["aBcd"]);',
        b'i("026t6",["aBcd"]);',
        b'p("026t6");',
    ],
)
def test_a_malformed_label_index_is_an_error(body):
    with (
        serve({"/v/026t6.js": Page(body)}) as site,
        pytest.raises(SourceError, match=r"label index of Drum.*malformed"),
    ):
        youtube8m.read_label_index(Label(1, "/m/026t6", "Drum"), site.endpoints)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_label_index_that_is_not_there_is_an_error(status):
    with (
        serve({"/v/026t6.js": Page(b'p("026t6",["aBcd"]);', status=status)}) as site,
        pytest.raises(SourceError, match=f"label index of Drum.*HTTP {status}"),
    ):
        youtube8m.read_label_index(Label(1, "/m/026t6", "Drum"), site.endpoints)


def test_a_body_cut_short_is_asked_for_again_and_then_an_error():
    page = Page(b'p("026t6",["aBcd"]);', cut_at=10)
    with serve({"/v/026t6.js": page}) as site:
        with pytest.raises(SourceError, match="breaks off"):
            youtube8m.read_label_index(Label(1, "/m/026t6", "Drum"), site.endpoints)
        assert len(site.asked) == 3


def test_a_source_that_is_down_is_named():
    with serve({}) as site:
        endpoints = site.endpoints
    with pytest.raises(SourceError, match=re.escape(endpoints.vocabulary) + r" does not answer \(connection refused\)"):
        youtube8m.read_vocabulary(endpoints)


def test_the_id_map_answers_in_the_order_asked():
    videos = {f"a{number:03d}": f"{number:011d}" for number in range(40)}
    with serve(youtube8m_pages("/m/026t6", "Drum", videos)) as site:
        listed = youtube8m.look_up_ids(list(videos), site.endpoints)
    assert listed == [Listed(video_id) for video_id in videos.values()]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (Page(b"<Error><Code>AccessDenied</Code></Error>", status=403), "HTTP 403: AccessDenied"),
        (Page(b"<Error><Code>AccessDenied</Code></Error>", status=200), "HTTP 200: AccessDenied"),
        (Page(b"", status=404), "HTTP 404:"),
        (Page(b'i("nXSc","too short");'), 'malformed answer of the id map: i("nXSc","too short")'),
        (Page(b'i("nXSc","../../../ab");'), "malformed answer"),
        (Page(b'i("nxsc","0123456789a");'), "malformed answer"),
        (Page(b'p("nXSc","0123456789a");'), "malformed answer"),
        (Page(b"<html>Sorry</html>"), "malformed answer"),
    ],
)
def test_an_id_that_leads_to_no_video_is_gone_with_the_sources_words(page, reason):
    with serve({"/i/nX/nXSc.js": page}) as site:
        (listed,) = youtube8m.look_up_ids(["nXSc"], site.endpoints)
    assert listed.video_id == "nXSc"
    assert listed.reason.startswith(reason)


@pytest.mark.parametrize("own_id", ["../x", "", "a" * 300, "nX\0c", "n X", "é"])
def test_a_hostile_id_is_gone_without_being_asked_for(own_id):
    with serve({}) as site:
        (listed,) = youtube8m.look_up_ids([own_id], site.endpoints)
        assert site.asked == []
    assert listed.reason == "not an id of YouTube-8M"


def test_a_video_under_two_ids_counts_once():
    with serve(youtube8m_pages("/m/026t6", "Drum", {"aaaa": "0123456789a", "bbbb": "0123456789a"})) as site:
        listed = youtube8m.look_up_ids(["aaaa", "bbbb"], site.endpoints)
    assert listed == [Listed("0123456789a"), Listed("bbbb", "the same video as aaaa")]


def test_an_id_map_that_fails_calls_no_video_gone():
    with (
        serve({"/i/nX/nXSc.js": Page(status=503)}) as site,
        pytest.raises(SourceError, match=r"id map.*HTTP 503"),
    ):
        youtube8m.look_up_ids(["nXSc"], site.endpoints)


def test_real_endpoints_are_passed_on_as_they_are():
    source = YouTube8MSource(kind="youtube8m", vocabulary="a", label_index="b", id_map="c", watch="d")
    with youtube8m.open_endpoints(source) as endpoints:
        assert (endpoints.vocabulary, endpoints.label_index, endpoints.id_map, endpoints.watch) == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("\x1b[0;31mERROR:\x1b[0m [youtube] abc-_123456: Private video", "Private video"),
        ("HTTPConnection(host='127.0.0.1', port=4242): refused", "HTTPConnection(host='<address>', port): refused"),
        ("see https://a.example/b?c=d, or 10.0.0.1:80", "see <address> or <address>"),
        ("cannot open /home/me/x.mp4: gone", "cannot open <path>: gone"),
        ("object at 0x7f00aa: at 2024-01-02 10:11:12 sharp", "object: at <time> sharp"),
        ("Odd page; please report this issue on  https://x.example , and so on", "Odd page"),
        ("Sign in. Use --cookies for the authentication", "Sign in."),
        ("this and/or that", "this and/or that"),
        ("two\nlines", "two lines"),
        ("", "no reason given"),
    ],
)
def test_reasons_keep_the_words_and_lose_what_differs_between_runs(words, kept):
    assert scrub(words) == kept
