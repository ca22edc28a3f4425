"""Looks at this machine: ffmpeg, yt-dlp and what it needs, disk, memory, GPU. Nothing is fetched, nothing changed.

A fault keeps the work from succeeding; a warning may. TensorFlow is not asked about the GPU: importing it takes longer
than all of this together.
"""

import importlib.metadata
import logging
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import joblib
import psutil

from soundback.doctor.needs import (
    NOTHING,
    TIMES_KEPT,
    Amount,
    estimate_disk,
    estimate_memory,
    measure_amount,
    stored_bytes,
)
from soundback.doctor.programs import ask_deno, ask_ffmpeg, list_gpus, missing_for_cuda
from soundback.errors import MediaError, SettingsError, SoundbackError, SourceError
from soundback.executors import open_workers
from soundback.media.ffmpeg import ffmpeg_path
from soundback.params import DemoSource, Params, YouTube8MSource
from soundback.settings import load_settings

log = logging.getLogger(__name__)

Verdict = Literal["ok", "warning", "fault"]

# What a video of the world may come in, and what the stages, the soundtrack and the renderer write.
CODECS_READ = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "aac", "opus", "vorbis", "mp3", "flac"}
DECODERS = {"aac_fixed", "ac3_fixed", "mp3"}
ENCODERS = {"aac", "libopus", "rawvideo", "pcm_s16le"}
FILTERS = {
    "aformat", "alimiter", "amix", "apad", "aresample", "asplit", "atrim", "crop", "format", "fps", "lut", "pad",
    "scale", "separatefields", "setpts", "settb", "sidechaincompress", "tpad", "trim", "volume",
}  # fmt: skip
MUXERS = {"matroska", "mov", "mp4", "rawvideo", "s16le", "wav", "webm"}
RENDERER = {"encoders": {"libx264", "flac"}, "filters": {"select"}, "muxers": {"dash"}}

YT_DLP_LASTS_DAYS = 90
# An estimate is no measurement, and a file system that copies by reference needs half: only what is far out of reach
# keeps a stage from beginning.
HOPELESS_SHARE = 0.25
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
      name: what was looked at.
      verdict: ok, warning (goes on) or fault (cannot go on).
      words: what was found, and what to do unless ok.
    """

    name: str
    verdict: Verdict
    words: str


@dataclass(frozen=True)
class Case:
    """What a machine is looked at for.

    Attributes:
      params: what is to be computed.
      amount: how much the source holds of it.
      data: the folder it goes to.
    """

    params: Params
    amount: Amount
    data: Path

    @classmethod
    def of(cls, params: Params, project: Path) -> "Case":
        """The case of a project's folder.

        Raises:
          SourceError: if the source is a table that is wrong.
        """
        return cls(params, measure_amount(params, project / "videos.csv"), project / "data")


Check = Callable[[Case], Finding]


def examine(params: Params, project: Path = Path()) -> list[Finding]:
    """Looks at everything.

    Args:
      params: what is to be computed.
      project: the folder that has data/, and videos.csv if the source is a table.
    """
    findings = []
    try:
        case = Case.of(params, project)
    except SourceError as error:
        findings.append(Finding("source", "fault", str(error)))
        case = Case(params, NOTHING, project / "data")
    return [*findings, *(check(case) for check in CHECKS), check_gpu()]


def require(params: Params, stage: str, project: Path = Path()) -> None:
    """Refuses to begin a stage that cannot succeed here; tens of milliseconds. Logs what may go wrong.

    Args:
      params: what is to be computed.
      stage: as in dvc.yaml, without the label.
      project: the folder that has data/.

    Raises:
      SoundbackError: saying what to do.
    """
    case = Case.of(params, project)
    findings = [check(case) for check in NEEDED_BY[stage]]
    for finding in findings:
        if finding.verdict == "warning":
            log.warning(f"{finding.name}: {finding.words}")
    faults = [f"{finding.name}: {finding.words}" for finding in findings if finding.verdict == "fault"]
    if faults:
        raise SoundbackError("\n".join([f"{stage} was not begun.", *faults]))


def check_ffmpeg(case: Case) -> Finding:
    """Whether ffmpeg starts and knows the codecs, filters and containers that are used."""
    try:
        abilities = ask_ffmpeg(ffmpeg_path())
    except MediaError as error:
        return Finding("ffmpeg", "fault", str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", "fault", f"{ffmpeg_path()} does not run ({error}). {_mend_ffmpeg()}")
    wanted = {
        "codecs": CODECS_READ,
        "decoders": DECODERS,
        "encoders": ENCODERS,
        "filters": FILTERS,
        "muxers": MUXERS,
    }
    if isinstance(case.params.source, DemoSource):
        wanted = {kind: names | RENDERER.get(kind, set()) for kind, names in wanted.items()}
    gaps = {kind: sorted(names - abilities[kind]) for kind, names in wanted.items()}
    if missing := "; ".join(f"{kind} {', '.join(names)}" for kind, names in gaps.items() if names):
        return Finding("ffmpeg", "fault", f"{ffmpeg_path()} lacks {missing}. {_mend_ffmpeg()}")
    n_wanted = sum(map(len, wanted.values()))
    return Finding("ffmpeg", "ok", f"runs, and has the {n_wanted} codecs, filters and containers that are used")


def check_yt_dlp(case: Case) -> Finding:
    """How old yt-dlp is: YouTube shuts old ones out."""
    try:
        version = importlib.metadata.version("yt-dlp")
    except importlib.metadata.PackageNotFoundError:
        return Finding("yt-dlp", "fault", "is not installed; `make update-yt-dlp` installs the newest")
    age_days = (date.today() - date(*map(int, re.findall(r"\d+", version)[:3]))).days
    told = f"{version}, {age_days} days old"
    if age_days <= YT_DLP_LASTS_DAYS:
        return Finding("yt-dlp", "ok", told)
    advice = f"YouTube shuts versions out that are older than {YT_DLP_LASTS_DAYS} days: `make update-yt-dlp`"
    if not case.amount.on_the_internet:
        return Finding("yt-dlp", "ok", f"{told}, and good enough for this source ({advice} before asking YouTube)")
    return Finding("yt-dlp", "warning", f"{told}. {advice}.")


def check_javascript(case: Case) -> Finding:
    """Whether yt-dlp has the JavaScript runtime without which YouTube refuses it."""
    name = "JavaScript runtime"
    if not case.amount.on_the_internet:
        return Finding(name, "ok", "not needed for this source")
    try:
        return Finding(name, "ok", ask_deno())
    except SoundbackError as error:
        # Of one's own addresses, perhaps none is YouTube's.
        verdict: Verdict = "fault" if isinstance(case.params.source, YouTube8MSource) else "warning"
        return Finding(name, verdict, f'{error} Install it with `.venv/bin/pip install "yt-dlp[default,deno]"`.')


def check_cookies(case: Case) -> Finding:
    """Whether the cookie file that the environment names is one."""
    path = load_settings().cookies
    if path is None:
        return Finding("cookies", "ok", "none given; YouTube may ask a guest to prove that it is no robot")
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            first_line = file.readline()
    except OSError as error:
        return Finding("cookies", "fault", f"SOUNDBACK_COOKIES names {path}, which cannot be read ({error.strerror})")
    if "HTTP Cookie File" not in first_line:
        return Finding(
            "cookies", "fault", f"{path} is no Netscape cookie file: its first line must be # Netscape HTTP Cookie File"
        )
    return Finding("cookies", "ok", f"{path}")


def check_workers(case: Case) -> Finding:
    """Whether the workers that the environment names can be had."""
    try:
        with open_workers() as workers:
            return Finding("workers", "ok", f"{workers.count}, by SOUNDBACK_EXECUTOR={load_settings().executor}")
    except SettingsError as error:
        return Finding("workers", "fault", str(error))


def check_disk(case: Case) -> Finding:
    """Whether the disk holds what these params make."""
    need = estimate_disk(case.params, case.amount, workers=load_settings().workers or joblib.cpu_count())
    parts = {"clips": need.clips, "whole videos": need.sources, "sounds": need.sounds, "frames": need.frames}
    counted = ", ".join(f"{name} {_size(value)}" for name, value in parts.items() if value)
    made_of = f"{counted}, each also in DVC's cache"
    return _room("disk", case.data, need.total, made_of, lambda: TIMES_KEPT * stored_bytes(case.data))


def check_scratch(case: Case) -> Finding:
    """Whether the folder for temporary files holds what is rendered of one label."""
    name, folder = "temporary files", Path(tempfile.gettempdir())
    if not isinstance(case.params.source, DemoSource):
        return Finding(name, "ok", f"few, in {folder}")
    rendered = case.params.source.videos_per_label * case.amount.fetched_bytes
    return _room(name, folder, rendered, "the videos of one label, rendered")


def check_memory(case: Case) -> Finding:
    """Whether memory holds the largest training, and the evaluation."""
    need = estimate_memory(case.params, case.amount)
    free = free_memory()
    told = f"{_size(free)} free; about {_size(need)} needed by the trainings and the evaluation"
    if free >= need:
        return Finding("memory", "ok", told)
    return Finding(
        "memory", "warning", f"{told}. Close other programs, or lower dataset.videos_per_label or download.clip_s."
    )


def free_memory() -> float:
    """Bytes that programs may still take: of the machine, and of the container if there is one."""
    free = float(psutil.virtual_memory().available)
    try:
        limit = int((CGROUP / "memory.max").read_text())
        return min(free, limit - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # No container, or one without a limit: "max".
        return free


def check_gpu() -> Finding:
    """Which GPU there is; none is needed."""
    gpus = list_gpus()
    if not gpus:
        return Finding("GPU", "ok", "none; the trainings run on the processor, which is enough for the demo")
    told = ", ".join(gpus)
    if missing := missing_for_cuda():
        return Finding(
            "GPU",
            "warning",
            f"{told}, but TensorFlow lacks {len(missing)} packages to use it, {missing[0]} among them: "
            '`.venv/bin/pip install -e ".[cuda]"`. Without it the trainings run on the processor.',
        )
    return Finding("GPU", "ok", told)


def _mend_ffmpeg() -> str:
    return (
        "Unset IMAGEIO_FFMPEG_EXE if it is set, or reinstall ffmpeg with "
        "`.venv/bin/pip install --force-reinstall --no-deps imageio-ffmpeg`."
    )


def _room(name: str, folder: Path, need: float, made_of: str, held: Callable[[], float] = lambda: 0.0) -> Finding:
    """Compares free space with what is needed, less what is there already (looked at only when it matters)."""
    place = next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
    free = float(shutil.disk_usage(place).free)
    told = f"{_size(free)} free; about {_size(need)} needed ({made_of})"
    if free >= need:
        return Finding(name, "ok", told)
    left = max(0.0, need - held())
    if free >= left:
        return Finding(name, "ok", f"{told}, of which all but {_size(left)} is there already")
    advice = f"{told}. Free some space in {place}, or lower dataset.videos_per_label, download.clip_s or frames.size."
    return Finding(name, "fault" if free < left * HOPELESS_SHARE else "warning", advice)


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


CHECKS: tuple[Check, ...] = (
    check_ffmpeg,
    check_yt_dlp,
    check_javascript,
    check_cookies,
    check_workers,
    check_disk,
    check_scratch,
    check_memory,
)
NEEDED_BY: dict[str, tuple[Check, ...]] = {
    "list_videos": (),
    "download_videos": (check_ffmpeg, check_yt_dlp, check_javascript, check_cookies, check_disk, check_scratch),
    "extract_audio": (check_ffmpeg, check_disk),
    "extract_frames": (check_ffmpeg, check_disk),
}
