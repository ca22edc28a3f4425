import subprocess
import sys

import numpy as np
import pytest
from yt_dlp.networking.exceptions import TransportError
from yt_dlp.utils import DownloadError, ExtractorError, GeoRestrictedError, PostProcessingError

from soundback import schemas
from soundback.errors import SourceError
from soundback.media import ffmpeg
from soundback.params import Download
from soundback.sources import cutting, download
from tests.loopback import CURATION, Page, make_video, serve

PARAMS = Download(
    max_height=360,
    min_duration_s=2.0,
    max_duration_s=8.0,
    clip_s=2.0,
    clips_per_video=1,
    keep_source=False,
    max_retryable_share=0.0,
)
BUG_REPORT = "; please report this issue on  https://github.com/yt-dlp/yt-dlp/issues?q= , filling out the template."


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("video") / "video.mp4", duration_s=6.0)


def fetch_clips(video_id, address, folder, *, params=PARAMS, curation=CURATION):
    return download.download_clips(video_id, address, folder, params=params, curation=curation)


def clips_of(page, folder, **changes):
    with serve({"/watch/x": page}) as site:
        return fetch_clips("x", f"{site.base}/watch/x", folder, params=PARAMS.model_copy(update=changes))


def waveform_of(path, start_s=0.0, duration_s=1.5):
    waveform = ffmpeg.read_waveform(path, sample_rate=16000)
    return waveform[round(start_s * 16000) :][: round(duration_s * 16000)]


def first_frames_of(path, n=20):
    return np.concatenate(list(ffmpeg.read_frames(path, frame_rate=25, size=32, fit="stretch")))[:n]


def test_clips_are_the_pieces_of_the_video_that_they_say_they_are(tmp_path, video):
    (tmp_path / "whole.mp4").write_bytes(video)
    whole = np.concatenate(list(ffmpeg.read_frames(tmp_path / "whole.mp4", frame_rate=25, size=32, fit="stretch")))
    clips = clips_of(Page(video), tmp_path / "x", clips_per_video=2)
    assert [clip.clip_start_s for clip in clips] == [0.64, 3.32]  # Gaps of 2/3 s, down to whole pictures.
    for clip in clips:
        path = tmp_path / "x" / clip.path
        first = round(clip.clip_start_s * 25)
        assert np.array_equal(first_frames_of(path), whole[first : first + 20])
        expected = waveform_of(tmp_path / "whole.mp4", clip.clip_start_s)
        # The first AAC frame after a cut is decoded without its past.
        assert np.allclose(waveform_of(path)[2048:], expected[2048:], atol=1e-3)


def test_a_clip_row_says_what_the_file_holds(tmp_path, video):
    (clip,) = clips_of(Page(video), tmp_path)
    path = tmp_path / "x_00.mp4"
    assert (clip.video_id, clip.clip_index, clip.status, clip.reason, clip.path) == ("x", 0, "ok", None, path.name)
    assert (clip.width, clip.height, clip.frame_rate, clip.has_audio) == (160, 120, 25.0, True)
    assert clip.duration_s == pytest.approx(2.0, abs=0.2)
    assert (clip.n_bytes, clip.sha256) == (path.stat().st_size, cutting.file_sha256(path))


def test_the_source_video_is_not_kept(tmp_path, video):
    clips_of(Page(video), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x_00.mp4"]


def test_the_same_video_gives_the_same_bytes(tmp_path, video):
    first, second = (clips_of(Page(video), tmp_path / name) for name in "ab")
    assert first == second


def test_codecs_that_mp4_cannot_hold_come_as_matroska_from_the_start(tmp_path):
    run = [ffmpeg.ffmpeg_path(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25:duration=4"]
    run += ["-f", "lavfi", "-i", "sine=duration=4", "-c:v", "libvpx", "-c:a", "libvorbis", str(tmp_path / "v.webm")]
    subprocess.run(run, check=True)
    (clip,) = clips_of(Page((tmp_path / "v.webm").read_bytes(), kind="video/webm"), tmp_path / "x")
    assert (clip.status, clip.path, clip.clip_start_s) == ("ok", "x_00.mkv", 0.0)
    assert np.array_equal(first_frames_of(tmp_path / "x" / clip.path), first_frames_of(tmp_path / "v.webm"))


def test_separate_picture_and_sound_are_merged(tmp_path, video):
    (tmp_path / "whole.mp4").write_bytes(video)
    run = [ffmpeg.ffmpeg_path(), "-v", "error", "-i", str(tmp_path / "whole.mp4"), "-map", "0", "-c", "copy"]
    run += ["-f", "dash", "-adaptation_sets", "id=0,streams=v id=1,streams=a", str(tmp_path / "manifest.mpd")]
    subprocess.run(run, check=True)
    pages = {f"/watch/{path.name}": Page(path.read_bytes()) for path in tmp_path.glob("*.m4s")}
    pages["/watch/x"] = Page((tmp_path / "manifest.mpd").read_bytes(), kind="application/dash+xml")
    with serve(pages) as site:
        address = f"{site.base}/watch/x"
        (clip,) = fetch_clips("x", address, tmp_path / "x", params=PARAMS)
        assert fetch_clips("x", address, tmp_path / "again", params=PARAMS) == [clip]
    assert (clip.status, clip.has_audio) == ("ok", True)
    start = clip.clip_start_s
    expected = waveform_of(tmp_path / "whole.mp4", start)
    assert np.allclose(waveform_of(tmp_path / "x" / clip.path)[2048:], expected[2048:], atol=1e-3)


def test_a_redirect_is_followed(tmp_path, video):
    with serve({"/watch/x": Page(status=302, location="/elsewhere"), "/elsewhere": Page(video)}) as site:
        (clip,) = fetch_clips("x", f"{site.base}/watch/x", tmp_path, params=PARAMS)
    assert clip.status == "ok"


@pytest.mark.parametrize(
    ("page", "status", "reason"),
    [
        (Page(status=404), "removed", "Unable to download webpage: HTTP Error 404: Not Found"),
        (Page(status=403), "rate_limited", "Unable to download webpage: HTTP Error 403: Forbidden"),
        (Page(status=429), "rate_limited", "Unable to download webpage: HTTP Error 429: Too Many Requests"),
        (Page(status=503), "network", "Unable to download webpage: HTTP Error 503: Service Unavailable"),
        (Page(b"<html><body>Sorry</body></html>", kind="text/html"), "unavailable", "Unsupported URL: <address>"),
        (
            Page(
                b"<html><script>var robot</script><h1>Sign in to confirm you\xe2\x80\x99re not a bot</h1>",
                kind="text/html",
            ),
            "rate_limited",
            "Sign in to confirm you\u2019re not a bot",
        ),
        (Page(b"\x9d\x02garbage" * 5000), "corrupt", "the video is not a video or sound file, or its head is damaged."),
        (Page(b""), "network", "Did not get any data blocks"),
        (
            Page(status=302, location="/watch/x"),
            "unavailable",
            "Unable to download webpage: HTTP Error 302: Found (redirect loop detected)",
        ),
        (
            Page(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", kind="application/vnd.apple.mpegurl"),
            "unavailable",
            "<address> URLs are disabled by default in yt-dlp for security reasons.",
        ),
    ],
)
def test_a_failure_is_a_row_with_the_sources_own_words(tmp_path, page, status, reason):
    assert clips_of(page, tmp_path) == [cutting.Clip("x", status=status, reason=reason)]


def test_a_body_that_breaks_off_is_a_network_failure_and_is_gone_on_with(tmp_path, video):
    with serve({"/watch/x": Page(video, cut_at=len(video) // 2)}) as site:
        (failed,) = fetch_clips("x", f"{site.base}/watch/x", tmp_path, params=PARAMS)
        assert failed.status == "network"
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) > len(video) // 4
        site.pages["/watch/x"].cut_at = None
        (resumed,) = fetch_clips("x", f"{site.base}/watch/x", tmp_path, params=PARAMS)
    (fresh,) = clips_of(Page(video), tmp_path / "fresh")
    assert resumed == fresh


def test_a_server_that_is_down_is_a_network_failure(tmp_path):
    with serve({}) as site:
        address = f"{site.base}/watch/x"
    (clip,) = fetch_clips("x", address, tmp_path, params=PARAMS)
    assert clip.status == "network"
    assert "Connection refused" in clip.reason
    assert "127.0.0.1" not in clip.reason


def test_a_video_without_sound_is_no_audio(tmp_path):
    (clip,) = clips_of(Page(make_video(tmp_path / "v.mp4", sound=False)), tmp_path / "x")
    assert clip.status == "no_audio"


@pytest.mark.parametrize(
    ("duration_s", "status", "reason"),
    [
        (1.0, "too_short", "1.0 s; at least 2 s are wanted"),
        (9.0, "too_long", "9.0 s; at most 8 s are wanted"),
    ],
)
def test_a_video_outside_the_limits_is_not_cut(tmp_path, duration_s, status, reason):
    clips = clips_of(Page(make_video(tmp_path / "v.mp4", duration_s=duration_s)), tmp_path / "x")
    assert clips == [cutting.Clip("x", status=status, reason=reason)]


def test_a_video_that_stops_before_its_stated_end_is_too_short(tmp_path, video):
    (tmp_path / "v.mp4").write_bytes(video)
    run = [ffmpeg.ffmpeg_path(), "-v", "error", "-i", str(tmp_path / "v.mp4"), "-c", "copy", "-movflags", "+faststart"]
    subprocess.run([*run, str(tmp_path / "fast.mp4")], check=True)
    half = (tmp_path / "fast.mp4").read_bytes()[: len(video) // 2]
    (clip,) = clips_of(Page(half), tmp_path / "x", clip_s=5.0)
    assert clip.status == "too_short"
    assert clip.reason.startswith("the video breaks off: ")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies", "rate_limited"),
        ("This content isn't available, try again later. The current session has been rate-limited", "rate_limited"),
        ("YouTube is requiring a captcha challenge before playback", "rate_limited"),
        ("unable to download video data: HTTP Error 403: Forbidden", "rate_limited"),
        ("unable to download video data: HTTP Error 429: Too Many Requests", "rate_limited"),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", "age_restricted"),
        ("Private video. Sign in if you've been granted access to this video", "private"),
        ("Video unavailable. This video is private", "private"),
        ("Video unavailable", "unavailable"),
        ("This video is not available", "unavailable"),
        (
            "Video unavailable. This video is no longer available because the YouTube account associated with this "
            "video has been terminated.",
            "removed",
        ),
        ("Video unavailable. This video has been removed by the uploader", "removed"),
        ("This video is no longer available due to a copyright claim by X", "removed"),
        (
            "Video unavailable. This video contains content from SME, who has blocked it in your country on copyright "
            "grounds",
            "geo_blocked",
        ),
        ("This live event will begin in 3 hours.", "live"),
        ("Premieres in 2 days", "live"),
        ("The read operation timed out", "network"),
        ("1000 bytes read, 999000 more expected. Giving up after 1 retries", "network"),
    ],
)
def test_the_words_of_youtube_find_their_status(words, status):
    found = download.no_video(DownloadError(f"ERROR: [youtube] nXScAAAAAAA: {words}"))
    assert found.status == status
    assert found.reason.startswith(words.split(".")[0][:15].replace("1000 bytes", "some bytes"))


def test_every_status_is_on_the_closed_list():
    assert {status for status, _ in download.STATUS_OF_WORDS} <= set(schemas.DOWNLOAD_STATUSES)


def test_words_in_an_address_or_id_decide_nothing():
    words = "ERROR: [generic] private-removed: Unsupported URL: http://captcha.example/private/deleted"
    assert download.no_video(DownloadError(words)).status == "unavailable"


def raised(error):
    try:
        raise error
    except type(error):
        return sys.exc_info()


@pytest.mark.parametrize(
    ("cause", "words", "status"),
    [
        (TransportError("odd words"), "odd words", "network"),
        (PostProcessingError("odd words"), "odd words", "corrupt"),
        (ExtractorError("odd words", expected=True), "odd words", "unavailable"),
        (ExtractorError("odd words"), f"odd words{BUG_REPORT}", "network"),
        (GeoRestrictedError("The uploader said no in your country"), "no in your country", "geo_blocked"),
    ],
)
def test_unknown_words_go_by_what_raised_them(cause, words, status):
    found = download.no_video(DownloadError(f"ERROR: {words}", raised(cause)))
    assert found.status == status
    assert "please report" not in found.reason


def test_a_full_disk_is_no_fault_of_the_video():
    with pytest.raises(SourceError, match=r"disk is full.*run again"):
        download.no_video(DownloadError("ERROR: unable to write data: [Errno 28] No space left on device"))


@pytest.mark.parametrize("info", [{"is_live": True}, {"live_status": "is_upcoming"}, {"duration": 1}, {"duration": 99}])
def test_what_the_source_tells_is_judged_before_the_download(info):
    with pytest.raises(download.NoVideo) as caught:
        download._refuse_unwanted(PARAMS)(info, incomplete=False)
    assert caught.value.status in ("live", "too_short", "too_long")


def test_a_wanted_video_passes_the_filter():
    assert download._refuse_unwanted(PARAMS)({"duration": 5, "live_status": "not_live"}, incomplete=False) is None


@pytest.mark.parametrize("clips_per_video", [1, 2, 3, 9])
@pytest.mark.parametrize("duration_s", [1.0, 5.0, 12.34, 300.0])
def test_clips_lie_inside_the_video_and_do_not_overlap(duration_s, clips_per_video):
    starts = cutting.clip_starts(duration_s, frame_rate=25, clip_s=3.0, clips_per_video=clips_per_video)
    assert 1 <= len(starts) <= clips_per_video
    assert starts[0] >= 0
    assert len(starts) == 1 or np.diff(starts).min() >= 3.0 - 1 / 25
    assert starts[-1] + min(3.0, duration_s) <= duration_s + 1e-6
    assert np.allclose(np.array(starts) * 25, np.round(np.array(starts) * 25), atol=1e-4)


def test_one_clip_is_cut_from_the_middle():
    assert cutting.clip_starts(10.0, frame_rate=50, clip_s=4.0, clips_per_video=1) == [3.0]


def test_a_body_that_only_crawls_is_given_up(tmp_path, video, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE_S", 0.2)
    monkeypatch.setattr(download, "SLOWEST_BYTES_PER_S", 1_000_000)
    (clip,) = clips_of(Page(video, chunk_delay_s=0.1), tmp_path / "x")
    assert (clip.status, clip.reason) == ("network", "slower than 1000000 bytes a second for 0.2 s")


def test_a_body_that_is_slow_but_comes_is_waited_for(tmp_path, video):
    (clip,) = clips_of(Page(video, chunk_delay_s=0.05), tmp_path / "x")
    assert clip.status == "ok"


def test_a_body_longer_than_was_announced_is_no_whole_video(tmp_path, video):
    (clip,) = clips_of(Page(video, announced=len(video) // 2), tmp_path / "x")
    assert clip.status == "corrupt"
