"""Pieces of the page as HTML: where the work is, what went wrong, and what came of it."""

from html import escape
from pathlib import Path
from urllib.parse import quote

from soundback.cues import CueSheet
from soundback.soundtrack import MOSTLY, quiet_share


def status(said: str = "", fault: str = "", bar: str = "") -> str:
    """Where the work is. A screen reader says it when it changes; a fault at once; of the bar it speaks when asked."""
    return (
        f'<p class="said" role="status">{escape(said)}</p><div class="bar">{bar}</div>'
        f'<div class="fault" role="alert">{escape(fault)}</div>'
    )


def under_way(what: str, done: int, total: int, spent_s: float) -> str:
    """How far the work is, and how long it will take; of work that cannot tell yet, how long it has taken."""
    if not done:
        return status(f"{what} the video.", bar=f'<progress aria-label="{what}"></progress> {spent_s:.0f} s so far')
    share = min(1.0, done / total)
    left_s = spent_s / share * (1 - share)
    bar = f'<progress max="100" value="{100 * share:.0f}" aria-label="{what}"></progress> {100 * share:.0f} %'
    return status(f"{what} the video.", bar=f"{bar}, about {left_s:.0f} s left")


def show_made(video: Path, cues: Path, captions: Path, notes: tuple[str, ...]) -> str:
    """The result: a player with captions, and what can be taken away."""
    said = "".join(f'<p class="said">{escape(note)}</p>' for note in notes)
    return (
        '<div class="made"><h2>What it sounds like</h2>'
        f'<video controls preload="auto" aria-label="Your video with sound" src="{_address(video)}">'
        f'<track kind="captions" srclang="en" label="What sounds" src="{_address(captions)}"></video>'
        f'<p><a href="{_address(video)}" download="{escape(video.name)}">Download the video with sound</a>'
        f'<a href="{_address(cues)}" download="{escape(cues.name)}">Download the cue sheet (CSV)</a></p>{said}</div>'
    )


def _address(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"


def unrecognised(sheet: CueSheet) -> str:
    """What to do where most of a video is nothing that the models know."""
    if (share := quiet_share(sheet)) < MOSTLY:
        return ""
    return (
        f"In {share:.0%} of the video nothing was recognised, and it stays quiet there. Say what it is in the table, "
        "or under Options and have it watched again."
    )
