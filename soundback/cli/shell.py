"""What all commands of `soundback` share."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from soundback.errors import SoundbackError

app = typer.Typer(
    name="soundback",
    help="Gives silent video its sound back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Models = Annotated[Path, typer.Option(help="Folder of the trained models.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The params file the models were trained with.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]


@contextmanager
def sentences() -> Iterator[None]:
    """Ends in a sentence and exit code 2 where a user can act on what went wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        yield
    except SoundbackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
