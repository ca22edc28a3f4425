"""Fetches one label and two videos the way the stages do, and says which step failed, with the body received.

It asks as little as it can: one vocabulary, one label index, a few ids, two videos; nothing of it is kept.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import requests

from soundback import schemas
from soundback.doctor.checks import Finding
from soundback.errors import SourceError
from soundback.params import Params, TableSource
from soundback.sources import own_videos, youtube8m
from soundback.sources.breaker import find_advice
from soundback.sources.cutting import Clip
from soundback.sources.download import download_clips, is_file_address
from soundback.sources.sampling import sample_ids
from soundback.sources.youtube8m import Endpoints, Listed

VIDEOS_WANTED = 2
# Many ids are gone and many videos too: so many are tried before an endpoint is held to be at fault.
IDS_TRIED = 32
VIDEOS_TRIED = 6
BODY_SHOWN = 300
TIMEOUT_S = 20.0
NOT_ASKED = ("min_motion", "max_clipped_share", "max_silence_share", "min_agreement", "max_print_distance")


def try_source(params: Params, project: Path = Path()) -> Iterator[Finding]:
    """Goes through the steps of listing and downloading, and yields what came of each; ends after the first fault.

    Args:
      params: the source, and the label: the first one.
      project: the folder that has videos.csv, if the source is a table.
    """
    label = next(iter(params.labels.values()))
    if isinstance(params.source, TableSource):
        yield from _try_table(params, label, project / "videos.csv")
        return
    with youtube8m.open_endpoints(params.source) as endpoints:
        yield from _try_endpoints(params, label, endpoints)


def receive(address: str) -> str:
    """What an address answers, in one line: status, kind, and how its body begins."""
    try:
        with requests.Session() as session:
            session.trust_env = not youtube8m.is_loopback(address)
            with session.get(address, timeout=TIMEOUT_S, stream=True) as response:
                body = next(response.iter_content(4 * BODY_SHOWN), b"")
    except requests.RequestException as error:
        return f"no answer from {address} ({type(error).__name__})"
    shown = re.sub(r"\s+", " ", body.decode("utf-8", errors="replace")).strip()
    kind = response.headers.get("Content-Type", "no Content-Type")
    return f"HTTP {response.status_code} {kind} from {address}: {shown[:BODY_SHOWN] or '(empty)'}"


def _try_endpoints(params: Params, label_name: str, endpoints: Endpoints) -> Iterator[Finding]:
    try:
        labels = youtube8m.read_vocabulary(endpoints)
        label = youtube8m.resolve_label(labels, label_name)
    except SourceError as error:
        yield _fault("vocabulary", str(error), endpoints.vocabulary)
        return
    yield Finding("vocabulary", "ok", f"{len(labels)} labels; {label_name!r} is {label.display_name} ({label.mid})")

    try:
        ids = youtube8m.read_label_index(label, endpoints)
    except SourceError as error:
        yield _fault("label index", str(error), f"{endpoints.label_index}/{label.mid.removeprefix('/m/')}.js")
        return
    yield Finding("label index", "ok", f"{len(ids)} videos of {label.display_name}")

    tried = sample_ids(ids, IDS_TRIED, seed=params.dataset.seed)
    try:
        listed = youtube8m.look_up_ids(tried, endpoints)
    except SourceError as error:
        yield Finding("id map", "fault", f"{error} Received: {_odd_answer(_id_addresses(endpoints, tried))}")
        return
    found = [each.video_id for each in listed if each.reason is None]
    if not found:
        words = f"None of {len(tried)} ids of {label.display_name} leads to a video. {_first_reason(listed)}"
        yield _fault("id map", words, next(_id_addresses(endpoints, tried), None))
        return
    yield Finding("id map", "ok", f"{len(found)} of {len(tried)} ids lead to a video")
    yield from _try_videos(params, ((video_id, endpoints.watch + video_id) for video_id in found))


def _try_table(params: Params, label: str, table: Path) -> Iterator[Finding]:
    few = params.dataset.model_copy(update={"videos_per_label": VIDEOS_TRIED})
    try:
        rows = own_videos.list_label(table, label, dataset=few)
    except SourceError as error:
        yield Finding("table", "fault", str(error))
        return
    here = [row for row in rows if row["status"] == "ok"]
    if not here:
        yield Finding("table", "fault", f"{table}: of {label}, {rows[0]['reason']}. Correct the table.")
        return
    yield Finding("table", "ok", f"{len(here)} of the {len(rows)} videos of {label} that were looked for are there")
    yield from _try_videos(params, ((str(row["video_id"]), str(row["address"])) for row in here))


def _try_videos(params: Params, videos: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Fetches and cuts videos until two are had, and looks at what the last address answers if none is."""
    had, lost = 0, []
    for video_id, address in islice(videos, VIDEOS_TRIED):
        clip = _fetch(video_id, address, params)
        if clip.status == "ok":
            had += 1
            yield Finding(f"video {video_id}", "ok", _describe(clip))
        else:
            lost.append((address, clip))
        # Asking on would make a refusal worse.
        if had == VIDEOS_WANTED or clip.status in schemas.RETRYABLE_STATUSES:
            break
    told = "; ".join(f"{clip.video_id} is {clip.status}: {clip.reason}" for _, clip in lost)
    if not had:
        address, clip = lost[-1]
        received = None if is_file_address(address) else receive(address)
        yield Finding("download", "fault", f"{told}. {_advice(clip, received)}")
    elif had < VIDEOS_WANTED:
        yield Finding("download", "warning", f"only {had} could be fetched; {told or 'there are no more'}")


def _fetch(video_id: str, address: str, params: Params) -> Clip:
    """The first clip of a video, of which nothing stays."""
    # What is had but not wanted says nothing of the source.
    any_taste = params.curation.model_copy(update=dict.fromkeys(NOT_ASKED))
    with tempfile.TemporaryDirectory() as folder:
        try:
            return download_clips(
                video_id, address, Path(folder) / "video", params=params.download, curation=any_taste
            )[0]
        except SourceError as error:
            return Clip(video_id, status="network", reason=str(error))


def _describe(clip: Clip) -> str:
    size = f"{clip.width}x{clip.height}"
    return f"a clip of {clip.duration_s:.1f} s, {size}, {clip.n_bytes or 0:,} bytes, {_sound(clip)}"


def _sound(clip: Clip) -> str:
    return "with sound" if clip.has_audio else "without sound"


def _advice(clip: Clip, received: str | None) -> str:
    """What helps, and what came back."""
    if received is None:
        return "Correct the table, or the file."
    advice = (
        find_advice(f"{clip.reason} {received}")
        or "Check the network, and fetch the newest yt-dlp: `make update-yt-dlp`."
    )
    return f"{advice} Received: {received}"


def _id_addresses(endpoints: Endpoints, ids: Sequence[str]) -> Iterator[str]:
    return (f"{endpoints.id_map}/{each[:2]}/{each}.js" for each in ids)


def _odd_answer(addresses: Iterable[str]) -> str:
    """What came back that an id map does not say: the first answer that is neither an id nor a refusal of one."""
    answers = (receive(address) for address in addresses)
    return next(
        (answer for answer in answers if not answer.startswith(("HTTP 200", "HTTP 403", "HTTP 404"))), "nothing odd"
    )


def _first_reason(listed: Sequence[Listed]) -> str:
    return next((f"The first answer: {each.reason}." for each in listed if each.reason), "The index is empty.")


def _fault(step: str, words: str, address: str | None) -> Finding:
    """A failed step, with what the address that was asked answers."""
    received = f" Received: {receive(address)}" if address else ""
    return Finding(step, "fault", f"{words}{received}")
