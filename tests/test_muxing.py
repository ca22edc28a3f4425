"""A video and the sound that was made for it, in one file: what is copied, kept, mixed, and said."""

import os
import subprocess
from pathlib import Path

import av
import ffmpeg as graphs
import numpy as np
import pytest
import soundfile

from soundback.errors import MediaError, SoundbackError
from soundback.media import ffmpeg, loudness, muxing
from soundback.media.audio import write_wav
from soundback.media.muxing import Wanted
from tests.synthetic import Film, clicks, rotated, tone
from tests.timing import HOP, all_frames, click_frames, flash_frames

RATE = 8000
SUBTITLES = "1\n00:00:00,200 --> 00:00:00,900\nA door.\n\n2\n00:00:01,000 --> 00:00:01,500\nSteps.\n"


def packets(path: Path, kind: str = "video") -> list[bytes]:
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        return [bytes(packet) for packet in container.demux(streams) if packet.size]


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {key.lower(): value for key, value in container.metadata.items()}


def sound(path: Path, *, rate: int = 48000) -> np.ndarray:
    return ffmpeg.read_waveform(path, sample_rate=rate)


def level_db(waveform: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-12)


@pytest.fixture
def wav(tmp_path):
    return write(tmp_path / "new.wav", clicks([1.48], duration_s=2, sample_rate=RATE))


def write(path: Path, waveform: np.ndarray) -> Path:
    write_wav(path, waveform, RATE)
    return path


def with_extras(folder: Path, suffix: str, *, subtitles: bool = True) -> Path:
    """A film with a title, a comment, two chapters and subtitles."""
    film = Film().write(folder / f"plain{suffix}")
    chapters = folder / "chapters.txt"
    chapters.write_text(
        ";FFMETADATA1\ntitle=A film\ncomment=Seen at night\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=2000\ntitle=Two\n"
    )
    (folder / "film.srt").write_text(SUBTITLES)
    # By hand: ffmpeg-python names no input from which no stream is taken.
    out = folder / f"film{suffix}"
    command = [ffmpeg.ffmpeg_path(), "-y", "-loglevel", "error", "-i", film, "-f", "ffmetadata", "-i", chapters]
    maps = ["-map", "0", "-map_metadata", "1"]
    if subtitles:
        command += ["-i", folder / "film.srt"]
        maps += ["-map", "2", "-c:s", "mov_text" if suffix == ".mp4" else "srt"]
    subprocess.run([*map(str, command), *maps, "-c:v", "copy", "-c:a", "copy", str(out)], check=True)
    return out


@pytest.mark.parametrize(
    ("source", "target"), [(".mp4", ".mp4"), (".mp4", ".mkv"), (".mkv", ".mov"), (".webm", ".webm")]
)
def test_the_picture_is_copied_and_the_sound_replaced(tmp_path, wav, source, target):
    video, out = Film(events_s=(0.4,)).write(tmp_path / f"film{source}"), tmp_path / f"out{target}"
    joined = muxing.join(video, [wav], out)
    assert (joined.path, joined.note) == (out, None)
    assert packets(out) == packets(video)
    assert flash_frames(out) == [10]
    assert click_frames(out) == [37]
    probe = ffmpeg.probe(out)
    assert (probe.audio_codec, probe.audio_sample_rate) == ("opus" if target == ".webm" else "aac", 48000)
    assert tags(out)["comment"] == "synthetic sound by Soundback"


@pytest.mark.parametrize("sound_s", [0.5, 2.0, 7.0])
@pytest.mark.parametrize("film", [Film(), Film(picture_late_s=0.52), Film(frame_rate="30000/1001")])
def test_the_sound_is_as_long_as_the_picture(tmp_path, sound_s, film):
    video, out = film.write(tmp_path / "film.mp4"), tmp_path / "out.mp4"
    muxing.join(video, [write(tmp_path / "new.wav", tone(440, duration_s=sound_s, sample_rate=RATE))], out)
    n_frames = len(all_frames(out))
    assert n_frames == len(all_frames(video))
    assert len(sound(out, rate=RATE)) / HOP == pytest.approx(n_frames, abs=1)


def test_what_one_container_cannot_hold_goes_into_matroska_and_it_is_said(tmp_path, wav):
    video = Film().write(tmp_path / "film.mp4")
    joined = muxing.join(video, [wav], tmp_path / "out.webm")  # H.264 does not go into WebM.
    assert joined.path == tmp_path / "out.mkv"
    assert "out.mkv" in joined.note
    assert "h264" in joined.note
    assert packets(joined.path) == packets(video)
    assert not (tmp_path / "out.webm").exists()
    with pytest.raises(SoundbackError, match=r"out\.mkv exists already"):
        muxing.join(video, [wav], tmp_path / "out.webm")
    assert muxing.join(video, [wav], tmp_path / "out.webm", overwrite=True).path == joined.path


def test_what_could_not_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    video = Film().write(tmp_path / "film.mp4")
    with pytest.raises(MediaError, match=r"out\.avi must end in one of \.mp4"):
        muxing.check_output(tmp_path / "out.avi", video, overwrite=False)
    (tmp_path / "link.mp4").symlink_to(video)
    for itself in (video, tmp_path / "link.mp4"):
        with pytest.raises(SoundbackError, match="is the video itself, which would be lost"):
            muxing.check_output(itself, video, overwrite=True)
    # Whoever runs the tests as root may write anywhere.
    monkeypatch.setattr("os.access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    with pytest.raises(SoundbackError, match="Nothing may be written to"):
        muxing.check_output(tmp_path / "out.mp4", video, overwrite=False)


def test_nothing_is_left_behind_by_a_failure_and_what_was_there_stays(tmp_path):
    video = Film().write(tmp_path / "film.mp4")
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the old one")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(MediaError, match=r"no\.wav"):
        muxing.join(video, [tmp_path / "no.wav"], out)
    assert out.read_bytes() == b"the old one"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("source", "target", "codec"),
    [
        (".mkv", ".mkv", "subrip"),
        (".mkv", ".mp4", "mov_text"),
        (".mp4", ".mkv", "subrip"),
        (".mp4", ".mov", "mov_text"),
    ],
)
def test_subtitles_chapters_and_metadata_are_kept(tmp_path, wav, source, target, codec):
    video, out = with_extras(tmp_path, source), tmp_path / f"out{target}"
    assert muxing.join(video, [wav], out).note is None
    with av.open(str(out)) as container:
        (text,) = container.streams.subtitles
        assert text.codec_context.codec.canonical_name == codec
        chapters = [
            (each["metadata"]["title"], float(each["start"] * each["time_base"])) for each in container.chapters()
        ]
    assert chapters == [("One", 0.0), ("Two", 1.0)]
    written = b" ".join(packets(out, "subtitle"))
    assert b"A door." in written
    assert b"Steps." in written
    assert tags(out)["title"] == "A film"
    assert tags(out)["comment"] == "Seen at night; synthetic sound by Soundback"


@pytest.mark.parametrize("mix", ["keep", "under"])
def test_metadata_is_the_video_s_however_many_files_are_mixed(tmp_path, wav, mix):
    video = with_extras(tmp_path, ".mkv")
    other = write(tmp_path / "other.wav", tone(300, duration_s=2, sample_rate=RATE))
    muxing.join(video, [wav, other], tmp_path / "out.mkv", wanted=Wanted(mix, gain_db=-3))
    assert tags(tmp_path / "out.mkv")["title"] == "A film"
    assert len(packets(tmp_path / "out.mkv", "subtitle")) == 2
    assert packets(tmp_path / "out.mkv") == packets(video)


def test_fonts_that_subtitles_need_go_along(tmp_path, wav):
    video, font, out = with_extras(tmp_path, ".mkv"), tmp_path / "letters.ttf", tmp_path / "fonts.mkv"
    font.write_bytes(b"a font")
    command = [ffmpeg.ffmpeg_path(), "-y", "-loglevel", "error", "-i", video, "-map", "0", "-c", "copy"]
    command += ["-attach", font, "-metadata:s:t", "mimetype=application/x-truetype-font", out]
    subprocess.run([str(part) for part in command], check=True)
    muxing.join(out, [wav], tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "subtitle", "attachment"]
    assert muxing.join(out, [wav], tmp_path / "out.mp4").note is None, "mp4 knows no fonts, and does without"


def test_the_note_is_not_written_twice(tmp_path, wav):
    video = with_extras(tmp_path, ".mp4", subtitles=False)
    muxing.join(video, [wav], tmp_path / "once.mp4")
    muxing.join(tmp_path / "once.mp4", [wav], tmp_path / "twice.mp4")
    assert tags(tmp_path / "twice.mp4")["comment"] == "Seen at night; synthetic sound by Soundback"


@pytest.mark.parametrize("target", [".mp4", ".mkv", ".mov"])
def test_a_turned_picture_stays_turned(tmp_path, wav, target):
    video = rotated(Film(size=(64, 48)).write(tmp_path / "film.mp4"), 90)
    muxing.join(video, [wav], out := tmp_path / f"out{target}")
    probe = ffmpeg.probe(out)
    assert (probe.width, probe.height) == (48, 64)
    np.testing.assert_array_equal(all_frames(out), all_frames(video))


def test_kept_sound_and_made_sound_add_up(tmp_path):
    video = Film(events_s=(0.4,)).write(tmp_path / "film.mov", **{"c:a": "pcm_s16le"})
    made = tone(300, duration_s=2, sample_rate=RATE, amplitude=0.1)
    track = write(tmp_path / "new.wav", made)
    muxing.join(video, [track], tmp_path / "out.wav", wanted=Wanted("keep"))
    muxing.join(video, [track], tmp_path / "made.wav")
    expected = sound(video) + sound(tmp_path / "made.wav")
    np.testing.assert_allclose(sound(tmp_path / "out.wav"), expected, atol=3 / 32768)


def test_a_video_without_sound_is_mixed_as_if_replaced(tmp_path, wav):
    video = Film(has_sound=False).write(tmp_path / "film.mp4")
    for mix in ("replace", "keep", "under", "fill"):
        muxing.join(video, [wav], tmp_path / f"{mix}.wav", wanted=Wanted(mix))
    for mix in ("keep", "under", "fill"):
        np.testing.assert_array_equal(sound(tmp_path / f"{mix}.wav"), sound(tmp_path / "replace.wav"))


def test_original_sound_goes_under_only_where_ours_sounds(tmp_path):
    """The original is a tone of 1 kHz, ours one of 250 Hz in the second half: far apart in the spectrum."""
    original = tone(1000, duration_s=4, sample_rate=44100, amplitude=0.2)
    made = np.concatenate([np.zeros(2 * RATE, np.float32), tone(250, duration_s=2, sample_rate=RATE, amplitude=0.2)])
    video = replace_sound(Film(duration_s=4).write(tmp_path / "film.mov"), original)
    muxing.join(video, [write(tmp_path / "new.wav", made)], tmp_path / "out.wav", wanted=Wanted("under"))
    heard = sound(tmp_path / "out.wav")
    before, during = (strength(heard[round(a * 48000) : round(b * 48000)], 1000) for a, b in ((1, 1.8), (3, 3.8)))
    assert before == pytest.approx(0.2, rel=0.05)
    assert 20 * np.log10(during / before) < -10
    assert strength(heard[3 * 48000 : round(3.8 * 48000)], 250) == pytest.approx(0.2, rel=0.05)


def test_silence_is_found_where_it_lasts(tmp_path):
    original = tone(500, duration_s=3, sample_rate=44100, amplitude=0.1)
    original[44100 : 2 * 44100] = 0  # A second of silence.
    original[round(2.5 * 44100) : round(2.6 * 44100)] = 0  # A tenth: no silence.
    video = replace_sound(Film(duration_s=4).write(tmp_path / "film.mov"), original)
    gain = muxing.quiet_gain(video, sample_rate=RATE)
    whole = gain(0, 4 * RATE)
    assert whole.dtype == np.float32
    assert whole[round(1.1 * RATE) : round(1.9 * RATE)].min() == 1
    assert whole[: round(0.9 * RATE)].max() == 0
    assert whole[round(2.1 * RATE) : round(2.9 * RATE)].max() == 0
    assert whole[round(3.1 * RATE) :].min() == 1, "behind the end of the original"
    np.testing.assert_array_equal(np.concatenate([gain(0, 777), gain(777, 4 * RATE)]), whole)


def test_all_of_a_video_without_sound_is_silence(tmp_path):
    video = Film(has_sound=False).write(tmp_path / "film.mp4")
    np.testing.assert_array_equal(muxing.quiet_gain(video, sample_rate=RATE)(0, 100), np.ones(100, np.float32))


def test_stems_add_up_to_the_mix_and_the_original_is_beside_them(tmp_path):
    video = Film(events_s=(0.4,)).write(tmp_path / "film.mov", **{"c:a": "pcm_s16le"})
    tracks = {
        "Bell": write(tmp_path / "1.wav", tone(300, duration_s=2, sample_rate=RATE, amplitude=0.1)),
        "Hair dryer/fan": write(tmp_path / "2.wav", clicks([1.0], duration_s=2, sample_rate=RATE)),
    }
    muxing.join(video, list(tracks.values()), tmp_path / "mix.wav", wanted=Wanted("keep", gain_db=-6))
    stems = muxing.write_stems(video, tracks, tmp_path / "mix_stems", gain_db=-6)
    assert [path.name for path in stems] == ["Bell.wav", "Hair-dryer-fan.wav", "original.wav"]
    parts = [soundfile.read(path, dtype="float32", always_2d=True) for path in stems]
    assert {rate for _, rate in parts} == {48000}
    np.testing.assert_allclose(sum(part.mean(axis=1) for part, _ in parts), sound(tmp_path / "mix.wav"), atol=4 / 32768)
    with pytest.raises(SoundbackError, match="exists already"):
        muxing.write_stems(video, tracks, tmp_path / "mix_stems")


def test_amplified_sound_stays_below_the_ceiling_and_in_time(tmp_path):
    video = Film(has_sound=False).write(tmp_path / "film.mp4")
    track = write(tmp_path / "new.wav", clicks([0.48], duration_s=2, sample_rate=RATE))
    muxing.join(video, [track], tmp_path / "out.wav", wanted=Wanted(gain_db=20))
    heard = sound(tmp_path / "out.wav")
    assert np.abs(heard).max() <= muxing.CEILING + 1e-3
    assert np.flatnonzero(np.abs(heard) > 0.2)[0] / 48000 == pytest.approx(0.48, abs=0.005)


def test_gain_changes_loudness_by_as_much(tmp_path):
    video = Film(has_sound=False).write(tmp_path / "film.mp4")
    track = write(tmp_path / "new.wav", tone(440, duration_s=2, sample_rate=RATE, amplitude=0.05))
    found = []
    for gain_db in (0.0, 6.0):
        out = tmp_path / f"{gain_db}.wav"
        muxing.join(video, [track], out, wanted=Wanted(gain_db=gain_db))
        found.append(loudness.measure([sound(out)], sample_rate=48000, silence_db=-60).loudness_lufs())
    assert found[1] - found[0] == pytest.approx(6, abs=0.05)


def test_a_copy_can_begin_at_the_key_frame_before(tmp_path):
    video = Film(duration_s=3).write(tmp_path / "film.mkv")  # A key frame every 10 pictures, 0.4 s.
    assert muxing.key_frame_before(video, 1.5) == pytest.approx(1.2, abs=0.002)
    assert muxing.key_frame_before(video, 0.1) == 0


def replace_sound(video: Path, waveform: np.ndarray) -> Path:
    """The film with another sound, uncompressed."""
    track, out = video.with_suffix(".other.wav"), video.with_stem(f"{video.stem}_other")
    soundfile.write(track, waveform, 44100, subtype="PCM_16")
    picture, other = graphs.input(f"file:{video}")["v:0"], graphs.input(f"file:{track}")["a:0"]
    ffmpeg.run(graphs.output(picture, other, f"file:{out}", **{"c:v": "copy", "c:a": "pcm_s16le"}))
    return out


def strength(waveform: np.ndarray, frequency: float) -> float:
    """Amplitude of a tone in a waveform at 48 kHz."""
    turns = np.exp(-2j * np.pi * frequency * np.arange(len(waveform)) / 48000)
    return 2 * abs(np.mean(waveform * turns))
