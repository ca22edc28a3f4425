"""A miniature YouTube-8M over HTTP on this machine: vocabulary, label index, id map and the videos themselves.

It speaks YouTube-8M's own formats, so that the code that reads them is the same for both. Videos are rendered when they
are first asked for, and live in a temporary folder for as long as the server does.
"""

import csv
import io
import multiprocessing
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from soundback.errors import SoundbackError
from soundback.lifetime import die_with_parent
from soundback.params import DemoSource
from soundback.sources.demo.render import MANIFEST, PLAIN, is_separate, render
from soundback.sources.demo.world import MIDS, World
from soundback.sources.youtube8m import Endpoints

HEADER = "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,WikiDescription"
# Rows that real vocabularies have and careless readers stumble over; the demo has no videos of them.
DECOYS = (
    ("/m/01mf0", "Game", "Games"),
    ("/m/07_xf", "", "(Unknown)"),
    ("/m/0chg2", "Tokyo, Osaka & Kyoto (festival)", "Travel"),
    ("/m/02hnl", "Drum kit", "Arts & Entertainment"),
    ("/m/01b7h8", "Bell's theorem", "Science"),
)
# Google's storage says this, with status 403, of whatever it does not have.
ACCESS_DENIED = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code><Message>Access denied.</Message>"
    b"<Details>Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object. Permission"
    b" 'storage.objects.get' denied on resource (or it may not exist).</Details></Error>"
)
KINDS = {
    ".csv": "text/csv",
    ".js": "text/javascript",
    ".m4s": "video/iso.segment",
    ".mp4": "video/mp4",
    ".mpd": "application/dash+xml",
}
CHUNK_BYTES = 1 << 18
# A connection that was kept open and is not used gives its thread back.
IDLE_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Attributes:
      status: of HTTP.
      kind: its Content-Type.
      body: the bytes, or the file that holds them.
      location: where a redirect leads.
    """

    status: HTTPStatus
    kind: str = "text/html"
    body: bytes | Path = b""
    location: str | None = None


NOT_FOUND = Answer(HTTPStatus.NOT_FOUND, body=b"<html><body><h1>404 Not Found</h1></body></html>")


@contextmanager
def serve(params: DemoSource) -> Iterator[Endpoints]:
    """Serves the world on a free port of 127.0.0.1 until the context is left; then nothing of it stays."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soundback-demo-")))
        studio = Studio(params, folder)
        stack.callback(studio.close)
        server = stack.enter_context(_Server(Site(params, studio).answer))
        base = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        yield Endpoints(f"{base}/vocabulary.csv", f"{base}/2/j/v", f"{base}/2/j/i", f"{base}/watch?v=")


@dataclass
class Studio:
    """Renders videos in processes of its own, each once.

    Attributes:
      params: of the world.
      folder: where the videos go, a folder each.
    """

    params: DemoSource
    folder: Path
    _orders: dict[str, Future[None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # Spawned workers inherit no locks or sockets from the server's threads.
        spawning = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(_n_cores(), mp_context=spawning, initializer=_start_worker)
        # The kernel takes the thread that starts a worker for its parent: this one lives as long as the studio, while
        # those of the requests end, and would take their workers with them.
        self._foreman = ThreadPoolExecutor(1)

    def video(self, video_id: str) -> Path:
        """The folder of a video, once it is rendered; whoever asks meanwhile waits for the same rendering.

        Raises:
          SoundbackError: it could not be rendered.
        """
        with self._lock:
            if video_id not in self._orders:
                self._orders[video_id] = self._foreman.submit(self._order, video_id).result()
        self._orders[video_id].result()
        return self.folder / video_id

    def _order(self, video_id: str) -> Future[None]:
        return self._pool.submit(_render, self.params, video_id, self.folder / video_id)

    def close(self) -> None:
        """Waits for what is being rendered, forgets what is not yet begun, and ends the workers."""
        self._pool.shutdown(cancel_futures=True)
        self._foreman.shutdown()


class Site:
    """What the miniature YouTube-8M answers to each path."""

    def __init__(self, params: DemoSource, studio: Studio) -> None:
        self._world = World(params)
        self._studio = studio

    def answer(self, target: str) -> Answer:
        """The answer to a path with its query."""
        parts = urlsplit(target)
        if parts.path == "/vocabulary.csv":
            return _text(self._vocabulary(), ".csv")
        if found := re.fullmatch(r"/2/j/v/(\w+)\.js", parts.path):
            return self._label_index(found[1])
        if found := re.fullmatch(r"/2/j/i/(\w\w)/(\1\w\w)\.js", parts.path):
            return self._id_map(found[2])
        if parts.path == "/watch":
            return self._watch(parse_qs(parts.query).get("v", [""])[0])
        if found := re.fullmatch(r"/videos/([\w-]{11})\.mp4", parts.path):
            return self._file(found[1], PLAIN)
        if found := re.fullmatch(r"/videos/([\w-]{11})/([\w.]+)", parts.path):
            return self._file(found[1], found[2])
        return NOT_FOUND

    def _vocabulary(self) -> str:
        rows = [(mid, label, "Demo") for label, mid in MIDS.items()]
        # Real vocabularies are sorted by size, not by name: decoys stand between the demo's labels.
        for number, decoy in enumerate(DECOYS):
            rows.insert(2 * number, decoy)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(HEADER.split(","))
        for index, (mid, name, vertical) in enumerate(rows):
            wiki = f"https://en.wikipedia.org/wiki/{name.replace(' ', '_')}" if name else ""
            description = f"{name}, as rendered by the demo." if name else ""
            count = len(self._world.listed.get(name, ()))
            table.writerow([index, count, mid, name, wiki, vertical, "", "", description])
        return text.getvalue()

    def _label_index(self, mid: str) -> Answer:
        for label, known in MIDS.items():
            if known == f"/m/{mid}":
                ids = ",".join(f'"{video.short_id}"' for video in self._world.listed[label])
                return _text(f'p("{mid}",[{ids}]);', ".js")
        return _denied()

    def _id_map(self, short_id: str) -> Answer:
        video = self._world.by_short_id.get(short_id)
        if video is None or video.defect == "gone":
            return _denied()
        return _text(f'i("{short_id}","{video.video_id}");', ".js")

    def _watch(self, video_id: str) -> Answer:
        video = self._world.videos.get(video_id)
        if video is None or video.defect == "gone":
            return NOT_FOUND
        separate = is_separate(self._world.scene(video_id), video.defect)
        location = f"/videos/{video_id}/{MANIFEST}" if separate else f"/videos/{video_id}.mp4"
        return Answer(HTTPStatus.FOUND, location=location)

    def _file(self, video_id: str, name: str) -> Answer:
        video = self._world.videos.get(video_id)
        if video is None or video.defect in ("gone", "missing"):
            return NOT_FOUND
        path = self._studio.video(video_id) / name
        return Answer(HTTPStatus.OK, KINDS.get(path.suffix, ""), path) if path.is_file() else NOT_FOUND


class _Server(ThreadingHTTPServer):
    """Answers each connection in a thread of its own; leaving its context closes the port."""

    daemon_threads = True
    # Sixteen look-ups come at once, and again as many downloads.
    request_queue_size = 128

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer


class _Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1: HEAD, GET, and byte ranges, so that an interrupted download goes on."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    # Without it a small body waits for the acknowledgement of its headers, 40 ms each.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_HEAD(self) -> None:
        """Answers without the body."""
        self._send(with_body=False)

    def do_GET(self) -> None:
        """Answers with the body, or with the asked part of it."""
        self._send(with_body=True)

    def handle(self) -> None:
        """Serves one connection until it is closed from there."""
        with suppress(ConnectionError):  # The client left, as killed ones do.
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the other end reports what it got."""

    def _send(self, *, with_body: bool) -> None:
        answer = self._answer()
        size = answer.body.stat().st_size if isinstance(answer.body, Path) else len(answer.body)
        part = _asked_part(self.headers.get("Range"), size) if answer.status == HTTPStatus.OK else range(size)
        if part is None:
            answer, part = Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE), range(0)
        partial = answer.status == HTTPStatus.OK and len(part) < size
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if partial:
            self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}")
        elif answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.send_header("Content-Range", f"bytes */{size}")
        if answer.location is not None:
            self.send_header("Location", answer.location)
        self.end_headers()
        if with_body:
            self._send_body(answer.body, part)

    def _answer(self) -> Answer:
        try:
            return self.server.answer(self.path)
        except (SoundbackError, CancelledError, RuntimeError) as error:  # The last two: the studio is closing.
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", str(error).encode())

    def _send_body(self, body: bytes | Path, part: range) -> None:
        if isinstance(body, bytes):
            self.wfile.write(body[part.start : part.stop])
            return
        with body.open("rb") as file:
            file.seek(part.start)
            for start in range(part.start, part.stop, CHUNK_BYTES):
                self.wfile.write(file.read(min(CHUNK_BYTES, part.stop - start)))


def _asked_part(header: str | None, size: int) -> range | None:
    """The bytes that a Range header asks for, all if it asks for nothing sensible; None if there are no such bytes."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not found or not found[1] + found[2]:
        return range(size)
    if not found[1]:  # The last so many bytes.
        return range(max(size - int(found[2]), 0), size)
    first, last = int(found[1]), int(found[2]) if found[2] else size - 1
    return range(first, min(last + 1, size)) if first < size and first <= last else None


def _start_worker() -> None:
    """Ends with the server, and not before: Ctrl-C is for the server, which lets the rendering under way finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


def _render(params: DemoSource, video_id: str, folder: Path) -> None:
    """What a worker does; it knows nothing but the id."""
    world = World(params)
    render(world.scene(video_id), folder, defect=world.videos[video_id].defect)


def _text(text: str, suffix: str) -> Answer:
    return Answer(HTTPStatus.OK, KINDS[suffix], text.encode())


def _denied() -> Answer:
    return Answer(HTTPStatus.FORBIDDEN, "application/xml", ACCESS_DENIED)


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
