"""The source's own words, made fit to be kept: the same failure reads the same on any machine, at any time."""

import re

MAX_LENGTH = 300

# yt-dlp's advice to its own users, and its second telling of an exception.
_CUT_FROM_HERE = re.compile(
    r";?\s*please report this issue on\b.*|\s*Use --[a-z].*|\s*\(caused by\b.*", re.IGNORECASE | re.DOTALL
)

_REPLACEMENTS = (
    (re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), ""),  # colour
    (re.compile(r"[\x00-\x1f\x7f]+"), " "),
    (re.compile(r"^\s*(?:ERROR:\s*)+"), ""),
    (re.compile(r"^\[[\w:.+-]+\]\s+(?:\S{1,64}:\s+)?"), ""),  # yt-dlp's "[extractor] id: "
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>)\]]*", re.IGNORECASE), "<address>"),
    (re.compile(r"(?<![\w.])(?:\d{1,3}(?:\.\d{1,3}){3}|localhost|\[[0-9a-f:]*:[0-9a-f:]*\])(?::\d+)?"), "<address>"),
    (re.compile(r"\bport\s*[=:]?\s*\d+", re.IGNORECASE), "port"),
    (re.compile(r"\s+at 0x[0-9a-f]+", re.IGNORECASE), ""),
    (re.compile(r"(?<![\w/<])(?:[A-Za-z]:[\\/]|~?/)[^\s'\",;:)>]+"), "<path>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d{1,2}:\d\d(?::\d\d)?(?:\.\d+)?\b"), "<time>"),
    # How much of a body arrives before a connection breaks is chance.
    (re.compile(r"\b\d+(?= bytes read| more expected)"), "some"),
    (re.compile(r"\s+"), " "),
)


def scrub(words: str) -> str:
    """Removes what differs between two runs (addresses, ports, paths, times) and what speaks of the tool.

    Args:
      words: what a server or a program said.

    Returns:
      One line of at most `MAX_LENGTH` characters, "no reason given" if nothing is left.
    """
    words = _CUT_FROM_HERE.sub("", words)
    for pattern, replacement in _REPLACEMENTS:
        words = pattern.sub(replacement, words)
    words = words.strip(" ;")
    return words[:MAX_LENGTH] or "no reason given"
