"""What the page shows, and what happens when its buttons are pressed."""

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as StillWorking
from dataclasses import dataclass
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio_client.utils import is_http_url_like

from soundback.app.fragments import show_made, status, under_way, unrecognised
from soundback.app.segment_table import edited, rows_of, segment_table
from soundback.app.sheet_picture import as_html, draw_sheet, read_strip, tell
from soundback.app.visitors import Stopped, Visitor, Visitors
from soundback.cue_files import read_cues, write_captions, write_cues
from soundback.cues import CueSheet
from soundback.errors import MediaError, SoundbackError
from soundback.media import ffmpeg
from soundback.media.containers import MUXERS, picture_end_s, probe
from soundback.progress import Progress
from soundback.soundtrack import Soundtrack
from soundback.takes import Take

log = logging.getLogger(__name__)

Made = TypeVar("Made")
Shown = dict[Any, Any]
"""What changes on the page, by component."""

TITLE = "Soundback"
LOOK_S = 0.25
"""How often the bar moves."""
UPLOAD_LIFE_S = 3600, 7200
"""How often Gradio looks for uploads that nobody took, and how old they are when it removes them: seconds."""

MIXES = [
    ("Replace it", "replace"),
    ("Keep it, and add ours", "keep"),
    ("Lower it where ours sounds", "under"),
    ("Fill its silent stretches", "fill"),
]
UNSURE = [("Stay quiet", "quiet"), ("Sound what is likeliest", "best")]
LOUDNESS_LUFS = -70.0, 0.0
MOST_SEED = 2**32 - 1
WHATEVER_IS_SEEN = "Whatever is seen"
UNFORESEEN = (
    "This failed in a way that nobody foresaw; what it was stands in the log of `soundback app`. Your video and your "
    "table are as they were: try again, or bring another video."
)


@dataclass(frozen=True)
class Limits:
    """What a visitor may bring.

    Attributes:
      mb: megabytes.
      minutes: of video.
    """

    mb: float
    minutes: float

    def check(self, video: Path) -> str:
        """Looks at an uploaded video, and says what it is.

        Raises:
          MediaError: when it is no readable video, or too long.
        """
        facts = probe(video)
        # Read from the packets: what the head of a file says of its length need not be so.
        length_s = picture_end_s(video)
        if length_s > 60 * self.minutes:
            raise MediaError(
                "refused",
                f"{video.name} is {length_s / 60:.1f} minutes long; this page takes at most {self.minutes:g}. "
                "Cut it, or use `soundback generate`, which takes any length.",
            )
        sound = "with sound of its own" if facts.has_audio else "silent"
        return f"{video.name}: {length_s:.1f} s, {facts.width} x {facts.height} pixels, {sound}."


def build_page(soundtrack: Soundtrack, visitors: Visitors, limits: Limits) -> gr.Blocks:
    """The page, to be launched by `soundback.app.serving`.

    Args:
      soundtrack: the models.
      visitors: where their files are.
      limits: what they may bring.
    """
    # What is left in Gradio's own folder is what nobody took: the page takes every upload away at once.
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=UPLOAD_LIFE_S) as blocks:
        page = _Page(soundtrack, visitors, limits)
        blocks.unload(page.leave)
    return blocks


def _sent(file: gr.File) -> gr.File:
    """Has a file come from the visitor's browser alone: Gradio would fetch any address that stands in its place.

    Not by a class of its own: beside each of those, Gradio writes a file of types into the source.
    """
    take = file.async_move_resource_to_block_cache

    async def take_what_was_sent(path: str | Path | None) -> str | None:
        if is_http_url_like(str(path)):
            raise gr.Error("A file must be sent by the browser; nothing is fetched from elsewhere.")
        return await take(path)

    file.async_move_resource_to_block_cache = take_what_was_sent  # type: ignore[assignment, method-assign]
    return file


def _says_faults(work: Callable[..., Iterator[Shown]]) -> Callable[..., Iterator[Shown]]:
    """Has work of `_Page` that cannot be done, or that was stopped, end with a sentence in place of its bar."""

    @wraps(work)
    def told(page: "_Page", *arguments: Any) -> Iterator[Shown]:
        try:
            yield from work(page, *arguments)
        except SoundbackError as error:
            yield {page.status: status(fault=str(error))}
        except (Stopped, CancelledError):
            yield {page.status: status("Stopped.")}
        except Exception:
            log.exception("Work for the page failed")
            yield {page.status: status(fault=UNFORESEEN)}

    return told


class _Page:
    """The components of the page, and what they do."""

    def __init__(self, soundtrack: Soundtrack, visitors: Visitors, limits: Limits) -> None:
        self.soundtrack, self.visitors, self.limits = soundtrack, visitors, limits
        gr.HTML(
            f"<h1>{TITLE}</h1><p>Gives silent video its sound back. Bring a video; what is seen in it is written down "
            "as a cue sheet, and sounded. Then correct the sheet, and sound it again. Your files are removed when you "
            "close this page.</p>"
        )
        self.upload = _sent(
            gr.File(height=150, label=f"Your video: at most {limits.mb:g} MB and {limits.minutes:g} minutes")
        )
        self.brought = gr.HTML('<p class="said" role="status"></p>')
        self._lay_out_options()
        # They stay in sight: what a button far below sets off is said here, and stopped here.
        with gr.Column(elem_classes="controls"):
            with gr.Row():
                self.watch = gr.Button("Watch and sound", variant="primary", min_width=100)
                self.stop = gr.Button("Stop", min_width=100)
            self.status = gr.HTML(status())
        with gr.Column(visible=False) as self.results:
            self.made = gr.HTML()
            self.drawn = gr.HTML()
            gr.HTML(
                "<h2>Correct it</h2><p>Change what sounds when, and how loud; then sound it again. "
                "A cue sheet that you edited elsewhere takes the place of the table.</p>"
            )
            self.table = segment_table(soundtrack.categories, frame_rate=soundtrack.frame_rate)
            self.again = gr.Button("Sound it again", variant="primary")
            self.own_sheet = _sent(gr.File(height=150, label="An edited cue sheet (CSV)"))
        self._connect()

    def _lay_out_options(self) -> None:
        with gr.Accordion("Options", open=False):
            with gr.Row():
                self.category = gr.Dropdown(
                    [WHATEVER_IS_SEEN, *self.soundtrack.categories],
                    value=WHATEVER_IS_SEEN,
                    label="What it is, when watching",
                    filterable=False,
                )
                self.when_unsure = gr.Radio(UNSURE, value="quiet", label="Where unsure, when watching")
            with gr.Row():
                self.mix = gr.Radio(MIXES, value="replace", label="The video's own sound")
                self.loudness_lufs = gr.Textbox(
                    label="Loudness in LUFS, -23 for instance; empty: as the cue sheet says", max_lines=1
                )
                self.seed = gr.Number(0, label="Seed: another one, another take", precision=0)

    def _connect(self) -> None:
        every = [self.upload, self.brought, self.status, self.results, self.made, self.drawn, self.table]
        every.append(self.own_sheet)
        take = [self.seed, self.category, self.when_unsure, self.mix, self.loudness_lufs]
        # One piece of work at a time, whoever asks for it; the others are shown their place.
        work: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": 1, "show_progress_on": self.status}
        plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        watching = self.watch.click(
            self.watch_and_sound, take, every, show_progress="minimal", api_visibility="private", **work
        )
        sounding = self.again.click(
            self.sound_again, [self.table, *take], every, show_progress="minimal", api_visibility="private", **work
        )
        begun: list[Any] = [watching, sounding]
        self.upload.upload(self.bring, self.upload, every, cancels=begun, **plain)
        self.own_sheet.upload(self.bring_sheet, self.own_sheet, every, **plain)
        self.stop.click(self.stop_work, None, self.status, cancels=begun, queue=False, **plain)

    def bring(self, uploaded: str, request: gr.Request) -> Shown:
        """Takes an uploaded video, or says why not."""
        brought = Path(uploaded)
        try:
            said = self.limits.check(brought)
            self.visitors.of(request.session_hash).take_video(brought)
        except SoundbackError as error:
            brought.unlink(missing_ok=True)
            return {self.upload: None, self.status: status(fault=str(error))}
        return {
            self.upload: None,
            self.brought: f'<p class="said" role="status">{escape(said)}</p>',
            self.status: status("Ready."),
            self.results: gr.Column(visible=False),
        }

    def bring_sheet(self, uploaded: str, request: gr.Request) -> Shown:
        """Puts an edited cue sheet in the table's place, or names its faults."""
        brought = Path(uploaded)
        try:
            visitor = self._with_video(request)
            sheet = read_cues(brought, self.soundtrack.categories)
            self.soundtrack.check_sheet(sheet, _video_of(visitor))
        except SoundbackError as error:
            # The sentence names the file by its place on the server, which is nobody's business.
            fault = str(error).replace(str(brought), brought.name)
            return {self.own_sheet: None, self.status: status(fault=fault)}
        finally:
            brought.unlink(missing_ok=True)
        visitor.sheet = sheet
        return {
            self.own_sheet: None,
            self.table: rows_of(sheet),
            self.drawn: self._draw(visitor, sheet, None),
            self.status: status(f"{brought.name} is in the table now. Sound it again to hear it."),
        }

    @_says_faults
    def watch_and_sound(
        self,
        seed: float | None,
        category: str,
        when_unsure: Any,
        mix: Any,
        loudness_lufs: str | None,
        request: gr.Request,
    ) -> Iterator[Shown]:
        """Watches the video, shows the cue sheet, sounds it and shows the result."""
        visitor = self._with_video(request)
        chosen = None if category == WHATEVER_IS_SEEN else category
        take = Take(_seed(seed), chosen, when_unsure, mix=mix, loudness_lufs=_loudness(loudness_lufs))
        sheet = yield from self._follow(
            visitor,
            "Watching",
            lambda progress: self.soundtrack.spot(_video_of(visitor), take, progress),
        )
        visitor.sheet = sheet
        yield {
            self.table: rows_of(sheet),
            self.drawn: self._draw(visitor, sheet, None),
            self.made: "",
            self.results: gr.Column(visible=True),
        }
        yield from self._sound(visitor, sheet, take)

    @_says_faults
    def sound_again(
        self,
        rows: str,
        seed: float | None,
        category: str,
        when_unsure: Any,
        mix: Any,
        loudness_lufs: str | None,
        request: gr.Request,
    ) -> Iterator[Shown]:
        """Sounds what the table says."""
        del category, when_unsure  # The table has the last word on what sounds.
        visitor = self._with_video(request)
        if visitor.sheet is None:
            raise SoundbackError("Have the video watched first.")
        sheet = edited(visitor.sheet, rows, self.soundtrack.categories)
        yield from self._sound(visitor, sheet, Take(_seed(seed), mix=mix, loudness_lufs=_loudness(loudness_lufs)))

    def stop_work(self, request: gr.Request) -> Shown:
        """Stops what is under way for the visitor."""
        self.visitors.of(request.session_hash).stop.set()
        return {self.status: status("Stopped.")}

    def leave(self, request: gr.Request) -> None:
        """Forgets a visitor whose page is closed."""
        self.visitors.leave(request.session_hash)

    def _with_video(self, request: gr.Request) -> Visitor:
        visitor = self.visitors.of(request.session_hash)
        if visitor.video is None:
            raise SoundbackError("Bring a video first.")
        return visitor

    def _sound(self, visitor: Visitor, sheet: CueSheet, take: Take) -> Iterator[Shown]:
        made, drawn = yield from self._follow(
            visitor, "Sounding", lambda progress: self._render(visitor, sheet, take, progress)
        )
        yield {self.made: made, self.drawn: drawn, self.status: status(f"Done. {unrecognised(sheet)}".strip())}

    def _render(self, visitor: Visitor, sheet: CueSheet, take: Take, progress: Progress) -> tuple[str, str]:
        """Writes the files of a take, and what the page shows of them."""
        video, folder = _video_of(visitor), visitor.open_take()
        suffix = video.suffix.lower() if video.suffix.lower() in MUXERS else ".mp4"
        out = folder / f"{video.stem}_with_sound{suffix}"
        # The first half of what `generate` counts is the watching, which has been done.
        sounded = self.soundtrack.generate(
            video,
            out,
            cues=sheet,
            take=take,
            overwrite=True,
            progress=lambda done, total: progress(done - total // 2, total - total // 2),
        )
        cues, captions = folder / f"{video.stem}_cues.csv", folder / "captions.vtt"
        write_cues(sheet, cues)
        write_captions(sheet, captions)
        waveform = ffmpeg.read_waveform(sounded.path, sample_rate=self.soundtrack.sample_rate)
        drawn = self._draw(visitor, sheet, waveform)
        visitor.keep_take(folder)
        return show_made(sounded.path, cues, captions, sounded.notes), drawn

    def _draw(self, visitor: Visitor, sheet: CueSheet, waveform: Any) -> str:
        frames = read_strip(_video_of(visitor))
        figure = draw_sheet(sheet, frames, waveform, self.soundtrack.sample_rate, self.soundtrack.categories)
        said = tell(sheet)
        if waveform is not None:
            said += " Below, the spectrogram of the sound over the same seconds, with the loudness."
        return as_html(figure, said)

    def _follow(self, visitor: Visitor, what: str, work: Callable[[Progress], Made]) -> Generator[Shown, None, Made]:
        """Shows how far a piece of work is while it is done elsewhere; stops it when nobody looks any more."""
        latest = (0, 1)

        def note(done: int, total: int) -> None:
            nonlocal latest
            latest = done, total

        future = self.visitors.begin(visitor, work, note)
        stop, started = visitor.stop, time.monotonic()
        try:
            while True:
                try:
                    return future.result(timeout=LOOK_S)
                except StillWorking:
                    if stop.is_set():
                        raise Stopped from None
                    yield {self.status: under_way(what, *latest, time.monotonic() - started)}
        finally:
            stop.set()


def _video_of(visitor: Visitor) -> Path:
    if visitor.video is None:
        raise SoundbackError("Bring a video first.")
    return visitor.video


def _seed(typed: float | None) -> int:
    """What was typed as seed.

    Raises:
      SoundbackError: when it is none.
    """
    if typed is None or not 0 <= typed <= MOST_SEED:
        raise SoundbackError(f"The seed must be a whole number from 0 to {MOST_SEED}.")
    return int(typed)


def _loudness(typed: str | None) -> float | None:
    """What was typed as loudness.

    Raises:
      SoundbackError: when it is none that can be reached.
    """
    if typed is None or not typed.strip():
        return None
    try:
        loudness_lufs = float(typed)
    except ValueError:
        loudness_lufs = math.nan
    if not LOUDNESS_LUFS[0] <= loudness_lufs <= LOUDNESS_LUFS[1]:
        low, high = LOUDNESS_LUFS
        raise SoundbackError(f"Loudness must be a number from {low:g} to {high:g} LUFS, not {typed!r}.")
    return loudness_lufs
