import csv
import random
import re
import threading
import time

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


def test_the_vocabulary_of_the_real_shape_is_read_without_loss(tmp_path):
    """3862 rows, 56 of them nameless, in the proportions of YouTube-8M's own file."""
    random_ = random.Random(0)
    digits = "0123456789abcdefghijklmnopqrstuvwxyz_"
    rows = []
    for index in range(3862):
        mid = f"/m/{index:04d}" + "".join(random_.choices(digits, k=random_.choice([0, 1, 2, 3, 4])))
        name = f"Name {index}" + random_.choice(["", "", " (music)", ", the", "/both", " 'n' roll", " ä", ' "so"'])
        name = "" if index % 69 == 4 else f" {name}" if index == 33 else name
        description = "" if index % 5 == 0 else f'A "{name}",\r\nand more, of é.\n' * 8
        rows.append([index, 788_288 - index, mid, name, "", "Games", "", "", description])
    path = tmp_path / "vocabulary.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    with serve({"/vocabulary.csv": Page(path.read_bytes(), kind="text/csv")}) as site:
        labels = youtube8m.read_vocabulary(site.endpoints)
    assert [(each.index, each.mid, each.name) for each in labels] == [(row[0], row[2], row[3]) for row in rows]
    assert len(labels) == 3862
    assert sum(not each.name for each in labels) == 56
    assert all(youtube8m.resolve_label(labels, each.mid) == each for each in labels[::50])
    assert all(youtube8m.resolve_label(labels, str(each.index)) == each for each in labels[::50])
    assert all(youtube8m.resolve_label(labels, each.name) == each for each in labels[1::50] if each.name)


@pytest.mark.parametrize("text", ["", "<html>Sorry</html>", "Index,Name\n0,Game\n", ",".join(HEADER) + "\n"])
def test_what_is_no_vocabulary_is_refused(text):
    with pytest.raises(SourceError, match=r"here\.csv"):
        youtube8m.parse_vocabulary(text, source="here.csv")


@pytest.mark.parametrize("row", ["x,1,/m/0,Name,,,,,", "1,1,,Name,,,,,", "1", "1,1,/m/../0,Name,,,,,"])
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


def test_two_labels_of_one_name_ask_for_the_mid():
    twins = [Label(0, "/m/0a", "Drums"), Label(1, "/m/0b", "Drums"), Label(2, "/m/0c", "drums")]
    with pytest.raises(SourceError, match=r"ambiguous.*MID: Drums \(/m/0a\), Drums \(/m/0b\)\."):
        youtube8m.resolve_label(twins, "Drums")
    with pytest.raises(SourceError, match=r"ambiguous.*/m/0a.*/m/0b.*/m/0c"):
        youtube8m.resolve_label(twins, "DRUMS")
    assert youtube8m.resolve_label(twins, "drums").mid == "/m/0c"
    assert youtube8m.resolve_label(twins, "/m/0b").index == 1


def test_a_name_with_blanks_around_it_is_shown_without_them(vocabulary):
    nova = Label(9, "/m/0n", " Nova")
    assert youtube8m.resolve_label([*vocabulary, nova], "Nova") == nova
    assert nova.display_name == "Nova"


def test_an_empty_label_asks_for_the_mid(vocabulary):
    with pytest.raises(SourceError, match="MID"):
        youtube8m.resolve_label(vocabulary, " ")


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
        b'p("026t6",["aBcd",5]);',
        b'p("026t6",' + b"[" * 100_000,
        b'p("026t6",["aBcd"]);p("026t6",["aBcd"]);',
    ],
)
def test_a_malformed_label_index_is_an_error(body):
    with (
        serve({"/v/026t6.js": Page(body)}) as site,
        pytest.raises(SourceError, match=r"label index of Drum.*malformed"),
    ):
        youtube8m.read_label_index(Label(1, "/m/026t6", "Drum"), site.endpoints)


VOCABULARY = f"{','.join(HEADER)}\n0,1,/m/026t6,Drum,,,,,\n".encode()
# What is asked of each endpoint, and a page that answers it.
QUESTIONS = {
    "vocabulary": ("/vocabulary.csv", VOCABULARY, youtube8m.read_vocabulary),
    "label index of Drum": (
        "/v/026t6.js",
        b'p("026t6",["nXSc"]);',
        lambda ends: youtube8m.read_label_index(Label(1, "/m/026t6", "Drum"), ends),
    ),
    "id map": ("/i/nX/nXSc.js", b'i("nXSc","0123456789a");', lambda ends: youtube8m.look_up_ids(["nXSc"], ends)),
}
each_question = pytest.mark.parametrize("what", QUESTIONS)


def assert_fails(what, words, n_asked, **faults):
    """The answer with these faults ends in one sentence, after it was asked for so often."""
    path, body, ask = QUESTIONS[what]
    page = Page(**({"body": body} | faults))
    with serve({path: page}) as site, pytest.raises(SourceError) as caught:
        ask(site.endpoints)
    assert re.search(f"The {what} at .*{words}", str(caught.value))
    assert site.asked == [path] * n_asked


@each_question
def test_each_answer_without_fault_is_taken(what):
    path, body, ask = QUESTIONS[what]
    with serve({path: Page(body)}) as site:
        assert len(ask(site.endpoints)) == 1


@each_question
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_source_is_asked_again_and_then_named(what, status):
    assert_fails(what, f"HTTP {status}. Run again later", 1 + youtube8m.RETRIES, status=status)


@pytest.mark.parametrize("what", ["vocabulary", "label index of Drum"])
@pytest.mark.parametrize("status", [403, 404])
def test_an_address_that_is_wrong_is_named_at_once(what, status):
    assert_fails(what, f"HTTP {status}. Check `source`", 1, status=status)


@each_question
def test_a_source_that_falls_silent_is_named(what, monkeypatch):
    monkeypatch.setattr(youtube8m, "TIMEOUT_S", 0.1)
    assert_fails(what, r"does not answer \(timed out\)", 1, chunk_delay_s=0.5)


@each_question
def test_a_body_that_trickles_is_not_waited_for(what, monkeypatch):
    monkeypatch.setattr(youtube8m, "MAX_BODY_S", 0.1)
    started = time.monotonic()
    assert_fails(what, r"trickles: \d+ bytes in 0.1 s", 1, body=QUESTIONS[what][1] + b" " * 10**6, chunk_delay_s=0.05)
    assert time.monotonic() - started < 1


@each_question
def test_a_body_without_end_is_not_kept(what, monkeypatch):
    monkeypatch.setattr(youtube8m, "MAX_BODY_BYTES", 1000)
    assert_fails(what, "larger than 1000 bytes", 1, body=b" " * 2000)


@each_question
def test_a_body_cut_short_is_asked_for_again_and_then_an_error(what):
    assert_fails(what, "breaks off", youtube8m.RETRIES, cut_at=10)


@each_question
def test_a_redirect_loop_is_named(what):
    path = QUESTIONS[what][0]
    assert_fails(what, r"does not answer \(exceeded 30 redirects\)", 31, status=302, location=path)


@each_question
def test_a_redirect_is_followed(what):
    path, body, ask = QUESTIONS[what]
    with serve({path: Page(status=302, location="/elsewhere"), "/elsewhere": Page(body)}) as site:
        assert len(ask(site.endpoints)) == 1


def test_a_fault_that_passes_leaves_no_trace():
    path, body, ask = QUESTIONS["id map"]
    with serve({path: Page(status=503)}) as site:

        class Recovering(dict):
            def get(self, key, default=None):
                return Page(body) if len(site.asked) > 2 else super().get(key, default)

        site.pages = Recovering(site.pages)
        assert ask(site.endpoints) == [Listed("0123456789a")]


def test_a_source_that_is_down_is_named():
    with serve({}) as site:
        endpoints = site.endpoints
    with pytest.raises(SourceError, match=re.escape(endpoints.vocabulary) + r" does not answer \(connection refused\)"):
        youtube8m.read_vocabulary(endpoints)


def test_the_id_map_is_asked_for_many_at_once_but_not_for_all(monkeypatch):
    ask, lock, running, most = youtube8m._get, threading.Lock(), 0, 0

    def gauge(*args, **kwargs):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        try:
            return ask(*args, **kwargs)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(youtube8m, "_get", gauge)
    videos = {f"a{number:03d}": f"{number:011d}" for number in range(100)}
    with serve(youtube8m_pages("/m/026t6", "Drum", videos)) as site:
        youtube8m.look_up_ids(list(videos), site.endpoints)
    assert 4 <= most <= youtube8m.LOOKUPS_AT_ONCE


def test_ids_that_differ_in_case_alone_are_two_videos():
    videos = {"abcd": "aaaaaaaaaaa", "aBcd": "AAAAAAAAAAA"}
    with serve(youtube8m_pages("/m/026t6", "Drum", videos)) as site:
        listed = youtube8m.look_up_ids(list(videos), site.endpoints)
        assert sorted(site.asked) == ["/i/aB/aBcd.js", "/i/ab/abcd.js"]
    assert listed == [Listed("aaaaaaaaaaa"), Listed("AAAAAAAAAAA")]


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
