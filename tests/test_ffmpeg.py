"""Files made by ffmpeg, read back: time, shape, and what is refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import ffmpeg as graphs
import numpy as np
import psutil
import pytest

from soundback.errors import MediaError
from soundback.media import ffmpeg
from soundback.media.audio import write_wav
from tests.processes import still_running
from tests.synthetic import BRIGHT, DARK, Film, tone
from tests.timing import RATE, SAMPLE_RATE, all_frames, click_frames


def video_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


def test_frames_do_not_depend_on_the_batch(tmp_path):
    path = Film(events_s=(0.5, 1.1)).write(tmp_path / "film.mp4")
    batches = list(ffmpeg.read_frames(path, frame_rate=RATE, size=16, fit="stretch", batch=7))
    assert [len(batch) for batch in batches] == [7] * 7 + [1]
    np.testing.assert_array_equal(np.concatenate(batches), all_frames(path))


def test_dark_and_bright_keep_their_full_range_values(tmp_path):
    # A limited-range picture that is only unpacked, not converted, would give 50 and 205.
    frames = all_frames(Film().write(tmp_path / "film.mp4"))
    assert abs(int(np.median(frames[5])) - DARK) <= 2
    assert abs(int(np.median(frames[27])) - BRIGHT) <= 2


def test_fit_stretches_pads_or_crops(tmp_path):
    path = tmp_path / "wide.mp4"
    wide = graphs.input("color=white:s=96x48:r=25:d=0.2", format="lavfi").filter(
        "drawbox", 0, 0, 12, 48, "black", "fill"
    )
    ffmpeg.run(wide.output(str(path), pix_fmt="yuv420p"))
    stretched, padded, cropped = (all_frames(path, size=48, fit=fit)[0] for fit in ("stretch", "pad", "crop"))
    assert stretched[:, :5].max() < 40 < 200 < stretched[:, 8:].min()
    assert padded[:11].max() < 40 < 200 < padded[14:34, 8:].min()
    assert cropped.min() > 200


def test_five_channels_and_low_rates_become_one_waveform(tmp_path):
    path = Film().write(tmp_path / "film.mkv", **{"ac": 6, "ar": 8000})
    waveform = ffmpeg.read_waveform(path, sample_rate=SAMPLE_RATE)
    assert waveform.dtype == np.float32
    assert waveform.shape == pytest.approx((2 * SAMPLE_RATE,), abs=1100)
    assert click_frames(path) == [25]


def test_waveform_of_a_tone_is_that_tone(tmp_path):
    wav = tmp_path / "tone.wav"
    write_wav(wav, tone(440, duration_s=1, sample_rate=48000), 48000)
    waveform = ffmpeg.read_waveform(wav, sample_rate=SAMPLE_RATE)
    np.testing.assert_allclose(waveform[200:-200], tone(440, duration_s=1, sample_rate=8000)[200:-200], atol=2e-3)


def test_format_whitelist_alone_keeps_playlists_out(tmp_path):
    # The second lock: whatever slips past the look at the first bytes.
    Film().write(tmp_path / "secret.mp4")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n")
    node = graphs.input(f"file:{tmp_path}/list.m3u8", format_whitelist=ffmpeg.CONTAINERS).output(
        str(tmp_path / "out.mp4")
    )
    with pytest.raises(MediaError, match="whitelist"):
        ffmpeg.run(node)


def test_video_without_sound_has_no_waveform(tmp_path):
    path = Film(has_sound=False).write(tmp_path / "silent.mp4")
    with pytest.raises(MediaError, match=r"silent\.mp4") as caught:
        ffmpeg.read_waveform(path, sample_rate=8000)
    assert caught.value.status == "no_audio"


@pytest.mark.parametrize("name", ["-i.mp4", "a%03d.mp4", "http:x.mp4", "it's [a] film;.mp4"])
def test_odd_names_are_names(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Film().write(Path(name))
    assert len(all_frames(Path(name))) == 50
    assert len(ffmpeg.read_waveform(Path(name), sample_rate=8000)) == pytest.approx(16000, abs=300)
    ffmpeg.strip_sound(Path(name), Path(f"-{name}"))
    assert not ffmpeg.probe(Path(f"-{name}")).has_audio


def test_closing_frames_early_ends_ffmpeg_without_noise(tmp_path, capfd):
    path = Film(duration_s=20.0).write(tmp_path / "film.mp4")
    # Another test may have left a helper of multiprocessing's own.
    before = set(psutil.Process().children())
    frames = ffmpeg.read_frames(path, frame_rate=RATE, size=224, fit="stretch", batch=1)
    next(frames)
    assert set(psutil.Process().children()) - before
    frames.close()
    assert set(psutil.Process().children()) <= before
    assert capfd.readouterr() == ("", "")


def test_a_script_that_fails_between_two_frames_ends_with_its_own_error_alone(tmp_path):
    path = Film(duration_s=20.0).write(tmp_path / "film.mp4")
    # Held by a global name, the frames are given up only when Python itself ends.
    failing = (
        "from pathlib import Path; from soundback.media.ffmpeg import read_frames\n"
        f"frames = read_frames(Path('{path}'), frame_rate=25, size=224, fit='stretch', batch=1); next(frames)\n"
        "raise SystemExit('its own error')"
    )
    ended = subprocess.run([sys.executable, "-c", failing], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, "its own error\n")


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are only prevented on Linux")
def test_ffmpeg_dies_with_a_killed_reader_and_a_killed_runner(tmp_path):
    path = Film(duration_s=4.0).write(tmp_path / "film.mp4")
    running = (
        "import ffmpeg; from soundback.media.ffmpeg import run; "
        f"run(ffmpeg.input('testsrc=r=25', format='lavfi').filter('realtime').output('{tmp_path}/endless.mkv'))"
    )
    reading = (
        "from pathlib import Path; import time; from soundback.media.ffmpeg import read_frames; "
        f"frames = read_frames(Path('{path}'), frame_rate=25, size=224, fit='stretch', batch=1); "
        "next(frames); time.sleep(60)"
    )
    for code in (running, reading):
        process = subprocess.Popen([sys.executable, "-c", code])
        children = wait_for_children(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not still_running(children, within_s=5)


def wait_for_children(pid: int) -> list[psutil.Process]:
    for _ in range(200):
        children = psutil.Process(pid).children()
        if children:
            return children
        time.sleep(0.05)
    raise AssertionError("it started no ffmpeg")


def test_failure_says_what_ffmpeg_said_without_folders_or_addresses(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 1000)
    with pytest.raises(MediaError, match=r"broken\.mp4") as caught:
        ffmpeg.run(graphs.input(f"file:{broken}").output(str(tmp_path / "out.mp4")))
    assert caught.value.status == "corrupt"
    assert str(tmp_path) not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_same_run_gives_the_same_bytes(tmp_path):
    first, second = (Film().write(tmp_path / name).read_bytes() for name in ("a.mp4", "b.mp4"))
    assert first == second


def test_strip_sound_keeps_the_picture_untouched(tmp_path):
    video = Film().write(tmp_path / "film.mp4")
    out = tmp_path / "mute.mp4"
    ffmpeg.strip_sound(video, out)
    assert video_packets(out) == video_packets(video)
    assert not ffmpeg.probe(out).has_audio
