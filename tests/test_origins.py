from urllib.parse import urlsplit

import requests

from soundback.params import DemoSource, TableSource, YouTube8MSource
from soundback.sources.origins import identify, open_base

TABLE = TableSource(kind="table")
DEMO = DemoSource(kind="demo", seed=3, videos_per_label=4, duration_s=3.0)
YOUTUBE = YouTube8MSource(kind="youtube8m", vocabulary="a", label_index="b", id_map="c", watch="https://w.example/?v=")


def test_what_leads_to_other_bytes_is_told_apart():
    sources = [
        TABLE,
        DEMO,
        DEMO.model_copy(update={"seed": 4}),
        DEMO.model_copy(update={"duration_s": 4.0}),
        YOUTUBE,
        YOUTUBE.model_copy(update={"watch": "https://other.example/?v="}),
    ]
    told = [repr(sorted(identify(source).items())) for source in sources]
    assert len(set(told)) == len(sources)


def test_where_youtube8m_is_asked_for_ids_leads_to_no_other_bytes():
    moved = YOUTUBE.model_copy(update={"vocabulary": "x", "label_index": "y", "id_map": "z"})
    assert identify(moved) == identify(YOUTUBE)


def test_a_table_s_addresses_stand_for_themselves():
    with open_base(TABLE) as base:
        assert base == ""


def test_ids_are_appended_to_the_address_of_youtube():
    with open_base(YOUTUBE) as base:
        assert base == "https://w.example/?v="


def test_the_rendered_world_is_served_while_it_is_open():
    with open_base(DEMO) as base:
        assert urlsplit(base).hostname == "127.0.0.1"
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(f"{base}no_such_video", timeout=5).status_code == 404
            root = base.removesuffix("/watch?v=")
            assert "Drum" in session.get(f"{root}/vocabulary.csv", timeout=5).text
