"""Cuts pieces out of videos without decoding them.

In this process, with PyAV: to start the ffmpeg program takes several times as long as a short cut.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import av
import av.container
import av.error
from av.format import Flags

from soundback.errors import MediaError
from soundback.media.containers import file_address, muxer, open_media, picture_stream
from soundback.outputs import whole_file

MICROSECONDS = 10**6
SEEK_MARGIN = Fraction(3, 23)  # ffmpeg's own
MAX_TIMESCALE = 2**31 - 1


def cut(path: Path, out: Path, *, start_s: float, duration_s: float) -> None:
    """Copies a piece of a video, picture and first sound track, whole or not at all.

    What `ffmpeg -ss START -i PATH -t DURATION -c copy OUT` copies. The picture may begin at the key frame before
    `start_s` where the container cannot hide it.

    Args:
      path: a video file.
      out: where to; its suffix names the container.
      start_s: seconds, where the piece begins.
      duration_s: seconds, its length.

    Raises:
      MediaError: missing, not_media or no_video; refused, also for a suffix that names no container, and for an AVI
        whose pictures are coded out of order; corrupt, also when the container cannot hold what is in the video.
    """
    kind, options = muxer(out)
    with open_media(path) as source, whole_file(out) as partial:
        # Containers that do not say when a picture is shown.
        source.flags |= av.container.Flags.gen_pts.value
        video = picture_stream(source, path)
        in_order = source.format.name == "avi" and not video.codec_context.has_b_frames
        if source.format.name == "avi" and not in_order:
            raise MediaError(
                "refused",
                f"{path.name} is an AVI that does not say when its pictures, which are coded out of order, are shown. "
                "Convert it to Matroska.",
            )
        streams = [video, *source.streams.audio[:1]]
        options |= {"fflags": "+bitexact"}
        if kind in ("mp4", "mov"):
            # In milliseconds, which it would count in, it could not say exactly how long the sound lasts.
            options["movie_timescale"] = str(_timescale(streams))
        start = Fraction(source.start_time or 0, av.time_base) + Fraction(round(start_s * MICROSECONDS), MICROSECONDS)
        try:
            with av.open(file_address(partial), "w", format=kind, container_options=options) as target:
                copies = {stream.index: target.add_stream_from_template(stream, opaque=True) for stream in streams}
                source.seek(round((start - _seek_margin(source, video)) / video.time_base), stream=video)
                packets = _shown_when_decoded(source.demux(streams)) if in_order else source.demux(streams)
                for packet in _piece(packets, len(streams), start, Fraction(duration_s)):
                    packet.stream = copies[packet.stream_index]
                    target.mux(packet)
        except ValueError as error:
            # The container does not know the codec: PyAV says so before ffmpeg could.
            raise MediaError("corrupt", f"{path.name} cannot be cut: {error}.") from error
        except av.error.FFmpegError as error:
            raise MediaError("corrupt", f"{path.name} cannot be cut: {error.strerror}.") from error


def _shown_when_decoded(packets: Iterable[Any]) -> Iterator[Any]:
    """Corrects what ffmpeg guesses of H.264 in AVI: that any picture could be coded out of order."""
    for packet in packets:
        packet.pts = packet.dts
        yield packet


def _piece(packets: Iterable[Any], n_streams: int, start: Fraction, duration: Fraction) -> Iterator[Any]:
    """The packets of a piece, their time counted from its start.

    Args:
      packets: of the whole from a key frame on, by decoding time within each stream.
      n_streams: how many streams they are of.
      start: seconds, as the packets count.
      duration: seconds; nothing is decoded later than this.
    """
    last_dts: dict[int, int] = {}
    ended: set[int] = set()
    for packet in packets:
        index = packet.stream_index
        if not packet.size or index in ended:
            continue
        if index not in last_dts and not packet.is_keyframe:
            continue
        shift = round(start / packet.time_base)
        pts, dts = (None if stamp is None else stamp - shift for stamp in (packet.pts, packet.dts))
        if dts is None:
            dts = last_dts[index] + 1 if index in last_dts else pts
        if dts is None:
            continue
        if dts * packet.time_base >= duration:
            ended.add(index)
            if len(ended) == n_streams:
                return
            continue
        # No container takes packets whose decoding times do not rise.
        dts = max(dts, last_dts.get(index, dts - 1) + 1)
        last_dts[index] = dts
        packet.dts, packet.pts = dts, dts if pts is None else max(pts, dts)
        yield packet


def _seek_margin(source: Any, video: Any) -> Fraction:
    """How much earlier than wanted to seek, in seconds: some containers seek to what is decoded by then, not shown."""
    if source.format.flags & Flags.seek_to_pts.value or not video.codec_context.has_b_frames:
        return Fraction(0)
    return SEEK_MARGIN


def _timescale(streams: Iterable[Any]) -> int:
    """The fewest units per second that count all streams' time stamps exactly, if they fit into a movie's head."""
    units = lcm(*(stream.time_base.denominator for stream in streams))
    return units if units <= MAX_TIMESCALE else 1000
