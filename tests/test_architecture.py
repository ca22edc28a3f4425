"""The layers written in pyproject.toml hold: flows > stages > soundback, and inside soundback down only."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def test_imports_go_down_only() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run([program, "--no-cache"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
