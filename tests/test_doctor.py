"""Can this machine do it: each check on a machine that can, and on one that cannot."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections import namedtuple
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from soundback import schemas
from soundback.cli import app
from soundback.doctor import checks, live, needs, programs
from soundback.doctor.checks import Case
from soundback.errors import SoundbackError
from soundback.media import containers, ffmpeg
from soundback.params import TableSource, YouTube8MSource, load_params
from soundback.sources import table
from stages.download_videos import Sections, download_videos
from stages.extract_audio import extract_audio
from stages.extract_frames import extract_frames
from stages.list_videos import list_videos
from tests.loopback import ACCESS_DENIED, Page, make_video, serve, youtube8m_pages
from tests.synthetic import write_downloads

PROJECT = Path(__file__).parents[1]
SMOKE = load_params(PROJECT / "profiles" / "smoke.yaml")
REAL = load_params(PROJECT / "profiles" / "youtube8m.yaml")
IDS = ("AAAAAAAAAAA", "BBBBBBBBBBB", "CCCCCCCCCCC")
VIDEOS = {"aa01": IDS[0], "aa02": None, "aa03": IDS[1], "aa04": IDS[2]}
BOT_PAGE = b"<html><h1>Sign in to confirm you\xe2\x80\x99re not a bot</h1></html>"
ALL = {name: 1e12 for name in ("total", "used", "free")}
Usage = namedtuple("Usage", ALL)


def case(params, project=PROJECT):
    return Case.of(params, project)


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def other_ffmpeg(monkeypatch):
    """Has another program, or none, be ffmpeg."""

    def use(path):
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
        ffmpeg.ffmpeg_path.cache_clear()

    yield use
    ffmpeg.ffmpeg_path.cache_clear()


# ffmpeg


def test_this_machine_has_the_ffmpeg_that_is_needed():
    for params in (SMOKE, REAL):
        assert checks.check_ffmpeg(case(params)).verdict == "ok"


def test_every_filter_encoder_and_container_in_the_code_is_asked_for():
    code = [ast.parse(path.read_text()) for path in (PROJECT / "soundback").rglob("*.py")]
    calls = [node for tree in code for node in ast.walk(tree) if isinstance(node, ast.Call)]
    filters = {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "filter"
        and isinstance(call.args[0], ast.Constant)
    }
    text = "\n".join(path.read_text() for path in (PROJECT / "soundback").rglob("*.py"))
    codecs = set(re.findall(r'"c:[av]": "(\w+)"', text)) | set(re.findall(r'else "(\w+)"\}', text))
    assert len(filters) >= 10
    assert filters <= checks.FILTERS | checks.RENDERER["filters"]
    assert set(ffmpeg.INTEGER_DECODERS.values()) <= checks.DECODERS
    assert {"libx264", "flac"} <= codecs
    assert codecs - {"copy"} <= checks.ENCODERS | checks.RENDERER["encoders"]
    assert set(containers.MUXERS.values()) <= checks.MUXERS


@pytest.mark.parametrize(
    ("kind", "singular"), [("decoders", "decoder"), ("encoders", "encoder"), ("filters", "filter"), ("muxers", "muxer")]
)
def test_what_ffmpeg_is_said_to_have_it_describes_one_by_one(kind, singular):
    """`ffmpeg -h` looks a name up; the lists are parsed."""
    told = programs.ask_ffmpeg(ffmpeg.ffmpeg_path())[kind]

    def knows(name):
        command = [ffmpeg.ffmpeg_path(), "-hide_banner", "-h", f"{singular}={name}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        said = answer.stdout + answer.stderr
        return "nknown" not in said and "not recognized" not in said

    names = sorted(told)
    assert len(names) > 50
    some = {*names[:: len(names) // 8], *(checks.RENDERER.get(kind, set())), "no_such_thing"}
    assert {name for name in some if knows(name)} == some & told


@pytest.mark.parametrize("script", [None, "exit 3", "echo nothing at all"])
def test_a_broken_ffmpeg_is_a_fault_that_says_what_to_do(script, tmp_path, other_ffmpeg):
    other_ffmpeg(tmp_path / "none" if script is None else program(tmp_path, "ffmpeg", script))
    finding = checks.check_ffmpeg(case(SMOKE))
    assert finding.verdict == "fault"
    assert str(tmp_path) in finding.words
    assert "pip install --force-reinstall" in finding.words


def test_an_ffmpeg_without_a_codec_is_a_fault_that_names_it(tmp_path, other_ffmpeg):
    real = ffmpeg.ffmpeg_path()
    other_ffmpeg(program(tmp_path, "ffmpeg", f"{real} \"$@\" | grep -v -e ' h264 ' -e ' aresample ' -e ' dash '"))
    words = checks.check_ffmpeg(case(SMOKE)).words
    assert "lacks codecs h264; encoders libx264; filters aresample; muxers dash." in words
    assert "muxers" not in checks.check_ffmpeg(case(REAL)).words


# yt-dlp


@pytest.fixture
def yt_dlp_of(monkeypatch):
    """Has yt-dlp be so many days old; None: not installed."""

    def use(age_days):
        def version(name):
            if age_days is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return (date.today() - timedelta(days=age_days)).strftime("%Y.%-m.%-d")

        monkeypatch.setattr(importlib.metadata, "version", version)

    return use


@pytest.mark.parametrize(
    ("age_days", "params", "verdict"),
    [(3, REAL, "ok"), (90, REAL, "ok"), (91, REAL, "warning"), (400, SMOKE, "ok"), (None, SMOKE, "fault")],
)
def test_an_old_yt_dlp_is_told_how_to_be_renewed(age_days, params, verdict, yt_dlp_of):
    yt_dlp_of(age_days)
    finding = checks.check_yt_dlp(case(params))
    assert finding.verdict == verdict
    assert ("make update-yt-dlp" in finding.words) == (age_days is None or age_days > 90)


def test_the_version_of_a_nightly_yt_dlp_is_understood(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2026.8.19.232801.dev0")
    assert checks.check_yt_dlp(case(REAL)).words.startswith("2026.8.19.232801.dev0, ")


# JavaScript


def test_the_deno_found_is_the_one_that_yt_dlp_finds():
    from yt_dlp.utils._jsruntime import DenoJsRuntime

    found = DenoJsRuntime().info
    assert programs.find_deno() == found.path
    assert programs.ask_deno() == f"deno {found.version}"
    assert programs.OLDEST_DENO == DenoJsRuntime.MIN_SUPPORTED_VERSION


@pytest.mark.parametrize("script", [None, "exit 1", "echo deno 1.46.3", "echo something else"])
def test_without_a_fit_deno_youtube_is_out_of_reach(script, tmp_path, monkeypatch):
    monkeypatch.setattr(programs.sysconfig, "get_path", lambda name: str(tmp_path / "scripts"))
    monkeypatch.setenv("PATH", str(tmp_path))
    if script is not None:
        program(tmp_path, "deno", script)
    finding = checks.check_javascript(case(REAL))
    assert finding.verdict == "fault"
    assert 'pip install "yt-dlp[default,deno]"' in finding.words
    assert checks.check_javascript(case(SMOKE)).verdict == "ok"


# Cookies


def test_a_cookie_file_must_be_one(tmp_path, monkeypatch):
    path = tmp_path / "cookies.txt"
    monkeypatch.setenv("SOUNDBACK_COOKIES", str(path))
    assert checks.check_cookies(case(REAL)).verdict == "fault"
    path.write_text('{"cookies": []}')
    assert "Netscape" in checks.check_cookies(case(REAL)).words
    path.write_text("# Netscape HTTP Cookie File\n")
    assert checks.check_cookies(case(REAL)).verdict == "ok"


# Workers


def test_a_dask_cluster_that_does_not_answer_is_a_fault(monkeypatch):
    assert checks.check_workers(case(SMOKE)).verdict == "ok"
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "dask")
    finding = checks.check_workers(case(SMOKE))
    assert (finding.verdict, "SOUNDBACK_DASK_ADDRESS" in finding.words) == ("fault", True)


# Disk


@pytest.fixture
def free_disk(monkeypatch):
    """Has so many bytes be free."""
    return lambda n: monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: Usage(**ALL | {"free": n}))


def test_a_disk_that_is_far_too_small_is_a_fault_and_one_that_is_a_little_too_small_a_warning(tmp_path, free_disk):
    looked_at = case(REAL, tmp_path)
    need = needs.estimate_disk(REAL, looked_at.amount, workers=2).total
    verdicts = []
    for share in (1.1, 0.4, 0.2):
        free_disk(share * need)
        verdicts.append(checks.check_disk(looked_at).verdict)
    assert verdicts == ["ok", "warning", "fault"]
    assert "dataset.videos_per_label" in checks.check_disk(looked_at).words


def test_what_is_there_already_needs_no_room_again(tmp_path, free_disk):
    looked_at = case(SMOKE, tmp_path)
    need = needs.estimate_disk(SMOKE, looked_at.amount, workers=2)
    free_disk(need.passing * 2)
    assert checks.check_disk(looked_at).verdict != "ok"
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "clips").open("wb") as file:
        file.truncate(int(need.kept))
    assert checks.check_disk(looked_at).verdict == "ok"


def test_the_estimate_grows_with_what_is_asked_for():
    def total(**changes):
        params = REAL
        for name, value in changes.items():
            section, key = name.split("__")
            changed = getattr(params, section).model_copy(update={key: value})
            params = params.model_copy(update={section: changed})
        return needs.estimate_disk(params, needs.measure_amount(params, PROJECT), workers=2).total

    base = total()
    assert total(dataset__videos_per_label=600) > 1.9 * base
    assert total(download__clip_s=20.0) > 1.9 * base
    assert total(frames__encoding="png") > 1.5 * base
    assert total(download__keep_source=True) > 3 * base
    assert total(frames__jpeg_quality=75) < base


def test_the_estimate_holds_for_a_dataset_that_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "threads")
    params = SMOKE.model_copy(
        update={
            "labels": {"bell": "Bell", "engine": "Engine"},
            "dataset": SMOKE.dataset.model_copy(update={"videos_per_label": 4}),
        }
    )
    data = tmp_path / "data"
    n_videos = 0
    for key in params.labels:
        catalog, videos = data / "catalog" / key / "catalog.parquet", data / "videos" / key
        list_videos(key, tmp_path, catalog, source=params.source, labels=params.labels, dataset=params.dataset)
        download_videos(catalog, videos, params=Sections(params.source, params.download, params.curation))
        extract_audio(videos, data / "audio" / key, params=params.audio)
        extract_frames(videos, data / "frames" / key, params=params.frames)
        rows = schemas.read_table(videos / "downloads.parquet", schemas.DOWNLOADS).to_pylist()
        n_videos += sum(row["status"] == "ok" for row in rows)
    amount = needs.measure_amount(params, tmp_path)
    assert n_videos <= amount.n_videos == 8
    had = needs.Amount(n_videos, amount.bytes_per_s, amount.fetched_bytes, on_the_internet=False)
    expected = needs.estimate_disk(params, had, workers=2)
    made = {kind: needs.stored_bytes(data / kind) for kind in ("videos", "audio", "frames")}
    assert 0.5 < expected.clips / made["videos"] < 2
    assert 0.5 < expected.frames / made["frames"] < 2
    assert 0.5 < (expected.kept - expected.report) / sum(made.values()) < 2
    wavs = list((data / "audio").rglob("*.wav"))
    exact = needs.wav_bytes(params.download.clip_s, params.audio.sample_rate)
    assert [path.stat().st_size for path in wavs] == pytest.approx([exact] * n_videos, rel=0.1)


def test_ones_own_files_are_measured(tmp_path):
    body = make_video(tmp_path / "clip.mp4", duration_s=3.0)
    rows = [table.Row("clip.mp4", "Drum"), table.Row("none.mp4", "Drum"), table.Row("clip.mp4", "Other")]
    table.write_rows(rows, tmp_path / "videos.csv")
    params = SMOKE.model_copy(update={"source": TableSource(kind="table")})
    amount = needs.measure_amount(params, tmp_path / "videos.csv")
    assert amount.n_videos == 2
    assert amount.bytes_per_s == pytest.approx(len(body) / 3.0, rel=0.05)
    assert (amount.fetched_bytes, amount.on_the_internet) == (0.0, False)
    table.write_rows([*rows, table.Row("https://example.org/a.mp4", "Rain")], tmp_path / "videos.csv")
    assert needs.measure_amount(params, tmp_path / "videos.csv").on_the_internet


def test_a_table_that_is_wrong_is_a_fault_beside_the_other_findings(tmp_path):
    (tmp_path / "videos.csv").write_text("address,lable\n")
    params = SMOKE.model_copy(update={"source": TableSource(kind="table")})
    first, *others = checks.examine(params, tmp_path)
    assert (first.name, first.verdict) == ("source", "fault")
    assert "label" in first.words
    assert {"ffmpeg", "disk", "GPU"} <= {finding.name for finding in others}


# Memory and GPU


def test_little_memory_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "CGROUP", tmp_path)
    assert checks.check_memory(case(SMOKE)).verdict == "ok"
    (tmp_path / "memory.max").write_text("max\n")
    assert checks.free_memory() > 5e8
    (tmp_path / "memory.max").write_text("600000000\n")
    (tmp_path / "memory.current").write_text("100000000\n")
    assert checks.free_memory() == 5e8
    assert checks.check_memory(case(SMOKE)).verdict == "warning"


def test_a_gpu_is_named_and_none_is_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "GPUS", tmp_path / "gpus")
    assert checks.check_gpu().verdict == "ok"
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:01:00.0" / "information").write_text("Model: \t\t NVIDIA GeForce RTX 3060\nIRQ: 8\n")
    assert programs.list_gpus() == ["NVIDIA GeForce RTX 3060"]
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H100 80GB HBM3, 81559 MiB'")
    assert programs.list_gpus() == ["NVIDIA H100 80GB HBM3, 81559 MiB"]
    monkeypatch.setattr(checks, "missing_for_cuda", lambda: ["nvidia-cudnn-cu12"])
    assert (checks.check_gpu().verdict, '".[cuda]"' in checks.check_gpu().words) == ("warning", True)
    monkeypatch.setattr(checks, "missing_for_cuda", list)
    assert checks.check_gpu().verdict == "ok"
    program(tmp_path, "nvidia-smi", "echo 'no devices were found'; exit 6")
    assert programs.list_gpus() == []


def test_the_doctor_imports_no_tensorflow():
    code = "import sys, soundback.doctor.live; print([m for m in sys.modules if m in ('tensorflow', 'keras', 'dvc')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# Before a stage


def test_a_stage_is_not_begun_where_it_cannot_succeed(tmp_path, other_ffmpeg, free_disk):
    for stage in checks.NEEDED_BY:
        checks.require(SMOKE, stage, tmp_path)
    free_disk(1000)
    other_ffmpeg(tmp_path / "none")
    with pytest.raises(
        SoundbackError, match=r"(?s)download_videos was not begun\.\nffmpeg: .*\ndisk: 0 MB free"
    ) as caught:
        checks.require(SMOKE, "download_videos", tmp_path)
    assert len(str(caught.value).splitlines()) == 4
    checks.require(SMOKE, "list_videos", tmp_path)


def test_a_warning_keeps_no_stage_from_beginning(yt_dlp_of, caplog, tmp_path, free_disk):
    yt_dlp_of(200)
    checks.require(REAL, "download_videos", tmp_path)
    assert "make update-yt-dlp" in caplog.text


@pytest.mark.parametrize("stage", ["extract_audio", "extract_frames"])
def test_a_stage_run_without_ffmpeg_ends_in_a_sentence_and_not_with_an_empty_result(stage, tmp_path):
    write_downloads(tmp_path / "videos" / "drum", {"a": "a_00.mp4"})
    (tmp_path / "params.yaml").write_text((PROJECT / "profiles" / "smoke.yaml").read_text())
    ended = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", "drum", "videos", "out"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT), "IMAGEIO_FFMPEG_EXE": str(tmp_path / "none"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert f"{stage} was not begun" in ended.stderr
    assert "does not run" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


# Live


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("bodies") / "video.mp4", duration_s=3.0)


@pytest.fixture
def pages(body):
    return youtube8m_pages("/m/026t6", "Drum", VIDEOS) | {f"/watch/{each}": Page(body) for each in IDS}


def try_site(pages, label="Drum"):
    with serve(pages) as site:
        ends = site.endpoints
        source = YouTube8MSource(
            kind="youtube8m",
            vocabulary=ends.vocabulary,
            label_index=ends.label_index,
            id_map=ends.id_map,
            watch=ends.watch,
        )
        params = SMOKE.model_copy(update={"source": source, "labels": {"drum": label, "rain": "Rain"}})
        return list(live.try_source(params)), site


def test_live_one_label_and_two_videos_are_fetched_and_nothing_more(pages):
    findings, site = try_site(pages)
    names = [finding.name for finding in findings]
    assert names[:3] == ["vocabulary", "label index", "id map"]
    assert [name.split()[0] for name in names[3:]] == ["video", "video"]
    assert {finding.verdict for finding in findings} == {"ok"}
    assert "a clip of 2.0 s, 160x120" in findings[-1].words
    assert findings[2].words.startswith("3 of 4 ids")
    assert len({path for path in site.asked if path.startswith("/watch/")}) == 2


@pytest.mark.parametrize(
    ("path", "page", "step", "received"),
    [
        ("/vocabulary.csv", Page(b"<html>Please log in</html>", kind="text/html"), "vocabulary", "<html>Please log in"),
        ("/vocabulary.csv", Page(ACCESS_DENIED.encode(), status=403), "vocabulary", "HTTP 403"),
        ("/v/026t6.js", Page(b"<html>moved</html>", kind="text/html"), "label index", "text/html"),
        ("/v/026t6.js", Page(b"gone", status=404), "label index", "gone"),
        ("/i/aa/aa01.js", Page(b"try later", status=503, kind="text/plain"), "id map", "try later"),
        ("/watch/", Page(BOT_PAGE, status=403, kind="text/html"), "download", "not a bot"),
        ("/watch/", Page(b"<html>Before you continue</html>", kind="text/html"), "download", "Before you continue"),
        ("/watch/", Page(b"", status=404), "download", "HTTP 404"),
    ],
)
def test_live_the_step_that_failed_is_named_with_what_came_back(path, page, step, received, pages):
    paths = [each for each in pages if each.startswith("/watch/")] if path == "/watch/" else [path]
    findings, _ = try_site(pages | dict.fromkeys(paths, page))
    *before, last = findings
    assert (last.name, last.verdict) == (step, "fault")
    assert received in last.words.split("Received: ")[1]
    steps = ["vocabulary", "label index", "id map", "download"]
    assert [finding.name for finding in before] == steps[: steps.index(step)]
    assert {finding.verdict for finding in before} <= {"ok"}


def test_live_ids_that_are_all_gone_are_the_id_map_s_fault_with_its_words(pages):
    gone = Page(ACCESS_DENIED.encode(), status=403, kind="application/xml")
    findings, _ = try_site(pages | {path: gone for path in pages if path.startswith("/i/")})
    assert (findings[-1].name, findings[-1].verdict) == ("id map", "fault")
    assert "None of 4 ids" in findings[-1].words
    assert "AccessDenied" in findings[-1].words.split("Received: ")[1]


def test_live_a_video_that_is_gone_is_passed_over(pages):
    findings, _ = try_site(pages | {f"/watch/{IDS[0]}": Page(b"", status=404)})
    assert [finding.verdict for finding in findings] == ["ok"] * 5
    findings, _ = try_site(pages | {f"/watch/{each}": Page(b"", status=404) for each in IDS[:2]})
    assert (findings[-1].verdict, "only 1" in findings[-1].words) == ("warning", True)


def test_live_a_refusal_is_not_asked_again(pages):
    refusal = {f"/watch/{each}": Page(BOT_PAGE, status=403, kind="text/html") for each in IDS}
    findings, site = try_site(pages | refusal)
    assert "SOUNDBACK_COOKIES" in findings[-1].words
    assert len({path for path in site.asked if path.startswith("/watch/")}) == 1


def test_live_an_unknown_label_names_the_closest(pages):
    findings, _ = try_site(pages, label="Drumm")
    assert (findings[-1].name, findings[-1].verdict) == ("vocabulary", "fault")
    assert "/m/026t6" in findings[-1].words


def test_live_a_server_that_is_not_there_is_said_in_words():
    with serve({}) as site:
        base = site.base
    source = YouTube8MSource(kind="youtube8m", vocabulary=f"{base}/x", label_index=base, id_map=base, watch=base)
    (finding,) = live.try_source(SMOKE.model_copy(update={"source": source}))
    assert (finding.name, finding.verdict) == ("vocabulary", "fault")
    assert "no answer from" in finding.words


def test_live_a_table_of_ones_own_files(tmp_path, body):
    for name in ("one.mp4", "two.mp4", "three.mp4"):
        (tmp_path / name).write_bytes(body)
    rows = [table.Row(name, "Drum") for name in ("one.mp4", "none.mp4", "two.mp4", "three.mp4")]
    table.write_rows(rows, tmp_path / "videos.csv")
    params = SMOKE.model_copy(update={"source": TableSource(kind="table")})
    findings = list(live.try_source(params, tmp_path))
    assert [finding.verdict for finding in findings] == ["ok"] * 3
    assert findings[0].words.startswith("3 of the 4 videos of Drum")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.mp4", "three.mp4", "two.mp4", "videos.csv"]
    table.write_rows([table.Row("none.mp4", "Drum")], tmp_path / "videos.csv")
    (finding,) = live.try_source(params, tmp_path)
    assert (finding.verdict, "no such file: none.mp4" in finding.words) == ("fault", True)


# The command


def run(*arguments):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def test_the_command_goes_through_the_miniature_youtube_8m():
    result = run("--live", "--params", PROJECT / "profiles" / "smoke.yaml")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert all(line.startswith(("ok", "warning")) for line in lines)
    for name in (
        "ffmpeg",
        "yt-dlp",
        "JavaScript runtime",
        "disk",
        "memory",
        "GPU",
        "vocabulary",
        "label index",
        "id map",
    ):
        assert any(line[9:].startswith(name) for line in lines), name
    assert sum(line[9:].startswith("video ") for line in lines) == 2


def test_the_command_ends_with_1_where_there_is_a_fault(tmp_path, other_ffmpeg):
    other_ffmpeg(tmp_path / "none")
    result = run("--params", PROJECT / "profiles" / "smoke.yaml")
    assert result.exit_code == 1
    assert re.search(r"^fault +ffmpeg ", result.output, re.MULTILINE)


def test_params_that_are_wrong_end_in_a_sentence(tmp_path):
    values = yaml.safe_load((PROJECT / "profiles" / "smoke.yaml").read_text())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values | {"lables": {}}))
    result = run("--params", tmp_path / "params.yaml")
    assert (result.exit_code, "lables" in result.output) == (2, True)
