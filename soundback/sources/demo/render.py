"""Turns a scene into files as a video site would serve them: MP4, or picture and sound apart behind a manifest."""

import tempfile
import wave
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import numpy.typing as npt

from soundback.media.ffmpeg import run
from soundback.outputs import whole_folder
from soundback.sources.demo.drawing import chance
from soundback.sources.demo.world import Defect, Scene

MANIFEST = "manifest.mpd"
PLAIN = "video.mp4"
GARBAGE_BYTES = 60_000
SHARE_LEFT_OF_TRUNCATED = 0.6
# The fastest preset is bit-exact on all processors; the next one takes three times as long.
PICTURE = {"c:v": "libx264", "preset": "ultrafast", "crf": 25, "x264-params": "threads=1"}
# Lossless: decoders of lossy sound differ in the last bit from processor to processor.
SOUND = {"c:a": "flac", "compression_level": 5, "strict": "experimental"}
# Every ninth picture and every thirteenth is missing, with the time stamps of the others unchanged.
DROPPED = "not(eq(mod(n,9),3)+eq(mod(n,13),4))"


def render(scene: Scene, folder: Path, *, defect: Defect | None) -> None:
    """Writes a video as `PLAIN`, or as `MANIFEST` and what it names, into a new folder that appears whole.

    Args:
      scene: what to show.
      folder: where the files go.
      defect: how the file is broken; those that no file can show (gone, missing) change nothing.

    Raises:
      MediaError: ffmpeg failed.
    """
    with whole_folder(folder) as partial:
        if defect == "garbage":
            (partial / PLAIN).write_bytes(chance(scene.video_id, "garbage").bytes(GARBAGE_BYTES))
            return
        _encode(scene, partial / PLAIN, defect)
        if defect == "truncated":
            whole = (partial / PLAIN).read_bytes()
            (partial / PLAIN).write_bytes(whole[: int(len(whole) * SHARE_LEFT_OF_TRUNCATED)])
        elif is_separate(scene, defect):
            _take_apart(partial / PLAIN, partial / MANIFEST)
            (partial / PLAIN).unlink()


def is_separate(scene: Scene, defect: Defect | None) -> bool:
    """Whether a video is served behind a manifest."""
    return scene.separate and defect not in ("garbage", "truncated", "no_audio")


def _encode(scene: Scene, path: Path, defect: Defect | None) -> None:
    # Odd sizes have no half-size colour.
    odd = scene.width % 2 or scene.height % 2
    layout = "yuv444p" if odd else "yuv420p"
    picture = ffmpeg.input(
        "pipe:", format="rawvideo", pix_fmt=layout, s=f"{scene.width}x{scene.height}", framerate=scene.frame_rate
    )
    if scene.variable_frame_rate:
        picture = picture.filter("select", DROPPED)
    options: dict[str, Any] = {**PICTURE, "g": scene.frame_rate, "pix_fmt": layout, "fps_mode": "vfr", "f": "mp4"}
    feed = (_coloured(frame, scene.tint, halved=not odd) for frame in scene.frames())
    with tempfile.TemporaryDirectory() as folder:
        streams = [picture]
        if defect != "no_audio":
            waveform = scene.waveform()
            sound = Path(folder) / "sound.wav"
            _write_wav(sound, waveform * (defect != "silent"), scene.sample_rate)
            streams.append(ffmpeg.input(f"file:{sound}"))
            options |= SOUND
        run(ffmpeg.output(*streams, f"file:{path}", **options), feed=feed)


def _take_apart(video: Path, manifest: Path) -> None:
    """Puts picture and sound into a file each, with a DASH manifest that names them."""
    node = ffmpeg.input(f"file:{video}").output(
        f"file:{manifest}",
        f="dash",
        c="copy",
        strict="experimental",
        # A file per piece: yt-dlp does not read manifests that name byte ranges of one file.
        init_seg_name="stream$RepresentationID$.m4s",
        media_seg_name="stream$RepresentationID$.$Number$.m4s",
        seg_duration=2,
        adaptation_sets="id=0,streams=v id=1,streams=a",
    )
    run(node)


def _coloured(frame: npt.NDArray[np.uint8], tint: tuple[tuple[int, ...], ...], *, halved: bool) -> bytes:
    """Adds the tint to a gray picture; returns planar YUV of limited range, chroma at half size if `halved`."""
    gray = np.arange(256)
    shadows, lights = tint
    small = frame[::2, ::2] if halved else frame
    planes = [np.take((16 + gray * 219 // 255).astype(np.uint8), frame).tobytes()]
    for dark, bright in zip(shadows, lights, strict=True):
        chroma = 128 + (dark * (255 - gray) + bright * gray) // 255
        planes.append(np.take(chroma.astype(np.uint8), small).tobytes())
    return b"".join(planes)


def _write_wav(path: Path, waveform: npt.NDArray[np.int16], sample_rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(waveform.astype("<i2").tobytes())
