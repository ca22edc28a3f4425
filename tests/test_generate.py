"""Any video in, the same video with sound out: in time, as long as the picture, and nothing else touched."""

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from soundback.cue_files import read_cues, write_cues
from soundback.cues import CueSheet, Segment
from soundback.errors import DataContractError, MediaError, SoundbackError
from soundback.media import ffmpeg, loudness, muxing
from soundback.media.containers import picture_end_s
from soundback.soundtracks import sound_videos
from soundback.takes import Take
from tests.synthetic import Film
from tests.test_formats import BAD, EVENTS_S, KINDS, Kind
from tests.tiny import FRAME_RATE, HOP, FlashSpotter, make_soundtrack

FILMS = KINDS | {
    "12 pictures per second": Kind(".mp4", film={"frame_rate": "12"}),
    "16 pictures per second": Kind(".mp4", film={"frame_rate": "16"}),
    "24 pictures per second": Kind(".mkv", film={"frame_rate": "24"}),
    "29.97 pictures per second": Kind(".mp4", film={"frame_rate": "30000/1001"}),
    "60 pictures per second": Kind(".mp4", film={"frame_rate": "60"}),
    "variable frame rate": Kind(".mp4", film={"keep": (0, 1, 4, 6, 7, 11, 13, 14, 20, 25, 27, 30, 31, 36, 40, 45, 49)}),
    "without sound": Kind(".mp4", film={"has_sound": False}),
    "ten minutes": Kind(".mp4", {"g": 250}, {"duration_s": 600.0, "has_sound": False}),
}


@pytest.fixture(scope="module")
def soundtrack():
    return make_soundtrack(FlashSpotter())


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


def flash_times_s(path: Path) -> list[float]:
    """When the first two flashes of a film are shown: not just when they were, at twelve pictures per second."""
    found: list[float] = []
    was_bright = False
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        for frame in container.decode(video):
            is_bright = frame.to_ndarray(format="gray").mean() > 130
            if is_bright and not was_bright:
                found.append(frame.time - float((container.start_time or 0) / av.time_base))
            was_bright = is_bright
            if len(found) == len(EVENTS_S):
                break
    return found


def pictures(path: Path) -> list[bytes]:
    """Decoded: some containers want the same picture in other packets, as a transport stream does."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(container.streams.video[0])]


def sound(path: Path, rate: int = 48000) -> np.ndarray:
    return ffmpeg.read_waveform(path, sample_rate=rate)


def generate(soundtrack, video: Path, out: Path, **options):
    return soundtrack.generate(video, out, take=Take(**options))


@pytest.mark.parametrize("name", FILMS)
def test_sound_of_every_readable_film_is_as_long_as_the_picture_and_in_time(
    soundtrack, tmp_path, record_property, name
):
    video = FILMS[name].write(tmp_path)
    out = tmp_path / f"out{video.suffix if video.suffix in ('.mp4', '.mov', '.mkv', '.webm') else '.mkv'}"
    written = generate(soundtrack, video, out, category="Bell").path
    picture_s, sound_s = picture_end_s(video), len(sound(written)) / 48000
    frame_s = 1 / ffmpeg.probe(video).frame_rate
    # Where the film flashes, and the stand-in for the spotter therefore lets it sound.
    energy = np.square(sound(written, 1000))[:2000]
    loud_s = np.flatnonzero(energy > 0.02 * energy.max()) / 1000
    flashes_s = flash_times_s(written)
    begins_s = [loud_s[loud_s > flash_s - 0.3].min() for flash_s in flashes_s]
    off_ms = 1000 * max(abs(begin_s - flash_s) for begin_s, flash_s in zip(begins_s, flashes_s, strict=True))
    record_property(
        "soundtracks",
        f"{name:45} {written.suffix:5} {picture_s:8.3f} {sound_s:8.3f} {(sound_s - picture_s) / frame_s:+6.2f} "
        f"{off_ms:6.0f}   copied",
    )
    assert packets(written) == packets(video) or pictures(written) == pictures(video)
    assert abs(sound_s - picture_s) <= frame_s
    # AVI does not say when pictures that are coded out of order are shown; copied, they are as late as they were.
    assert off_ms <= 50 + 1000 * ffmpeg.probe(video).late_s


@pytest.mark.parametrize(("write", "status"), BAD.values(), ids=BAD)
def test_what_is_no_film_is_refused_with_a_sentence_and_nothing_is_written(
    soundtrack, tmp_path, record_property, request, write, status
):
    video = write(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(MediaError, match=video.name) as caught:
        generate(soundtrack, video, tmp_path / "out.mp4")
    record_property("soundtracks", f"{request.node.callspec.id:45} refused: {caught.value}")
    assert caught.value.status == status
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Three flashes with their clicks; bright enough for a bell only in them, so dark: a drum throughout."""
    return Film(duration_s=4, events_s=(0.6, 1.8, 3.2), flash_s=0.4).write(tmp_path_factory.mktemp("film") / "film.mp4")


def test_cues_then_render_is_generate_to_the_last_bit(soundtrack, film, tmp_path):
    whole = generate(soundtrack, film, tmp_path / "a.mp4", seed=3)
    assert whole.sheet.segments
    write_cues(soundtrack.spot(film), tmp_path / "cues.csv")
    sheet = read_cues(tmp_path / "cues.csv", soundtrack.categories)
    assert sheet == whole.sheet
    soundtrack.generate(film, tmp_path / "b.mp4", cues=sheet, take=Take(seed=3))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    soundtrack.generate(film, tmp_path / "c.mp4", cues=sheet, take=Take(seed=4))
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "c.mp4").read_bytes()


def test_a_preview_of_a_cue_sheet_sounds_as_the_whole_does(soundtrack, film, tmp_path):
    sheet = soundtrack.spot(film)
    soundtrack.generate(film, tmp_path / "whole.wav", cues=sheet)
    preview = soundtrack.generate(film, tmp_path / "part.wav", cues=sheet, take=Take(start_s=1.5, end_s=2.7))
    assert preview.length_s == pytest.approx(1.2, abs=0.05)
    whole, part = sound(tmp_path / "whole.wav"), sound(tmp_path / "part.wav")
    expected = whole[round(1.5 * 48000) :][: len(part)]
    # Resampling to 48 kHz begins anew: it does not know what was before.
    np.testing.assert_allclose(part[500:-500], expected[500:-500], atol=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_preview_is_as_long_as_asked_and_in_time(soundtrack, tmp_path, suffix):
    video = Film(duration_s=4, events_s=(0.6, 1.8, 3.2)).write(tmp_path / f"film{suffix}")
    out = tmp_path / f"out{suffix}"
    sounded = generate(soundtrack, video, out, category="Bell", start_s=1.5, end_s=2.5)
    # Matroska cannot begin between two key frames, of which this film has one every 0.4 s.
    begin_s = 1.5 if suffix == ".mp4" else 1.2
    assert any("begins at 1.20 s" in note for note in sounded.notes) == (suffix == ".mkv")
    assert picture_end_s(out) == pytest.approx(2.5 - begin_s, abs=0.041)
    loud = np.flatnonzero(np.square(sound(out, 1000)) > 0.02 * np.square(sound(out, 1000)).max())
    assert loud[0] / 1000 == pytest.approx(1.8 - begin_s, abs=0.05)


def test_a_stretch_that_is_not_there_is_refused(soundtrack, film, tmp_path):
    for start_s, end_s in ((5.0, None), (2.0, 1.0), (2.0, 2.0)):
        with pytest.raises(SoundbackError, match=r"is not in film\.mp4, which is 4\.00 s long"):
            generate(soundtrack, film, tmp_path / "out.mp4", start_s=start_s, end_s=end_s)


def test_of_a_folder_only_the_videos_too_short_for_a_stretch_go_without_it(soundtrack, film, tmp_path):
    short = Film(duration_s=2.0).write(tmp_path / "ashort.mp4")
    work = partial(soundtrack.generate, take=Take(start_s=2.5))
    outcomes = sound_videos([short, film], tmp_path / "out", lambda: work, overwrite=False)
    assert [each.status for each in outcomes] == ["too_short", "ok"]
    assert "is not in ashort.mp4, which is 2.00 s long" in outcomes[0].words
    assert picture_end_s(tmp_path / "out" / film.name) == pytest.approx(1.5, abs=0.041)


def test_one_category_for_all_keeps_what_the_spotter_saw(soundtrack, film, tmp_path):
    seen, told = soundtrack.spot(film), soundtrack.spot(film, Take(category="Bell"))
    assert {segment.category for segment in told.segments} == {"Bell"}
    assert (told.segments[0].start_s, told.segments[-1].end_s) == (0.0, 4.0)
    np.testing.assert_array_equal(seen.loudness_db, told.loudness_db)
    np.testing.assert_array_equal(seen.hit, told.hit)
    with pytest.raises(DataContractError, match=r"do not know 'Horn'. They know Bell, Drum"):
        generate(soundtrack, film, tmp_path / "out.mp4", category="Horn")


def test_a_video_in_which_nothing_is_recognised_says_what_to_do(tmp_path):
    gray = make_soundtrack()
    gray.classifier.unsure_below = 0.99
    video = Film(events_s=()).write(tmp_path / "film.mp4")
    try:
        sounded = generate(gray, video, tmp_path / "out.mp4")
        (note,) = sounded.notes
        for word in ("100%", "Bell, Drum", "--category", "--when-unsure best", "soundback table"):
            assert word in note
        assert not sound(tmp_path / "out.mp4").any()
        assert generate(gray, video, tmp_path / "said.mp4", category="Drum").notes == ()
        assert generate(gray, video, tmp_path / "best.mp4", when_unsure="best").sheet.segments
    finally:
        del gray.classifier.unsure_below


def test_only_the_silent_stretches_of_the_original_are_filled(soundtrack, tmp_path):
    video = Film(duration_s=4, events_s=(0.6, 1.8, 3.2), flash_s=0.4, has_sound=False).write(tmp_path / "mute.mp4")
    hum = (0.1 * np.sin(np.arange(2 * 44100) * 0.1)).astype(np.float32)  # Two seconds, then nothing.
    soundfile.write(tmp_path / "hum.wav", hum, 44100)
    muxing.join(video, [tmp_path / "hum.wav"], tmp_path / "half.mp4")
    generate(soundtrack, tmp_path / "half.mp4", tmp_path / "fill.mp4", category="Bell", mix="fill", stems=True)
    made, original = (sound(tmp_path / "fill_stems" / name, 1000) for name in ("Bell.wav", "original.wav"))
    assert np.abs(made[:1950]).max() < 1e-3
    assert np.abs(made[3200:3500]).max() > 0.01
    assert np.abs(original[2100:]).max() < 0.01
    heard = sound(tmp_path / "fill.mp4", 1000)
    n = min(map(len, (heard, made, original)))
    np.testing.assert_allclose(heard[:n], made[:n] + original[:n], atol=0.02)  # AAC is not exact.


def test_stems_add_up_to_the_soundtrack(soundtrack, film, tmp_path):
    sheet = soundtrack.spot(film, Take(category="Bell"))
    half = (replace(sheet.segments[0], end_s=2.0), Segment(2.0, 4.0, "Drum", 1.0))
    two = CueSheet(FRAME_RATE, half, sheet.loudness_db, sheet.hit)
    plain = soundtrack.generate(film, tmp_path / "plain.wav", cues=two)
    parted = soundtrack.generate(film, tmp_path / "parted.wav", cues=two, take=Take(stems=True))
    assert [path.name for path in parted.stems] == ["Bell.wav", "Drum.wav", "original.wav"]
    assert plain.stems == ()
    np.testing.assert_allclose(sound(tmp_path / "parted.wav"), sound(tmp_path / "plain.wav"), atol=4 / 32768)
    parts = [sound(path) for path in parted.stems[:2]]
    np.testing.assert_allclose(sum(parts), sound(tmp_path / "plain.wav"), atol=4 / 32768)
    with pytest.raises(SoundbackError, match="parted_stems exists already"):
        soundtrack.generate(film, tmp_path / "parted.mp4", cues=two, take=Take(stems=True))


def test_the_sound_is_as_loud_as_asked(soundtrack, film, tmp_path):
    generate(soundtrack, film, tmp_path / "out.wav", category="Bell", loudness_lufs=-30.0)
    found = loudness.measure([sound(tmp_path / "out.wav")], sample_rate=48000, silence_db=-60).loudness_lufs()
    assert found == pytest.approx(-30, abs=0.5)


def test_silence_has_no_loudness_and_that_is_said(soundtrack, film, tmp_path):
    empty = CueSheet(FRAME_RATE, (), np.full(100, -60, np.float32), np.zeros(100, np.float32))
    sounded = soundtrack.generate(film, tmp_path / "out.wav", cues=empty, take=Take(loudness_lufs=-20))
    assert "it has no loudness" in sounded.notes[0]
    assert not sound(tmp_path / "out.wav").any()


def test_a_cue_sheet_of_another_video_is_refused(soundtrack, film, tmp_path):
    def sheet(n_frames: int, frame_rate: int = FRAME_RATE, category: str = "Bell") -> CueSheet:
        segment = Segment(0.0, n_frames / frame_rate, category, 1.0)
        return CueSheet(frame_rate, (segment,), np.full(n_frames, -20, np.float32), np.zeros(n_frames, np.float32))

    for wrong, words in (
        (sheet(200), r"8\.00 s long, film\.mp4 4\.00 s"),
        (sheet(200, 50), "50 loudness rows per second; the models need 25"),
        (sheet(100, category="Horn"), "do not know 'Horn'"),
    ):
        with pytest.raises(DataContractError, match=words):
            soundtrack.generate(film, tmp_path / "out.mp4", cues=wrong)
    assert not (tmp_path / "out.mp4").exists()


def test_progress_is_in_milliseconds_of_video_and_never_goes_back(soundtrack, film, tmp_path):
    told: list[tuple[int, int]] = []
    sounded = soundtrack.generate(film, tmp_path / "out.mp4", progress=lambda *each: told.append(each))
    assert {total for _, total in told} == {4000}
    done = [each for each, _ in told]
    assert all(before <= after for before, after in itertools.pairwise(done))
    assert done[-1] == 4000
    assert set(sounded.spent_s) == {"watching", "sounding", "writing"}
    assert f"{sounded.length_s:.1f} s of video" in sounded.totals()


def test_an_output_that_is_there_is_kept_unless_it_may_go(soundtrack, film, tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"mine")
    with pytest.raises(SoundbackError, match=r"out\.mp4 exists already"):
        soundtrack.generate(film, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"
    soundtrack.generate(film, tmp_path / "out.mp4", overwrite=True)
    assert packets(tmp_path / "out.mp4") == packets(film)


def test_arrays_go_in_and_come_out(soundtrack, film):
    frames = np.concatenate(list(ffmpeg.read_frames(film, frame_rate=FRAME_RATE, size=8, fit="stretch")))
    sheet = soundtrack.spot_frames(frames)
    assert sheet == soundtrack.spot(film)
    waveform = soundtrack.render(sheet)
    assert (waveform.dtype, waveform.shape) == (np.float32, (len(frames) * HOP,))
