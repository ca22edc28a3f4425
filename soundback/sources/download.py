"""Fetches one video and keeps clips of it: the only module that imports yt_dlp.

The whole small file is fetched and cut here: asked for a section, yt-dlp hands the address to ffmpeg, which YouTube
throttles to playback speed.
"""

import gc
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundback.media import ffmpeg
from soundback.params import Curation, Download
from soundback.settings import load_settings
from soundback.sources.breaker import find_advice
from soundback.sources.cutting import Clip, NoVideo, cut_clips, refuse_full_disk, refuse_unwanted_duration
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
PAUSE_BETWEEN_REQUESTS_S = 0.75
# A body that comes more slowly than this, once it had time to get going, would hold up everything for hours.
SLOWEST_BYTES_PER_S = 2000
PATIENCE_S = 60

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

LARGEST_PAGE_BYTES = 1 << 16
_MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_of_this_thread = threading.local()


def download_clips(video_id: str, address: str, folder: Path, *, params: Download, curation: Curation) -> list[Clip]:
    """Fetches a video and cuts its clips into a folder.

    Args:
      video_id: names the clips, and the whole video where it is kept.
      address: of the video, or of a page or manifest that leads to it; one without a scheme is a file, which stays.
      folder: for this video alone. What an interrupted call left in it is gone on with; afterwards it holds the clips.
      params: what is wanted.
      curation: which clips are not wanted though they are had.

    Returns:
      One entry per clip, or a single one saying why there is none.

    Raises:
      SourceError: if the disk is full: no fault of the video's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if is_file_address(address):
            return cut_clips(video_id, _find_file(address), folder, params=params, curation=curation)
        source = fetch(address, folder, params=params)
        clips = cut_clips(video_id, source, folder, params=params, curation=curation)
    except NoVideo as fault:
        return [Clip(video_id, status=fault.status, reason=fault.reason)]
    if not params.keep_source:
        source.unlink()
        return clips
    kept = source.rename(source.with_name(video_id + source.suffix))
    return [replace(clip, source_path=kept.name) if clip.path else clip for clip in clips]


def is_file_address(address: str) -> bool:
    """Whether an address is a path on this machine rather than something to be asked for."""
    return "://" not in address


def absolute_address(address: str) -> str:
    """The same address, whatever folder one is in."""
    return str(Path(address).absolute()) if is_file_address(address) else address


def _find_file(address: str) -> Path:
    path = Path(address)
    if not path.is_file():
        raise NoVideo("removed", "there is no such file")
    return path


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

    _forget_pieces(folder)
    downloader = _downloader(is_loopback(address), params)
    downloader.params["paths"] = {"home": str(folder)}
    try:
        try:
            info = downloader.extract_info(address)
        except YoutubeDLError as error:
            # The address of a format may have gone stale between page and download; the page knows a new one.
            if "HTTP Error 403" not in str(error):
                raise
            info = downloader.extract_info(address)
    except YoutubeDLError as error:
        raise _refused_by_page(downloader, address, error) or no_video(error) from error
    # Without this list nothing was fetched, though nothing was raised: a page of several videos, for example.
    fetched = (info or {}).get("requested_downloads") or []
    if len(fetched) != 1:
        raise NoVideo("unavailable", "the address leads to a page or list rather than to one video")
    return Path(fetched[0]["filepath"])


def _forget_pieces(folder: Path) -> None:
    """Removes a video that came in pieces and was not finished; one that came as a whole is gone on with.

    yt-dlp notes which pieces it has. Killed, or out of disk, while it appends one, it would append it again.
    """
    for note in folder.glob("*.ytdl"):
        for path in folder.glob(f"{escape(note.stem)}*"):
            path.unlink()


def _refused_by_page(downloader: "YoutubeDL", address: str, error: "YoutubeDLError") -> NoVideo | None:
    """What a page says that is no video's: that we may be a robot, for example. yt-dlp only calls it unsupported."""
    from yt_dlp.utils import UnsupportedError, YoutubeDLError

    if not isinstance((getattr(error, "exc_info", None) or (None, None))[1], UnsupportedError):
        return None
    try:
        with downloader.urlopen(address) as page:
            words = scrub(_MARKUP.sub(" ", page.read(LARGEST_PAGE_BYTES).decode("utf-8", errors="replace")))
    except YoutubeDLError:
        return None
    return NoVideo("rate_limited", words) if find_advice(words) else None


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


def _downloader(on_loopback: bool, params: Download) -> "YoutubeDL":
    """This thread's yt-dlp: it takes longer to make than to fetch a small video, and is not for several threads."""
    key = (on_loopback, params)
    if getattr(_of_this_thread, "key", None) != key:
        from yt_dlp import YoutubeDL

        _of_this_thread.downloader = YoutubeDL(_options(on_loopback, params))
        # It would be rendered seven times for each video, and shown to nobody.
        _of_this_thread.downloader.render_formats_table = lambda info: None
        # Its two thousand extractors are here to stay: the garbage collector need not look at them with every video.
        gc.freeze()
        _of_this_thread.key = key
    downloader: YoutubeDL = _of_this_thread.downloader
    return downloader


def _options(on_loopback: bool, params: Download) -> Any:
    height = params.max_height
    cookies = load_settings().cookies
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
        "progress_hooks": [_refuse_crawling],
        # On this machine there is no proxy to go through, and nobody to be polite to.
        **({"proxy": ""} if on_loopback else {"sleep_interval_requests": PAUSE_BETWEEN_REQUESTS_S}),
    }


def _no_sleep(n: int) -> float:
    return 0.0


def _sleep(n: int) -> float:
    return float(min(2**n, LONGEST_RETRY_SLEEP_S))


def _refuse_crawling(progress: Mapping[str, Any]) -> None:
    """A progress hook that gives up on a body which comes too slowly."""
    elapsed_s, speed = progress.get("elapsed") or 0.0, progress.get("speed")
    if progress["status"] == "downloading" and elapsed_s > PATIENCE_S and speed and speed < SLOWEST_BYTES_PER_S:
        raise NoVideo("network", f"slower than {SLOWEST_BYTES_PER_S} bytes a second for {PATIENCE_S} s")


def _refuse_unwanted(params: Download) -> Any:
    """A `match_filter` that says no to what the source already tells is not wanted, before it is fetched."""

    def refuse(info: Mapping[str, Any], *, incomplete: bool = False) -> None:
        if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming", "post_live"):
            raise NoVideo("live", f"live status {info.get('live_status') or 'is_live'}")
        if not incomplete and info.get("duration"):
            refuse_unwanted_duration(float(info["duration"]), params)

    return refuse


class _Quiet:
    """yt-dlp's logger: what matters comes as an exception, with the same words."""

    def debug(self, message: str) -> None:
        log.debug(message)

    info = warning = error = debug
