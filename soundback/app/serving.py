"""Serves the page to this machine, or to whom it is told: nothing is asked of any other machine."""

import os
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from soundback.app.page import Limits, build_page
from soundback.app.visitors import Visitors
from soundback.chatter import without_chatter
from soundback.errors import SoundbackError
from soundback.params import load_params
from soundback.soundtrack import Soundtrack

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STYLE, PLAYHEAD = (Path(__file__).with_name(name) for name in ("page.css", "playhead.js"))
FONTS = ("system-ui", "sans-serif")
MONOSPACE = ("ui-monospace", "monospace")

BUTTON, BUTTON_HOVER = "#1d4ed8", "#1e40af"

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; connect-src 'self'; frame-ancestors 'none'; form-action 'self'"
)
"""What browsers let the page load. Gradio writes scripts into the page, and makes functions of text."""
FILE_POLICY = "default-src 'none'; sandbox"
"""Of what visitors brought: even if it is a page, it can do nothing."""

Messages = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class KeptAtHome:
    """Refuses to fetch for visitors what is on other machines, and has browsers load nothing from there."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        """Wraps an ASGI application."""
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Messages, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        # Gradio would fetch any address that stands here.
        if "/file=http" in path.lower() or "/proxy=" in path.lower():
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        policy = FILE_POLICY if "/file=" in path else POLICY

        async def say(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", policy.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self.app(scope, receive, say)


@contextmanager
def open_app(
    soundtrack: Soundtrack, *, host: str = "127.0.0.1", port: int = 7860, most_mb: float, most_minutes: float
) -> Iterator[str]:
    """Serves the page while the block runs; all that visitors brought is removed at its end.

    Args:
      soundtrack: the models.
      host: the address to listen at; only this machine can reach 127.0.0.1.
      port: of that address.
      most_mb: megabytes that a video may have.
      most_minutes: minutes that a video may last.

    Yields:
      The page's address.

    Raises:
      SoundbackError: when the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="soundback-app-") as scratch, _environment(Path(scratch)):
        root = Path(scratch) / "visitors"
        root.mkdir()
        visitors = Visitors(root)
        page = build_page(soundtrack, visitors, Limits(most_mb, most_minutes))
        # An address of another machine that is made to lead here must not open the page.
        middleware = [Middleware(KeptAtHome)]
        if host in LOOPBACK:
            middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"]))
        try:
            _, address, _ = page.queue(default_concurrency_limit=1, api_open=False).launch(
                server_name=host,
                server_port=port,
                max_file_size=f"{most_mb:g}mb",
                allowed_paths=[str(root)],
                app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None, "openapi_url": None},
                theme=_theme(),
                css=STYLE.read_text(encoding="utf-8"),
                head=f"<script>{PLAYHEAD.read_text(encoding='utf-8')}</script>",
                footer_links=[],
                share=False,
                inbrowser=False,
                quiet=True,
                run_history=False,
                enable_monitoring=False,
                pwa=False,
                ssr_mode=False,
                mcp_server=False,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise SoundbackError(
                f"The page cannot be served at {host}, port {port}: the port is taken, or the address is not of this "
                "machine. Name others with --port and --host."
            ) from error
        try:
            yield address
        finally:
            page.close(verbose=False)
            visitors.close()


def serve(
    models: Path,
    *,
    params: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    most_mb: float,
    most_minutes: float,
    ready: Callable[[str], None],
) -> None:
    """Serves the page until it is interrupted.

    Args:
      models: folder of the trained models.
      params: the params file they were trained with; by default the one beside them.
      host: as in `open_app`, and so the others.
      port: likewise.
      most_mb: likewise.
      most_minutes: likewise.
      ready: told the page's address when it can be opened.

    Raises:
      SoundbackError: when the models cannot be loaded, or the port is taken.
    """
    with without_chatter():
        soundtrack = Soundtrack.load(models, params=load_params(params).soundtrack if params else None)
    with open_app(soundtrack, host=host, port=port, most_mb=most_mb, most_minutes=most_minutes) as address:
        ready(address)
        _wait_for_interrupt()


def _theme() -> gr.themes.Base:
    """Fonts that each machine has, and buttons whose words stand out enough from their colour."""
    return gr.themes.Base(font=FONTS, font_mono=MONOSPACE).set(
        button_primary_background_fill=BUTTON,
        button_primary_background_fill_dark=BUTTON,
        button_primary_background_fill_hover=BUTTON_HOVER,
        button_primary_background_fill_hover_dark=BUTTON_HOVER,
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )


def _wait_for_interrupt() -> None:
    """Waits for Ctrl-C, or for what a service manager sends: either way, files of visitors are removed then."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        Event().wait()
    signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment(scratch: Path) -> Iterator[None]:
    """Has Gradio and all that makes files for visitors make them in one folder."""
    wanted = {"GRADIO_TEMP_DIR": str(scratch / "uploads"), "GRADIO_EXAMPLES_CACHE": str(scratch / "examples")}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
