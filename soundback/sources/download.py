"""Fetches one video and keeps clips of it: the only module that imports yt_dlp.

The whole small file is fetched and cut here: asked for a section, yt-dlp hands the address to ffmpeg, which YouTube
throttles to playback speed.
"""

import hashlib
import logging
import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundback.errors import MediaError, SourceError
from soundback.media import ffmpeg
from soundback.media.containers import Probe, probe
from soundback.params import Download
from soundback.settings import Settings
from soundback.sources.reasons import scrub
from soundback.sources.youtube8m import is_loopback

if TYPE_CHECKING:
    from yt_dlp import YoutubeDL
    from yt_dlp.utils import YoutubeDLError

log = logging.getLogger(__name__)

# Raised by one whenever the same video would come out as other clips, so that clips cut the old way are not kept.
RECIPE = 1
RETRIES = 3
SOCKET_TIMEOUT_S = 20
LONGEST_RETRY_SLEEP_S = 30
# YouTube allows a guest about 300 videos an hour.
POLITE = {"sleep_interval_requests": 0.75, "sleep_interval": 5, "max_sleep_interval": 10}
# A clip may miss this much of its length: the last frame, and what the container rounds.
SHORTFALL_S = 0.5

# Tried in this order on the source's own words; the first that fits decides.
STATUS_OF_WORDS = tuple(
    (status, re.compile(pattern, re.IGNORECASE))
    for status, pattern in (
        ("rate_limited", r"not a bot|rate-limited|try again later|captcha|HTTP Error (?:403|429)|too many requests"),
        ("age_restricted", r"confirm your age|age[- ]restricted|inappropriate for some users"),
        ("geo_blocked", r"in your (?:country|region|location)|from your location|geo.?restrict"),
        ("private", r"\bprivate\b"),
        ("live", r"live event will begin|premieres in|premiere will begin|live stream will begin"),
        ("removed", r"terminated|removed|no longer available|deleted|copyright|does not exist|HTTP Error (?:404|410)"),
        ("network", r"HTTP Error 5\d\d|timed out|more expected|bytes, expected|connection|failed to resolve"),
        ("network", r"name or service not known|name resolution|unreachable|remote end closed|\bSSL\b|proxy"),
        ("network", r"did not get any data|downloaded file is empty"),
        ("corrupt", r"postprocessing|conversion failed"),
    )
)

_of_this_thread = threading.local()


@dataclass(frozen=True)
class Clip:
    """What came of one clip: a row of `schemas.DOWNLOADS`, less what the catalog knows."""

    video_id: str
    clip_index: int = 0
    status: str = "ok"
    reason: str | None = None
    path: str | None = None
    n_bytes: int | None = None
    sha256: str | None = None
    clip_start_s: float | None = None
    width: int | None = None
    height: int | None = None
    frame_rate: float | None = None
    duration_s: float | None = None
    has_audio: bool | None = None


class NoVideo(Exception):
    """A video that cannot be had or is not wanted.

    Attributes:
      status: one of `schemas.DOWNLOAD_STATUSES`.
      reason: the source's own words, scrubbed.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def download_clips(video_id: str, address: str, folder: Path, *, params: Download) -> list[Clip]:
    """Fetches a video and cuts its clips into a folder.

    Args:
      video_id: names the clips, `<video_id>_<clip_index>.mp4` (a single .mkv where MP4 cannot hold the codecs).
      address: of the video, or of a page or manifest that leads to it.
      folder: for this video alone. What an interrupted call left in it is gone on with; afterwards it holds the clips.
      params: what is wanted.

    Returns:
      One entry per clip, or a single one saying why there is none.

    Raises:
      SourceError: if the disk is full: no fault of the video's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        source = fetch(address, folder, params=params)
        clips = _cut(video_id, source, params)
        source.unlink()
    except NoVideo as fault:
        clips = [Clip(video_id, status=fault.status, reason=fault.reason)]
    return clips


def fetch(address: str, folder: Path, *, params: Download) -> Path:
    """Fetches the smallest adequate format of a video, picture and sound merged where they come apart.

    Args:
      address: of the video, or of a page or manifest that leads to it.
      folder: where it goes; an interrupted download in it is resumed.
      params: limits on height and duration; a video known to be too long, too short or live is not fetched.

    Returns:
      The path of the file, named by its format: nothing of what the source says but that reaches the name.

    Raises:
      NoVideo: if there is none.
      SourceError: if the disk is full.
    """
    from yt_dlp.utils import YoutubeDLError

    downloader = _downloader(is_loopback(address), params)
    downloader.params["paths"] = {"home": str(folder)}
    try:
        info = downloader.extract_info(address)
    except YoutubeDLError as error:
        raise no_video(error) from error
    # Without this list nothing was fetched, though nothing was raised: a page of several videos, for example.
    fetched = (info or {}).get("requested_downloads") or []
    if len(fetched) != 1:
        raise NoVideo("unavailable", "the address leads to a page or list rather than to one video")
    return Path(fetched[0]["filepath"])


def no_video(error: "YoutubeDLError") -> NoVideo:
    """Finds the status that the words of yt-dlp's exception mean.

    Raises:
      SourceError: if they mean that the disk is full.
    """
    from yt_dlp.networking.exceptions import HTTPError, TransportError
    from yt_dlp.utils import PostProcessingError

    refuse_full_disk(str(error))
    words = scrub(str(error))
    cause = (getattr(error, "exc_info", None) or (None, None))[1]
    for status, pattern in STATUS_OF_WORDS:
        if pattern.search(words):
            return NoVideo(status, words)
    if isinstance(cause, PostProcessingError):
        return NoVideo("corrupt", words)
    # What yt-dlp itself did not expect may be yt-dlp's fault, and mended in its next version: worth another try.
    unexpected = "please report this issue" in str(error)
    lost = any(isinstance(each, TransportError) and not isinstance(each, HTTPError) for each in (error, cause))
    return NoVideo("network" if unexpected or lost else "unavailable", words)


def clip_starts(duration_s: float, *, frame_rate: float, clip_s: float, clips_per_video: int) -> list[float]:
    """Where clips begin so that the gaps before, between and after them are equal, within a picture.

    Args:
      duration_s: seconds, of the video.
      frame_rate: pictures per second; clips begin with a picture.
      clip_s: seconds, of each clip.
      clips_per_video: at most so many; fewer if they would overlap, at least one.

    Returns:
      Seconds, rounded to microseconds.
    """
    n_clips = max(1, min(clips_per_video, int(duration_s / clip_s)))
    gap_s = max(0.0, duration_s - n_clips * clip_s) / (n_clips + 1)
    starts = [gap_s + index * (gap_s + clip_s) for index in range(n_clips)]
    return [round(int(start * frame_rate) / frame_rate, 6) if frame_rate else start for start in starts]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cut(video_id: str, source: Path, params: Download) -> list[Clip]:
    facts = _probe(source)
    _refuse_unwanted_duration(facts.duration_s, params)
    if not facts.has_audio:
        raise NoVideo("no_audio", "the video has no sound track")
    length_s = min(params.clip_s, facts.duration_s)
    starts = clip_starts(
        facts.duration_s, frame_rate=facts.frame_rate, clip_s=params.clip_s, clips_per_video=params.clips_per_video
    )
    try:
        return [_cut_one(video_id, index, ".mp4", source, (start, length_s)) for index, start in enumerate(starts)]
    except MediaError as error:
        refuse_full_disk(str(error))
    # Matroska holds the codecs that MP4 does not, but cannot hide pictures: such a clip begins at a key frame, of which
    # the first picture is the one we know.
    try:
        return [_cut_one(video_id, 0, ".mkv", source, (0.0, length_s))]
    except MediaError as error:
        refuse_full_disk(str(error))
        raise NoVideo("corrupt", _media_words(error, source)) from error


def _cut_one(video_id: str, index: int, suffix: str, source: Path, piece: tuple[float, float]) -> Clip:
    start_s, length_s = piece
    path = source.with_name(f"{video_id}_{index:02d}{suffix}")
    ffmpeg.cut(source, path, start_s=start_s, duration_s=length_s)
    try:
        facts = _probe(path)
        if facts.duration_s < length_s - SHORTFALL_S:
            raise NoVideo("too_short", f"the video breaks off: {facts.duration_s:.1f} s of a {length_s:.1f} s clip")
    except NoVideo as fault:
        return Clip(video_id, index, status=fault.status, reason=fault.reason)
    return Clip(
        video_id,
        index,
        path=path.name,
        n_bytes=path.stat().st_size,
        sha256=file_sha256(path),
        clip_start_s=start_s,
        width=facts.width,
        height=facts.height,
        frame_rate=facts.frame_rate,
        duration_s=facts.duration_s,
        has_audio=facts.has_audio,
    )


def _probe(path: Path) -> Probe:
    try:
        return probe(path)
    except MediaError as error:
        raise NoVideo("corrupt", _media_words(error, path)) from error


def _media_words(error: MediaError, path: Path) -> str:
    return scrub(str(error).replace(str(path), "the video").replace(path.name, "the video"))


def _refuse_unwanted_duration(duration_s: float, params: Download) -> None:
    if duration_s < params.min_duration_s:
        raise NoVideo("too_short", f"{duration_s:.1f} s; at least {params.min_duration_s:g} s are wanted")
    if duration_s > params.max_duration_s:
        raise NoVideo("too_long", f"{duration_s:.1f} s; at most {params.max_duration_s:g} s are wanted")


def refuse_full_disk(words: str) -> None:
    """Raises a `SourceError` if the words of a failure mean that the disk is full."""
    if "No space left on device" in words:
        free_mb = shutil.disk_usage(".").free / 1e6
        raise SourceError(
            f"The disk is full ({free_mb:.0f} MB left). Free some space and run again: what was fetched is kept."
        )


def _downloader(on_loopback: bool, params: Download) -> "YoutubeDL":
    """This thread's yt-dlp: it takes longer to make than to fetch a small video, and is not for several threads."""
    key = (on_loopback, params)
    if getattr(_of_this_thread, "key", None) != key:
        from yt_dlp import YoutubeDL

        _of_this_thread.downloader = YoutubeDL(_options(on_loopback, params))
        _of_this_thread.key = key
    downloader: YoutubeDL = _of_this_thread.downloader
    return downloader


def _options(on_loopback: bool, params: Download) -> Any:
    height = params.max_height
    cookies = Settings().cookies
    return {
        # "<=?": the height of a plain file is unknown until it is here. The last resort is the worst there is.
        "format": f"bv*[height<=?{height}]+ba/b[height<=?{height}]/wv*+wa/w",
        "format_sort": [f"res:{height}", "+size", "+br"],
        "merge_output_format": "mp4/mkv",
        "ffmpeg_location": ffmpeg.ffmpeg_path(),
        # Named by the format, so that a partial file is gone on with in the same format only.
        "outtmpl": {"default": "source.%(format_id).60s.%(ext)s"},
        "overwrites": False,
        "continuedl": True,
        "ignoreerrors": False,  # If true, what went wrong would reach nothing but the log.
        "skip_unavailable_fragments": False,  # If true, a video could have holes.
        "noplaylist": True,
        "extract_flat": "in_playlist",
        "match_filter": _refuse_unwanted(params),
        "retries": RETRIES,
        "fragment_retries": RETRIES,
        "extractor_retries": RETRIES,
        "file_access_retries": RETRIES,
        "retry_sleep_functions": dict.fromkeys(("http", "fragment", "extractor"), _no_sleep if on_loopback else _sleep),
        "socket_timeout": SOCKET_TIMEOUT_S,
        "cookiefile": str(cookies) if cookies else None,
        "quiet": True,
        "noprogress": True,
        "color": {"stdout": "no_color", "stderr": "no_color"},
        "logger": _Quiet(),
        "js_runtimes": {"deno": {}},
        # On this machine there is no proxy to go through, and nobody to be polite to.
        **({"proxy": ""} if on_loopback else POLITE),
    }


def _no_sleep(n: int) -> float:
    return 0.0


def _sleep(n: int) -> float:
    return float(min(2**n, LONGEST_RETRY_SLEEP_S))


def _refuse_unwanted(params: Download) -> Any:
    """A `match_filter` that says no to what the source already tells is not wanted, before it is fetched."""

    def refuse(info: Mapping[str, Any], *, incomplete: bool = False) -> None:
        if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming", "post_live"):
            raise NoVideo("live", f"live status {info.get('live_status') or 'is_live'}")
        if not incomplete and info.get("duration"):
            _refuse_unwanted_duration(float(info["duration"]), params)

    return refuse


class _Quiet:
    """yt-dlp's logger: what matters comes as an exception, with the same words."""

    def debug(self, message: str) -> None:
        log.debug(message)

    info = warning = error = debug
