"""The same videos, wavs and frames on every x86-64 processor: made again by children that may use less of this one.

What a child may use: cores, the instructions that ffmpeg and x264 know of, those that NumPy, OpenBLAS, Arrow,
libjpeg-turbo and the C library choose by the processor. Each is made to believe in an older one by its own switch; and
in the end by what the processor says of itself, for those that have no switch.
"""

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import ffmpeg as graphs
import numpy as np
import pytest
import soundfile
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from soundback.media import ffmpeg
from soundback.media.loudness import Gain
from soundback.params import DemoSource, load_params
from soundback.sources.demo.render import render
from soundback.sources.demo.world import Scene, World
from stages.extract_audio import extract_audio
from stages.extract_frames import extract_frames
from tests.synthetic import noise, write_downloads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cores and C libraries are switched as on Linux")

PROJECT = Path(__file__).parents[1]
SECONDS, RATE = 1.5, 48000
PLAIN = {"c:v": "libx264", "preset": "veryfast", "c:a": "flac", "strict": -2}
FILES = {
    "h264_aac.mp4": {"c:a": "aac"},
    "h264_surround.mp4": {"c:a": "aac", "ac": 6},
    "h264_latm.ts": {"c:a": "aac", "mpegts_flags": "latm"},  # AAC that only the floating-point decoder takes
    "hevc_mp3.mkv": {"c:v": "libx265", "c:a": "libmp3lame"},
    "vp9_opus.webm": {"c:v": "libvpx-vp9", "cpu-used": 8, "c:a": "libopus"},
    "vp8_vorbis.webm": {"c:v": "libvpx", "c:a": "libvorbis"},
    "av1_ac3.mkv": {"c:v": "libsvtav1", "preset": 12, "c:a": "ac3"},
    "mpeg4_eac3.mkv": {"c:v": "mpeg4", "preset": None, "c:a": "eac3"},
    "mpeg2_mp2.ts": {"c:v": "mpeg2video", "preset": None, "c:a": "mp2"},
    "mjpeg_pcm.avi": {"c:v": "mjpeg", "preset": None, "pix_fmt": "yuvj420p", "c:a": "pcm_s16le"},
    "wmv_wma.asf": {"c:v": "wmv2", "preset": None, "c:a": "wmav2"},
    "h264_dts.mkv": {"c:a": "dca"},
    "h264_amr.mov": {"c:a": "libopencore_amrnb", "ar": 8000, "ac": 1},
    "ffv1_flac.mkv": {"c:v": "ffv1", "preset": None},
}
CANNOT = 77  # of old_processor.c
OLD_C_LIBRARY = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F"}
OLD_LIBRARIES = OLD_C_LIBRARY | {
    "NPY_DISABLE_CPU_FEATURES": " ".join(each for each in __cpu_dispatch__ if __cpu_features__[each]),
    "OPENBLAS_CORETYPE": "Nehalem",
    "ARROW_USER_SIMD_LEVEL": "NONE",
    "JSIMD_FORCENONE": "1",
}
WRAPPER = """#!/bin/sh
# An ffmpeg that keeps to older instructions, and has x264 keep to them.
for argument do
  shift
  case $argument in threads=1) argument=threads=1:asm={x264} ;; esac
  set -- "$@" "$argument"
done
exec {ffmpeg} -cpuflags {flags} "$@"
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of downloads in all codecs that are likely to be met."""
    folder = tmp_path_factory.mktemp("videos")
    times_s = np.arange(round(SECONDS * RATE)) / RATE
    glide = 0.3 * np.sin(2 * np.pi * (200 + 900 * times_s) * times_s)
    rush = noise(duration_s=SECONDS, sample_rate=RATE) * np.sin(9 * times_s)
    wav = folder / "sound.wav"
    soundfile.write(wav, np.stack([glide, glide + rush], axis=1), RATE)
    for name, options in FILES.items():
        picture = graphs.input(f"testsrc2=s=174x130:r=24:d={SECONDS}", format="lavfi").filter("noise", alls=9)
        sound = graphs.input(str(wav))
        told = {key: value for key, value in (PLAIN | {"pix_fmt": "yuv420p"} | options).items() if value is not None}
        ffmpeg.run(graphs.output(picture, sound.audio, str(folder / name), **told))
    wav.unlink()
    write_downloads(folder, {Path(name).stem: name for name in FILES})
    return folder


@pytest.fixture(scope="module")
def native(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of all that a child makes that may use everything."""
    return made_by_a_child(videos, tmp_path_factory.mktemp("native"), env={"SOUNDBACK_WORKERS": "2"})


def made_by_a_child(videos: Path, out: Path, *, env: dict[str, str], one_core: bool = False) -> dict[str, str]:
    code = (
        "import sys; from pathlib import Path; from tests.test_same_bytes import make; make(*map(Path, sys.argv[1:]))"
    )
    core = min(os.sched_getaffinity(0))
    child = subprocess.run(
        [sys.executable, "-c", code, str(videos), str(out)],
        cwd=PROJECT,
        env=os.environ | {"SOUNDBACK_EXECUTOR": "threads"} | env,
        preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if one_core else None,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


def make(videos: Path, out: Path) -> None:
    """What a child does: renders, extracts, prints the hashes."""
    for scene in scenes():
        render(scene, out / "rendered" / scene.video_id, defect=None)
    params = load_params(PROJECT / "params.yaml")
    extract_audio(videos, out / "audio", params=params.audio)
    for encoding in ("jpeg", "png"):
        # Few frames, as large as the pipeline's own.
        few = params.frames.model_copy(update={"frame_rate": 4, "encoding": encoding})
        extract_frames(videos, out / "frames" / encoding, params=few)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    print(json.dumps({str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}))


def scenes() -> list[Scene]:
    """One of each category, and of each kind of file."""
    world = World(DemoSource(kind="demo", seed=11, videos_per_label=12, duration_s=1.0))
    chosen = {}
    for video_id, video in world.videos.items():
        scene = world.scene(video_id)
        for kind in (video.label, scene.separate, scene.variable_frame_rate, f"odd {scene.width % 2}"):
            chosen.setdefault(kind, scene)
    return list({scene.video_id: scene for scene in chosen.values()}.values())


def wrapped_ffmpeg(folder: Path, *, flags: str, x264: str) -> Path:
    wrapper = folder / "ffmpeg"
    wrapper.write_text(WRAPPER.format(ffmpeg=ffmpeg.ffmpeg_path(), flags=flags, x264=x264))
    wrapper.chmod(0o755)
    return wrapper


def test_all_files_were_made(native):
    names = {name.partition("/")[0] for name in native}
    assert names == {"rendered", "audio", "frames"}
    assert {f"audio/{Path(name).stem}_00.wav" for name in FILES} < native.keys()


def test_one_core_and_one_worker_make_the_same(videos, native, tmp_path):
    assert made_by_a_child(videos, tmp_path, env={"SOUNDBACK_WORKERS": "1"}, one_core=True) == native


@pytest.mark.parametrize(("flags", "x264"), [("sse4.2", "SSE4.2"), ("avx2", "AVX2"), ("0", "0")])
def test_an_ffmpeg_without_newer_instructions_makes_the_same(videos, native, tmp_path, flags, x264):
    wrapper = wrapped_ffmpeg(tmp_path, flags=flags, x264=x264)
    env = {"IMAGEIO_FFMPEG_EXE": str(wrapper), "SOUNDBACK_WORKERS": "2"}
    assert made_by_a_child(videos, tmp_path / "out", env=env) == native


def test_libraries_without_newer_instructions_make_the_same(videos, native, tmp_path):
    # ffmpeg too, as both might be old: its own switch does not reach the C library's sines.
    wrapper = wrapped_ffmpeg(tmp_path, flags="sse4.2", x264="SSE4.2")
    env = OLD_LIBRARIES | {"IMAGEIO_FFMPEG_EXE": str(wrapper), "SOUNDBACK_WORKERS": "2"}
    assert made_by_a_child(videos, tmp_path / "out", env=env) == native


def test_a_processor_that_claims_to_be_old_makes_the_same(videos, native, tmp_path):
    library = tmp_path / "old_processor.so"
    try:
        source = str(PROJECT / "tests" / "old_processor.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), source], check=True)
    except OSError:
        pytest.skip("there is no C compiler")
    # The C library asked the processor before.
    env = OLD_C_LIBRARY | {"LD_PRELOAD": str(library)}
    features = "from numpy._core._multiarray_umath import __cpu_features__ as f; print(f['SSE42'], f['AVX'])"
    tried = subprocess.run([sys.executable, "-c", features], env=os.environ | env, capture_output=True, text=True)
    if tried.returncode == CANNOT:
        pytest.skip("this kernel or processor traps no CPUID")
    assert tried.stdout.split() == ["True", "False"]
    assert made_by_a_child(videos, tmp_path / "out", env=env | {"SOUNDBACK_WORKERS": "2"}) == native


@pytest.mark.skipif(not __cpu_features__["AVX2"], reason="this processor is an old one itself")
def test_the_switches_reach_what_they_are_meant_for(videos, tmp_path):
    """Without the cures, processors do differ: else the tests above would show nothing."""
    opus = ["-i", str(videos / "vp9_opus.webm"), "-map", "0:a", "-f", "md5", "-"]
    old = wrapped_ffmpeg(tmp_path, flags="sse4.2", x264="SSE4.2")
    assert len({subprocess.run([each, *opus], capture_output=True).stdout for each in (ffmpeg.ffmpeg_path(), old)}) == 2
    code = "import math, numpy; print([math.sin(k) for k in range(9999)], numpy.tanh(numpy.arange(999.)).tolist())"
    said = [
        subprocess.run([sys.executable, "-c", code], env=os.environ | env, capture_output=True).stdout
        for env in ({}, OLD_LIBRARIES, OLD_C_LIBRARY)
    ]
    assert len(set(said)) == 3


def test_every_gain_scales_alike_with_an_older_c_library():
    code = "from tests.test_same_bytes import hash_of_all_gains; print(hash_of_all_gains())"
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=os.environ | OLD_LIBRARIES, capture_output=True, text=True
    )
    assert child.stdout.split() == [hash_of_all_gains()]


def hash_of_all_gains() -> str:
    """Of what every gain from -120 to 120 dB makes of one sample: the last step before samples are rounded."""
    one = np.ones(1, np.float32)
    scaled = (float(Gain(thousandths / 1000, "loudness").apply(one)[0]) for thousandths in range(-120_000, 120_001))
    return hashlib.sha256(b"".join(struct.pack("f", each) for each in scaled)).hexdigest()
