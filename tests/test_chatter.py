"""What TensorFlow's libraries say to the terminal below Python, and what else is said there."""

import subprocess
import sys

SPEAKING = """
import os, sys
from soundback.chatter import without_chatter
os.write(2, b"before\\n")
with without_chatter():
    os.write(2, b"E0000 00:00:1796396874.713986    6104 cuda_platform.cc:52] failed call to cuInit\\n")
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
    os.write(2, b"what matters\\n")
    print("of Python's", file=sys.stderr)
    {last}
os.write(2, b"after\\n")
"""


def said(last: str) -> list[str]:
    command = [sys.executable, "-c", SPEAKING.format(last=last)]
    return subprocess.run(command, capture_output=True, text=True).stderr.splitlines()


def test_only_what_the_libraries_say_of_drivers_is_kept_from_the_terminal():
    assert said("pass") == ["before", "what matters", "of Python's", "after"]


def test_what_was_said_before_a_failure_is_said_before_its_traceback():
    lines = said("raise RuntimeError('a bug')")
    assert lines[:4] == ["before", "what matters", "of Python's", "Traceback (most recent call last):"]
    assert lines[-1] == "RuntimeError: a bug"
