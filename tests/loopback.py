"""A small web site for tests: serves what it is given, with the faults it is given, and counts what was asked."""

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from soundback.media.ffmpeg import ffmpeg_path
from soundback.params import load_params
from soundback.sources.youtube8m import Endpoints

CHUNK = 16384
LIMITS = ("min_motion", "max_clipped_share", "max_silence_share", "min_agreement", "max_print_distance")
CURATION = load_params().curation.model_copy(update=dict.fromkeys(LIMITS))
"""Every clip is wanted, and none looked at."""
ACCESS_DENIED = (
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code><Message>Access denied.</Message>"
    "<Details>Anonymous caller does not have storage.objects.get access to the object.</Details></Error>"
)


@dataclass
class Page:
    """One answer.

    Attributes:
      body: what is sent.
      status: of HTTP.
      kind: its Content-Type.
      announced: the length that is said, if it is not that of the body.
      cut_at: the connection breaks after so many bytes, though all were announced.
      chunk_delay_s: pause before every chunk of `CHUNK` bytes.
      location: where a redirect leads to.
    """

    body: bytes = b""
    status: int = 200
    kind: str = "video/mp4"
    announced: int | None = None
    cut_at: int | None = None
    chunk_delay_s: float = 0.0
    location: str | None = None


@dataclass
class Site:
    """A server under way.

    Attributes:
      base: its address, without a slash at the end.
      pages: what it serves, by path; may be changed while it runs.
      asked: every path that was asked for, in order.
      sent: the paths whose body was sent to its end, in order.
    """

    base: str
    pages: dict[str, Page]
    asked: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(f"{self.base}/vocabulary.csv", f"{self.base}/v", f"{self.base}/i", f"{self.base}/watch/")


@contextmanager
def serve(pages: Mapping[str, Page]) -> Iterator[Site]:
    """Serves pages on a free port of this machine."""
    site = Site("", dict(pages))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.asked.append(self.path)
            page = site.pages.get(self.path, Page(b"<h1>Not Found</h1>", status=404, kind="text/html"))
            first = self._first_byte(page)
            body = page.body[first:]
            self.send_response(206 if first else page.status)
            self.send_header("Content-Type", page.kind)
            self.send_header("Content-Length", str(page.announced or len(body)))
            self.send_header("Accept-Ranges", "bytes")
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(page.body) - 1}/{len(page.body)}")
            if page.location is not None:
                self.send_header("Location", page.location)
            self.end_headers()
            end = len(body) if page.cut_at is None else max(0, page.cut_at - first)
            for start in range(0, end, CHUNK):
                time.sleep(page.chunk_delay_s)
                self.wfile.write(body[start : min(start + CHUNK, end)])
            if end < len(body):
                self.close_connection = True
            else:
                site.sent.append(self.path)

        def _first_byte(self, page: Page) -> int:
            asked = self.headers.get("Range", "")
            if page.status != 200 or not asked.startswith("bytes="):
                return 0
            return min(int(asked.removeprefix("bytes=").split("-")[0] or 0), len(page.body))

        def handle(self) -> None:
            with suppress(ConnectionError):  # The client left, as killed ones do.
                super().handle()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        site.base = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield site
        finally:
            server.shutdown()


def youtube8m_pages(mid: str, name: str, videos: Mapping[str, str | None]) -> dict[str, Page]:
    """The pages of a miniature YouTube-8M with one label that lists these ids.

    Args:
      mid: of the label, as "/m/026t6".
      name: of the label.
      videos: YouTube's id per id of YouTube-8M; None for a video that is gone.
    """
    header = "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,WikiDescription\n"
    listed = ",".join(f'"{own_id}"' for own_id in videos)
    short = mid.removeprefix("/m/")
    pages = {
        "/vocabulary.csv": Page(f"{header}0,{len(videos)},{mid},{name},,,,,\n".encode(), kind="text/csv"),
        f"/v/{short}.js": Page(f'p("{short}",[{listed}]);'.encode(), kind="text/javascript"),
    }
    for own_id, video_id in videos.items():
        found = Page(f'i("{own_id}","{video_id}");'.encode(), kind="text/javascript")
        gone = Page(ACCESS_DENIED.encode(), status=403, kind="application/xml")
        pages[f"/i/{own_id[:2]}/{own_id}.js"] = gone if video_id is None else found
    return pages


def make_video(path: Path, *, duration_s: float = 3.0, sound: bool = True, hz: int = 440) -> bytes:
    """Makes a small moving picture with a tone, and returns its bytes; the suffix chooses the container."""
    picture = ["-f", "lavfi", "-i", f"testsrc2=size=160x120:rate=25:duration={duration_s}"]
    tone = ["-f", "lavfi", "-i", f"sine=frequency={hz}:sample_rate=16000:duration={duration_s}"] if sound else []
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-threads", "1", "-pix_fmt", "yuv420p", "-g", "50"]
    codecs += ["-c:a", "aac", "-b:a", "48k"]
    run = [ffmpeg_path(), "-v", "error", "-y", *picture, *tone, *codecs, "-fflags", "+bitexact", str(path)]
    subprocess.run(run, check=True, stdin=subprocess.DEVNULL)
    return path.read_bytes()
