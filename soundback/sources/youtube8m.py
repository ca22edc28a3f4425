"""YouTube-8M as a source: its vocabulary, its index of videos per label, and its map to YouTube's own ids.

The label index and the id map are JSONP: `p("026t6",["nXSc",...]);` and `i("nXSc","<YouTube's id>");`. The four
characters of an id are case-sensitive, and so is everything made from them.

Source: https://research.google.com/youtube8m/video_id_conversion.html and research.google.com/youtube8m/download.html
"""

import csv
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from rapidfuzz import fuzz, process
from rapidfuzz.utils import default_process
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError
from urllib3.util import Retry

from soundback.errors import SourceError, TransientError
from soundback.lifetime import interrupts_stay_here
from soundback.params import DemoSource, YouTube8MSource
from soundback.progress import Progress, no_progress
from soundback.sources.reasons import scrub

LOOKUPS_AT_ONCE = 16
# Without a byte for so long, a connection is dead.
TIMEOUT_S = 20.0
# The largest label index, of the label Game, is 5.5 MB.
MAX_BODY_BYTES = 64 * 2**20
# A body that trickles never times out by itself.
MAX_BODY_S = 300.0
RETRIES = 3

_MID = re.compile(r"/m/\w+")
_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_JSONP = re.compile(r"\s*(?P<callback>\w+)\((?P<arguments>.*)\)\s*;?\s*", re.DOTALL)
_MARKUP = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Endpoints:
    """Where YouTube-8M, or a miniature of it, answers.

    Attributes:
      vocabulary: address of vocabulary.csv.
      label_index: base address; `/<MID without /m/>.js` is appended.
      id_map: base address; `/<first two characters>/<id>.js` is appended.
      watch: base address; the address of a catalog row is appended as it is.
    """

    vocabulary: str
    label_index: str
    id_map: str
    watch: str


@dataclass(frozen=True)
class Label:
    """One row of the vocabulary; 56 of the 3862 have no name, and go by their MID."""

    index: int
    mid: str
    name: str

    @property
    def display_name(self) -> str:
        """The name, or the MID of a nameless label."""
        return self.name.strip() or self.mid


@dataclass(frozen=True)
class Listed:
    """What the id map said of one id: YouTube's id, or why there is none (then `video_id` is YouTube-8M's)."""

    video_id: str
    reason: str | None = None


class _Gone(Exception):
    """The id map does not lead to a video; says why in the source's words."""


@contextmanager
def open_endpoints(source: DemoSource | YouTube8MSource) -> Iterator[Endpoints]:
    """Yields where the source answers; the rendered world is served for as long as the context is open."""
    if isinstance(source, YouTube8MSource):
        yield Endpoints(source.vocabulary, source.label_index, source.id_map, source.watch)
        return
    from soundback.sources.demo.server import serve  # It serves `Endpoints`, so it imports this module.

    with ExitStack() as stack:
        with interrupts_stay_here():
            endpoints = stack.enter_context(serve(source))
        yield endpoints


def is_loopback(address: str) -> bool:
    """Whether an address is on this machine, where there is nobody to be polite to and no proxy to go through."""
    host = urlsplit(address).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def read_vocabulary(endpoints: Endpoints) -> tuple[Label, ...]:
    """Fetches and parses the vocabulary.

    Raises:
      SourceError: if it cannot be had or is not a vocabulary.
    """
    with _open_session(endpoints.vocabulary) as session:
        return parse_vocabulary(_read(session, endpoints.vocabulary, what="vocabulary"), source=endpoints.vocabulary)


def parse_vocabulary(text: str, *, source: str) -> tuple[Label, ...]:
    """Parses vocabulary.csv, keeping every row.

    Args:
      text: with the columns Index, KnowledgeGraphId and Name at least.
      source: named in errors.

    Raises:
      SourceError: if a column is missing or a row is not a label.
    """
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    missing = {"Index", "KnowledgeGraphId", "Name"} - set(reader.fieldnames or ())
    if missing:
        raise SourceError(f"{source} is not a YouTube-8M vocabulary: it has no column {', '.join(sorted(missing))}.")
    labels = []
    for row in reader:
        index, mid, name = row["Index"], row["KnowledgeGraphId"], row["Name"]
        if name is None or not (index or "").isdecimal() or not _MID.fullmatch(mid or ""):
            raise SourceError(f"{source}, line {reader.line_num}, is not a label: Index {index!r}, MID {mid!r}.")
        labels.append(Label(int(index), mid, name))
    if not labels:
        raise SourceError(f"{source} is an empty vocabulary.")
    return tuple(labels)


def resolve_label(vocabulary: Sequence[Label], wanted: str) -> Label:
    """Finds a label by its name, MID or index.

    Args:
      vocabulary: all labels.
      wanted: "Drum", "/m/026t6" or "33"; a name in any case.

    Raises:
      SourceError: if no label, or more than one, is meant; it names the closest ones.
    """
    if not wanted.strip():
        raise SourceError(
            "A label in params.yaml has no name. Nameless labels are chosen by MID, for example /m/026t6."
        )
    exact = [label for label in vocabulary if wanted in (label.mid, label.name, str(label.index))]
    folded = wanted.strip().casefold()
    found = exact or [label for label in vocabulary if label.name.strip().casefold() == folded]
    if len(found) == 1:
        return found[0]
    if found:
        raise SourceError(f"The label {wanted!r} is ambiguous; say which by its MID: {_describe(found)}.")
    raise SourceError(
        f"YouTube-8M has no label {wanted!r}. The closest are {_describe(_closest(vocabulary, wanted))}. "
        "A label goes by its name, its MID or its index."
    )


def read_label_index(label: Label, endpoints: Endpoints) -> list[str]:
    """Fetches the ids of all videos under a label, each once, in the order of the index.

    Raises:
      SourceError: if the index cannot be had or is malformed.
    """
    mid = label.mid.removeprefix("/m/")
    address = f"{endpoints.label_index}/{mid}.js"
    with _open_session(address) as session:
        text = _read(session, address, what=f"label index of {label.display_name}")
    match _parse_jsonp(text, callback="p"):
        case [str(answered), [*ids]] if answered == mid and all(isinstance(each, str) for each in ids):
            return list(dict.fromkeys(map(str, ids)))
    raise SourceError(
        f'The label index of {label.display_name} at {address} is malformed: expected p("{mid}",[...]); '
        f"but found {text[:60]!r}."
    )


def look_up_ids(ids: Sequence[str], endpoints: Endpoints, *, progress: Progress = no_progress) -> list[Listed]:
    """Asks the id map for YouTube's ids, several at once.

    Args:
      ids: YouTube-8M's own.
      endpoints: where to ask.
      progress: called after every answer.

    Returns:
      One entry per id, in order. A video met before under another id counts once; its second id is listed as gone.

    Raises:
      SourceError: if the map does not answer; a dead map is no reason to call every video gone.
    """
    listed: list[Listed] = []
    with _open_session(endpoints.id_map) as session, ThreadPoolExecutor(LOOKUPS_AT_ONCE) as pool:
        answers = [pool.submit(_look_up, session, each, endpoints) for each in ids]
        try:
            for done, answer in enumerate(answers, start=1):
                listed.append(answer.result())
                progress(done, len(ids))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return _without_repeats(ids, listed)


def _describe(labels: Sequence[Label]) -> str:
    return ", ".join(f"{label.name.strip() or '(no name)'} ({label.mid})" for label in labels)


def _closest(vocabulary: Sequence[Label], wanted: str) -> list[Label]:
    names = {index: label.name for index, label in enumerate(vocabulary) if label.name}
    found = process.extract(wanted, names, scorer=fuzz.ratio, processor=default_process, limit=3)
    return [vocabulary[index] for _, _, index in found]


def _look_up(session: requests.Session, own_id: str, endpoints: Endpoints) -> Listed:
    try:
        return Listed(_youtube_id(session, own_id, endpoints))
    except _Gone as gone:
        return Listed(own_id, scrub(str(gone)))


def _youtube_id(session: requests.Session, own_id: str, endpoints: Endpoints) -> str:
    if not _ID.fullmatch(own_id):
        raise _Gone("not an id of YouTube-8M")
    status, body = _get(session, f"{endpoints.id_map}/{own_id[:2]}/{own_id}.js", what="id map")
    # Storage answers for a deleted video with an XML page; its words are not an id ("AccessDenie" has 11 letters).
    if status in (403, 404, 410) or "AccessDenied" in body:
        raise _Gone(f"HTTP {status}: {_MARKUP.sub(' ', body)}")
    if status != 200:
        raise TransientError(f"The id map at {endpoints.id_map} answered HTTP {status}. Run again later.")
    match _parse_jsonp(body, callback="i"):
        case [str(answered), str(video_id)] if answered == own_id and _VIDEO_ID.fullmatch(video_id):
            return video_id
    raise _Gone(f"malformed answer of the id map: {body[:100]}")


def _without_repeats(ids: Sequence[str], listed: Sequence[Listed]) -> list[Listed]:
    first: dict[str, str] = {}
    result = []
    for own_id, each in zip(ids, listed, strict=True):
        known = first.setdefault(each.video_id, own_id)
        result.append(each if known == own_id else Listed(own_id, f"the same video as {known}"))
    return result


def _parse_jsonp(text: str, *, callback: str) -> list[object] | None:
    """The arguments of `callback(...)`, or None if the text is something else."""
    match = _JSONP.fullmatch(text)
    if match is None or match["callback"] != callback:
        return None
    try:
        arguments: list[object] = json.loads(f"[{match['arguments']}]")
    except (ValueError, RecursionError):
        return None
    return arguments


@contextmanager
def _open_session(address: str) -> Iterator[requests.Session]:
    # Retry-After is not heeded: it may ask for hours, and a rerun costs nothing.
    retry = Retry(
        total=RETRIES,
        backoff_factor=0.02 if is_loopback(address) else 1.0,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    with requests.Session() as session:
        session.trust_env = not is_loopback(address)
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=LOOKUPS_AT_ONCE, max_retries=retry))
        yield session


def _read(session: requests.Session, address: str, *, what: str) -> str:
    """The body at an address that must answer."""
    status, body = _get(session, address, what=what)
    if status != 200:
        passing = status == 429 or status >= 500
        advice = "Run again later." if passing else "Check `source` in params.yaml."
        raise (TransientError if passing else SourceError)(f"The {what} at {address} answered HTTP {status}. {advice}")
    return body


def _get(session: requests.Session, address: str, *, what: str, attempts: int = RETRIES) -> tuple[int, str]:
    try:
        with session.get(address, timeout=TIMEOUT_S, stream=True) as response:
            body = _receive(response, f"The {what} at {address}")
    except (requests.RequestException, HTTPError) as error:
        cut_short = isinstance(error, (ProtocolError, IncompleteRead))  # Of a body, which `Retry` does not see.
        if cut_short and attempts > 1:
            return _get(session, address, what=what, attempts=attempts - 1)
        if cut_short:
            raise TransientError(f"The {what} at {address} breaks off before its end. Run again later.") from error
        raise TransientError(
            f"The {what} at {address} does not answer ({_root_cause(error)}). "
            "Check the network, or `source` in params.yaml, and run again."
        ) from error
    # Not `response.text`: without a declared charset, requests takes text/* for Latin-1.
    return response.status_code, body.decode("utf-8", errors="replace")


def _receive(response: requests.Response, what: str) -> bytes:
    """Reads a body within limits of size and time.

    Raises:
      SourceError: if it is larger, or takes longer.
    """
    body = bytearray()
    latest = time.monotonic() + MAX_BODY_S
    # Not `iter_content`: it waits for a whole chunk, and a body that trickles could make it wait for ever.
    while chunk := response.raw.read1(2**16, decode_content=True):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise SourceError(f"{what} is larger than {MAX_BODY_BYTES} bytes.")
        if time.monotonic() > latest:
            raise SourceError(f"{what} trickles: {len(body)} bytes in {MAX_BODY_S:g} s. Run again later.")
    return bytes(body)


def _root_cause(error: BaseException) -> str:
    """The innermost reason in one phrase: requests wraps urllib3's wrapping of the socket's error."""
    text = str(error)
    for known in (
        "Connection refused",
        "Name or service not known",
        "timed out",
        "certificate verify failed",
        "exceeded 30 redirects",
    ):
        if known.lower() in text.lower():
            return known.lower()
    return type(error).__name__
