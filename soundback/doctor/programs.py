"""What the programs that are not ours say of themselves: ffmpeg, deno, NVIDIA's driver, and TensorFlow's wish list."""

import importlib.metadata
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from soundback.errors import SoundbackError

OLDEST_DENO = (2, 3, 0)
ANSWER_TIMEOUT_S = 20
GPUS = Path("/proc/driver/nvidia/gpus")


def ask_ffmpeg(program: str) -> dict[str, set[str]]:
    """What an ffmpeg says that it can do: names of codecs it reads, decoders, encoders, filters, muxers.

    Raises:
      OSError: it cannot be started.
      subprocess.SubprocessError: it fails or hangs.
    """
    # At once: each spends its time on loading the program.
    asked = {
        question: subprocess.Popen(
            [program, "-hide_banner", "-loglevel", "error", f"-{question}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for question in ("codecs", "filters", "formats")
    }
    try:
        told = {question: _answer(process) for question, process in asked.items()}
    finally:
        for process in asked.values():
            process.kill()
            process.communicate()
    codecs = re.findall(r"^ ([D.])([E.])\S{4} (\w\S*) (.*)$", told["codecs"], re.MULTILINE)
    read = [(name, words) for reads, _, name, words in codecs if reads == "D"]
    written = [(name, words) for _, writes, name, words in codecs if writes == "E"]
    return {
        "codecs": {name for name, _ in read},
        "decoders": {program for name, words in read for program in _programs("decoders", name, words)},
        "encoders": {program for name, words in written for program in _programs("encoders", name, words)},
        "filters": set(re.findall(r"^ \S{2,3} (\S+) +\S+->\S+ ", told["filters"], re.MULTILINE)),
        "muxers": set(re.findall(r"^ [D ]E[d ] ?(\S+) ", told["formats"], re.MULTILINE)),
    }


def ask_deno() -> str:
    """Which deno yt-dlp would use.

    Raises:
      SoundbackError: none that it would.
    """
    program = find_deno()
    if program is None:
        raise SoundbackError("There is no deno; without it YouTube gives yt-dlp few videos or none.")
    command = [program, "--version"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SoundbackError(f"{program} does not run ({error}).") from error
    match = re.match(r"deno (\d+)\.(\d+)\.(\d+)", told)
    if match is None or tuple(map(int, match.groups())) < OLDEST_DENO:
        oldest = ".".join(map(str, OLDEST_DENO))
        raise SoundbackError(f"{program} says {told[:40]!r}; yt-dlp takes deno {oldest} or newer.")
    return match.group()


def find_deno() -> str | None:
    """The deno that yt-dlp would use: the interpreter's own, else the one on the PATH."""
    # As in yt_dlp/utils/_jsruntime.py.
    own = Path(sysconfig.get_path("scripts")) / f"deno{sysconfig.get_config_var('EXE') or ''}"
    return shutil.which(str(own)) or shutil.which("deno")


def list_gpus() -> list[str]:
    """The NVIDIA GPUs that the driver knows, by name."""
    if tool := shutil.which("nvidia-smi"):
        command = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            return []
        return [line.strip() for line in told.stdout.splitlines() if line.strip()]
    files = sorted(GPUS.glob("*/information"))
    return [match.group(1) for path in files if (match := re.search(r"Model:\s*(.+)", path.read_text()))]


def missing_for_cuda() -> Sequence[str]:
    """Packages that TensorFlow asks for to use a GPU and that are not installed."""
    try:
        asked = importlib.metadata.requires("tensorflow") or []
    except importlib.metadata.PackageNotFoundError:
        return ["tensorflow"]
    names = [match.group() for each in asked if "and-cuda" in each and (match := re.match(r"[\w.-]+", each))]
    installed = {each.name.lower().replace("_", "-") for each in importlib.metadata.distributions()}
    return [name for name in names if name.lower().replace("_", "-") not in installed]


def _answer(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate(timeout=ANSWER_TIMEOUT_S)
    if process.returncode != 0:
        raise subprocess.SubprocessError(f"it ended with {process.returncode}: {told.strip()[:200] or 'no words'}")
    return told


def _programs(kind: str, codec: str, words: str) -> list[str]:
    """The decoders or encoders of a codec: named where they are several, else called as the codec is."""
    named = re.search(rf"\({kind}: ([^)]*)\)", words)
    return named.group(1).split() if named else [codec]
