"""The `soundback` command."""

# In the order in which --help lists their commands.
from soundback.cli import videos, figures, datasets  # noqa: I001
from soundback.cli.shell import app

__all__ = ["app", "datasets", "figures", "videos"]
