"""The `soundback` command."""

from soundback.cli import datasets, figures, videos
from soundback.cli.shell import app

__all__ = ["app", "datasets", "figures", "videos"]
