"""A copy of the project in which a test may build, break and kill."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
LEFT_OUT = ("PREFECT_", "SOUNDBACK_", "DVC_")


@dataclass(frozen=True)
class Clone:
    """A working copy with its own DVC cache and its own Prefect."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What its programs run in: this Python, the clone's own code, no settings of ours, the plainest shell.

        DVC runs commands in $SHELL. Some shells become the last command they run, others stay and wait for it.
        """
        ours = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{ours.get('PATH', '')}"
        return {
            **ours,
            "PATH": programs,
            "SHELL": "/bin/sh",
            "PYTHONPATH": str(self.root),
            "DVC_SITE_CACHE_DIR": str(self.root / ".site"),
        }

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Starts a program in the clone, in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str) -> str:
        """Runs a program to its end, which must be a good one; gives what it printed."""
        process = self.start(*command)
        printed, _ = process.communicate()
        assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}:\n{printed}"
        return printed


def make_clone(root: Path, *, profile: str) -> Clone:
    """Copies what git tracks or would track, with a profile as params.yaml."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in listed:
        if (PROJECT / name).is_file():  # Listed still, though deleted since.
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, root / name)
    shutil.copy(root / "profiles" / f"{profile}.yaml", root / "params.yaml")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return Clone(root)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
