"""What TensorFlow's libraries say of processors and drivers, on every start and whatever they are told."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

CHATTER = re.compile(r"WARNING: All log messages before absl::|[IWE]\d{4} [\d:.]+ +\d+ \S+\.cc:\d+\] ")
"""A line of it. What matters they say with an F, or Python says it."""


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keeps it from the terminal while the block runs; all else that is said there is said when the block has ended.

    It is written below Python, before TensorFlow could be asked to be quiet.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as heard:
        os.dup2(heard.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            heard.seek(0)
            for line in heard.read().decode(errors="replace").splitlines():
                if not CHATTER.match(line):
                    sys.stderr.write(f"{line}\n")
