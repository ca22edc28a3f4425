"""What files say of themselves, and which are refused."""

from pathlib import Path

import av
import ffmpeg as graphs
import numpy as np
import pytest

from soundback.errors import MediaError
from soundback.media import ffmpeg
from soundback.media.audio import write_wav
from soundback.media.remuxing import cut
from tests.synthetic import Film, tone


def test_probe_reads_what_the_maker_wrote(tmp_path):
    probe = ffmpeg.probe(Film(duration_s=1.6, frame_rate="30000/1001").write(tmp_path / "film.mp4"))
    assert probe.duration_s == pytest.approx(1.6, abs=0.04)
    assert probe.frame_rate == pytest.approx(29.97, abs=0.01)
    assert (probe.video_codec, probe.audio_codec, probe.audio_sample_rate, probe.n_frames) == ("h264", "aac", 44100, 48)
    silent = ffmpeg.probe(Film(has_sound=False).write(tmp_path / "silent.mp4"))
    assert (silent.has_audio, silent.audio_codec, silent.audio_sample_rate) == (False, None, None)


def test_duration_is_found_where_the_container_does_not_say(tmp_path):
    path = Film().write(tmp_path / "film.mkv", live=1)  # as a browser records: nothing can be filled in afterwards
    with av.open(str(path)) as container:
        assert container.duration is None
    assert ffmpeg.probe(path).duration_s == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("text.mp4", b"hello " * 100, "not_media"),
        ("empty.mp4", b"", "not_media"),
        ("noise.mp4", np.random.default_rng(0).bytes(4000), "not_media"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n", "refused"),
        ("renamed.mp4", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n", "refused"),
        ("padded.mp4", b"\xef\xbb\xbf \n#EXTM3U\n#EXTINF:9,\nsecret.mp4\n", "refused"),
        ("concat.mp4", b"ffconcat version 1.0\nfile 'secret.mp4'\n", "refused"),
        ("dash.mp4", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>', "refused"),
    ],
)
def test_what_is_no_video_file_is_named_so(tmp_path, name, content, status):
    Film().write(tmp_path / "secret.mp4")
    path = tmp_path / name
    path.write_bytes(content)
    for read in (
        ffmpeg.probe,
        lambda path: ffmpeg.read_waveform(path, sample_rate=8000),
        lambda path: cut(path, tmp_path / "out.mp4", start_s=0, duration_s=1),
    ):
        with pytest.raises(MediaError, match=name) as caught:
            read(path)
        assert caught.value.status == status
    assert not (tmp_path / "out.mp4").exists()


def test_missing_files_folders_and_sound_alone_are_named_so(tmp_path):
    wav = tmp_path / "tone.wav"
    write_wav(wav, tone(440, duration_s=1, sample_rate=8000), 8000)
    for path, status in ((tmp_path / "nothing.mp4", "missing"), (tmp_path, "not_media"), (wav, "no_video")):
        with pytest.raises(MediaError, match=path.name) as caught:
            ffmpeg.probe(path)
        assert caught.value.status == status


def test_cover_art_is_no_picture(tmp_path):
    wav, cover, song = tmp_path / "tone.wav", tmp_path / "cover.png", tmp_path / "song.m4a"
    write_wav(wav, tone(440, duration_s=1, sample_rate=8000), 8000)
    ffmpeg.run(graphs.input("color=red:s=64x64", format="lavfi").output(str(cover), **{"frames:v": 1, "update": 1}))
    sound, art = graphs.input(str(wav))["a:0"], graphs.input(str(cover))["v:0"]
    ffmpeg.run(graphs.output(sound, art, str(song), **{"c:v": "copy", "disposition:v:0": "attached_pic"}, format="mp4"))
    with pytest.raises(MediaError, match=r"song\.m4a") as caught:
        ffmpeg.probe(song)
    assert caught.value.status == "no_video"


def test_truncated_file_is_corrupt_or_shorter_and_never_hangs(tmp_path):
    whole = Film(duration_s=3.0).write(tmp_path / "whole.mp4").read_bytes()
    cut_off = tmp_path / "cut_off.mp4"
    cut_off.write_bytes(whole[: len(whole) // 2])  # its index was at the end
    with pytest.raises(MediaError, match=r"cut_off\.mp4"):
        ffmpeg.probe(cut_off)


def test_duration_is_that_of_the_picture_where_sound_is_longer(tmp_path):
    film = Film().write(tmp_path / "film.mkv")
    picture, sound = graphs.input(str(film))["v:0"], graphs.input("sine=d=5", format="lavfi")
    ffmpeg.run(graphs.output(picture, sound, str(tmp_path / "longer.mkv"), **{"c:v": "copy", "c:a": "libvorbis"}))
    assert ffmpeg.probe(tmp_path / "longer.mkv").duration_s == pytest.approx(2.0, abs=0.05)


def test_shown_size_counts_oblong_pixels(tmp_path):
    film = Film(size=(64, 48)).write(tmp_path / "film.mp4")
    ffmpeg.run(graphs.input(str(film)).output(str(tmp_path / "wide.mp4"), c="copy", aspect="2:1"))
    probe = ffmpeg.probe(tmp_path / "wide.mp4")
    assert (probe.width, probe.height) == (96, 48)


def film_in_an_unknown_codec(path: Path, track: bytes) -> Path:
    Film().write(path)
    path.write_bytes(path.read_bytes().replace(track, track[:-3] + b"XYZ"))
    return path


def test_pictures_in_a_codec_that_nobody_knows_are_refused(tmp_path):
    path = film_in_an_unknown_codec(tmp_path / "film.mkv", b"V_MPEG4/ISO/AVC")
    with pytest.raises(MediaError, match=r"pictures of film\.mkv are in a codec") as caught:
        ffmpeg.probe(path)
    assert caught.value.status == "corrupt"


def test_sound_in_a_codec_that_nobody_knows_keeps_no_pictures_back(tmp_path):
    probe = ffmpeg.probe(film_in_an_unknown_codec(tmp_path / "film.mkv", b"A_AAC"))
    assert (probe.has_audio, probe.audio_codec, probe.audio_sample_rate) == (True, None, None)
