"""Hostile names and ids, from every side: nothing is written but under data/, nothing becomes a program's option."""

import csv
import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
import yaml

from soundback import schemas
from soundback.media.ffmpeg import ffmpeg_path
from tests.clones import PROJECT
from tests.loopback import Page, Site, make_video, serve, youtube8m_pages

NAMES = [
    "../x",
    "../../../../x",
    "/x",
    "..",
    "CON",
    "NUL.mp4",
    "a" * 300,
    "n\0l",
    "\U0001f941" * 60,
    "-rf",
    "--exec=touch x",
    "-i",
    "a;touch x",
    "$(touch x)",
    "a\nb",
    "%(id)s",
    "file:x",
    'a|b<c>d:e"f?g*h\\i',
]
# What our own files and folders are called, all of them.
FOLDER = r"data(/(catalog|videos|audio|frames)(/drum)?)?"
FILE = r"data/((catalog|videos|audio|frames)/drum/[A-Za-z0-9_-]{1,60}\.(mp4|mkv|parquet|wav))"
OURS = re.compile(f"{FOLDER}|{FILE}")
RECORDER = """#!{python}
import json, os, sys
with open({log!r}, "a", encoding="utf-8", errors="surrogateescape") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
os.execv({program!r}, [{program!r}, *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Ground:
    """A project in a folder where everything that is written is seen.

    Attributes:
      root: holds the project, and what stands for the rest of the machine.
    """

    root: Path

    @property
    def project(self) -> Path:
        return self.root / "project"

    def run(self, stage: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a stage as DVC does."""
        env = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "IMAGEIO_FFMPEG_EXE": str(self.root / "ffmpeg"),
            "SOUNDBACK_EXECUTOR": "threads",
        }
        command = [sys.executable, "-m", f"stages.{stage}", *arguments]
        return subprocess.run(command, cwd=self.project, env=env, capture_output=True, text=True, check=False)

    def build(self) -> None:
        """Runs all stages of the label."""
        for run in (
            self.run("list_videos", "drum", "videos.csv", "data/catalog"),
            self.run("download_videos", "drum", "data/catalog", "data/videos"),
            self.run("extract_audio", "drum", "data/videos", "data/audio"),
            self.run("extract_frames", "drum", "data/videos", "data/frames"),
        ):
            assert run.returncode == 0, run.stdout + run.stderr

    def outside(self) -> dict[str, str]:
        """All that is not under data/, folders included, less what the recorder writes."""
        found = {}
        for path in self.root.rglob("*"):
            if path != self.root / "commands" and self.project / "data" not in (path, *path.parents):
                content = path.read_bytes() if path.is_file() else b"a folder"
                found[str(path.relative_to(self.root))] = hashlib.sha256(content).hexdigest()
        return found

    def inside(self) -> list[str]:
        return [str(path.relative_to(self.project)) for path in (self.project / "data").rglob("*")]

    def options(self) -> set[str]:
        """All words that ffmpeg took for options, whether we started it or yt-dlp."""
        commands = map(json.loads, (self.root / "commands").read_text(encoding="utf-8").splitlines())
        return {word for command in commands for word in command if word.startswith("-")}

    def downloads(self) -> list[dict[str, object]]:
        path = self.project / "data/videos/drum/downloads.parquet"
        return list(schemas.read_table(path, schemas.DOWNLOADS).to_pylist())


def make_ground(root: Path) -> Ground:
    for name in ("home", "tmp", "project"):
        (root / name).mkdir(parents=True)
    recorder = RECORDER.format(python=sys.executable, log=str(root / "commands"), program=ffmpeg_path())
    (root / "ffmpeg").write_text(recorder)
    (root / "ffmpeg").chmod(0o755)
    shutil.copy(PROJECT / "videos.csv", root / "project" / "videos.csv")
    return Ground(root)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return make_ground(tmp_path / "machine")


def write_params(ground: Ground, source: Mapping[str, object]) -> None:
    params = yaml.safe_load((PROJECT / "profiles" / "smoke.yaml").read_text())
    params["source"] = dict(source)
    params["dataset"]["videos_per_label"] = 1000
    params["download"] |= {"clip_s": 1.0, "max_retryable_share": 0.9}
    (ground.project / "params.yaml").write_text(yaml.safe_dump(params))


def youtube8m_at(site: Site) -> dict[str, object]:
    ends = site.endpoints
    names = ("vocabulary", "label_index", "id_map", "watch")
    return {"kind": "youtube8m"} | {name: getattr(ends, name) for name in names}


def check(ground: Ground, before: Mapping[str, str], *, ordinary: set[str]) -> None:
    """Nothing outside changed, all names inside are ours, and ffmpeg heard no option that it does not always hear."""
    assert ground.outside() == before
    assert not [name for name in ground.inside() if not OURS.fullmatch(name)]
    assert ground.options() <= ordinary


def separate(folder: Path, body: bytes) -> dict[str, bytes]:
    """A manifest and its pieces, picture and sound apart, by name."""
    folder.mkdir()
    (folder / "whole.mp4").write_bytes(body)
    command = [ffmpeg_path(), "-v", "error", "-i", str(folder / "whole.mp4"), "-map", "0", "-c", "copy"]
    command += ["-f", "dash", "-adaptation_sets", "id=0,streams=v id=1,streams=a", str(folder / "manifest.mpd")]
    subprocess.run(command, check=True)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in {".mpd", ".m4s"}}


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_video(tmp_path_factory.mktemp("body") / "video.mp4", duration_s=2.0)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> set[str]:
    """The options that ffmpeg hears when all names are good: a plain video, and one whose parts come apart."""
    root = tmp_path_factory.mktemp("ordinary")
    pieces = separate(root / "pieces", body)
    pages = youtube8m_pages("/m/026t6", "Drum", {"aaaa": "good_plain0", "bbbb": "good_apart1"})
    pages |= {f"/watch/{name}": Page(content) for name, content in pieces.items()}
    pages["/watch/good_plain0"] = Page(body)
    pages["/watch/good_apart1"] = Page(pieces["manifest.mpd"], kind="application/dash+xml")
    ground = make_ground(root / "machine")
    with serve(pages) as site:
        write_params(ground, youtube8m_at(site))
        ground.build()
    assert [row["status"] for row in ground.downloads()] == ["ok", "ok"]
    return ground.options()


def test_ids_of_the_label_index_and_answers_of_the_id_map(ground: Ground, body: bytes, ordinary: set[str]) -> None:
    good = "-leads_with"  # As one in 64 of YouTube's does.
    asked = {f"aa{number:02d}": name for number, name in enumerate(NAMES)}
    pages = youtube8m_pages("/m/026t6", "Drum", {"good": good, **asked})
    listed = json.dumps(["good", *asked, *NAMES])
    pages["/v/026t6.js"] = Page(f'p("026t6",{listed});'.encode())
    for own_id, name in asked.items():
        pages[f"/i/aa/{own_id}.js"] = Page(f"i({json.dumps(own_id)},{json.dumps(name)});".encode())
    pages[f"/watch/{good}"] = Page(body)
    with serve(pages) as site:
        write_params(ground, youtube8m_at(site))
        before = ground.outside()
        ground.build()
        assert {path for path in site.asked if path.startswith("/watch/")} == {f"/watch/{good}"}
    check(ground, before, ordinary=ordinary)
    rows = {str(row["video_id"]): row for row in ground.downloads()}
    assert len(rows) == 1 + len(asked) + len(NAMES), "each is a row, and says why it is not had"
    assert [video_id for video_id, row in rows.items() if row["status"] == "ok"] == [good]


def test_names_that_a_site_gives_its_videos_and_formats(ground: Ground, body: bytes, ordinary: set[str]) -> None:
    pieces = separate(ground.root.parent / "pieces", body)
    manifest = pieces["manifest.mpd"].decode()
    videos: dict[str, str | None] = {}
    pages = {f"/watch/{piece}": Page(content) for piece, content in pieces.items()}
    for number, name in enumerate(NAMES):
        apart, plain = f"apart-{number:05d}", f"plain-{number:05d}"
        videos |= {f"aa{number:02d}": apart, f"bb{number:02d}": plain}
        pages[f"/watch/{apart}"] = Page(rename_formats(manifest, name).encode(), kind="application/dash+xml")
        # What a file is called is taken from where a redirect leads.
        target = f"/files/{quote(name, safe='')}"
        pages[f"/watch/{plain}"] = Page(status=302, location=target)
        pages[target] = Page(body)
    pages |= youtube8m_pages("/m/026t6", "Drum", videos)
    with serve(pages) as site:
        write_params(ground, youtube8m_at(site))
        before = ground.outside()
        ground.build()
    check(ground, before, ordinary=ordinary)
    had = [str(row["video_id"])[:5] for row in ground.downloads() if row["status"] == "ok"]
    assert had.count("apart") >= len(NAMES) // 2, "most names do no harm, so most videos are had"
    assert had.count("plain") >= len(NAMES) // 2


def rename_formats(manifest: str, name: str) -> str:
    """Calls the picture's and the sound's format by a name, as far as XML lets it; their pieces stay where they are."""
    shown = escape(name.replace("\0", ""), {'"': "&quot;", "\n": "&#10;"})
    blocks = re.split(r"(?=<Representation )", manifest)
    for index, block in enumerate(blocks):
        if found := re.match(r'<Representation id="(\d+)"', block):
            renamed = f'<Representation id="{shown}{found[1]}"' + block[found.end() :]
            blocks[index] = renamed.replace("$RepresentationID$", found[1])
    return "".join(blocks)


def test_paths_of_ones_own_table(ground: Ground, body: bytes, ordinary: set[str]) -> None:
    # A line break is refused by the table, with its line; the others are names of files.
    files = [name for name in NAMES if not {"\0", "/", "\n"} & set(name) and len(name.encode()) < 250 and name != ".."]
    (ground.project / "clips").mkdir()
    for number, name in enumerate(files):
        make_video(ground.project / "made.mp4", duration_s=2.0, hz=300 + 20 * number)
        (ground.project / "made.mp4").rename(ground.project / "clips" / name)
    (ground.root / "outside.mp4").write_bytes(body)
    with (ground.project / "videos.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["address", "label"])
        table.writerows([f"clips/{name}", "Drum"] for name in files)
        table.writerows([[name, "Drum"] for name in ("../outside.mp4", "-nowhere.mp4", "../" * 30 + "etc/hostname")])
    write_params(ground, {"kind": "table"})
    before = ground.outside()
    ground.build()
    check(ground, before, ordinary=ordinary)
    assert [row["status"] for row in ground.downloads()].count("ok") == len(files) + 1


@pytest.mark.parametrize("column", ["video_id", "address"])
def test_a_catalog_that_was_tampered_with(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, body: bytes, column: str
) -> None:
    (ground.project / "data/catalog").mkdir(parents=True)
    monkeypatch.chdir(ground.project)
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "threads")
    monkeypatch.setenv("HOME", str(ground.root / "home"))
    monkeypatch.setattr(sys, "argv", ["download_videos", "drum", "data/catalog", "data/videos"])
    with serve({"/watch/0-good_good": Page(body)}) as site:
        write_params(ground, youtube8m_at(site))
        before = ground.outside()
        for name in NAMES:
            row = {"video_id": "0-good_good", "address": "0-good_good", column: name}
            row |= {"label": "Drum", "label_mid": "/m/026t6", "split": "train", "status": "ok", "reason": None}
            schemas.write_table([row], schemas.CATALOG, ground.project / "data/catalog/drum/catalog.parquet")
            ended = None
            with mock.patch("stages.die_with_parent"):
                try:
                    runpy.run_path(str(PROJECT / "stages" / "download_videos.py"), run_name="__main__")
                except SystemExit as end:
                    ended = end.code
            assert ground.outside() == before, name
            assert not [each for each in ground.inside() if not OURS.fullmatch(each) and ".unfinished" not in each]
            # CON, -rf and -i are no hostile ids here: on Linux they name files like others.
            assert isinstance(ended, str) or (column == "video_id" and re.fullmatch(r"[\w-]{1,40}", name)), name
