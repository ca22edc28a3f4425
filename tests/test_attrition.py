"""What was lost, why, and since when: every wanted video is counted once, as the trainings count them."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from soundback import attrition, dataset, pinned, schemas
from soundback.attrition import Tables
from soundback.cli import app
from soundback.errors import DataContractError, SoundbackError
from soundback.judging import report
from tests import heard

PROJECT = Path(__file__).parents[1]
LABELS = {"drum": "/m/026t6", "bell": "Bell"}
NAMES = {"drum": "Drum", "bell": "Bell"}
WORDS = {
    "private": "Private video. Sign in if you've been granted access to this video",
    "removed": "HTTP 403: AccessDenied Access denied.",
    "corrupt": "the video is not a video or sound file, or its head is damaged.",
    "silent": "Never louder than -60 dBFS.",
}


def clip(video_id, key, status, clip_index=0, split="train", **more):
    row = {"video_id": video_id, "clip_index": clip_index, "label": NAMES[key], "split": split, "status": status}
    return row | {"reason": WORDS.get(status)} | ({"path": f"{video_id}_00.wav", "n_samples": 9} | more)


def write(data, key, *, downloads=None, audio=None, listed=()):
    """The tables of a label: {video_id: status}, or a list of statuses, one for each clip."""
    for kind, schema, statuses in (
        ("videos", schemas.DOWNLOADS, downloads),
        ("audio", schemas.AUDIO, audio),
    ):
        if statuses is not None:
            rows = [
                clip(video_id, key, status, index)
                for video_id, given in statuses.items()
                for index, status in enumerate([given] if isinstance(given, str) else given)
            ]
            rows = [{name: value for name, value in row.items() if name in schema.names} for row in rows]
            name = "downloads.parquet" if kind == "videos" else "audio.parquet"
            schemas.write_table(rows, schema, data / kind / key / name)
    if listed:
        rows = [
            {"video_id": video_id, "address": video_id, "label": NAMES[key], "label_mid": "/m/0", "split": "train",
             "status": status, "reason": WORDS.get(status)}
            for video_id, status in listed
        ]  # fmt: skip
        schemas.write_table(rows, schemas.CATALOG, data / "catalog" / key / "catalog.parquet")


def write_duplicates(data, *pairs):
    """(video, the one it resembles)."""
    rows = [
        {"video_id": video, "clip_index": 0, "label": "Drum", "split": "train", "of_video_id": of, "of_clip_index": 0,
         "of_label": "Bell", "of_split": "test", "by": "picture", "distance": 0.1}
        for video, of in pairs
    ]  # fmt: skip
    schemas.write_table(rows, schemas.DUPLICATES, data / "duplicates.parquet")


@pytest.fixture
def data(tmp_path):
    """Drum: 3 usable of 10 wanted. Bell: 1 of 4. `both` is under both labels, `copy` resembles one of Bell's."""
    data = tmp_path / "data"
    drum = dict.fromkeys(("a", "b", "halved", "quiet", "both", "copy"), "ok")
    write(
        data,
        "drum",
        downloads={**drum, "halved": ["corrupt", "ok"], "p": "private", "q": "private", "r": "removed"},
        audio={**drum, "halved": ["ok"], "quiet": "silent"},
    )
    write(data, "bell", downloads={"both": "ok", "x": "ok", "y": "corrupt"}, audio={"both": "ok", "x": "ok"})
    write_duplicates(data, ("copy", "x"))
    return data


@pytest.fixture
def accounts(data):
    return {account.label: account for account in attrition.draw_up(Tables.of(data), LABELS, wanted=10)}


def test_every_wanted_video_is_counted_once(accounts):
    drum, bell = accounts["Drum"], accounts["Bell"]
    assert (drum.wanted, drum.had, drum.usable) == (10, 6, 3)
    assert drum.lost == {
        "private": 2,
        "duplicate": 1,
        "removed": 1,
        "several_labels": 1,
        "silent (sound)": 1,
        "unlisted": 1,
    }
    assert (bell.wanted, bell.had, bell.usable) == (10, 2, 1)
    assert bell.lost == {"unlisted": 7, "corrupt": 1, "several_labels": 1}
    for account in accounts.values():
        assert account.usable + sum(account.lost.values()) == account.wanted


def test_the_usable_videos_are_those_that_the_trainings_take(data, accounts):
    clips = dataset.audio_clips(data / "audio", data / "duplicates.parquet", LABELS)
    taken = {label: {clip.video_id for clip in clips if clip.label == label} for label in NAMES.values()}
    assert {label: len(ids) for label, ids in taken.items()} == {
        label: account.usable for label, account in accounts.items()
    }
    fates = attrition.follow_videos(Tables.of(data), LABELS)
    for key, label in NAMES.items():
        assert {video_id for video_id, fate in fates[key].items() if fate.step is None} == taken[label]


def test_the_source_is_quoted_for_every_cause(accounts):
    drum = accounts["Drum"]
    assert drum.words["private"] == WORDS["private"]
    assert drum.words["removed"] == WORDS["removed"]
    assert drum.words["silent (sound)"] == WORDS["silent"]
    assert drum.words["duplicate"] == "like x of Bell, test split"
    assert "bell, drum" in drum.words["several_labels"]
    assert drum.words["unlisted"] == "the source lists 9 videos of Drum"
    assert set(drum.words) == set(drum.lost)


def test_without_a_number_of_wanted_videos_those_listed_are_wanted(data):
    assert [account.wanted for account in attrition.draw_up(Tables.of(data), LABELS)] == [3, 9]


def test_what_no_table_speaks_of_yet_is_pending(tmp_path):
    write(tmp_path, "drum", listed=[("a", "ok"), ("b", "ok"), ("r", "removed")])
    write(tmp_path, "bell", downloads={"x": "ok", "y": "corrupt"})
    bell, drum = attrition.draw_up(Tables.of(tmp_path), LABELS)
    assert (drum.label, drum.had, drum.usable, drum.lost) == ("Drum", 0, 0, {"pending": 2, "removed": 1})
    assert (bell.had, bell.usable, bell.lost) == (1, 0, {"corrupt": 1, "pending": 1})


def test_an_empty_data_folder_has_no_videos(tmp_path):
    for account in attrition.draw_up(Tables.of(tmp_path), LABELS, wanted=5):
        assert (account.wanted, account.usable, account.lost) == (5, 0, {"unlisted": 5})


def test_a_file_that_is_no_table_is_named(data):
    (data / "videos" / "drum" / "downloads.parquet").write_text("not a table")
    with pytest.raises(DataContractError, match=r"drum/downloads\.parquet is no table"):
        attrition.draw_up(Tables.of(data), LABELS)


def test_tables_of_an_older_schema_are_read(data):
    import pyarrow.parquet as pq

    path = data / "videos" / "drum" / "downloads.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["picture_print", "sha256"]), path)
    assert attrition.draw_up(Tables.of(data), LABELS)[1].usable == 3


def test_all_labels_together_are_the_sum(accounts):
    together = attrition.summarise(list(accounts.values()))
    assert (together.wanted, together.had, together.usable) == (20, 8, 4)
    assert together.lost["several_labels"] == 2
    assert next(iter(together.lost)) == "unlisted"


def printed(renderable, width=200):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_the_table_says_it_all(accounts):
    text = printed(attrition.as_table(list(accounts.values())))
    line = next(line for line in text.splitlines() if line.strip().startswith("Drum"))
    assert line.split()[:5] == ["Drum", "10", "6", "3", "7"]
    assert "2 private, 1 duplicate, 1 removed" in line
    assert re.search(rf"2\s+private\s+{re.escape(WORDS['private'])}", text)


def test_words_that_look_like_markup_are_printed_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setitem(WORDS, "private", "[bold]Sorry[/bold] [youtube] [/]")
    write(tmp_path, "drum", downloads={"p": "private"}, audio={})
    text = printed(attrition.as_table(attrition.draw_up(Tables.of(tmp_path), {"drum": "Drum"})))
    assert "[bold]Sorry[/bold] [youtube] [/]" in text


def test_the_plot_shows_every_video_of_every_label(accounts):
    figure = attrition.draw(list(accounts.values()))
    (axes,) = figure.axes
    widths = {}
    for bars in axes.containers:
        for place, bar in enumerate(bars):
            widths.setdefault(place, {})[bars.get_label()] = bar.get_width()
    for place, account in enumerate(accounts.values()):
        drawn = {cause: n for cause, n in widths[place].items() if n}
        assert drawn == {"usable": account.usable, **account.lost}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(widths[0])


def test_the_plot_is_the_same_every_time_and_says_nothing_of_the_time(accounts, tmp_path):
    for suffix in ("png", "svg"):
        first, second = (tmp_path / f"{name}.{suffix}" for name in ("first", "second"))
        for path in (first, second):
            attrition.write_plot(list(accounts.values()), path)
        if suffix == "png":
            assert first.read_bytes() == second.read_bytes()
            with Image.open(first) as picture:
                assert set(picture.info) <= {"dpi"}
        else:
            assert b"dc:date" not in first.read_bytes()


def run(*arguments):
    return CliRunner().invoke(app, ["attrition", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def params(tmp_path):
    values = yaml.safe_load((PROJECT / "profiles" / "smoke.yaml").read_text())
    values["labels"] = LABELS
    values["dataset"]["videos_per_label"] = 10
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_command_prints_and_draws(data, params, tmp_path):
    result = run("--data", data, "--params", params, "--plot", tmp_path / "plot.png")
    assert result.exit_code == 0, result.output
    assert re.search(r"all\s+20\s+8\s+4\s+16", result.output)
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size[0] > 500
    assert run("--data", data, "--params", params, "--plot", tmp_path / "plot.png").exit_code == 2
    refused = run("--data", data, "--params", params, "--plot", tmp_path / "plot.docx")
    assert (refused.exit_code, ".png" in refused.output) == (2, True)


def test_the_report_shows_the_books(accounts):
    trials = heard.make_trials()
    page = report._page(heard.make_results(trials), [], heard.SAMPLE_RATE, list(accounts.values()))
    section = page[page.index('id="attrition"') : page.index('id="examples"')]
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in section.split("<tr>")[1:]]
    titles, *lines = rows
    assert titles[:4] == ["Label", "wanted", "had", "usable"]
    for account, line in zip([*accounts.values(), attrition.summarise(list(accounts.values()))], lines, strict=True):
        causes = {
            cause.replace(" ", "_").replace("_(", " ("): int(n) for cause, n in zip(titles[4:], line[4:], strict=True)
        }
        assert line[:4] == [account.label, *map(str, (account.wanted, account.had, account.usable))]
        assert {cause: n for cause, n in causes.items() if n} == account.lost
    assert html.escape(WORDS["private"]) in section.replace("&#39;", "&#x27;")
    assert "<img" in section
    assert "alt=" in section


def test_a_page_without_books_has_no_section_for_them():
    trials = heard.make_trials()
    assert 'id="attrition"' not in report._page(heard.make_results(trials), [], heard.SAMPLE_RATE)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A project whose dvc.lock pins tables of Drum, at two revisions: one without, one with Bell."""
    root = tmp_path_factory.mktemp("project")

    def call(*command):
        subprocess.run(command, cwd=root, check=True, capture_output=True)

    call("git", "init", "--quiet")
    call("git", "config", "user.name", "test")
    call("git", "config", "user.email", "test@localhost")
    call(sys.executable, "-m", "dvc", "init", "--quiet")
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (root / ".gitignore").write_text("/data/\n")
    for number, keys in enumerate((["drum"], ["drum", "bell"])):
        outs = [f"data/{kind}/{key}" for key in keys for kind in ("videos", "audio")]
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": {"cmd": "true", "outs": outs}}}))
        everything = dict.fromkeys("abcd", "ok")
        write(root / "data", "drum", downloads=everything | {"p": "private"}, audio=everything)
        if "bell" in keys:
            write(root / "data", "bell", downloads={"x": "ok", "y": "network"}, audio={"x": "ok"})
        call(sys.executable, "-m", "dvc", "commit", "--force", "--quiet")
        call("git", "add", "--all")
        call("git", "commit", "--quiet", "--message", f"revision {number}")
    return root


@pytest.fixture
def rebuilt(repository):
    """What a rebuild finds later: b was deleted, c is asked in vain, d is not listed any more, p is public again."""
    write(
        repository / "data", "drum", downloads={"a": "ok", "b": "removed", "c": "network", "p": "ok"}, audio={"a": "ok"}
    )
    write(repository / "data", "bell", downloads={"x": "ok", "y": "ok"}, audio={"x": "ok", "y": "ok"})
    return repository


def test_what_died_since_the_pinned_tables_is_told_with_the_words(rebuilt):
    before = pinned.follow_pinned("HEAD", list(LABELS), rebuilt)
    bell, drum = pinned.compare(before, attrition.follow_videos(Tables.of(rebuilt / "data"), LABELS))
    assert (drum.had, drum.kept, drum.came_back) == (4, 1, ("p",))
    assert drum.lost == {"network": {"c": ""}, "removed": {"b": WORDS["removed"]}, "unlisted": {"d": ""}}
    assert (bell.had, bell.kept, bell.lost, bell.came_back) == (1, 1, {}, ("y",))
    text = printed(pinned.as_table([bell, drum], "HEAD"))
    assert re.search(r"drum\s+4\s+1\s+3\s+1", text)
    assert re.search(rf"drum\s+b\s+removed\s+{re.escape(WORDS['removed'])}", text)


def test_a_label_without_tables_at_that_revision_had_no_videos(rebuilt):
    before = pinned.follow_pinned("HEAD~1", list(LABELS), rebuilt)
    bell, drum = pinned.compare(before, attrition.follow_videos(Tables.of(rebuilt / "data"), LABELS))
    assert (bell.had, drum.had) == (0, 4)


def test_what_was_not_asked_for_yet_is_not_called_dead(repository, tmp_path):
    before = pinned.follow_pinned("HEAD", ["drum"], repository)
    write(tmp_path, "drum", listed=[(video_id, "ok") for video_id in "abcd"])
    (drum,) = pinned.compare(before, attrition.follow_videos(Tables.of(tmp_path), ["drum"]))
    assert list(drum.lost) == ["pending"]
    assert "in the source's words" not in printed(pinned.as_table([drum], "HEAD"))


def test_the_command_compares(rebuilt, params):
    result = run("--data", rebuilt / "data", "--params", params, "--against", "HEAD")
    assert result.exit_code == 0, result.output
    assert "had at HEAD" in result.output
    assert re.search(r"drum\s+4\s+1\s+3\s+1\s+1 network, 1 removed, 1 unlisted", result.output)


def test_an_unknown_revision_is_said_in_a_sentence(repository):
    with pytest.raises(SoundbackError, match=r"revision nowhere .* unknown Git revision 'nowhere'"):
        pinned.follow_pinned("nowhere", ["drum"], repository)


def test_a_label_that_was_never_pinned_is_said_in_a_sentence(repository):
    with pytest.raises(SoundbackError, match=r"dvc\.lock pins no tables of rain at HEAD"):
        pinned.follow_pinned("HEAD", ["rain"], repository)


def test_a_folder_that_is_no_project_is_said_in_a_sentence(tmp_path):
    with pytest.raises(SoundbackError, match="cannot be read"):
        pinned.follow_pinned("HEAD", ["drum"], tmp_path)


def test_tables_that_no_cache_and_no_remote_holds_are_named(repository, tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(repository), str(clone)], check=True)
    with pytest.raises(
        SoundbackError, match=r"cache and remote lack 2, data/videos/drum/downloads\.parquet among them"
    ):
        pinned.follow_pinned("HEAD", ["drum"], clone)


def test_a_remote_gives_what_the_cache_lacks(repository, tmp_path):
    clone, remote = tmp_path / "clone", tmp_path / "remote"

    def dvc(root, *command):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=root, check=True, capture_output=True)

    subprocess.run(["git", "clone", "--quiet", str(repository), str(clone)], check=True)
    for root in (repository, clone):
        dvc(root, "remote", "add", "--local", "--default", "store", str(remote))
    dvc(repository, "push")
    assert pinned.follow_pinned("HEAD", ["drum"], clone)["drum"]["p"].words == WORDS["private"]
