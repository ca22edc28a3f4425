"""Films of every kind that ffmpeg can make: each gives the right frames at the right time, or a reason."""

import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg as graphs
import numpy as np
import pytest

from soundback import schemas
from soundback.errors import MediaError
from soundback.media import ffmpeg
from soundback.media.light import gray_formula
from soundback.media.remuxing import cut
from soundback.media.shards import list_row_groups
from soundback.params import load_params
from stages.extract_audio import extract_audio
from stages.extract_frames import extract_frames
from tests.synthetic import BRIGHT, DARK, SOUND_RATE, Film, rotated, write_downloads
from tests.timing import HOP, RATE, SAMPLE_RATE, all_frames, click_frames, flash_frames

EVENTS_S, EVENT_FRAMES = (0.52, 1.2), [13, 30]
LOSSLESS = {"c:v": "libx264", "qp": 0, "preset": "ultrafast"}
X265 = {"c:v": "libx265", "preset": "ultrafast", "x265-params": "log-level=error"}
VP9 = {"c:v": "libvpx-vp9", "deadline": "realtime", "cpu-used": 8}
B_FRAMES = {"preset": "veryfast", "bf": 2, "g": 50}
FULL = {"vf": "scale=out_range=full", "color_range": "pc"}


@dataclass(frozen=True)
class Kind:
    """A way to write the film that flashes and clicks at EVENTS_S.

    Attributes:
      suffix: of the file.
      options: for ffmpeg's output.
      film: other attributes of the film.
      tail: how many frames more than the film its container counts, for a sound track that begins a little earlier.
    """

    suffix: str
    options: dict[str, Any] = field(default_factory=dict)
    film: dict[str, Any] = field(default_factory=dict)
    tail: int = 0

    def write(self, folder: Path) -> Path:
        return Film(events_s=EVENTS_S, **self.film).write(folder / f"film{self.suffix}", **self.options)


KINDS = {
    "mp4": Kind(".mp4"),
    "mov": Kind(".mov"),
    "mkv": Kind(".mkv"),
    "webm": Kind(".webm"),
    "avi": Kind(".avi"),
    "ts": Kind(".ts", tail=1),
    "gif": Kind(".gif", film={"has_sound": False}),
    "flv": Kind(".flv", tail=1),
    "mpg": Kind(".mpg", tail=1),
    "ogv": Kind(".ogv"),
    "pictures coded out of order": Kind(".mp4", B_FRAMES),
    "pictures coded out of order, mkv": Kind(".mkv", B_FRAMES),
    "pictures coded out of order, ts": Kind(".ts", B_FRAMES, tail=1),
    "pictures coded out of order, mpg": Kind(".mpg", {"bf": 2}, tail=1),
    "pictures coded out of order, avi": Kind(".avi", {"c:v": "mpeg4", "bf": 2, "pix_fmt": "yuv420p"}),
    "pictures coded out of order, h264 in avi": Kind(".avi", {"c:v": "libx264", "pix_fmt": "yuv420p"} | B_FRAMES),
    "fragments": Kind(".mp4", {"movflags": "frag_keyframe+empty_moov"}, tail=1),
    "streamed webm, no duration": Kind(".webm", {"live": 1}),
    "streamed mkv, no duration": Kind(".mkv", {"live": 1}),
    "start offset": Kind(".mkv", film={"starts_at_s": 3.3, "sound_late_s": 0.1}),
    "start offset, ts": Kind(".ts", film={"starts_at_s": 3.3}, tail=1),
    "start offset, mp4": Kind(".mp4", film={"starts_at_s": 3.3}, tail=1),
    "h264, 10 bit": Kind(".mp4", {"pix_fmt": "yuv420p10le"}),
    "h264, 4:2:2 10 bit": Kind(".mkv", {"pix_fmt": "yuv422p10le"}),
    "h264, 4:4:4": Kind(".mp4", {"pix_fmt": "yuv444p"}),
    "h264, full range": Kind(".mp4", FULL),
    "h264, rgb": Kind(".mkv", {"c:v": "libx264rgb", "pix_fmt": "rgb24"}),
    "h264, gray": Kind(".mkv", {"pix_fmt": "gray"}),
    "hevc, 10 bit": Kind(".mp4", X265 | {"pix_fmt": "yuv420p10le"}),
    "hevc, 4:2:2 12 bit": Kind(".mkv", X265 | {"pix_fmt": "yuv422p12le"}),
    "hevc, full range 10 bit": Kind(".mp4", X265 | FULL | {"pix_fmt": "yuv420p10le"}),
    "vp9, 10 bit": Kind(".webm", VP9 | {"pix_fmt": "yuv420p10le"}),
    "vp9, 4:4:4": Kind(".webm", VP9 | {"pix_fmt": "yuv444p"}),
    "vp9, with alpha": Kind(".webm", VP9 | {"pix_fmt": "yuva420p"}),
    "ffv1, rgb 10 bit": Kind(".mkv", {"c:v": "ffv1", "pix_fmt": "gbrp10le"}),
    "prores": Kind(".mov", {"c:v": "prores_ks", "pix_fmt": "yuv422p10le"}),
    "av1": Kind(".mp4", {"c:v": "libsvtav1", "preset": 12}),
    "portrait": Kind(".mp4", film={"size": (48, 64)}),
    "odd size": Kind(".mp4", {"pix_fmt": "yuv444p"}, {"size": (63, 47)}),
    "odd size, 4:2:0": Kind(".webm", film={"size": (63, 47)}),
    "one pixel wide": Kind(".mkv", {"pix_fmt": "yuv444p"}, {"size": (1, 48)}),
    "one pixel high": Kind(".mkv", {"pix_fmt": "yuv444p"}, {"size": (64, 1)}),
    "one pixel": Kind(".mkv", {"pix_fmt": "gray"}, {"size": (1, 1)}),
    "one second": Kind(".mp4", film={"duration_s": 1.24}),
    "turned": Kind(".mp4", film={"rotation": 90}),
}


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> dict[str, Path]:
    """A film of each of KINDS."""
    paths = {}
    for name, kind in KINDS.items():
        paths[name] = kind.write(tmp_path_factory.mktemp("film"))
    return paths


@pytest.mark.parametrize("name", KINDS)
def test_frames_of_every_kind_have_the_right_number_time_and_gray(films, name):
    kind, path = KINDS[name], films[name]
    probe = ffmpeg.probe(path)
    width, height = kind.film.get("size", (64, 48))
    assert {probe.width, probe.height} == {width, height}
    assert not probe.interlaced
    frames = all_frames(path)
    n_frames = round(kind.film.get("duration_s", 2.0) * RATE)
    assert len(frames) == n_frames + kind.tail == math.ceil(round(probe.duration_s * RATE, 3))
    events = [frame for frame in EVENT_FRAMES if frame < n_frames]
    assert flash_frames(path) == events
    if probe.has_audio:
        assert click_frames(path) == events
    bright = np.isin(np.arange(len(frames)), [first + k for first in events for k in range(5)])
    assert np.abs(np.median(frames[bright], axis=0) - BRIGHT).max() <= 2
    assert np.abs(np.median(frames[~bright], axis=0) - DARK).max() <= 2


@pytest.mark.parametrize("rate", ["12", "16", "24", "25", "30", "30000/1001", "60"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_flash_and_click_meet_in_one_frame_at_every_source_rate(tmp_path, rate, suffix):
    event_s = float(11 / Fraction(rate))  # on a picture of the source
    film = Film(frame_rate=rate, events_s=(event_s,))
    path = film.write(tmp_path / f"film{suffix}")
    # A transport stream begins with what the encoder of the sound needs to begin, less than a frame.
    expected = [[int((event_s + late_s) * RATE + 1e-3)] for late_s in ((0, 0.0239) if suffix == ".ts" else (0,))]
    assert flash_frames(path) == click_frames(path)
    assert flash_frames(path) in expected


@pytest.mark.parametrize("rate", [12, 16, 24, 25, 30, 60])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".flv", ".avi", ".mov"])
def test_frames_at_the_rate_of_the_film_are_its_pictures(tmp_path, rate, suffix):
    # Matroska and Flash video count in milliseconds: 33, 67, 100 ...
    path = tmp_path / f"film{suffix}"
    grays = np.arange(30, 230, 5)
    source = graphs.input("pipe:", format="rawvideo", pix_fmt="gray", s="32x32", framerate=rate)
    feed = [np.full((32, 32), gray, np.uint8).tobytes() for gray in grays]
    options = {".webm": {"c:v": "libvpx-vp9", "lossless": 1}, ".avi": {"c:v": "ffv1"}}.get(suffix, LOSSLESS)
    ffmpeg.run(source.output(str(path), pix_fmt="yuv420p", **options), feed=feed)
    frames = all_frames(path, frame_rate=rate)
    assert np.abs(frames.mean(axis=(1, 2)) - grays).max() <= 1


VARIABLE = Film(frame_rate="100", keep=(0, 1, 9, 40, 41, 73, 77, 110, 150, 199), events_s=(0.73,), flash_s=0.3)


@pytest.mark.parametrize(
    "film",
    [VARIABLE, Film(sound_late_s=0.37), Film(picture_late_s=0.32), Film(sound_late_s=0.2, picture_late_s=0.52)],
    ids=["variable frame rate", "late sound", "late picture", "both late"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".ts"])
def test_flash_and_click_meet_in_one_frame_whatever_the_time_stamps(tmp_path, film, suffix):
    path = film.write(tmp_path / f"film{suffix}")
    # Where both start late, the file starts with the earlier one.
    event_s = film.events_s[0] - min(film.sound_late_s, film.picture_late_s)
    found = flash_frames(path), click_frames(path)
    assert found == ([int(event_s * RATE + 1e-6)],) * 2


def test_last_picture_lasts_as_long_as_the_file_says(tmp_path):
    # Its own length is not told; ffmpeg takes it for as long as the one before, here half a second.
    film = Film(frame_rate=VARIABLE.frame_rate, keep=VARIABLE.keep, events_s=VARIABLE.events_s, has_sound=False)
    path = film.write(tmp_path / "film.gif")
    assert len(all_frames(path)) == 2 * RATE


def test_frames_are_as_many_as_the_duration_asks_for_at_any_rate(tmp_path):
    path = Film(frame_rate="30", duration_s=2.0).write(tmp_path / "film.mp4")
    assert [len(all_frames(path, frame_rate=rate)) for rate in (4, 25, 30, 50)] == [8, 50, 60, 100]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".gif", ".mov"])
def test_single_picture_gives_one_frame(tmp_path, suffix):
    film = Film(duration_s=1 / RATE, events_s=(0.0,), has_sound=False)
    frames = all_frames(film.write(tmp_path / f"film{suffix}"))
    assert len(frames) == 1
    assert np.abs(frames.astype(int) - BRIGHT).max() <= 2


@pytest.mark.parametrize("n_pictures", [1, 2, 3])
def test_few_pictures_coded_out_of_order_are_all_there(tmp_path, n_pictures):
    film = Film(duration_s=n_pictures / RATE, events_s=((n_pictures - 1) / RATE,), has_sound=False)
    for suffix, options in ((".avi", {"c:v": "mpeg4", "bf": 2, "pix_fmt": "yuv420p"}), (".mp4", B_FRAMES)):
        path = film.write(tmp_path / f"film{suffix}", **options)
        assert len(all_frames(path)) == n_pictures
        assert flash_frames(path) == [n_pictures - 1]


@pytest.mark.parametrize("sound_s", [0.5, 4.0])
def test_number_of_frames_does_not_depend_on_the_length_of_the_sound(tmp_path, sound_s):
    film = graphs.input(str(Film().write(tmp_path / "film.mp4")))["v:0"]
    for suffix, codec in ((".mkv", "libvorbis"), (".mp4", "aac")):
        path = tmp_path / f"other{suffix}"
        sound = graphs.input(f"sine=d={sound_s}", format="lavfi")
        ffmpeg.run(graphs.output(film, sound, str(path), **{"c:v": "copy", "c:a": codec}))
        assert len(all_frames(path)) == 2 * RATE
        assert len(ffmpeg.read_waveform(path, sample_rate=SAMPLE_RATE)) / SAMPLE_RATE == pytest.approx(
            sound_s, abs=0.05
        )


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_piece_cut_between_key_frames_stays_in_sync(tmp_path, suffix):
    film = Film(events_s=(0.92, 1.6), duration_s=3.0).write(tmp_path / "film.mp4", **B_FRAMES | {"g": 25})
    piece = tmp_path / f"piece{suffix}"
    cut(film, piece, start_s=0.6, duration_s=1.4)
    # Matroska cannot hide what comes before: there the piece begins at the key frame.
    begins_s = 0.0 if suffix == ".mkv" else 0.6
    events = [round((event_s - begins_s) * RATE) for event_s in (0.92, 1.6)]
    assert flash_frames(piece) == click_frames(piece) == events


def test_piece_of_an_avi_is_in_sync_or_refused(tmp_path):
    h264 = {"c:v": "libx264", "preset": "veryfast", "pix_fmt": "yuv420p"}
    film = Film(events_s=EVENTS_S).write(tmp_path / "film.avi", **h264, bf=0)
    cut(film, tmp_path / "piece.mp4", start_s=0, duration_s=2)
    assert flash_frames(tmp_path / "piece.mp4") == click_frames(tmp_path / "piece.mp4") == EVENT_FRAMES
    with pytest.raises(MediaError, match=r"film\.avi.*Matroska") as caught:
        cut(Film().write(film, **h264, bf=2), tmp_path / "other.mp4", start_s=0, duration_s=2)
    assert caught.value.status == "refused"
    assert not (tmp_path / "other.mp4").exists()


def test_empty_edit_delays_the_picture(tmp_path):
    # An edit list that begins with nothing for 0.4 s, as cameras write where the microphone was first.
    path = Film(events_s=(1.0,), picture_late_s=0.4).write(tmp_path / "film.mov")
    assert b"elst" in path.read_bytes()
    assert flash_frames(path) == click_frames(path) == [25]
    assert len(all_frames(path)) == 60
    # Before the first picture there is none to show but itself.
    assert np.abs(all_frames(path)[:10].astype(int) - DARK).max() <= 2


QUADRANTS = np.kron(np.array([[30, 90], [150, 210]], np.uint8), np.ones((48, 64), np.uint8))


def quadrants(path: Path, **options: Any) -> Path:
    """A film of 0.2 s of four gray quadrants, 128 x 96."""
    source = graphs.input("pipe:", format="rawvideo", pix_fmt="gray", s="128x96", framerate=25)
    options = {"pix_fmt": "yuv420p", "crf": 1, "preset": "ultrafast"} | options
    ffmpeg.run(source.output(str(path), **options), feed=[QUADRANTS.tobytes()] * 5)
    return path


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_pictures_are_upright_frames(tmp_path, degrees):
    upright = quadrants(tmp_path / "film.mp4")
    turned = np.rot90(all_frames(upright)[0], degrees // 90)
    frames = all_frames(rotated(upright, degrees))
    assert np.abs(frames.astype(int) - turned).max() <= 3
    probe = ffmpeg.probe(upright)
    assert (probe.width, probe.height) == ((128, 96) if degrees == 180 else (96, 128))


@pytest.mark.parametrize(("flip", "axis"), [("display_hflip", 1), ("display_vflip", 0)])
def test_mirrored_pictures_are_frames_as_shown(tmp_path, flip, axis):
    upright, mirrored = quadrants(tmp_path / "film.mp4"), tmp_path / "mirrored.mp4"
    ffmpeg.run(graphs.input(str(upright), **{flip: None}).output(str(mirrored), c="copy"))
    expected = np.flip(all_frames(upright)[0], axis)
    assert np.abs(all_frames(mirrored)[0].astype(int) - expected).max() <= 3


@pytest.mark.parametrize(("turned", "shown"), [(0, (192, 96)), (90, (96, 192))])
def test_oblong_pixels_count_when_fitting(tmp_path, turned, shown):
    path = quadrants(tmp_path / "film.mp4", aspect="2:1")
    path = rotated(path, turned) if turned else path
    probe = ffmpeg.probe(path)
    assert (probe.width, probe.height) == shown
    padded = all_frames(path, size=64, fit="pad")[0]
    padded = padded.T if turned else padded
    # Twice as wide as high: it fills half of the square.
    assert padded[:15].max() < 10
    assert padded[49:].max() < 10
    assert padded[17:47].min() > 20
    cropped = all_frames(path, size=64, fit="crop")[0]
    assert cropped.min() > 20


LEVELS = np.arange(4, 256, 8)
RAMP = np.kron(LEVELS[None], np.ones((64, 8), int)).astype("<u2") * 257
# zimg's own formulas, in floating point: the light of an ordinary screen with white at 203 cd/m2, coded anew.
IN_HIGH_RANGE = (
    "setparams=range=pc,format=gbrpf32le,setparams=color_primaries=bt2020:color_trc=bt709:colorspace=gbr:range=pc,"
    "zscale=t=linear:npl=203,zscale=t={}:npl=203:m={}:r={}"
)


def gray_ramp(path: Path, transfer: str | None, *, full: bool, options: dict[str, Any]) -> Path:
    """A film of 32 grays from left to right, with the light of LEVELS on an ordinary screen."""
    source = graphs.input("pipe:", format="rawvideo", pix_fmt="gray16le", s="256x64", framerate=25)
    values, matrix = "full" if full else "limited", "gbr" if options.get("pix_fmt") == "gbrp12le" else "2020_ncl"
    filters = IN_HIGH_RANGE.format(transfer, matrix, values) if transfer else f"scale=out_range={values}"
    options = {"vf": filters, "color_range": "pc" if full else "tv", "pix_fmt": "yuv420p10le"} | options
    if transfer:
        options |= {"color_trc": transfer, "color_primaries": "bt2020", "colorspace": "bt2020nc"}
    ffmpeg.run(source.output(str(path), **options), feed=[RAMP.tobytes()] * 3)
    return path


@pytest.mark.parametrize(
    ("suffix", "full", "options"),
    [
        (".mp4", False, {"c:v": "libx265", "x265-params": "lossless=1:log-level=error", "preset": "ultrafast"}),
        (".mp4", True, {"c:v": "libx264", "qp": 0, "preset": "ultrafast"}),
        (".webm", False, VP9 | {"lossless": 1}),
        (".mov", False, {"c:v": "prores_ks", "pix_fmt": "yuv422p10le"}),
        (".mkv", True, {"c:v": "ffv1", "pix_fmt": "gbrp12le"}),
    ],
    ids=["hevc", "h264, full range", "vp9", "prores", "rgb"],
)
@pytest.mark.parametrize("transfer", [None, "smpte2084", "arib-std-b67"])
def test_grays_of_high_dynamic_range_are_those_of_the_same_light_on_an_ordinary_screen(
    tmp_path, transfer, suffix, full, options
):
    path = gray_ramp(tmp_path / f"ramp{suffix}", transfer, full=full, options=options)
    frames = all_frames(path, size=32)
    assert frames.shape == (3, 32, 32)
    assert np.abs(frames[:, 2:-2].astype(int) - LEVELS).max() <= 2


def by_book(transfer: int, coded: np.ndarray) -> np.ndarray:
    """Grays of an ordinary screen in [0, 1], by the formulas as ST 2084 and BT.2100 print them."""
    if transfer == 16:
        power = coded ** (1 / 78.84375)
        light = 10000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    else:
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
        light = 1000 * np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12) ** 1.2
    return np.minimum(light / 203, 1) ** (1 / 2.4)


@pytest.mark.parametrize("transfer", [16, 18])
def test_table_of_grays_is_exact_and_far_from_any_doubt(tmp_path, transfer):
    coded = np.arange(4096, dtype="<u2")
    source = graphs.input("pipe:", format="rawvideo", pix_fmt="gray12le", s="64x64", framerate=25)
    node = source.filter("lut", c0=gray_formula(transfer, bits=12))
    ffmpeg.run(node.output(str(tmp_path / "table"), format="rawvideo", pix_fmt="gray12le"), feed=[coded.tobytes()])
    grays = 4080 * by_book(transfer, coded / 4095)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "table", "<u2"), np.floor(grays + 0.5))
    # So the last bits of a power, which differ between processors, do not matter.
    assert np.abs((grays + 0.5) % 1 - 0.5).max() < 0.5 - 1e-5


def test_light_beyond_white_is_white(tmp_path):
    # 1000 cd/m2 in PQ is 0.75; only a fifth of that is white.
    source = graphs.input("color=c=0xC0C0C0:s=64x48:r=25:d=0.2", format="lavfi")
    path = tmp_path / "sun.mkv"
    source = source.filter("setparams", color_trc="smpte2084")
    ffmpeg.run(source.output(str(path), **{"c:v": "ffv1", "pix_fmt": "gbrp"}))
    assert all_frames(path).min() == 255


def sweep(path: Path, *, scan: str | None) -> Path:
    """A bright bar that moves from left to right, 50 pictures a second, or their fields at 25 a second."""
    pictures = np.full((50, 96, 128), DARK, np.uint8)
    for k, picture in enumerate(pictures):
        picture[:, 2 * k : 2 * k + 16] = BRIGHT
    source = graphs.input("pipe:", format="rawvideo", pix_fmt="gray", s="128x96", framerate=50)
    options: dict[str, Any] = {"crf": 1, "preset": "ultrafast", "pix_fmt": "yuv420p"}
    if scan:
        options |= {"vf": f"interlace=scan={scan}:lowpass=0", "c:v": "libx264", "x264-params": f"{scan}=1"}
    ffmpeg.run(source.output(str(path), **options), feed=[pictures.tobytes()])
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
@pytest.mark.parametrize("scan", ["tff", "bff"])
@pytest.mark.parametrize("frame_rate", [10, 25, 50])
def test_interlaced_frames_are_those_of_the_progressive_film(tmp_path, scan, suffix, frame_rate):
    path = sweep(tmp_path / f"fields{suffix}", scan=scan)
    assert ffmpeg.probe(path).interlaced
    fields = all_frames(path, size=48, frame_rate=frame_rate).astype(int)
    whole = all_frames(sweep(tmp_path / "whole.mp4", scan=None), size=48, frame_rate=frame_rate).astype(int)
    assert fields.shape == whole.shape
    assert np.abs(fields - whole).mean(axis=(1, 2)).max() < 1.5
    # One picture off, which is what a comb is half of, would show:
    assert np.abs(np.diff(whole, axis=0)).mean(axis=(1, 2)).min() > 5


@pytest.mark.parametrize("suffix", [".avi", ".mov"])
def test_film_of_a_camcorder_is_interlaced_and_in_time(tmp_path, suffix):
    options = {"c:v": "dvvideo", "pix_fmt": "yuv420p", "c:a": "pcm_s16le", "ar": 48000, "aspect": "4:3"}
    path = Film(events_s=EVENTS_S, size=(720, 576)).write(tmp_path / f"film{suffix}", **options)
    probe = ffmpeg.probe(path)
    assert probe.interlaced
    assert (probe.width, probe.height) == (768, 576)
    assert flash_frames(path) == click_frames(path) == EVENT_FRAMES
    assert len(all_frames(path)) == 50


@pytest.mark.parametrize("scan", ["tff", "bff"])
def test_flash_in_the_second_field_meets_its_click(tmp_path, scan):
    film = Film(frame_rate="50", events_s=(0.52, 1.22))  # the second is in the second field of picture 30
    options = {"vf": f"interlace=scan={scan}:lowpass=0", "x264-params": f"{scan}=1"}
    path = film.write(tmp_path / "film.mp4", **options)
    assert flash_frames(path) == click_frames(path) == [13, 30]
    assert set(np.unique(np.round(all_frames(path) / 10))) == {DARK // 10, BRIGHT // 10}


def test_picture_that_changes_size_midway_keeps_its_time(tmp_path):
    first = Film(events_s=EVENTS_S, has_sound=False).write(tmp_path / "first.ts")
    second = Film(events_s=(0.6,), size=(128, 96), starts_at_s=2.0, has_sound=False).write(tmp_path / "second.ts")
    path = tmp_path / "film.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    assert flash_frames(path) == [*EVENT_FRAMES, 65]
    assert len(all_frames(path)) == 100


def beside(folder: Path, what: str) -> Path:
    """The film with something beside its picture and sound."""
    film = graphs.input(str(KINDS["mp4"].write(folder)))
    picture, sound = film["v:0"], film["a:0"]
    cover, words = folder / "cover.png", folder / "words.srt"
    other = Film(events_s=(0.2,), size=(32, 32)).write(folder / "other.mp4")
    ffmpeg.run(graphs.input("color=white:s=64x64", format="lavfi").output(str(cover), **{"frames:v": 1, "update": 1}))
    words.write_text("1\n00:00:00,100 --> 00:00:01,500\nhello\n")
    art, second, text = (graphs.input(str(path)) for path in (cover, other, words))
    nodes = {
        "cover art before it": lambda out: graphs.output(
            art["v:0"], picture, sound, f"{out}.mp4", **{"c": "copy", "disposition:v:0": "attached_pic"}
        ),
        "cover art attached": lambda out: graphs.output(
            picture, sound, f"{out}.mkv", **{"c": "copy", "attach": str(cover), "metadata:s:t": "mimetype=image/png"}
        ),
        "a second picture": lambda out: graphs.output(picture, second["v:0"], sound, f"{out}.mp4", c="copy"),
        "subtitles": lambda out: graphs.output(text["s:0"], picture, sound, f"{out}.mkv", c="copy"),
        "a time code": lambda out: graphs.output(picture, sound, f"{out}.mov", c="copy", timecode="01:00:00:00"),
    }
    out = folder / "beside"
    ffmpeg.run(nodes[what](out))
    return next(folder.glob("beside.*"))


@pytest.mark.parametrize(
    "what", ["cover art before it", "cover art attached", "a second picture", "subtitles", "a time code"]
)
def test_what_is_beside_the_picture_does_not_disturb(tmp_path, what):
    path = beside(tmp_path, what)
    assert ffmpeg.probe(path).width == 64
    assert flash_frames(path) == click_frames(path) == EVENT_FRAMES


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".ts", ".avi"])
def test_what_is_left_of_a_truncated_film_is_in_time(tmp_path, suffix):
    options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    whole = Film(events_s=(0.2, 2.9), duration_s=3.0).write(tmp_path / f"film{suffix}", **options)
    frames = all_frames(whole)
    path = tmp_path / f"half{suffix}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    assert 5 < len(all_frames(path)) < len(frames)
    assert flash_frames(path) == click_frames(path) == [5]


def subtitles_alone(folder: Path) -> Path:
    words = folder / "words.srt"
    words.write_text("1\n00:00:00,100 --> 00:00:01,500\nhello\n")
    ffmpeg.run(graphs.input(str(words)).output(str(folder / "words.mkv"), **{"c:s": "srt"}))
    return folder / "words.mkv"


def cover_alone(folder: Path) -> Path:
    art = graphs.input("color=red:s=64x64:r=1:d=1", format="lavfi")
    sound = graphs.input(f"sine=d=1.5:r={SOUND_RATE}", format="lavfi")
    options = {"c:v": "png", "c:a": "aac", "disposition:v:0": "attached_pic", "format": "mp4"}
    ffmpeg.run(graphs.output(sound, art, str(folder / "song.mp4"), **options))
    return folder / "song.mp4"


def picture_alone(folder: Path) -> Path:
    still = graphs.input("color=red:s=64x64:r=1:d=1", format="lavfi")
    ffmpeg.run(still.output(str(folder / "still.png"), **{"frames:v": 1, "update": 1}))
    return (folder / "still.png").rename(folder / "still.mp4")


def holding(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def head_alone(folder: Path) -> Path:
    whole = Film().write(folder / "whole.mp4", movflags="+faststart")
    (folder / "head.mp4").write_bytes(whole.read_bytes()[:3000])
    whole.unlink()
    return folder / "head.mp4"


BAD = {
    "cover alone": (cover_alone, "no_video"),
    "subtitles alone": (subtitles_alone, "no_video"),
    "still picture": (picture_alone, "refused"),
    "head of a film": (head_alone, "corrupt"),
    "nothing": (holding("nothing.mp4", b""), "not_media"),
    "noise": (holding("noise.mp4", np.random.default_rng(0).bytes(4000)), "not_media"),
    "text": (holding("text.mp4", b"hello " * 100), "not_media"),
    "playlist": (holding("list.mp4", b"#EXTM3U\n#EXTINF:9,\nother.mp4\n"), "refused"),
    "archive": (holding("archive.mp4", b"PK\x03\x04" + bytes(500)), "not_media"),
}


@pytest.mark.parametrize(("write", "status"), BAD.values(), ids=BAD)
def test_what_has_no_moving_picture_is_named_so(tmp_path, write, status):
    path = write(tmp_path)
    with pytest.raises(MediaError, match=path.name) as caught:
        all_frames(path)
    assert caught.value.status == status


@pytest.mark.parametrize("kind", ["mp4", "webm", "avi", "ts", "mkv"])
def test_name_does_not_matter(tmp_path, kind):
    path = KINDS[kind].write(tmp_path)
    for name in ("film.mp4", "film.avi", "film.txt"):
        assert flash_frames(path.rename(tmp_path / name)) == EVENT_FRAMES
        path = tmp_path / name


def test_every_kind_has_its_frames_and_its_sound_or_its_reason_behind_the_stages(films, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("SOUNDBACK_EXECUTOR", "threads")  # Processes would take longer to start than the work.
    caplog.set_level(logging.INFO)
    videos = tmp_path / "videos"
    videos.mkdir()
    files, expected = {}, {}
    for number, (name, path) in enumerate(films.items()):
        video_id = f"good{number:02d}"
        files[video_id], expected[video_id] = f"{video_id}{path.suffix}", (name, KINDS[name])
        shutil.copy(path, videos / files[video_id])
    for number, (write, _) in enumerate(BAD.values()):
        files[f"bad{number:02d}"] = write(videos).name
    write_downloads(videos, files)
    params = load_params()
    frames_params = params.frames.model_copy(update={"size": 32})
    extract_frames(videos, tmp_path / "frames", params=frames_params)
    extract_audio(videos, tmp_path / "audio", params=params.audio)
    sounds = schemas.read_table(tmp_path / "audio" / "audio.parquet", schemas.AUDIO).to_pylist()
    n_frames: dict[str, int] = {}
    for row_group in list_row_groups(tmp_path / "frames"):
        n_frames[row_group.video_id] = n_frames.get(row_group.video_id, 0) + row_group.n_frames
    for video_id, (name, kind) in expected.items():
        seconds = kind.film.get("duration_s", 2.0)
        assert n_frames.pop(video_id) == round(seconds * params.frames.frame_rate) + kind.tail, name
        row = next(row for row in sounds if row["video_id"] == video_id)
        assert row["status"] == ("ok" if kind.film.get("has_sound", True) else "no_audio"), name
        seconds += kind.film.get("sound_late_s", 0)
        assert row["reason"] or row["n_samples"] == pytest.approx(seconds * params.audio.sample_rate, abs=3 * HOP)
    assert not n_frames
    for video_id, file in files.items():
        if video_id.startswith("bad"):
            row = next(row for row in sounds if row["video_id"] == video_id)
            assert row["status"] == "ok" if file == "song.mp4" else row["reason"]
            assert any(file in record.message for record in caplog.records if record.levelname == "WARNING")
